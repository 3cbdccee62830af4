"""What the Python door takes: texts and labels in the containers that people have, with clear refusals of the rest.

Duck typing throughout, so that neither pandas nor polars nor datasets is imported.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf, isnan
from typing import Any

from trunkline.data.spans import Row, build_example, check_borders, parse_entities
from trunkline.data.values import list_names, shorten
from trunkline.errors import DataError, TrunklineError
from trunkline.text.examples import MultiLabelExample, NerExample, QaExample, TextExample

_log = logging.getLogger("trunkline.data")

MAX_CHARACTERS = 1_000_000
"""The longest text to predict on."""

TEXTS = "a list, tuple, generator, numpy array, pandas or polars Series, or column of datasets, of strings"
EXAMPLES: dict[str, type] = {
    "classification": TextExample,
    "multilabel": MultiLabelExample,
    "ner": NerExample,
    "qa": QaExample,
}
"""Family -> the class of its examples."""


def check_learnable(family: str, train: Sequence[Any]) -> None:
    """Raises TrunklineError where there is nothing to learn: no example, a single class, no entity, no answer."""
    if not train:
        raise TrunklineError("there are no examples", expected="at least two texts with their labels")
    if family == "qa" and not any(example.answers for example in train):
        raise TrunklineError("no question has an answer", expected="some answers", todo="Check the answers' key")
    if family == "ner" and not any(example.spans for example in train):
        given = f"none of the {len(train)} sentences has an entity"
        todo = "Check the labels; about 8 of each type make a useful task"
        raise TrunklineError(given, expected="a labelled entity of each type", todo=todo)
    if family == "classification" and len({example.label for example in train}) < 2:
        given = f"all {len(train)} texts have the label {train[0].label!r}"
        raise TrunklineError(given, expected="at least two labels", todo="Add texts of another label")
    if family == "multilabel" and len({frozenset(example.labels) for example in train}) < 2:
        given = f"all {len(train)} texts have the labels {list_names(train[0].labels)}"
        raise TrunklineError(given, expected="texts with a label and texts without it", todo="Add other texts")
    if len({" ".join(example.text.split()) for example in train}) < 2:
        raise TrunklineError("all examples have one text", expected="different texts", todo="Add more texts")


def examples_from(texts: Any, labels: Any = None, family: str | None = None, part: str = "") -> tuple[str, list[Any]]:
    """Texts and labels as examples.

    Args:
        texts: A container of strings (see `TEXTS`); without `labels` one dict {label: [texts]}, a Dataset of
            `datasets` with columns that the readers know, or examples as the readers give them.
        labels: As many as texts: strings for classification; lists of strings, where a text has any number of labels;
            or lists of entities for ner, each `(start, end, label)` or a dict with these keys, in characters, `end`
            exclusive. A ClassLabel column of `datasets`, or one of lists of them, gives its names. Other numbers are
            refused, because a prediction would not be the number that was given.
        family: `classification`, `multilabel` or `ner` (`qa` only for examples); needed where no label says which.
        part: What errors name, such as `dev`.

    Returns:
        The family, and the examples in order.

    Raises:
        TrunklineError: Says what was given, and the position of a text or label, counted from 0.
    """
    try:
        return _examples_from(texts, labels, family)
    except TrunklineError as error:
        if not part:
            raise
        raise TrunklineError(f"{part}: {error.given}", expected=error.expected, todo=error.todo) from error


def _examples_from(texts: Any, labels: Any, family: str | None) -> tuple[str, list[Any]]:
    if family is not None and family not in EXAMPLES:
        raise TrunklineError(f"the family {family!r}", expected=f"one of {', '.join(EXAMPLES)}")
    if isinstance(texts, Mapping):
        if labels is not None or family not in (None, "classification"):
            given = f"a dict of texts {'and labels besides' if labels is not None else f'for {family}'}"
            raise TrunklineError(given, expected="one dict {label: [texts]} for classification, or texts and labels")
        return "classification", [
            TextExample(_text(text, f"texts[{label!r}][{number}]"), _label(label, f"the key {label!r}"))
            for label, own in texts.items()
            for number, text in enumerate(_items(own, f"texts[{label!r}]"))
        ]
    if labels is None and hasattr(texts, "column_names"):
        return _dataset(texts, family)
    if labels is None:
        items = list(_items(texts, "texts"))
        found = next((name for name, kind in EXAMPLES.items() if items and isinstance(items[0], kind)), family)
        if found is None or not all(isinstance(item, EXAMPLES[found]) for item in items):
            raise TrunklineError("no labels were given", expected="a label for each text, or one dict {label: [texts]}")
        if family not in (None, found):
            raise TrunklineError(f"examples of {found}", expected=f"examples of {family}, as was asked for")
        return found, items
    whole = [_text(item, f"texts[{n}]") for n, item in enumerate(_items(texts, "texts"))]
    marks = list(_items(labels, "labels"))
    if len(whole) != len(marks):
        raise TrunklineError(f"{len(whole)} texts and {len(marks)} labels", expected="a label for each text")
    if family == "qa":
        raise TrunklineError("labels for the family qa", expected="examples with question, context and answers")
    found = family or _family_of(marks)
    placed = [(text, mark, f"labels[{number}]") for number, (text, mark) in enumerate(zip(whole, marks, strict=True))]
    if found == "classification":
        return found, [TextExample(text, _label(mark, where)) for text, mark, where in placed]
    if found == "multilabel":
        return found, [MultiLabelExample(text, _labels(mark, where)) for text, mark, where in placed]
    rows = []
    for text, mark, where in placed:
        if not isinstance(mark, list | tuple):
            raise TrunklineError(f"{where} is {_described(mark)}", expected="a list of (start, end, label)")
        rows.append(Row(None, text, parse_entities(mark, where, None)))
    check_borders(rows, "labels")
    return found, [build_example(row, f"labels[{n}]") for n, row in enumerate(rows)]


def _dataset(data: Any, family: str | None) -> tuple[str, list[Any]]:
    from trunkline.data.annotations import read_records
    from trunkline.data.records import class_names, named_rows

    try:
        rows = list(named_rows(data, class_names(getattr(data, "features", None) or {})))
        loaded = read_records(rows, "the Dataset", family, None, None)
    except DataError as error:
        todo = "Or pass two columns, as fit(name, data['text'], data['label'])"
        raise TrunklineError(error.given, expected=error.expected, todo=todo) from error
    for note in loaded.notes:
        _log.warning("the Dataset: %s", note)
    return loaded.family, loaded.examples


def texts_from(texts: Any) -> Iterator[str]:
    """The texts to predict on, one at a time as they are asked for, so that there may be any number.

    Halves of surrogate pairs, which scraped texts have, are let through. No container raises a TrunklineError at
    once, an item that is no text, or longer than `MAX_CHARACTERS`, when it is reached.
    """
    items = _items(texts, "texts")
    return (_string(item, f"texts[{number}]", MAX_CHARACTERS) for number, item in enumerate(items))


def _items(values: Any, what: str) -> Iterator[Any]:
    """The items of a container that has an order."""
    expected = TEXTS if what.startswith("texts") else "as many labels as texts, in a list or its like"
    shape, problem = getattr(values, "shape", None), ""
    if isinstance(values, str | bytes | bytearray | Mapping | set | frozenset):
        kind = "one string" if isinstance(values, str) else f"a {type(values).__name__}"
        problem = f"{what} is {kind}: {shorten(values)}"
    elif isinstance(shape, tuple) and len(shape) != 1:
        problem = f"{what} is a {type(values).__name__} of shape {shape}"
    elif not isinstance(values, Iterable) or hasattr(values, "column_names"):
        problem = f"{what} is {'None' if values is None else f'of the type {type(values).__name__}'}"
    if problem:
        todo = "Put a single text into a list: [text]" if isinstance(values, str) else ""
        raise TrunklineError(problem, expected=expected, todo=todo)
    feature = getattr(values, "features", None)
    names = getattr(getattr(feature, "feature", feature), "names", None) or ()  # of a ClassLabel, or of lists of them
    return (_named(_plain(value), names) for value in values)


def _named(value: Any, names: Sequence[str]) -> Any:
    if names and isinstance(value, list):
        return [_named(one, names) for one in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def _plain(value: Any) -> Any:
    """Scalars of pyarrow as Python values, and arrays of entities as lists."""
    convert = getattr(value, "as_py", None) or (getattr(value, "tolist", None) if getattr(value, "shape", ()) else None)
    return convert() if convert else value


def _string(value: Any, where: str, most: float = inf) -> str:
    if not isinstance(value, str):
        raise TrunklineError(f"{where} is {_described(value)}", expected="a string")
    if len(value) > most:
        raise TrunklineError(f"{where} has {len(value)} characters", expected=f"at most {most}", todo="Split it")
    return str(value)


def _text(value: Any, where: str) -> str:
    text = _string(value, where)
    if not text.strip():
        raise TrunklineError(f"{where} is blank: {shorten(value)}", expected="a text", todo="Leave this example out")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        given = f"{where} has half of a surrogate pair at {error.start}: {shorten(value)}"
        todo = "Mend it, for instance by text.encode('utf-8', 'replace').decode()"
        raise TrunklineError(given, expected="valid Unicode", todo=todo) from None
    return text


def _is_missing(value: Any) -> bool:
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and isnan(value))


def _described(value: Any) -> str:
    return f"{shorten(value)}, {'a missing value' if _is_missing(value) else f'of the type {type(value).__name__}'}"


def _label(value: Any, where: str) -> str:
    if isinstance(value, str) and value.strip():
        return _text(value, where).strip()
    number = (hasattr(value, "__index__") or isinstance(value, float)) and not _is_missing(value)
    todo = "Map numbers to names, for instance by [names[label] for label in labels]" if number else ""
    raise TrunklineError(f"{where} is {_described(value)}", expected="a label as a string that is not blank", todo=todo)


def _labels(value: Any, where: str) -> tuple[str, ...]:
    """The labels of a text; raises TrunklineError for what is no list of strings, blank or twice there."""
    if not isinstance(value, list | tuple | set | frozenset):
        todo = "Put a single label into a list" if isinstance(value, str) else ""
        raise TrunklineError(f"{where} is {_described(value)}", expected="a list of labels, empty for none", todo=todo)
    items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
    names = [_label(one, f"{where}[{number}]") for number, one in enumerate(items)]
    if len(set(names)) < len(names):
        raise TrunklineError(f"{where} has a label twice: {shorten(value)}", expected="each label once")
    return tuple(names)


def _check_tags(marks: Sequence[Any]) -> None:
    """Raises TrunklineError where all labels are tags of tokens, as O and B-person."""
    every = [one for mark in marks for one in mark]
    if every and all(isinstance(one, str) and (one == "O" or one[1:2] == "-") for one in every):
        expected = "spans (start, end, label) in characters, end exclusive"
        todo = "Or read a file of tokens and tags with trunkline.data.load.load_examples"
        raise TrunklineError(f"labels[0] has tags of tokens: {shorten(marks[0])}", expected=expected, todo=todo)


def _family_of(marks: Sequence[Any]) -> str:
    """`classification` where labels are strings, `multilabel` of lists of these, `ner` of lists of entities."""
    kinds: dict[str, int] = {}
    for number, mark in enumerate(marks):
        kind = "classification"
        if isinstance(mark, list | tuple | set | frozenset):
            kind = ("multilabel" if all(isinstance(one, str | int) for one in mark) else "ner") if mark else "empty"
        kinds.setdefault(kind, number)
    if "multilabel" in kinds and kinds.keys() <= {"multilabel", "empty"}:
        _check_tags(marks)
    if len(kinds.keys() - {"empty"}) == 1 and kinds.keys() != {"classification", "empty"}:
        return max(kinds.keys() - {"empty"})
    given = "all labels are empty" if marks else "there are no texts"
    if len(kinds) > 1:
        first, second = sorted(kinds.values())[:2]
        given = f"labels[{first}] is {shorten(marks[first])} and labels[{second}] is {shorten(marks[second])}"
    todo = "Pass family='multilabel' or family='ner' if these are its labels" if len(kinds) == 1 else ""
    expected = "for all texts a label, or for all a list of labels, or for all a list of (start, end, label)"
    raise TrunklineError(given, expected=expected, todo=todo)
