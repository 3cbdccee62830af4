"""The formats of sentences with entities."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from properties import drawn
from properties.disk import Sample, make_tar
from properties.drawn import LETTER_WORDS, raw_sentences, sentences, some
from properties.form import Format, to_csv, to_json_lines, to_lines
from tagged import encode_tags
from trunkline.text.examples import SCHEMES, NerExample, Scheme, Span

Encode = Callable[[list[Any], Scheme], Sample]


def _tokens(example: NerExample) -> list[str]:
    return [example.text[start:end] for start, end in example.words]


def _tags(example: NerExample, scheme: Scheme = "BIO") -> list[str]:
    return encode_tags(len(example.words), drawn.word_spans(example), scheme)


def merge_touching(examples: list[NerExample]) -> list[NerExample]:
    """What IO can carry: neighbours of one type are one entity."""
    merged = []
    for example in examples:
        spans: list[Span] = []
        for span in example.spans:
            if spans and spans[-1].label == span.label and spans[-1].end + 1 == span.start:
                span = Span(spans.pop().start, span.end, span.label)
            spans.append(span)
        merged.append(NerExample(example.text, example.words, tuple(spans)))
    return merged


def _tagged(name: str, reader: str, encode: Encode, schemes: Sequence[Scheme] = SCHEMES, **more: Any) -> list[Format]:
    """A format in several tagging schemes."""

    def with_scheme(scheme: Scheme) -> Callable[[list[Any]], Sample]:
        def run(examples: list[Any]) -> Sample:
            sample = encode(examples, scheme)
            return Sample(sample.content, {**sample.options, "scheme": scheme}, sample.beside)

        return run

    return [
        Format(
            f"{name}-{scheme}",
            reader,
            some(sentences()),
            with_scheme(scheme),
            expect=merge_touching if scheme == "IO" else list,
            **more,
        )
        for scheme in schemes
    ]


def _conll(separator: str, order: Sequence[int], end: str) -> Encode:
    """Columns: token, tag, and one that says nothing; `order` says which of them stands where."""

    def encode(examples: list[Any], scheme: Scheme) -> Sample:
        rows = []
        for example in examples:
            for cells in zip(_tokens(example), _tags(example, scheme), ["_"] * len(example.words), strict=True):
                rows.append(separator.join(cells[column] for column in order))
            rows.append("")
        return Sample(to_lines(rows, end), {"token_column": order.index(0), "tag_column": order.index(1)})

    return encode


def _token_lines(examples: list[Any], scheme: Scheme) -> Sample:
    return Sample(to_json_lines([{"tokens": _tokens(item), "tags": _tags(item, scheme)} for item in examples]))


def _parallel_tags(examples: list[Any], scheme: Scheme) -> Sample:
    tags = to_lines([" ".join(_tags(item, scheme)) for item in examples])
    return Sample(to_lines([" ".join(_tokens(item)) for item in examples]), beside={"tags": tags})


def _token_table(examples: list[Any], scheme: Scheme) -> Sample:
    rows = [
        [number, token, tag]
        for number, item in enumerate(examples)
        for token, tag in zip(_tokens(item), _tags(item, scheme), strict=True)
    ]
    return Sample(to_csv([["sentence", "token", "tag"], *rows]))


def _spans(examples: list[NerExample]) -> Sample:
    """With blanks around texts, and entities as lists and as objects, in any order."""
    records = []
    for number, item in enumerate(examples):
        shift = " \n" * (number % 2)
        entities: list[Any] = [[s.start + len(shift), s.end + len(shift), s.label] for s in item.spans]
        if number % 3 == 0:
            entities = [dict(zip(("start", "end", "label"), entity, strict=True)) for entity in reversed(entities)]
        records.append({"text": shift + item.text + shift, "entities": entities})
    return Sample(to_json_lines(records))


def _sgd_spans(examples: list[NerExample]) -> Sample:
    records = [{"u": item.text, "spans": [[s.start, s.end, s.label, "Bus_1"] for s in item.spans]} for item in examples]
    return Sample(to_json_lines(records), {"keep_empty": True})


def _with_concepts(item: NerExample) -> NerExample:
    """At least one entity, and types that readers of table headers take for concepts."""
    spans = item.spans or (Span(*item.words[0], "per"),)
    names = {"per": "film director", "ORG": "team", "O": "school", "geo_loc": "city"}
    return NerExample(item.text, item.words, tuple(Span(s.start, s.end, names.get(s.label, "club")) for s in spans))


def _linked(examples: list[NerExample]) -> Sample:
    labels = sorted({span.label for item in examples for span in item.spans})
    records = [
        {"p": [{"t": item.text, "l": [[s.start, s.end, f"T{labels.index(s.label)}"] for s in item.spans]}]}
        for item in examples
    ]
    table = to_lines([f"{label}\tx\tT{number}\t2" for number, label in enumerate(labels)])
    return Sample(to_json_lines(records), {"max_words": 60}, {"gazetteer": table})


def _tabfact(examples: list[NerExample]) -> Sample:
    headers = ["film director", "team", "school", "city", "club"]
    statements = []
    for item in examples:
        text = item.text
        for s in reversed(item.spans):
            text = f"{text[: s.start]}#{text[s.start : s.end]};1,{headers.index(s.label)}#{text[s.end :]}"
        statements.append(text)
    tables = make_tar({"data/all_csv/one.csv": "#".join(headers).encode()})
    return Sample(json.dumps({"one.csv": [statements, [1], "caption"]}).encode(), beside={"tables": tables})


def _one_mention(item: NerExample) -> NerExample:
    spans = item.spans or (Span(*item.words[0], "per"),)
    labels = dict.fromkeys(span.label for span in spans)
    return NerExample(item.text, item.words, tuple(Span(spans[0].start, spans[0].end, label) for label in labels))


def _typed_mentions(examples: list[NerExample]) -> Sample:
    records = []
    for item in examples:
        span, tokens = item.spans[0], _tokens(item)
        ((first, last, _), *_) = drawn.word_spans(item)
        records.append(
            {
                "left_context_token": tokens[:first],
                "mention_span": item.text[span.start : span.end],
                "right_context_token": tokens[last:],
                "y_str": [s.label for s in item.spans],
            }
        )
    return Sample(to_json_lines(records))


_CONCEPTS = some(raw_sentences(LETTER_WORDS).map(_with_concepts))

NER = (
    *_tagged("conll", "conll", _conll("\t", (0, 1), "\n")),
    *_tagged("conll-blanks", "conll", _conll(" ", (2, 1, 0), "\r\n"), ("BIOES",)),
    *_tagged("tokens", "tokens", _token_lines, rows=True, json="lines"),
    *_tagged("parallel", "parallel", _parallel_tags),
    *_tagged("token_table", "token_table", _token_table, ("IOB1", "BIO")),
    Format("spans", "spans", some(raw_sentences()), _spans, rows=True, json="lines"),
    Format("sgd_spans", "sgd_spans", some(raw_sentences()), _sgd_spans, rows=True, json="lines"),
    Format("linked_gazetteer", "linked_gazetteer", _CONCEPTS, _linked, rows=True, json="lines"),
    Format("tabfact", "tabfact", _CONCEPTS, _tabfact, ("", ".gz"), json="file"),
    Format(
        "typed_mentions",
        "typed_mentions",
        some(sentences(LETTER_WORDS).map(_one_mention)),
        _typed_mentions,
        rows=True,
        json="lines",
    ),
)
