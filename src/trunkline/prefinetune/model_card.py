"""The model card of a run, put together from the files of its folder; what no file says, it does not say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trunkline.atomic import write_atomic
from trunkline.encoder.storage import read_json, read_metadata
from trunkline.prefinetune.experiment import FILE
from trunkline.training.folders import write_errors
from trunkline.training.log import read_rows

NAME = "MODEL_CARD.md"
MOST_SOURCES = 40
_FAMILIES = {
    "ner": "named entity recognition",
    "classification": "text classification",
    "qa": "extractive question answering",
    "text": "masked language modelling",
}
_STRATEGIES = {
    "task-primary": "all families train the backbone, and each its own LoRA adapter (MTPF-TPL)",
    "naive": "all families train the backbone, without adapters",
    "individual": "one family trains the backbone, without adapters",
    "single-adapter": "all families train the backbone and one LoRA adapter",
    "frozen-backbone": "each family trains its own LoRA adapter on a backbone that stays as it was",
    "pcgrad": "all families train the backbone, with conflicting gradients projected (PCGrad)",
}
_CITATION = """\
The method is that of

> Zhu, Ozkan, Maracani, Mutlu, Cho, Ozay: Multi-Task Pre-Finetuning of Lightweight Transformer Encoders for Text
> Classification and NER. EMNLP 2025 Industry Track. arXiv 2510.07566.

Cite the sources of the data as their homes ask for it; `experiment.json` in the run's folder has the addresses."""


def write_model_card(folder: Path, bundle: Path) -> Path:
    """Writes `MODEL_CARD.md` into a run's folder and into its bundle.

    Args:
        folder: The run's folder, with `recipe.json`, `experiment.json` and `metrics.jsonl`.
        bundle: The bundle that the run made.

    Returns:
        The card in the run's folder.

    Raises:
        EncoderError: One of these files cannot be read.
        TrunklineError: The disk is full.
    """
    recipe, experiment = (read_json(folder / name) for name in ("recipe.json", FILE))
    manifest = read_json(bundle / "manifest.json")
    rows = read_rows(folder / "metrics.jsonl")
    parts = [
        _head(recipe),
        "## What it is\n\n" + _what(recipe, experiment, manifest, bundle),
        "## What it was trained on\n\n" + _data(experiment["data"], recipe),
        "## How it was trained\n\n" + _training(recipe, experiment, rows),
        "## What was measured meanwhile\n\n" + _measures(rows),
        "## What it is for\n\n" + _use(recipe),
        "## Limits\n\n" + _limits(recipe, experiment),
        "## To adapt it\n\n" + _commands(recipe),
        "## Citation\n\n" + _CITATION,
    ]
    text = "\n\n".join(parts) + "\n"
    for path in (bundle / NAME, folder / NAME):
        with write_errors(path, "the bundle is intact"):
            write_atomic(path, text)
    return folder / NAME


def _head(recipe: Mapping[str, Any]) -> str:
    families = " and ".join(_family(name) for name in recipe["families"])
    tags = "\n".join(f"  - {_family(name).replace(' ', '-')}" for name in recipe["families"])
    return (
        f"---\nlibrary_name: trunkline\ntags:\n{tags}\n---\n\n# {recipe['name']}\n\n"
        f"A small text encoder, pre-finetuned for {families}, to be adapted to tasks from few labels."
    )


def _what(recipe: Mapping[str, Any], experiment: Mapping[str, Any], manifest: Mapping[str, Any], bundle: Path) -> str:
    encoder = experiment["encoder"]
    by_way = ", by way of a bundle that was pre-finetuned before" if encoder["bundle"] else ""
    backbone = sum(file.stat().st_size for file in (bundle / "backbone").glob("*.safetensors"))
    lines = [
        f"- Base encoder: {encoder['name']}{by_way}; licence: {encoder['licence'] or 'not stated in its files'}.",
        f"- Strategy: {recipe['strategy']}"
        + (f", {_STRATEGIES[recipe['strategy']]}." if recipe["strategy"] in _STRATEGIES else "."),
        f"- Backbone: {backbone / 1e6:.1f} MB, SHA-256 of its weights {manifest['backbone'][:16]}, branches from layer"
        f" {manifest['fork']} (counted from 0), windows of up to {manifest['max_length']} tokens.",
    ]
    for name in manifest["adapters"]:
        path = bundle / "adapters" / f"{name}.safetensors"
        lora = json.loads(read_metadata(path)["trunkline"])["lora"]
        lines.append(
            f"- Primary adapter for {_family(name)}: LoRA of rank {lora['rank']} on {', '.join(lora['targets'])} of the"
            f" layers {', '.join(map(str, lora['layers']))}; {path.stat().st_size / 1e6:.2f} MB."
        )
    if recipe["optimizer"].get("ema"):
        lines.append(f"- Weights: their exponential moving average with decay {recipe['optimizer']['ema']:g}.")
    return "\n".join(lines)


