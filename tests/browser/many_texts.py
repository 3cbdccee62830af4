"""Texts of twelve scripts, long, empty, decomposed and odd ones, the same on every machine."""

from __future__ import annotations

import random
import unicodedata

SCRIPTS = {
    "Latin": "Straße naïve Zażółć gęślą İstanbul ŞİŞLİ ﬁancé Ångström đặng o'neill café-bar ﬀ ǅ ŉ",
    "Greek": "Καλημέρα κόσμε ὈΔΥΣΣΕΎΣ ΐ ᾳ ὑπέρ",
    "Cyrillic": "Привет мир Ёжик йод Київ їжак ЉУБАВ",
    "Armenian": "Բարեւ աշխարհ և ՀԱՅ",
    "Hebrew": "שָׁלוֹם עוֹלָם ירושלים",
    "Arabic": "مَرْحَبًا بالعالم القاهرة ٢٠٢٤ لا",
    "Devanagari": "नमस्ते दुनिया क़िला हिन्दी १२३ क्षत्रिय",
    "Bengali": "ওহে বিশ্ব কোলকাতা বৌ ১২",
    "Tamil": "வணக்கம் உலகம் சென்னை கௌ",
    "Thai": "สวัสดีชาวโลก กรุงเทพ ๑๒๓ น้ำ",
    "Han": "你好世界 北京大学 𠀀𪜀𫝀𫠝 㐀 豈 ヶ カタカナ ひらがな ﾊﾝｶｸ",
    "Hangul": "안녕하세요 세계 서울특별시 한글 ㄱ 가",
}
ODD = (
    "",
    " ",
    "\n\t\r ",
    "\x00\x01\x02",
    "\ufffd\ud800 x\udfff",
    "[CLS] a [MASK]b[SEP] [UNK][PAD] [mask]",
    "a\u0301\u0323e\u0308 \u0301 \u200d",
    "👩\u200d👩\u200d👧 flag 🇩🇪 👍🏽!",
    "x" * 150 + " y",
    "\u00ad\u200b\u2060zero\u200bwidth\u200f \u202eright",
    "7pm €5 $3.50 3×4 ½ ² ① Ⅷ #tag @you a_b http://a.b/c?d=e",
    "\u0b94\u0bca\u1b06\U0001d15e\U0001134b",
    "\u0085\u000b\u000c\u2028\u2029\u00a0\u3000",
    "…“quoted”—dash–‘s’ ¿qué? ¡no! 、。「」",
    "\u1e9e \u0130I \u01c5 \u0345 \u03a3\u03c2",
    "\U0010ffff \ue000 \u0378 \U000e0041",
)
_LATIN = "the parcel that Ann Berg ordered in Oslo has not arrived , please send 3 more to Rue 12 by Friday"
LATIN = _LATIN.split()


def many_texts(count: int = 2000, seed: int = 0) -> list[str]:
    """So many texts; one in twelve is longer than a window, a quarter is decomposed (NFD)."""
    rng = random.Random(seed)
    words = {name: text.split() for name, text in SCRIPTS.items()}
    ranges = [
        (ord(character) & ~63, (ord(character) & ~63) + 63)
        for text in (*SCRIPTS.values(), *ODD)
        for character in text
        if not 0xD800 <= ord(character) < 0xE000
    ]

    def word() -> str:
        kind = rng.random()
        if kind < 0.45:
            return rng.choice(words[script])
        if kind < 0.8:
            return rng.choice(LATIN)
        if kind < 0.9:
            return "".join(chr(rng.randint(*rng.choice(ranges))) for _ in range(rng.randint(1, 6)))
        return rng.choice([*words[rng.choice(list(words))], *"!?.,;:'\"()-/%&", str(rng.randint(0, 99999))])

    texts = list(ODD)
    while len(texts) < count:
        script = rng.choice(list(words))
        length = rng.randint(60, 160) if rng.random() < 0.08 else rng.randint(1, 25)
        text = " ".join(word() for _ in range(length))
        texts.append(unicodedata.normalize("NFD", text) if rng.random() < 0.25 else text)
    return texts
