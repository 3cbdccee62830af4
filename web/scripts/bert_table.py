"""Writes data/bert.json: what the BERT normalizer and pre-tokenizer of `tokenizers` do with each code point.

The browser reads this table instead of its own Unicode tables, which differ from version to version. `ranges` have the
first and last code point of each range; `strip` and `lower` have code points by what replaces them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import tokenizers
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

OUT = Path(__file__).parents[1] / "data" / "bert.json"
STEPS = ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
HANGUL = range(0xAC00, 0xD7A4)
"""Syllables, which are taken apart by a rule (chapter 3.12 of the Unicode standard)."""


def table() -> dict[str, object]:
    """The content of the file."""
    codes = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    cleaned, wide, stripped, lowered = (changed(step, codes) for step in STEPS)
    pieces = {code: len(BertPreTokenizer().pre_tokenize_str(f"a{chr(code)}a")) for code in codes}
    return {
        "tokenizers": tokenizers.__version__,
        "ranges": {
            "dropped": ranges(code for code, text in cleaned.items() if not text),
            "blank": ranges(code for code in {**cleaned, 32: " "} if cleaned.get(code, " ") == " "),
            "wide": ranges(wide),
            "marks": ranges(code for code, text in stripped.items() if not text),
            "space": ranges(code for code, count in pieces.items() if count == 2),
            "punctuation": ranges(code for code, count in pieces.items() if count == 3),
        },
        "strip": groups({code: text for code, text in stripped.items() if text and code not in HANGUL}),
        "lower": groups(lowered),
    }


def changed(step: str, codes: Iterable[int]) -> dict[int, str]:
    """The code points that a step of the normalizer changes, and what they become."""
    normalizer = BertNormalizer(**{name: name == step for name in STEPS})
    return {code: text for code in codes if (text := normalizer.normalize_str(chr(code))) != chr(code)}


def ranges(codes: Iterable[int]) -> list[int]:
    """First and last of each run of consecutive code points, one range after the other."""
    found: list[int] = []
    for code in sorted(codes):
        if found and found[-1] == code - 1:
            found[-1] = code
        else:
            found += [code, code]
    return found


def groups(changes: dict[int, str]) -> dict[str, list[int]]:
    """The code points by what they become."""
    found: dict[str, list[int]] = {}
    for code, text in changes.items():
        found.setdefault(text, []).append(code)
    return found


if __name__ == "__main__":
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(table(), separators=(",", ":")) + "\n", encoding="ascii")
