"""The formats of pairs of texts."""

from __future__ import annotations

import csv
import hashlib
import html
from xml.sax.saxutils import escape

from properties.disk import ARCHIVES, Sample
from properties.drawn import FREE, LINE, ONE_BLANK, pairs, some
from properties.form import Format, to_csv, to_json_lines, to_lines
from trunkline.text.examples import PairExample


def one_line_end(examples: list[PairExample]) -> list[PairExample]:
    """A carriage return before a line feed is part of the line's end, also between quotes."""
    return [PairExample(item.left.replace("\r\n", "\n"), item.right.replace("\r\n", "\n")) for item in examples]


def _pair_table(examples: list[PairExample]) -> Sample:
    return Sample(to_csv([["left", "right"], *([e.left, e.right] for e in examples)], quoting=csv.QUOTE_ALL))


def _scored_pairs(examples: list[PairExample]) -> Sample:
    rows = [row for e in examples for row in ([5, e.left, e.right], ["1e-3", e.left, e.right])]
    return Sample(to_csv([["score", "left", "right"], *rows]), {"min_score": 4})


def _pair_jsonl(examples: list[PairExample]) -> Sample:
    records = [{"group": e.group, "right": f" {e.right}\n", "left": e.left} for e in examples]
    return Sample(to_json_lines(records, ascii_only=False), {"group_key": "group"})


def _aligned_lines(examples: list[PairExample]) -> Sample:
    return Sample(to_lines([e.right for e in examples]), beside={"left": to_lines([e.left for e in examples])})


def _sgd_turns(examples: list[PairExample]) -> Sample:
    turns = [{"d": str(number), "u": text} for number, e in enumerate(examples) for text in (e.left, e.right)]
    return Sample(to_json_lines(turns), {"min_words": 1, "unique": False})


def _of_one_intent(examples: list[PairExample]) -> list[PairExample]:
    """Each pair with an intent of its own, the sides in the order of their hashes, as the reader gives them."""
    found = []
    for number, e in enumerate(examples):
        left, right = sorted((e.left, e.right), key=lambda text: hashlib.sha256(text.encode()).digest())
        found.append(PairExample(left, right, f"S{number}/Find"))
    return found


def _sgd_same_intent(examples: list[PairExample]) -> Sample:
    turns = [
        {"sp": "U", "u": text, "intent": [e.group], "acts": ["INFORM_INTENT"], "spans": []}
        for e in examples
        for text in (e.right, e.left)
    ]
    return Sample(to_json_lines(turns), {"min_words": 1})


def _captions(examples: list[PairExample]) -> Sample:
    rows = [
        f"{number}.jpg#{k}\t{text}" for number, e in enumerate(examples) for k, text in enumerate((e.left, e.right))
    ]
    return Sample(to_lines(rows))


def _trivia(examples: list[PairExample]) -> Sample:
    blocks = [f"#Q {e.left}\n^ {e.right}\nA {e.right}\nB other\n" for e in examples]
    return Sample(to_lines(blocks), member="categories/all")


def _tagged_records(examples: list[PairExample]) -> Sample:
    records = [
        f"<review>\n<id>\n{number}\n</id>\n<title>\n{html.escape(e.left)}\n</title>\n"
        f"<review_text>\n\n{html.escape(e.right)}\n</review_text>\n</review>"
        for number, e in enumerate(examples)
    ]
    return Sample(to_lines(records))


def _reuters(examples: list[PairExample]) -> Sample:
    stories = [
        f"<REUTERS ID='1'><TEXT>&#2;<TITLE>{html.escape(e.left)}</TITLE>\n<BODY>{html.escape(e.right)}\n"
        " Reuter\n&#3;</BODY></TEXT></REUTERS>\n"
        for e in examples
    ]
    return Sample("".join(stories).encode("latin-1", "xmlcharrefreplace"), member="data/all.sgm")


def _medquad(examples: list[PairExample]) -> Sample:
    items = [
        f"<QAPair><Question>{escape(e.left)}</Question>\n<Answer>{escape(e.right)}</Answer></QAPair>" for e in examples
    ]
    content = '<?xml version="1.0" encoding="UTF-8"?>\n<Document>' + "\n".join(items) + "</Document>\n"
    return Sample(content.encode(), member="all/1.xml")


def _distinct(examples: list[PairExample]) -> bool:
    texts = [text.lower() for e in examples for text in (e.left, e.right)]
    return len(set(texts)) == len(texts)


PAIRS = (
    Format("pair_table", "pair_table", some(pairs(FREE)), _pair_table, expect=one_line_end),
    Format("scored_pairs", "scored_pairs", some(pairs(FREE)), _scored_pairs, expect=one_line_end),
    Format("pair_jsonl", "pair_jsonl", some(pairs(FREE)), _pair_jsonl, rows=True, json="lines"),
    Format("aligned_lines", "aligned_lines", some(pairs(ONE_BLANK)).filter(_distinct), _aligned_lines),
    Format("sgd_turns", "sgd_turns", some(pairs(FREE)), _sgd_turns, json="lines"),
    Format(
        "sgd_same_intent",
        "sgd_same_intent",
        some(pairs(ONE_BLANK)).filter(_distinct).map(_of_one_intent),
        _sgd_same_intent,
        rows=True,
        ordered=False,
        json="lines",
    ),
    Format("captions", "captions", some(pairs(LINE)).filter(_distinct), _captions),
    Format("tagged_records", "tagged_records", some(pairs(ONE_BLANK)), _tagged_records),
    Format("trivia", "trivia", some(pairs(ONE_BLANK)), _trivia, ARCHIVES),
    Format("reuters", "reuters", some(pairs(ONE_BLANK)), _reuters, ARCHIVES),
    Format("medquad", "medquad", some(pairs(ONE_BLANK)), _medquad, ARCHIVES),
)
