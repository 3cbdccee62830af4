"""What a run records: `experiment.json` at its start, measures while it trains, and a model card at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from trunkline.atomic import write_atomic
from trunkline.config import PrefinetuneRecipe, ProbeSection, parse_recipe
from trunkline.encoder.bundle_files import Loaded
from trunkline.encoder.encoder import TokenBatch
from trunkline.encoder.features import Branch, branch_features
from trunkline.encoder.resolve import resolve
from trunkline.encoder.storage import read_json, write_json
from trunkline.errors import EncoderError, MismatchError
from trunkline.heads.fit import LabelledFeatures, fit_head
from trunkline.prefinetune.mixture import Source
from trunkline.prefinetune.model import PrefinetuneModel, chunk_slices, to_device, with_targets
from trunkline.prefinetune.objectives import get_prefinetune_family
from trunkline.prefinetune.sources import FileFinder
from trunkline.tasks import Family, get_family
from trunkline.text.examples import NerExample, QaExample, TextExample
from trunkline.text.tokens import TextTokenizer, UnitText, pack
from trunkline.text.words import split_words
from trunkline.training import read_rows, write_errors
from trunkline.training.distributed import resolve_precision
from trunkline.versions import git_state, hardware, versions

FORMAT = 2
FILE = "experiment.json"
CARD = "MODEL_CARD.md"
PENALTIES = (0.01, 0.1, 1.0)
_README_BYTES = 64 * 1024
_MOST_SOURCES = 40  # that a card lists
_SAME = ("sha256", "left_sha256", "examples", "held_out", "concepts")
_KINDS = {"ner": NerExample, "classification": TextExample, "qa": QaExample}
_TOKENS = 4096  # of held-out texts that are encoded at a time
_FAMILIES = {
    "ner": "named entity recognition",
    "classification": "text classification",
    "qa": "extractive question answering",
    "text": "masked language modelling",
}
_TEMPLATE = """\
---
{head}---

# {name}

A text encoder, pre-finetuned for {families}, to be adapted to tasks from few labels; by itself it predicts nothing:
`trunkline fit my_task --train train.jsonl --model bundle --out my_bundle`.

- Encoder: {encoder}
- Backbone: {weights:,} weights, SHA-256 {backbone:.16}, branches from layer {fork}, windows of {max_length} tokens
{adapters}- Training: {training}
- Machine: {machine}
- Versions: {versions}
- Held-out texts: {decontaminated}

| family | source | share of draws | examples | held out | licence |
|---|---|---:|---:|---:|---|
{sources}
{measures}
Method: arXiv 2510.07566. What is one-sided in the sources, the encoder may have learned.
"""


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

    Returns what was written: `recipe`, `precision`, `encoder` (name, licence, hash), `data` (one row a source) and
    `starts` (one row a start: time, versions, git state, hardware).

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


class HeldOut:
    """One source's held-out examples, tokenised once."""

    def __init__(self, family: str, index: int, source: Source, tokenizer: TextTokenizer) -> None:
        self.family = family
        self.name = source.name
        self.drawn = [(index, example) for example in source.held_out]
        self.units: list[UnitText] = get_prefinetune_family(family).unit_texts(source.held_out, tokenizer)

    @torch.inference_mode()
    def measure(self, model: PrefinetuneModel, *, bf16: bool) -> dict[str, float]:
        """Loss and retrieval over all held-out examples as one batch, on the last layer as in training."""
        device = next(model.parameters()).device
        objective = model.objectives[self.family]
        units, targets = with_targets(objective, self.drawn, self.units, 0)
        parts = []
        for part in chunk_slices([unit.size for unit in units], _TOKENS):
            batch = TokenBatch.from_packed(pack(units[part], model.encoder.config.pad_id), device)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                parts.append(model.features(self.family, batch))
        features, targets = torch.cat(parts), to_device(targets, device)
        loss = float(objective(features, targets))
        measure, values = objective.measure(features, targets)  # type: ignore[operator]
        return {"loss": loss, measure: float(values.mean()) if len(values) else 0.0}


class Probe:
    """A linear probe on a task's train and dev parts: a few labels to fit on, the same ones at every step."""

    def __init__(self, name: str, section: ProbeSection, seed: int, finder: FileFinder | None = None) -> None:
        finder = finder or FileFinder()
        self.name = name
        self.family = get_family(section.family)
        kind = _KINDS[section.family]
        train, dev = (list(finder.open(part, kind).examples()) for part in (section.train, section.dev))
        order = np.random.default_rng([seed, len(dev)]).permutation(len(dev))
        self.dev = [dev[i] for i in order[: section.most_dev]]
        self.train = _few_labels(train, self.family, section, seed)
        self.labels = self.family.labels(train)

    def measure(self, model: PrefinetuneModel, tokenizer: TextTokenizer, *, bf16: bool) -> float:
        """The family's main score on dev, the penalty chosen on the same dev part: a monitor, not a result."""
        examples = [*self.train, *self.dev]
        tokens = tokenizer.encode([example.text for example in examples])
        texts = [(example.text, split_words(example.text)) for example in examples]
        units = [self.family.units(*text, part) for text, part in zip(texts, tokens, strict=True)]
        branch = Branch(units, model.adapter(self.family.name))
        features = branch_features(model.encoder, [branch], bf16=bf16)[0]
        targets = [self.family.unit_targets(e, self.labels, w) for e, (_, w) in zip(examples, texts, strict=True)]
        data = LabelledFeatures(examples, texts, features, targets)
        fitted = fit_head(self.family, data, self.labels, n_dev=len(self.dev), penalties=PENALTIES)
        return fitted.scores[self.family.main_score]


