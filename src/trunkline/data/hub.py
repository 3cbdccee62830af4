"""Data sets of the Hugging Face hub, or of a local folder in hub layout, as records whose labels are text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trunkline.errors import TrunklineError

_FORM = "hub:NAME@SPLIT or hub:NAME:CONFIG@SPLIT"


def hub_records(spec: str, *, revision: str | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
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
        raise TrunklineError(f"{spec!r} does not say which split", expected=_FORM)
    data = load_split(name, split, revision=revision)
    names = {column: _namer(feature) for column, feature in data.features.items()}
    for row, record in enumerate(data, start=1):
        yield row, {column: names[column](value) for column, value in record.items()}


def load_split(spec: str, split: str, *, revision: str | None = None) -> Any:
    """A split as `datasets` gives it; arguments and errors as for `hub_records`."""
    try:
        import datasets
    except ImportError:
        raise TrunklineError(
            "the package datasets is not installed",
            expected="it for hub: names",
            todo="Run `pip install 'trunkline[train]'`",
        ) from None
    name, colon, config = ("", "", "") if Path(spec).exists() else spec.rpartition(":")
    if not (colon and name and config):
        name, config = spec, ""

    def load(**options: Any) -> Any:
        return datasets.load_dataset(name, config or None, split=split, revision=revision, **options)

    try:
        data = load()
        if getattr(data.info, "builder_name", "") == "csv":
            text = datasets.Features({column: datasets.Value("string") for column in data.features})
            data = load(features=text, keep_default_na=False)
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


def _namer(feature: Any) -> Callable[[Any], Any]:
    """Turns numbers into the names of a ClassLabel, and of lists of them."""
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", feature)
    names = list(getattr(inner, "names", None) or [])

    def name(value: Any) -> Any:
        if isinstance(value, list):
            return [name(one) for one in value]
        number = isinstance(value, int) and not isinstance(value, bool)
        return names[value] if number and 0 <= value < len(names) else value

    return name if names else lambda value: value
