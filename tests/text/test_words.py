"""Words: the same rule for all scripts, by a table that is what its generator makes."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trunkline
from trunkline.bundle.manifest import SHAPES
from trunkline.samples import FOLDER
from trunkline.text.words import SHAPE, SIGNS, char_classes, split_words, unit_shapes

PLAIN = re.compile(r"[^\W\d_]+|\d+|[^\w\s]|_")
"""What words are in text without marks, numerals like `²`, and scripts without blanks."""

SCRIPTS = {
    "latin": ("Zoë's 7pm, €5.20", "Zoë ' s 7 pm , € 5 . 20"),
    "latin with marks": ("Ngu\u0302\u0303 e\u0301te\u0301 2m\u00b2", "Ngu\u0302\u0303 e\u0301te\u0301 2 m \u00b2"),
    "greek": ("Η Μαρία ήρθε στις 9.", "Η Μαρία ήρθε στις 9 ."),
    "cyrillic": ("Мʼята й Київ-2024", "Мʼята й Київ - 2024"),
    "armenian": ("Երևանը մեծ է։", "Երևանը մեծ է ։"),
    "georgian": ("თბილისი, 5 ლარი", "თბილისი , 5 ლარი"),
    "arabic": ("ذَهَبَ مُحَمَّدٌ إلى القاهرة، ٢٥ كم", "ذَهَبَ مُحَمَّدٌ إلى القاهرة ، ٢٥ كم"),
    "persian": ("می\u200cخواهم به تهران", "می\u200cخواهم به تهران"),
    "hebrew": ("שָׁלוֹם לְדָוִד־כהן!", "שָׁלוֹם לְדָוִד ־ כהן !"),
    "devanagari": ("हिन्दी में राष्ट्रपति, २०२४।", "हिन्दी में राष्ट्रपति , २०२४ ।"),
    "bengali": ("বাংলাদেশের রাজধানী ঢাকা", "বাংলাদেশের রাজধানী ঢাকা"),
    "tamil": ("சென்னையில் மழை", "சென்னையில் மழை"),
    "ethiopic": ("አዲስ አበባ፣ ኢትዮጵያ", "አዲስ አበባ ፣ ኢትዮጵያ"),
    "hangul": ("김철수가 서울에서 3시에", "김철수가 서울에서 3 시에"),
    "han": ("北京的iPhone 15很贵。", "北 京 的 iPhone 15 很 贵 。"),
    "japanese": ("東京タワーで3時にが", "東 京 タ ワ ー で 3 時 に が"),
    "halfwidth": ("ﾄﾞﾗﾏ", "ﾄﾞ ﾗ ﾏ"),
    "thai": ("ที่กรุงเทพ ๕๐ บาท", "ที่ ก รุ ง เ ท พ ๕๐ บ า ท"),
    "thai am": ("น้ำ", "น้ำ"),
    "lao": ("ນ້ຳຢູ່ລາວ", "ນ້ຳ ຢູ່ ລ າ ວ"),
    "khmer": ("ភ្នំពេញ", "ភ្ នំ ពេ ញ"),
    "myanmar": ("မြန်မာ", "မြ န် မာ"),
    "tibetan": ("བོད་ཡིག", "བོད ་ ཡིག"),
    "symbols": ("snake_case a-b c++ 👍🏽❤\ufe0f 1\ufe0f\u20e3", "snake _ case a - b c + + 👍🏽 ❤\ufe0f 1\ufe0f\u20e3"),
}
NOTHING = [
    "",
    " \t\n\u00a0\u3000",
    "\x00\x07\x7f\x9f",
    "\u200b\ufeff\u2028",
    "\u200e\u202b\u2067",
    "\u200d",
    "\U000e0041",
]


def words_of(text: str) -> list[str]:
    return [text[start:end] for start, end in split_words(text)]


@pytest.mark.parametrize(("text", "expected"), SCRIPTS.values(), ids=SCRIPTS)
def test_words_of_scripts(text: str, expected: str) -> None:
    assert words_of(text) == expected.split(" ")
    for form in ("NFC", "NFD"):
        assert words_of(unicodedata.normalize(form, text)) == unicodedata.normalize(form, expected).split(" ")


@pytest.mark.parametrize("text", NOTHING, ids=ascii)
def test_blanks_controls_and_zero_width_characters_are_no_words(text: str) -> None:
    assert split_words(text) == ()
    assert words_of(f"ab{text or ' '}, {text}c") in (["ab", ",", "c"], [f"ab{text}", ",", "c"])


def test_what_is_invisible_inside_a_word_parts_it_only_where_it_is_no_joiner() -> None:
    assert words_of("Donau\u00addampf auf\u200dlage a\u2060b") == ["Donau\u00addampf", "auf\u200dlage", "a\u2060b"]
    assert words_of("ab\u200bcd\u200eef") == ["ab", "cd", "ef"]
    assert words_of(" \u0301ab \u200cab") == ["\u0301", "ab", "ab"], "a lone mark is seen, a lone joiner is not"
    assert words_of("a\ud800b") == ["a", "\ud800", "b"], "half of a surrogate pair is a symbol, as U+FFFD is"


any_text = st.text(
    st.one_of(
        st.characters(exclude_categories=()),
        st.sampled_from("ab1 _-.é\u0301\u0e33\u200c\u200d\ufe0f\u3042\u3099가\u0915\u094d\n\u200b\xad"),
    ),
    max_size=40,
)


@given(any_text)
def test_every_character_that_counts_is_in_one_word(text: str) -> None:
    words = split_words(text)
    borders = [place for word in words for place in word]
    assert borders == sorted(borders) and all(start < end for start, end in words)
    kinds = char_classes(text).decode()
    inside = [place for start, end in words for place in range(start, end)]
    assert not {kinds[place] for place in inside} & {"-"}
    left = "".join("|" if place in set(inside) else kind for place, kind in enumerate(kinds))
    assert re.fullmatch(r"((^|(?<=-))j*|-|\|)*", left), "only joiners that stand behind nothing are left out"
    for start, end in words:
        assert re.fullmatch(r"l[lmj]*|d[dmj]*|[usm][mj]*", kinds[start:end])


@given(any_text)
def test_composed_and_decomposed_text_have_the_same_words(text: str) -> None:
    composed, apart = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assert [unicodedata.normalize("NFC", word) for word in words_of(apart)] == words_of(composed)


def test_every_character_that_can_be_decomposed_has_the_same_words_decomposed() -> None:
    for code in range(sys.maxunicode + 1):
        apart = unicodedata.normalize("NFD", chr(code))
        if apart != chr(code):
            whole = [unicodedata.normalize("NFD", word) for word in words_of(f"a {chr(code)}1")]
            assert whole == words_of(f"a {apart}1"), hex(code)


@given(st.text(st.characters(max_codepoint=126, exclude_categories=["Cc"])))
def test_words_of_ascii_are_runs_of_letters_runs_of_digits_and_single_symbols(text: str) -> None:
    assert split_words(text) == tuple(match.span() for match in PLAIN.finditer(text))
    assert split_words(text) == split_words(text + " é")[:-1], "with and without other characters"


def test_words_of_the_shipped_samples() -> None:
    lines = [
        line
        for path in sorted(FOLDER.rglob("*"))
        if path.suffix in (".jsonl", ".csv", ".tsv", ".conll", ".txt")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert len(lines) > 500
    for line in lines:
        assert split_words(line) == tuple(match.span() for match in PLAIN.finditer(line)), line


def shape(text: str, units: tuple[tuple[int, int], ...], number: int) -> list[bool]:
    """The shape of a unit, written out, by the platform's categories."""
    start, end = units[number]
    word, kinds = text[start:end], char_classes(text[start:end])
    size = sum(kind not in b"mj" for kind in kinds)
    large = [unicodedata.category(character) in ("Lu", "Lt") for character in word]
    first, title = large[0] and sum(large) == 1, large[0] and sum(large) == 1
    letters, digits = kinds[0] in b"lu", kinds[0] in b"d"
    return [
        title and size != 1,
        sum(large) == size != 1,
        first and size == 1,
        0 < sum(large) < size and not title,
        letters and not any(large),
        *(digits and size == count for count in (1, 2, 4)),
        digits and size not in (1, 2, 4),
        *(word in group for group in SIGNS),
        not letters and not digits,
        *(letters and ok for ok in (size <= 2, size == 3, size >= 8)),
        *(number == 0, number == len(units) - 1),
        number > 0 and units[number - 1][1] == start,
        number + 1 < len(units) and units[number + 1][0] == end,
    ]


