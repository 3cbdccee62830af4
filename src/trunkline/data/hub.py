"""Data sets of the Hugging Face hub, or of a local folder in hub layout, as records whose labels are text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trunkline.data.records import Record
from trunkline.errors import TrunklineError


def hub_records(spec: str, *, revision: str | None = None) -> Iterator[tuple[int, Record]]:
    """Yields the rows of a split with their numbers, counted from 1; code that comes with a data set is never run.

    Numbers of a ClassLabel become its names. Values of CSV files are text as it stands, `001` and `NA` too.

    Args:
        spec: `hub:NAME@SPLIT` or `hub:NAME:CONFIG@SPLIT`, where NAME is a hub id or a local folder in hub layout, and
            SPLIT such as `train` or `train[:1000]`.
        revision: A branch, tag or commit of the hub repository.

    Raises:
        TrunklineError: A data set that cannot be loaded, with what was tried; or `datasets` is not installed.
    """
    name, at, split = spec.removeprefix("hub:").rpartition("@")
    if not at or not name or not split:
        raise TrunklineError(f"{spec!r} does not say which split", expected="hub:NAME@SPLIT or hub:NAME:CONFIG@SPLIT")
    data = _load(name, split, revision)
    # Of a ClassLabel, and of lists of them, whose feature older versions of datasets have as a list of one.
    inner = {key: part[0] if isinstance(part, list) else part for key, part in data.features.items()}
    names = {key: getattr(getattr(part, "feature", part), "names", None) or () for key, part in inner.items()}
    for row, record in enumerate(data, start=1):
        yield row, {key: _named(value, names[key]) if names[key] else value for key, value in record.items()}


def _named(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_named(one, names) for one in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def _load(spec: str, split: str, revision: str | None) -> Any:
    try:
        import datasets
    except ImportError:
        todo = "Run `pip install 'trunkline[train]'`"
        raise TrunklineError("the package datasets is not installed", expected="it for hub: names", todo=todo) from None
    name, _, config = ("", "", "") if Path(spec).exists() else spec.rpartition(":")
    name, config = (name, config) if name and config else (spec, "")
    options: dict[str, Any] = {"split": split, "revision": revision}
    try:
        data = datasets.load_dataset(name, config or None, **options)
        if data.info.builder_name == "csv":
            text = datasets.Features({column: datasets.Value("string") for column in data.features})
            data = datasets.load_dataset(name, config or None, features=text, keep_default_na=False, **options)
    except (OSError, ValueError, RuntimeError, KeyError, datasets.exceptions.DatasetsError) as error:
        where = "the local folder" if Path(name).exists() else "the hub (no local folder has this name)"
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TrunklineError(
            f"the data set {name!r}{f' ({config})' if config else ''}, split {split!r}, could not be loaded from "
            f"{where}: {reason}",
            expected="a hub id such as user/name or a local folder in hub layout, with data files and no script",
            todo="Check name, configuration, split and network (HF_HUB_OFFLINE=1 uses only what was fetched before)",
        ) from error
    return data
