"""Under which licences the encoder and the data of a training bundle stand, as far as its files tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trunkline.bundle.manifest import Licence
from trunkline.encoder.bundle_files import Loaded
from trunkline.encoder.storage import read_json
from trunkline.errors import EncoderError, TrunklineError
from trunkline_lab.data.cards import load_card

UNKNOWN = "unknown"


def licences_of(loaded: Loaded, source: Path) -> tuple[Licence, ...]:
    """The licences of the encoder and of every source of its pre-finetuning.

    Args:
        loaded: A training bundle or an encoder.
        source: Its folder; the run's `experiment.json` lies beside it and knows what was used.

    Returns:
        One row a part, `unknown` where no file says it.
    """
    recorded = _experiment(source)
    if recorded is not None:
        encoder = recorded["encoder"]
        rows = [(str(encoder["name"]), encoder["licence"])]
        rows += [(str(row["source"]), row["licence"]) for row in recorded["data"]]
    else:
        info: Any = loaded.info
        while "encoder" not in info and isinstance(info.get("start"), dict):
            info = info["start"]
        rows = [(Path(str(info.get("encoder", "encoder"))).name, "")]
        rows += [(name, _of_card(name)) for name in _sources(loaded.info)]
    found = {part[:1000]: str(licence or UNKNOWN)[:1000] for part, licence in rows}
    first, *others = found.items()
    return tuple(Licence(part, licence) for part, licence in [first, *sorted(others)])


def _experiment(source: Path) -> Any:
    path = source.parent / "experiment.json"
    if not path.is_file():
        return None
    try:
        recorded = read_json(path)
        whole = all(isinstance(row, dict) and {"source", "licence"} <= row.keys() for row in recorded["data"])
        return recorded if whole and {"name", "licence"} <= recorded["encoder"].keys() else None
    except (EncoderError, KeyError, TypeError, AttributeError):
        return None


def _sources(info: Any) -> list[str]:
    recipe = info.get("recipe") if isinstance(info, dict) else None
    families = recipe.get("families") if isinstance(recipe, dict) else None
    sections = families.values() if isinstance(families, dict) else ()
    return sorted({Path(str(name)).name for section in sections for name in section.get("sources", ())})


def _of_card(source: str) -> str:
    try:
        return load_card(source.partition("@")[0]).licence
    except TrunklineError:
        return ""
