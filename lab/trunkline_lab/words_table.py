"""Makes the table of character classes that the product ships as `trunkline/text/words.json`.

    python -m trunkline_lab.words_table src/trunkline/text/words.json

Classes come from Python's `unicodedata`, so a Python with another Unicode version makes another table; the file says
which version it was. A new table needs a new `VERSION`, because tasks are fitted on the words of one.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from itertools import groupby
from pathlib import Path

VERSION = 1

PATTERN = "l[lmj]*|d[dmj]*|[usm][mj]*"
"""A word in terms of class letters; leftmost and longest, as regular expressions match."""

# Scripts that put no blanks between words, by how the names of their characters begin (the database that Python has
# knows no scripts): those of the line breaking classes ID and SA of UAX 14.
_LISTED = (
    "CJK UNIFIED,CJK COMPATIBILITY,IDEOGRAPHIC,VERTICAL IDEOGRAPHIC,VERTICAL KANA,HANGZHOU,MASU,HIRAGANA,KATAKANA,"
    "KATAKANA-HIRAGANA,HENTAIGANA,HALFWIDTH KATAKANA,HALFWIDTH KATAKANA-HIRAGANA,BOPOMOFO,YI,TANGUT,NUSHU,THAI,LAO,"
    "KHMER,MYANMAR,TAI LE,NEW TAI LUE,TAI THAM,TAI VIET,AHOM"
)
UNSPACED_NAMES = tuple(f"{name} " for name in _LISTED.split(","))
# Tangut and Khitan, and planes 2 and 3, which are set aside for ideographs: also those of later versions.
IDEOGRAPHS = ((0x17000, 0x18D8F), (0x20000, 0x3FFFD))
# Punctuation of East Asian scripts.
EAST_ASIAN = ((0x3000, 0x303F), (0xFF00, 0xFFEF))
# Soft hyphen, Mongolian vowel separator, zero-width non-joiner and joiner, word joiner, and of the marks those that
# nobody sees: grapheme joiner and variation selectors.
VARIATIONS = {*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}
JOINERS = {0xAD, 0x34F, 0x200C, 0x200D, 0x2060, *VARIATIONS}
# Letters by category that extend the one before them (`Grapheme_Extend` or `SpacingMark` in UAX 29), and skin tones.
EXTENDING = {0xE33, 0xEB3, 0xFF9E, 0xFF9F, *range(0x1F3FB, 0x1F400)}
# Format characters that are seen (`Prepended_Concatenation_Mark`), and letters that are blank.
SEEN = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
BLANK = {0x3164, 0xFFA0}


def class_of(code: int) -> str:
    """The class letter of a code point: `l`, `d`, `m`, `j`, `u`, `-` (ignored), or `s` for whatever is none of them."""
    if code in JOINERS:
        return "j"
    if _within(code, IDEOGRAPHS):
        return "u"
    category = unicodedata.category(chr(code))
    if category[0] == "M" or code in EXTENDING:
        return "m"
    if category in ("Zs", "Zl", "Zp", "Cc", "Cf") or code in BLANK:
        return "s" if code in SEEN else "-"
    if category in ("Nd", "No"):
        return "d"
    if category[0] == "L" or category == "Nl":
        unspaced = unicodedata.name(chr(code)).startswith(UNSPACED_NAMES)
        return "u" if unspaced else "l" if category[0] == "L" else "d"
    if category[0] == "P" and _within(code, EAST_ASIAN):
        return "u"
    return "s"


def _within(code: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= code <= last for first, last in ranges)


def make_table() -> dict[str, object]:
    """The table under this Python's Unicode version, as the file has it."""
    classes: dict[str, list[int]] = {name: [] for name in "ldmju-"}
    code = 0
    for name, run in groupby(map(class_of, range(sys.maxunicode + 1))):
        length = len(list(run))
        if name != "s":
            classes[name] += code, code + length - 1
        code += length
    upper: list[int] = []
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)) in ("Lu", "Lt"):
            upper += [] if upper and upper[-1] == code - 1 else [code, code]
            upper[-1] = code
    about = {"version": VERSION, "unicode": unicodedata.unidata_version, "pattern": PATTERN}
    return {**about, "classes": classes, "upper": upper}


def write_table(path: Path) -> None:
    """Writes the table, a class a line."""
    text = json.dumps(make_table(), separators=(",", ":"))
    path.write_text(text.replace('],"', '],\n"').replace(':{"', ':{\n"') + "\n", encoding="ascii")


if __name__ == "__main__":
    write_table(Path(sys.argv[1]))
