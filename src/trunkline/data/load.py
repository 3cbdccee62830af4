"""What the command line accepts as the data of one split, and checks over the splits of a task."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from trunkline.data.cards import load_card
from trunkline.data.hub import load_hub
from trunkline.data.readers import READERS
from trunkline.data.readers.base import FileOptions, read_json_lines
from trunkline.errors import DataError, TrunklineError
from trunkline.text.examples import Example, NerExample, PairExample, PlainExample, QaExample, TextExample

FAMILIES = ("ner", "classification", "pairs", "plain", "qa")
_CONLL = (".conll", ".bio", ".iob", ".txt")
_PLAIN = (".txt", ".md")
_PACKED = (".gz",)
_KEYS: dict[str, tuple[tuple[frozenset[str], str, dict[str, Any]], ...]] = {
    "ner": (
        (frozenset({"tokens", "tags"}), "tokens", {}),
        (frozenset({"tokens", "ner_tags"}), "tokens", {"tags_key": "ner_tags"}),
        (frozenset({"text", "entities"}), "spans", {}),
        (frozenset({"text", "spans"}), "spans", {"entities_key": "spans"}),
    ),
    "classification": ((frozenset({"text", "label"}), "jsonl_text", {}),),
    "pairs": ((frozenset({"left", "right"}), "pair_jsonl", {}),),
    "plain": ((frozenset({"text"}), "plain_jsonl", {}),),
    "qa": ((frozenset({"question", "context", "answers"}), "qa_jsonl", {}),),
}
_TABLES = {"classification": "table", "pairs": "pair_table"}
_TYPES: dict[str, type[Example]] = {
    "ner": NerExample,
    "classification": TextExample,
    "pairs": PairExample,
    "plain": PlainExample,
    "qa": QaExample,
}

ACCEPTED = (
    "a file (.conll, .bio, .iob or .txt with a token and a tag a line; .jsonl with text and entities, tokens and tags, "
    "text and label, or left and right for pairs; .csv or .tsv with the header text,label or left,right; for plain "
    "text .txt, .md or .jsonl with text; for qa .json as SQuAD or .jsonl with question, context and answers; each also "
    "with .gz), for plain text also a folder of .txt and .md files, "
    "hub:NAME[:CONFIG]@SPLIT, or card:NAME@SPLIT"
)


def load_examples(spec: str | Path, family: str) -> list[Example]:
    """Loads one split into memory; arguments and errors as for `stream_examples`."""
    return list(stream_examples(spec, family))


def stream_examples(spec: str | Path, family: str) -> Iterator[Example]:
    """Yields the examples of one split; a file or folder is read as they are asked for.

    Args:
        spec: A file, for plain text also a folder, `hub:NAME[:CONFIG]@SPLIT` or `card:NAME@SPLIT`.
        family: `ner`, `classification`, `pairs`, `plain` or `qa`; the examples are `NerExample`, `TextExample`,
            `PairExample`, `PlainExample` or `QaExample`. Plain text comes in passages: paragraphs, cut where they are
            long.

    Raises:
        TrunklineError: A spec or family that is not known, or data of the other family.
        DataError: Files that are missing or malformed.
    """
    if family not in FAMILIES:
        raise TrunklineError(f"the family {family!r} is not known", expected=f"one of {', '.join(FAMILIES)}")
    text = str(spec)
    if not text.startswith(("hub:", "card:")):
        yield from _read_file(Path(spec), family)
        return
    scheme, _, rest = text.partition(":")
    name, at, split = rest.rpartition("@")
    if not at or not name or not split:
        raise TrunklineError(f"{text!r} does not say which split", expected=f"{scheme}:NAME@SPLIT")
    if scheme == "hub" and family == "plain":
        raise TrunklineError(
            f"{text!r} is asked for as plain text", expected="a file, a folder or card:NAME@SPLIT for plain text"
        )
    if scheme == "hub" and family == "qa":
        raise TrunklineError(
            f"{text!r} is asked for as questions with answers",
            expected="a file in the form of SQuAD (.json, .jsonl) or card:NAME@SPLIT for qa",
        )
    examples = load_card(name).stream(split) if scheme == "card" else load_hub(name, split, family=family)
    yield from _require_family(examples, family, text)


def stream_source(path: Path, family: str) -> Iterable[Example]:
    """Yields a JSON-lines file as a source of pre-finetuning: spans may overlap, and pairs may have a `group`.

    Args:
        path: The file.
        family: `ner`, `qa`, or `classification`, whose sources are pairs.
    """
    name, options = _choose_by_keys(path, "pairs" if family == "classification" else family)
    if name == "spans":
        options = {**options, "overlap": "keep"}
    elif name == "pair_jsonl" and any(
        "group" in record for _, record in islice(read_json_lines(path, FileOptions()), 1)
    ):
        options = {**options, "group_key": "group"}
    return READERS[name].read(path, options)


def check_labels(
    train: Sequence[Example],
    dev: Sequence[Example] = (),
    test: Sequence[Example] = (),
    *,
    allow: Collection[str] = (),
) -> list[str]:
    """Checks that what is scored can be learnt.

    Args:
        train: The examples that are learnt from.
        dev: The examples for choosing.
        test: The examples that are scored.
        allow: Labels that may be missing from `train`.

    Returns:
        The labels of `train` (entity types for NER) in alphabetical order.

    Raises:
        DataError: A label that occurs only in dev or test; no entity or answer at all; a single class.
    """
    if any(isinstance(example, QaExample) for example in train):
        return _check_answers(train)
    known = labels_of(train)
    for split, examples in (("dev", dev), ("test", test)):
        missing = sorted(set(labels_of(examples)) - set(known) - set(allow))
        if missing:
            raise DataError(
                f"the labels {', '.join(map(repr, missing))} do not occur in train",
                path=f"{split} split",
                expected=f"only labels of train: {', '.join(known[:20])}{', ...' if len(known) > 20 else ''}",
                todo="Check the spelling, split the data anew, or allow these labels",
            )
    is_ner = any(isinstance(example, NerExample) for example in train)
    if is_ner and not known:
        raise DataError(
            "no entity in any sentence", path="train split", expected="some entities", todo="Check the tag column"
        )
    if not is_ner and len(known) < 2:
        found = f"only the label {known[0]!r}" if known else "no label"
        raise DataError(
            found, path="train split", expected="at least two labels", todo="Check the label column and the file"
        )
    return known


def labels_of(examples: Iterable[Example]) -> list[str]:
    """The classes or entity types of examples, in alphabetical order."""
    found: set[str] = set()
    for example in examples:
        if isinstance(example, NerExample):
            found.update(span.label for span in example.spans)
        elif isinstance(example, TextExample):
            found.add(example.label)
    return sorted(found)


def _check_answers(train: Sequence[Example]) -> list[str]:
    if not any(example.answers for example in train if isinstance(example, QaExample)):
        raise DataError(
            "no question has an answer", path="train split", expected="some answers", todo="Check the answers' key"
        )
    return []


def _read_file(path: Path, family: str) -> Iterable[Example]:
    if family == "plain" and path.is_dir():
        return READERS["corpus"].read(path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    if family == "ner" and suffix in _CONLL:
        return READERS["conll"].read(path)
    if family == "plain" and suffix in _PLAIN:
        return READERS["corpus"].read(path)
    if family in _TABLES and suffix in (".csv", ".tsv"):
        return READERS[_TABLES[family]].read(path, {"delimiter": "\t" if suffix == ".tsv" else ","})
    if family == "qa" and suffix == ".json":
        return READERS["squad"].read(path)
    if suffix in (".jsonl", ".ndjson"):
        name, options = _choose_by_keys(path, family)
        return READERS[name].read(path, options)
    raise TrunklineError(f"{str(path)!r} is no data for {family} in a form that is known", expected=ACCEPTED)


def _choose_by_keys(path: Path, family: str) -> tuple[str, dict[str, Any]]:
    for line, record in read_json_lines(path, FileOptions()):
        for needed, reader, options in _KEYS[family]:
            if needed <= record.keys():
                return reader, options
        wanted = ", or ".join(" and ".join(sorted(needed, reverse=True)) for needed, *_ in _KEYS[family])
        raise DataError(
            f"the keys are {', '.join(map(repr, record)) or 'none'}",
            path=path,
            line=line,
            expected=f"{wanted}, for {family}",
            todo="Rename the keys, or write a card that names them",
        )
    raise DataError("the file is empty", path=path, expected="one JSON object a line")


def _require_family(examples: Iterable[Example], family: str, spec: str) -> Iterator[Example]:
    for example in examples:
        if not isinstance(example, _TYPES[family]):
            raise TrunklineError(
                f"{spec} holds {type(example).__name__}s",
                expected=f"{_TYPES[family].__name__}s, for {family}",
                todo="Name other data, or the other family",
            )
        yield example
