"""Data sets from the Hugging Face hub, or from a local folder in hub layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from trunkline.data.readers.base import SentenceBuilder, require_some, require_text
from trunkline.errors import DataError, TrunklineError
from trunkline.text.examples import Example, PairExample, TextExample
from trunkline.text.tags import Scheme

_TOKENS = ("tokens", "words")
_TAGS = ("ner_tags", "tags", "labels")
_TEXTS = ("text", "sentence")
_LABELS = ("label", "label_text", "labels", "intent")
_LEFTS = ("left", "anchor", "question", "query", "title", "sentence1")
_RIGHTS = ("right", "positive", "answer", "body", "sentence2")


def load_hub(
    spec: str,
    split: str,
    *,
    family: str,
    columns: tuple[str, str] | None = None,
    scheme: Scheme = "BIO",
    revision: str | None = None,
) -> list[Example]:
    """Loads a split with `datasets`; code that comes with a data set is never run.

    Args:
        spec: `NAME` or `NAME:CONFIG`, where NAME is a hub id or a local folder in hub layout.
        split: Such as `train` or `train[:1000]`.
        family: `ner` (tokens and tags), `classification` (text and label) or `pairs` (left and right).
        columns: The two columns; by default common names are tried.
        scheme: How the tags mark borders, for `ner`.
        revision: A branch, tag or commit of the hub repository.

    Raises:
        TrunklineError: A data set, configuration or split that cannot be loaded; says what was tried.
        DataError: Missing columns, empty texts, or tags without names. Rows are counted from 1 as lines.
    """
    data = _load(spec, split, revision)
    where = f"hub:{spec}@{split}"
    names = list(data.features)
    candidates, build = _FAMILIES[family]
    first, second = columns or (_find(candidates[0], names, where), _find(candidates[1], names, where))
    _require(names, (first, second), where)
    labels = _class_names(data.features[second])
    return list(
        require_some(build(data.select_columns([first, second]), (first, second), labels, where, scheme), where)
    )


def _load(spec: str, split: str, revision: str | None) -> Any:
    import datasets

    name, config = _parts(spec)
    try:
        return datasets.load_dataset(name, config, split=split, revision=revision)
    except (OSError, ValueError, RuntimeError, KeyError, datasets.exceptions.DatasetsError) as error:
        where = "the local folder" if Path(name).exists() else "the hub (no local folder has this name)"
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TrunklineError(
            f"the data set {name!r}{f' ({config})' if config else ''}, split {split!r}, could not be loaded from "
            f"{where}: {reason}",
            expected="a hub id such as user/name or a local folder in hub layout, with data files and no script",
            todo="Check name, configuration, split and network (HF_HUB_OFFLINE=1 uses only what was fetched before)",
        ) from error


def _parts(spec: str) -> tuple[str, str | None]:
    if Path(spec).exists():
        return spec, None
    name, colon, config = spec.rpartition(":")
    return (name, config) if colon and name and config else (spec, None)


def _find(candidates: Sequence[str], names: list[str], where: str) -> str:
    for candidate in candidates:
        if candidate in names:
            return candidate
    raise DataError(
        f"none of the columns {', '.join(candidates)}; there are {', '.join(names)}",
        path=where,
        expected="tokens and ner_tags for ner, text and label for classification, left and right for pairs",
        todo="Name the columns, or use another data set",
    )


def _require(names: list[str], wanted: Sequence[str], where: str) -> None:
    missing = [name for name in wanted if name not in names]
    if missing:
        raise DataError(
            f"no column {', '.join(map(repr, missing))}; there are {', '.join(names)}",
            path=where,
            expected=f"the columns {', '.join(wanted)}",
        )


def _class_names(feature: Any) -> list[str]:
    """The names behind numbers, from a ClassLabel or a list of them; none for other columns."""
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", feature)
    return list(getattr(inner, "names", None) or [])


def _name(value: Any, names: list[str], what: str, where: str, row: int) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and names:
        if 0 <= value < len(names):
            return names[value]
        raise DataError(
            f"the {what} is the number {value}", path=where, line=row, expected=f"a number from 0 to {len(names) - 1}"
        )
    return require_text(value, what, where, row)


def _texts(data: Any, columns: tuple[str, str], labels: list[str], where: str, _: Scheme) -> Iterator[Example]:
    for row, record in enumerate(data, start=1):
        text = require_text(record[columns[0]], "text", where, row)
        yield TextExample(text, _name(record[columns[1]], labels, "label", where, row))


def _pairs(data: Any, columns: tuple[str, str], _: list[str], where: str, __: Scheme) -> Iterator[Example]:
    for row, record in enumerate(data, start=1):
        left, right = record[columns[0]], record[columns[1]]
        if not isinstance(left, str) or not isinstance(right, str):
            raise DataError(f"the pair is {left!r}, {right!r}", path=where, line=row, expected="two strings")
        if left.strip() and right.strip():
            yield PairExample(left.strip(), right.strip())


def _sentences(data: Any, columns: tuple[str, str], labels: list[str], where: str, scheme: Scheme) -> Iterator[Example]:
    builder = SentenceBuilder(where, scheme, False)
    for row, record in enumerate(data, start=1):
        tokens, tags = record[columns[0]], record[columns[1]]
        if not isinstance(tokens, list) or not isinstance(tags, list) or len(tokens) != len(tags) or not tokens:
            raise DataError(
                "tokens and tags are not two lists of one length", path=where, line=row, expected="a tag for each token"
            )
        words = [require_text(token, "token", where, row) for token in tokens]
        yield builder.build(words, [_name(tag, labels, "tag", where, row) for tag in tags], (row,))
    builder.report()


_FAMILIES: dict[str, tuple[tuple[Sequence[str], Sequence[str]], Callable[..., Iterator[Example]]]] = {
    "ner": ((_TOKENS, _TAGS), _sentences),
    "classification": ((_TEXTS, _LABELS), _texts),
    "pairs": ((_LEFTS, _RIGHTS), _pairs),
}
