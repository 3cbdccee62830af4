"""What a run records beside its measures: `experiment.json` at its start and a model card at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from trunkline.bundle.files import write_atomic
from trunkline.config import PrefinetuneRecipe, parse_recipe
from trunkline.encoder.bundle_files import Loaded
from trunkline.encoder.resolve import resolve
from trunkline.encoder.storage import read_json, write_json
from trunkline.errors import EncoderError, MismatchError
from trunkline.prefinetune.model import Source
from trunkline.training import write_errors
from trunkline.training.loop import resolve_precision
from trunkline.versions import git_state, hardware, versions

FORMAT, FILE, CARD = 2, "experiment.json", "MODEL_CARD.md"
_SAME = ("sha256", "examples", "held_out", "concepts")


def check_recipe(folder: Path, recipe: PrefinetuneRecipe) -> None:
    """Raises MismatchError if a run's folder holds a run of another recipe."""
    path = folder / FILE
    if not path.is_file():
        return
    # A key that the file lacks has its default.
    theirs = parse_recipe(read_json(path)["recipe"], type(recipe), path).model_dump()
    changed = sorted(key for key, value in recipe.model_dump().items() if theirs[key] != value)
    _refuse(folder, "a run whose recipe differs in", changed, "the recipe")


def write_experiment(
    folder: Path, recipe: PrefinetuneRecipe, start: Loaded, sources: Mapping[str, Sequence[Source]]
) -> dict[str, Any]:
    """Writes `experiment.json` at the start of a run, or adds another start to it when the run goes on.

    Returns what was written: `recipe`, `precision`, `encoder` (name, licence, hash), `data` (one row a source) and
    `starts` (one row a start: time, versions, git state, hardware). Raises MismatchError if the run was started with
    other data or another encoder, so that it cannot go on exactly.
    """
    path, now = folder / FILE, datetime.now(UTC).isoformat(timespec="seconds")
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
    facts = {key: source.facts.get(key) for key in ("title", "home", "licence", "sha256", "removed")}
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
    old, new = (
        {f"{row['family']} source {row['source']}": [row.get(key) for key in _SAME] for row in part["data"]}
        for part in (before, now)
    )
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if before["encoder"]["backbone"] != now["encoder"]["backbone"]:
        changed.append(f"encoder {now['encoder']['name']}")
    _refuse(path.parent, "a run that was started with other content of", changed, "the data and the encoder")


def _refuse(folder: Path, what: str, changed: Sequence[str], expected: str) -> None:
    if changed:
        todo = "Bring them back as they were, choose another folder with --out, or delete this one"
        given = f"{folder} holds {what} {', '.join(changed)}"
        raise MismatchError(given, expected=f"{expected} that it was started with", todo=todo)


def _encoder(recipe: PrefinetuneRecipe, start: Loaded) -> dict[str, Any]:
    """The encoder at the bottom: that of a bundle is the one with which its own run began."""
    info: Mapping[str, Any] = start.info
    while isinstance(info.get("start"), Mapping):
        info = info["start"]
    name = str(info.get("encoder", recipe.encoder))
    shown = Path(name).name if info.get("origin") == "folder" else name
    return {"name": shown, "licence": _licence(name), "bundle": info is not start.info, "backbone": start.backbone}


def _licence(name: str) -> str:
    """The licence in the head of the README that comes with an encoder; empty if it says none."""
    from huggingface_hub import metadata_load

    try:
        licence = (metadata_load(resolve(name).folder / "README.md") or {}).get("license")
    except (EncoderError, OSError, ValueError, yaml.YAMLError):
        return ""
    return licence if isinstance(licence, str) else ""


def write_model_card(folder: Path, bundle: Path, result: Loaded) -> None:
    """Writes `MODEL_CARD.md`, facts of the run's files, into the run's folder and its bundle.

    Raises EncoderError if `experiment.json` of the run cannot be read.
    """
    experiment = read_json(folder / FILE)
    recipe, encoder, data = experiment["recipe"], experiment["encoder"], experiment["data"]
    head = yaml.safe_dump({"library_name": "trunkline", "tags": list(recipe["families"])})
    removed = f"{sum(row['removed'] for row in data):,} examples that stand in them were removed"
    text = f"""\
---
{head}---

# {recipe["name"]}

A text encoder, pre-finetuned for {" and ".join(recipe["families"])}, to be adapted to tasks from few labels; by
itself it predicts nothing: `trunkline fit my_task --train train.jsonl --model bundle --out my_bundle`.

- Encoder: {encoder["name"]}, licence: {encoder["licence"] or "not stated in its files"}
- Backbone: SHA-256 {result.backbone}, branches from layer {result.encoder.fork}
- Primary adapters: {", ".join(result.primaries) or "none"}
- Training: strategy {recipe["strategy"]}, {recipe["optimizer"]["steps"]:,} steps over {result.info["tokens_seen"]:,} \
tokens, precision {experiment["precision"]}, seed {recipe["seed"]}
- Held-out texts: {removed if recipe["decontaminate"] else "the sources were not searched for them"}
- Versions, machine, hashes of the data, the whole recipe: `{FILE}` of the run; what was measured: `metrics.jsonl`

| family | source | share of draws | examples | held out | licence |
|---|---|---:|---:|---:|---|
{"".join(map(_source_row, data))}
Method: arXiv 2510.07566. What is one-sided in the sources, the encoder may have learned.
"""
    for path in (bundle / CARD, folder / CARD):
        with write_errors(path, "the bundle is intact"):
            write_atomic(path, text)


def _source_row(row: Mapping[str, Any]) -> str:
    name = f"[{row['source']}]({row['home']})" if row["home"] else row["source"]
    counts = f"{row['share']:.1%} | {row['examples']:,} | {row['held_out']:,}"
    return f"| {row['family']} | {name} | {counts} | {row['licence']} |\n"
