"""The formats of questions about contexts."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

from properties.disk import Sample
from properties.drawn import questions, raw_sentences, some
from properties.form import Format, to_json_lines
from trunkline.text.examples import NerExample, QaExample, Span
from trunkline_lab.data.readers.ner_questions import TEMPLATES


def _answers(example: QaExample) -> list[dict[str, Any]]:
    return [{"answer_start": start, "text": example.context[start:end]} for start, end in example.answers]


def _squad(examples: list[QaExample]) -> Sample:
    """Two articles, one of them without a paragraph; only every other question says whether it can be answered."""
    paragraphs = []
    for number, e in enumerate(examples):
        item: dict[str, Any] = {"id": f"q{number}", "question": f" {e.question}\n", "answers": _answers(e)}
        if number % 2:
            item |= {"is_impossible": not e.answers, "plausible_answers": [{"text": "x", "answer_start": -5}]}
        paragraphs.append({"qas": [item], "context": e.context})
    articles = [{"title": "no", "paragraphs": []}, {"title": "one", "paragraphs": paragraphs}]
    return Sample(json.dumps({"version": "v2.0", "data": articles}, indent=1).encode())


def _qa_jsonl(examples: list[QaExample]) -> Sample:
    records = []
    for number, e in enumerate(examples):
        answers: Any = _answers(e)
        if number % 2:
            answers = {key: [one[key] for one in answers] for key in ("text", "answer_start")}
        records.append({"id": number, "context": e.context, "question": e.question, "answers": answers})
    return Sample(to_json_lines(records, ascii_only=False))


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
    Format("squad", "squad", some(questions()), _squad, json="file"),
    Format("qa_jsonl", "qa_jsonl", some(questions()), _qa_jsonl, rows=True, json="lines"),
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
