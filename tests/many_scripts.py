"""Sentences with entities in many scripts: with blanks between words and without, with marks, entities inside words."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import product

from written_forms import Text

_SCRIPTS: dict[str, tuple[Sequence[str], Sequence[str], Sequence[str]]] = {
    "Latin": (("Ann", "Zoë Müller", "José"), ("Rome", "São Paulo", "Åre"),
              ("{n} lives in {p}.", "Yesterday {n} flew to {p} alone", "Is {p} far?")),
    "Cyrillic": (("Анна", "Иван Петров", "Ольга"), ("Москве", "Киеве", "Твери"),
                 ("{n} живёт в {p}.", "Вчера {n} был в {p} один", "Далеко ли до {p}?")),
    "Greek": (("Άννα", "Νίκος Παππάς", "Ελένη"), ("Αθήνα", "Πάτρα", "Ρόδο"),
              ("Η {n} ζει στην {p}.", "Χθες {n} ήταν στην {p}", "Είναι μακριά η {p};")),
    "Arabic": (("آنا", "محمد علي", "ليلى"), ("القاهرة", "بغداد", "دمشق"),
               ("{n} يعيش في {p}.", "أمس سافر {n} إلى {p}", "هل {p} بعيدة؟")),
    "Hebrew": (("אנה", "דוד כהן", "רות"), ("תל אביב", "חיפה", "אילת"),
               ("{n} גרה ב{p}.", "אתמול {n} טס אל {p}", "האם {p} רחוקה?")),
    "Devanagari": (("राम", "सीता देवी", "मोहन"), ("दिल्ली", "मुंबई", "पुणे"),
                   ("{n} {p} में रहता है।", "कल {n} {p} गया", "क्या {p} दूर है?")),
    "Thai": (("สมชาย", "มาลี", "อนันต์"), ("กรุงเทพ", "เชียงใหม่", "ภูเก็ต"),
             ("{n}อยู่ที่{p}", "เมื่อวาน{n}ไป{p}", "{p}ไกลไหม")),
    "Chinese": (("王小明", "李娜", "张伟"), ("北京", "上海", "成都"),
                ("{n}住在{p}。", "昨天{n}去了{p}", "{p}远吗?")),
    "Japanese": (("田中さくら", "佐藤", "ケンジ"), ("東京", "大阪", "さいたま"),
                 ("{n}は{p}に住んでいます。", "昨日{n}は{p}へ行った", "{p}は遠いですか")),
    "Korean": (("김민수", "이영희", "박지성"), ("서울", "부산", "제주"),
               ("{n}는 {p}에 산다.", "어제 {n}가 {p}에서 왔다", "{p}은 멀어요?")),
    "Khmer": (("សុខា", "ចាន់ណា", "វិសាល"), ("ភ្នំពេញ", "សៀមរាប", "កំពត"),
              ("{n}រស់នៅ{p}។", "ម្សិលមិញ{n}ទៅ{p}", "{p}ឆ្ងាយទេ")),
    "emoji": (("Ann 👩🏽‍🚀", "Bob", "👨‍👩‍👧 Kim"), ("Rome🇮🇹", "Oslo", "Lima 🏔️"),
              ("😀 {n} lives in {p}❗", "Yesterday {n} → {p} ✈️", "Is {p} 🤔 far?")),
}  # fmt: skip

SCRIPTS = ("Latin", "Latin, decomposed", *list(_SCRIPTS)[1:])


def sentences(script: str) -> tuple[list[Text], list[Text]]:
    """Texts to learn from, and others, half of them with a name that is new."""
    people, places, patterns = _SCRIPTS[script.partition(",")[0]]
    parts: tuple[list[Text], list[Text]] = ([], [])
    for a, b, c in product(range(3), range(3), range(3)):
        number = 1 if 2 in (a, b) or a + b + c == 3 else 0
        if c < 2 or a == b:  # the last pattern has no person
            parts[number].append(_filled(patterns[c], people[a], places[b], "decomposed" in script))
    return parts[0], parts[1][::2]


def _filled(pattern: str, person: str, place: str, decomposed: bool) -> Text:
    text, entities = "", list[tuple[int, int, str]]()
    for piece in pattern.replace("{", "\0{").replace("}", "}\0").split("\0"):
        filled = {"{n}": person, "{p}": place}.get(piece, piece)
        filled = unicodedata.normalize("NFD", filled) if decomposed else filled
        entities += [(len(text), len(text) + len(filled), "per" if piece == "{n}" else "loc")] * (piece[:1] == "{")
        text += filled
    return text, entities
