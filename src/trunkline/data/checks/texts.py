"""Checks of the texts of one split: empty, repeated, too long, in another language, damaged."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

from trunkline.data.checks.overlap import match_key, normalise
from trunkline.data.checks.report import CONTROL, SAMPLES, Finding, Severity, shorten

MAX_TOKENS = 128
TOKENS_PER_WORD = 1.3
"""Word pieces a word, where no tokenizer is there to count them."""

TRUNCATION_SAMPLE = 20_000
"""Texts of a split that are tokenised at most; they are taken at even distances."""

NOTABLE = 0.01
"""The share of a split's texts from which repeated or truncated ones are a warning."""

FOREIGN = 0.05
"""The share of a split's texts from which other languages are a warning."""

MIN_LANGUAGE_WORDS = 8
"""Words from which a text must have an English function word to pass for English."""

_ENGLISH = """
a about after all also am an and any are as at be because been before being but by can could did do does for
from get had has have he her him his how i if in into is it its just like may me more my new no not now of off
on one or our out over please she should show so some than that the their them then there these they this to
under up us was we were what when where which who why will with would you your
"""
_FUNCTION_WORDS = frozenset(_ENGLISH.split())
# UTF-8 that was read as Latin-1 or Windows-1252: a lead byte followed by its continuation bytes, as letters and signs.
_CONTINUATION = "[\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
_MOJIBAKE = re.compile(f"[ÂÃ]{_CONTINUATION}|â{_CONTINUATION}{{2}}|ð{_CONTINUATION}{{3}}|ï¿½|ï»¿")
_REPLACEMENT = re.compile("\ufffd")


def check_empty(split: str, texts: Sequence[str]) -> list[Finding]:
    """Texts without a letter or digit; a blank one is a warning, because readers refuse it."""
    blank = [text for text in texts if not text.strip()]
    bare = [text for text in texts if text.strip() and not normalise(text)]
    findings = []
    if blank:
        findings.append(_finding("empty", "warning", split, blank, texts, "are blank"))
    if bare:
        findings.append(_finding("no_words", "info", split, bare, texts, "have no letter or digit"))
    return findings


def check_duplicates(split: str, texts: Sequence[str]) -> list[Finding]:
    """Texts that occurred before in the same split."""
    first: dict[str, str] = {}
    times = Counter(first.setdefault(_key(text), text) for text in texts)
    repeated = len(texts) - len(times)
    if not repeated:
        return []
    often = [f"{count} times: {shorten(text)}" for text, count in times.most_common(SAMPLES) if count > 1]
    share = repeated / len(texts)
    identical = len(texts) - len({text.strip() for text in texts})
    return [
        Finding(
            "duplicates",
            "warning" if share >= NOTABLE else "info",
            split,
            repeated,
            share,
            f"repeat an earlier text, {identical} exactly, the rest but for case, blanks or punctuation",
            tuple(often),
            details={"exact": identical},
        )
    ]


def check_truncation(
    split: str, texts: Sequence[str], count_tokens: Callable[[str], int] | None, max_tokens: int = MAX_TOKENS
) -> list[Finding]:
    """Texts with more than `max_tokens` tokens, which an encoder with that window cuts off."""
    step = -(-len(texts) // TRUNCATION_SAMPLE) or 1
    counted = texts[::step]
    count = count_tokens or estimate_tokens
    # No tokenizer makes more tokens than bytes, apart from the two that frame a text.
    long = [
        text for text in counted if len(text.encode("utf-8", "replace")) + 2 > max_tokens and count(text) > max_tokens
    ]
    if not long:
        return []
    share = len(long) / len(counted)
    how = "by the tokenizer" if count_tokens else f"estimated at {TOKENS_PER_WORD} a word, no tokenizer is here"
    among = f", in every {step}th text" if step > 1 else ""
    return [
        Finding(
            "truncation",
            "warning" if share >= NOTABLE else "info",
            split,
            len(long),
            share,
            f"are longer than {max_tokens} tokens and would be cut off ({how}{among})",
            (),
            details={"counted": len(counted), "max_tokens": max_tokens},
        )
    ]


def estimate_tokens(text: str) -> int:
    """Word pieces of a text, guessed from its words."""
    return round(TOKENS_PER_WORD * len(text.split()))


def check_language(split: str, texts: Sequence[str]) -> list[Finding]:
    """Texts that are mostly in another script, and longer ones without any English function word.

    The second is a hint, not a judgement: tables, headlines and lists of names have no function words either.
    """
    script = [text for text in texts if not text.isascii() and foreign_share(text) > 0.5]
    words = [text for text in texts if not looks_english(text)]
    findings = []
    for check, found, message in (
        ("other_script", script, "are mostly in letters that are not Latin"),
        ("not_english", words, f"have {MIN_LANGUAGE_WORDS} words or more and no English function word"),
    ):
        if found:
            severity: Severity = "warning" if len(found) >= FOREIGN * len(texts) else "info"
            findings.append(_finding(check, severity, split, found, texts, message))
    return findings


def foreign_share(text: str) -> float:
    """The share of a text's letters that are not Latin, from 0 to 1."""
    letters = [character for character in text if character.isalpha()]
    return sum(not _is_latin(letter) for letter in letters) / len(letters) if letters else 0.0


def looks_english(text: str) -> bool:
    """Whether a text is short or has an English function word; tokenised contractions (`do n't`) count as words."""
    words = [word for word in normalise(text).split() if not word.isdigit()]
    return len(words) < MIN_LANGUAGE_WORDS or not _FUNCTION_WORDS.isdisjoint(words)


def check_encoding(split: str, texts: Sequence[str]) -> list[Finding]:
    """Texts with U+FFFD, with UTF-8 read as Latin-1 or Windows-1252 (mojibake), or with control characters."""
    findings = []
    for check, pattern, message in (
        ("replacement_characters", _REPLACEMENT, "hold U+FFFD, so characters were lost"),
        ("mojibake", _MOJIBAKE, "hold UTF-8 that was read as Latin-1 or Windows-1252"),
        ("control_characters", CONTROL, "hold control characters"),
    ):
        found = [match.string[max(0, match.start() - 40) :] for match in map(pattern.search, texts) if match]
        if found:
            findings.append(_finding(check, "warning", split, found, texts, message))
    return findings


def _finding(
    check: str, severity: Severity, split: str, found: Sequence[str], texts: Sequence[str], message: str
) -> Finding:
    samples = tuple(shorten(text) for text in found[:SAMPLES])
    return Finding(check, severity, split, len(found), len(found) / len(texts), message, samples)


def _key(text: str) -> str:
    return match_key(normalise(text)) or text.strip()


@lru_cache(maxsize=4096)
def _is_latin(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith(("LATIN", "FULLWIDTH LATIN", "MODIFIER LETTER"))