def _data(rows: Sequence[Mapping[str, Any]], recipe: Mapping[str, Any]) -> str:
    lines = ["| family | source | share of draws | examples | held out | licence |", "|---|---|---:|---:|---:|---|"]
    for row in rows[:MOST_SOURCES]:
        name = f"[{row['source']}]({row['home']})" if row["home"] else row["source"]
        lines.append(
            f"| {row['family']} | {name} | {row['share']:.1%} | {row['examples']:,} | {row['held_out']:,} "
            f"| {row['licence'] or 'not stated'} |"
        )
    if len(rows) > MOST_SOURCES:
        lines.append(f"\nand {len(rows) - MOST_SOURCES} more, see `experiment.json`.")
    if recipe.get("decontaminate"):
        removed = sum(row["removed"] for row in rows)
        lines.append(
            f"\nTexts that also stand in dev or test parts of tasks were taken out before: {removed:,} examples"
            f" (similarity from {recipe['decontaminate']['threshold']:g} on)."
        )
    return "\n".join(lines)


def _training(recipe: Mapping[str, Any], experiment: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    logged = [row for row in rows if "seconds_per_step" in row]
    first, last = experiment["starts"][0], experiment["starts"][-1]
    machine = last["hardware"]
    memory = f", {machine['memory_bytes'] / 2**30:.0f} GiB of memory" if machine["memory_bytes"] else ""
    processor = f"{machine['cores']} cores of {machine['processor'] or 'an unknown processor'}{memory}"
    git, again = last["git"], len(experiment["starts"]) - 1
    lines = [f"- {logged[-1]['step']:,} steps" if logged else f"- {recipe['optimizer']['steps']:,} steps"]
    if logged:
        lines[0] += f" over {logged[-1].get('tokens_seen', 0):,.0f} tokens in {_duration(_seconds(logged))}"
    lines[0] += f", precision {experiment['precision']}, seed {experiment['seed']}."
    lines += [
        f"- On {', '.join(machine['accelerators'])}, with {processor}."
        if machine["accelerators"]
        else f"- On {processor}.",
        f"- Started {first['at']}" + f", interrupted and resumed {again} times" * (again > 0) + ".",
        "- With " + ", ".join(f"{name} {number}" for name, number in last["versions"].items()) + ".",
    ]
    if git and git["commit"]:
        lines.append(
            f"- Started in a repository at commit {git['commit']}" + ", with changes" * bool(git["dirty"]) + "."
        )
    return "\n".join(lines)


def _measures(rows: Sequence[Mapping[str, Any]]) -> str:
    measured = [row for row in rows if any(name.startswith(("dev/", "probe/")) for name in row)]
    if not measured:
        return "Nothing: the monitor was switched off."
    first, last = measured[0], measured[-1]
    # Of the dev measures the means over a family's sources; each source's own are in the log.
    names = [n for n in last if n in first and (n.startswith("probe/") or (n.startswith("dev/") and n.count("/") == 2))]
    lines = [f"| measure | step {first['step']:,} | step {last['step']:,} |", "|---|---:|---:|"]
    lines += [f"| {name} | {first[name]:.3f} | {last[name]:.3f} |" for name in names]
    return "\n".join(lines) + (
        "\n\n`dev` is on held-out examples of the sources, `probe` a linear probe on a task's dev part, on which its"
        " penalty was chosen, too. They show progress and are no results on tests."
    )


def _use(recipe: Mapping[str, Any]) -> str:
    families = " and ".join(_family(name) for name in _with_tasks(recipe))
    return (
        f"A frozen encoder for {families}: adapters and heads for tasks are fitted on top of it, and several tasks"
        " share its backbone. By itself it has no labels and predicts nothing."
    )


def _limits(recipe: Mapping[str, Any], experiment: Mapping[str, Any]) -> str:
    open_licences = sorted({row["source"] for row in experiment["data"] if row["licence"] in ("", "unverified")})
    lines = [
        "- Labels and pairs of the sources were taken as they are; what is wrong or one-sided in them, the encoder may"
        " have learned.",
        "- Nothing was measured about languages and fields other than those of its sources.",
    ]
    if not recipe.get("decontaminate"):
        lines.append("- The sources were not searched for texts of the tasks' dev and test parts.")
    if open_licences:
        shown = ", ".join(open_licences[:8]) + (", ..." if len(open_licences) > 8 else "")
        lines.append(
            f"- The licence is not known for {len(open_licences)} of the sources ({shown}): look before you use it."
        )
    return "\n".join(lines)


def _commands(recipe: Mapping[str, Any]) -> str:
    lines = [
        f"trunkline adapt my_{name} --family {name} --train train.jsonl --dev dev.jsonl --encoder bundle --out bundle"
        for name in _with_tasks(recipe)
        if name in ("ner", "classification")
    ]
    return "\n".join(
        [
            "In the folder that has this bundle as `bundle`:",
            "",
            "```",
            *lines,
            'trunkline predict bundle "A text."',
            "```",
        ]
    )


def _with_tasks(recipe: Mapping[str, Any]) -> list[str]:
    """The families that it can be adapted to: those it was trained for, or any after plain text alone."""
    return [name for name in recipe["families"] if name != "text"] or ["ner", "classification"]


def _family(name: str) -> str:
    return _FAMILIES.get(name, name)


def _seconds(logged: Sequence[Mapping[str, Any]]) -> float:
    """Training time; each row has the mean over the steps since the row before."""
    total, before = 0.0, 0
    for row in logged:
        total += row["seconds_per_step"] * (row["step"] - before)
        before = row["step"]
    return total


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