@given(st.text(st.sampled_from("AbÉߞǅ1½² -–.,([\"'中ก\u0301\u200d𝐀😀\n"), max_size=12))
def test_shapes_of_units_are_those_that_are_written_out(text: str) -> None:
    words, empty = split_words(text), [False] * len(SHAPE)
    own = [empty, *(shape(text, words, number) for number in range(len(words))), empty]
    expected = [own[n + 1] + own[n] + own[n + 2] for n in range(len(words))]
    assert unit_shapes(text, words).tolist() == [list(map(float, row)) for row in expected]
    assert unit_shapes(text, words).shape == (len(words), SHAPES)


def test_composed_and_decomposed_words_have_one_shape() -> None:
    texts = [unicodedata.normalize(form, "Zoë ÉTÉ 7pm, Ångström's") for form in ("NFC", "NFD")]
    first, second = (unit_shapes(text, split_words(text)) for text in texts)
    assert (first == second).all()


def test_the_table_says_all_that_another_reader_needs() -> None:
    table = json.loads((Path(trunkline.__file__).parent / "text" / "words.json").read_text("utf-8"))
    assert table["version"] == 1
    borders = sorted(
        (first, last, name)
        for name, row in table["classes"].items()
        for first, last in zip(row[::2], row[1::2], strict=True)
    )
    assert all(first <= last for first, last, _ in borders)
    assert all(left[1] < right[0] for left, right in pairwise(borders)), "no two classes"
    assert not [name for first, _, name in borders if first < 128 and name in "mju"]
    # A reader that knows nothing but the table, as JavaScript and Kotlin have it.
    for text, expected in SCRIPTS.values():
        kinds = "".join(
            next((name for first, last, name in borders if first <= ord(character) <= last), "s") for character in text
        )
        assert [text[m.start() : m.end()] for m in re.finditer(table["pattern"], kinds)] == expected.split(" ")
