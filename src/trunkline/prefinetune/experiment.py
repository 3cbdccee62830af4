"""What makes a run repeatable: `experiment.json` with recipe, hashes of the data, versions, git state and machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from trunkline.config import PrefinetuneRecipe, parse_recipe
from trunkline.encoder.bundle_files import Loaded
from trunkline.encoder.resolve import resolve
from trunkline.encoder.storage import read_json, write_json
from trunkline.errors import EncoderError, MismatchError
from trunkline.prefinetune.mixture import Source
from trunkline.training.log import write_errors
from trunkline.training.precision import resolve_precision
from trunkline.versions import git_state, hardware, versions

FORMAT = 2
FILE = "experiment.json"
_README_BYTES = 64 * 1024
_SAME = ("sha256", "left_sha256", "examples", "held_out", "concepts")


def check_recipe(folder: Path, recipe: PrefinetuneRecipe) -> None:
    """Raises MismatchError if a run's folder holds a run of another recipe."""
    path = folder / FILE
    if not path.is_file():
        return
    # A key that the file lacks has its default.
    theirs = parse_recipe(read_json(path)["recipe"], PrefinetuneRecipe, path).model_dump()
    changed = sorted(key for key, value in recipe.model_dump().items() if theirs[key] != value)
    if changed:
        raise MismatchError(
            f"{folder} holds a run whose recipe differs in {', '.join(changed)}",
            expected="the recipe that it was started with",
            todo="Choose another folder with --out, or delete this one",
        )


def write_experiment(
    folder: Path, recipe: PrefinetuneRecipe, start: Loaded, sources: Mapping[str, Sequence[Source]]
) -> dict[str, Any]:
    """Writes `experiment.json` at the start of a run, or adds another start to it when the run goes on.

    Returns:
        What was written: `recipe`, `precision`, `encoder` (name, licence, hash), `data` (one row a source) and `starts`
        (one row a start: time, versions, git state, hardware).

    Raises:
        MismatchError: The run was started with other data or another encoder, so that it cannot go on exactly.
    """
    path = folder / FILE
    now = datetime.now(UTC).isoformat(timespec="seconds")
    content: dict[str, Any] = {
        "format": FORMAT,
        "recipe": recipe.model_dump(mode="json"),
        "precision": resolve_precision(recipe.precision),
        "encoder": _encoder(recipe, start),
        "data": [_row(family, source, group) for family, group in sources.items() for source in group],
        "starts": [{"at": now, "versions": versions(), "git": git_state(), "hardware": hardware()}],
    }
    if path.is_file():
        before = read_json(path)
        _check_same(path, before, content)
        # The licence is looked up in files that may be gone or changed by now; what was found at first stands.
        content |= {"encoder": before["encoder"], "starts": [*before["starts"], *content["starts"]]}
    with write_errors(path, "checkpoints are intact"):
        write_json(content, path)
    return content


def _row(family: str, source: Source, group: Sequence[Source]) -> dict[str, Any]:
    facts = {key: source.facts.get(key) for key in ("title", "home", "licence", "sha256", "left_sha256", "removed")}
    return {
        "family": family,
        "source": source.name,
        **facts,
        "examples": len(source.train),
        "held_out": len(source.held_out),
        "concepts": len(set(source.concepts.values())),
        "closed": source.closed,
        "share": source.weight / sum(other.weight for other in group),
    }


def _check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    rows = [
        {f"{row['family']} source {row['source']}": [row.get(key) for key in _SAME] for row in part["data"]}
        for part in (before, now)
    ]
    changed = [name for name in {**rows[0], **rows[1]} if rows[0].get(name) != rows[1].get(name)]
    if before["encoder"]["backbone"] != now["encoder"]["backbone"]:
        changed.append(f"encoder {now['encoder']['name']}")
    if changed:
        raise MismatchError(
            f"{path.parent} holds a run that was started with other content of {', '.join(changed)}",
            expected="the data and the encoder that it was started with",
            todo="Bring them back as they were, choose another folder with --out, or delete this one",
        )


def _encoder(recipe: PrefinetuneRecipe, start: Loaded) -> dict[str, Any]:
    """The encoder at the bottom: that of a bundle is the one with which its own run began."""
    info: Mapping[str, Any] = start.info
    while "encoder" not in info and isinstance(info.get("start"), Mapping):
        info = info["start"]
    name = str(info.get("encoder", recipe.encoder))
    shown = Path(name).name if info.get("origin") == "folder" else name
    return {"name": shown, "licence": _licence(name), "bundle": info is not start.info, "backbone": start.backbone}


def _licence(name: str) -> str:
    """The licence in the head of the README that comes with an encoder; empty if it says none."""
    try:
        with (resolve(name).folder / "README.md").open("rb") as file:
            text = file.read(_README_BYTES).decode("utf-8", "replace")
        head = yaml.safe_load(text.split("---")[1]) if text.startswith("---") else None
    except (EncoderError, OSError, IndexError, yaml.YAMLError):
        return ""
    licence = head.get("license") if isinstance(head, dict) else None
    return licence if isinstance(licence, str) else ""
