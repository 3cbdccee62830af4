"""The formats of questions about contexts."""

from __future__ import annotations

import hashlib
import random

from properties.disk import Sample
from properties.drawn import raw_sentences, some
from properties.form import Format, to_json_lines
from trunkline.text.examples import NerExample, QaExample, Span
from trunkline_lab.data.readers.ner_questions import TEMPLATES


def _one_entity(item: NerExample) -> NerExample:
    span = item.spans[0] if item.spans else Span(*item.words[0], "x")
    return NerExample(item.text, item.words, (Span(span.start, span.end, "geo_loc"),))


def _ner_questions(examples: list[NerExample]) -> Sample:
    records = [{"text": e.text, "entities": [[s.start, s.end, s.label] for s in e.spans]} for e in examples]
    return Sample(to_json_lines(records), {"absent": 0, "concepts": {"geo_loc": "the old place: where it is"}})


def _asked(examples: list[NerExample]) -> list[QaExample]:
    found = []
    for e in examples:
        rng = random.Random(int.from_bytes(hashlib.sha256(f"0\0{e.text}".encode()).digest()[:8], "big"))
        rng.randrange(1)
        question = rng.choice(TEMPLATES).format(concept="old place", a="an")
        found.append(QaExample(question[0].upper() + question[1:], e.text, ((e.spans[0].start, e.spans[0].end),)))
    return found


QA = (
    Format(
        "ner_questions",
        "ner_questions",
        some(raw_sentences().map(_one_entity)),
        _ner_questions,
        expect=_asked,
        rows=True,
        json="lines",
    ),
)