def _few_labels(examples: Sequence[Any], family: Family, section: ProbeSection, seed: int) -> list[Any]:
    """So many examples, or greedily so many of each class: one is taken if any of its classes is still short."""
    order = np.random.default_rng([seed, len(examples)]).permutation(len(examples))
    if section.per_class is None:
        return [examples[i] for i in order[: section.sentences]]
    seen: Counter[str] = Counter()
    taken = []
    for example in (examples[i] for i in order):
        found = family.classes(example)
        if any(seen[name] < section.per_class for name in found):
            taken.append(example)
            seen.update(found)
    return taken


def evaluate(
    model: PrefinetuneModel,
    held_out: Sequence[HeldOut],
    probes: Sequence[Probe],
    tokenizer: TextTokenizer,
    *,
    bf16: bool,
) -> dict[str, float]:
    """All measures by flat names: `dev/FAMILY/MEASURE` (mean over sources), `dev/FAMILY/SOURCE/...`, `probe/TASK`."""
    values: dict[str, float] = {}
    totals: dict[str, list[float]] = {}
    for part in held_out:
        if not part.drawn:
            continue
        for measure, value in part.measure(model, bf16=bf16).items():
            values[f"dev/{part.family}/{part.name}/{measure}"] = value
            totals.setdefault(f"dev/{part.family}/{measure}", []).append(value)
    values |= {name: sum(row) / len(row) for name, row in totals.items()}
    for probe in probes:
        values[f"probe/{probe.name}"] = probe.measure(model, tokenizer, bf16=bf16)
    return values


def write_model_card(folder: Path, bundle: Path, result: Loaded) -> Path:
    """Writes `MODEL_CARD.md`, facts of the run's files, into the run's folder and its bundle; returns the former.

    Raises:
        EncoderError: `experiment.json` of the run cannot be read.
    """
    experiment, rows = read_json(folder / FILE), read_rows(folder / "metrics.jsonl")
    recipe, encoder, data, starts = (experiment[key] for key in ("recipe", "encoder", "data", "starts"))
    families = [_FAMILIES[name] for name in recipe["families"]]
    adapters = [
        f"- Primary adapter for {_FAMILIES[family]}: LoRA of rank {file.lora.config.rank} on "
        f"{', '.join(file.lora.config.targets)} of the layers {', '.join(map(str, file.lora.config.layers))}\n"
        for family, file in result.primaries.items()
        if file.lora is not None
    ]
    removed = f"{sum(row['removed'] for row in data):,} examples that stand in them were removed"
    machine = starts[-1]["hardware"]
    processor = ", ".join(machine["accelerators"]) or machine["processor"] or "an unknown processor"
    text = _TEMPLATE.format(
        head=yaml.safe_dump({"library_name": "trunkline", "tags": [name.replace(" ", "-") for name in families]}),
        name=recipe["name"],
        families=" and ".join(families),
        encoder=f"{encoder['name']}, licence: {encoder['licence'] or 'not stated in its files'}",
        weights=sum(parameter.numel() for parameter in result.encoder.parameters()),
        backbone=result.backbone,
        fork=result.encoder.fork,
        max_length=recipe["max_length"],
        adapters="".join(adapters),
        training=f"strategy {recipe['strategy']}, {_progress(recipe, rows)}, precision {experiment['precision']}, "
        f"seed {recipe['seed']}, {len(starts)} starts, the first at {starts[0]['at']}",
        machine=f"{processor}, {machine['cores']} cores",
        versions=", ".join(f"{name} {number}" for name, number in starts[-1]["versions"].items()),
        decontaminated=removed if recipe["decontaminate"] else "the sources were not searched for them",
        sources=_source_table(data),
        measures=_measure_table(rows),
    )
    for path in (bundle / CARD, folder / CARD):
        with write_errors(path, "the bundle is intact"):
            write_atomic(path, text)
    return folder / CARD


def _progress(recipe: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    logged = [row for row in rows if "tokens_seen" in row]
    if not logged:
        return f"{recipe['optimizer']['steps']:,} steps"
    return f"{logged[-1]['step']:,} steps over {logged[-1]['tokens_seen']:,.0f} tokens"


def _source_table(data: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for row in data[:_MOST_SOURCES]:
        name = f"[{row['source']}]({row['home']})" if row["home"] else row["source"]
        counts = f"{row['share']:.1%} | {row['examples']:,} | {row['held_out']:,}"
        lines.append(f"| {row['family']} | {name} | {counts} | {row['licence']} |\n")
    more = len(data) - _MOST_SOURCES
    return "".join(lines) + (f"\nand {more} more, see `{FILE}`.\n" if more > 0 else "")


def _measure_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The first and last values of the probes, and of the dev measures as means over a family's sources."""
    measured = [row for row in rows if any(name.startswith(("dev/", "probe/")) for name in row)]
    if not measured:
        return "Nothing was measured: the monitor was switched off.\n"
    first, last = measured[0], measured[-1]
    names = [n for n in last if n in first and (n.startswith("probe/") or (n.startswith("dev/") and n.count("/") == 2))]
    lines = [f"| {name} | {first[name]:.3f} | {last[name]:.3f} |\n" for name in names]
    head = f"| progress, no results on tests | step {first['step']:,} | step {last['step']:,} |\n|---|---:|---:|\n"
    return head + "".join(lines)
