"""What a run measures while it trains: losses and retrieval on held-out data, linear probes on tasks of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from trunkline.config import ProbeSection
from trunkline.data.sample import draw
from trunkline.encoder.batch import TokenBatch
from trunkline.encoder.features import Features
from trunkline.heads import fitting
from trunkline.prefinetune.grad_cache import chunk_slices
from trunkline.prefinetune.mixture import Source
from trunkline.prefinetune.model import PrefinetuneModel, to_device, with_targets
from trunkline.prefinetune.objectives import get_prefinetune_family
from trunkline.prefinetune.sources import FileFinder, SourceFinder
from trunkline.tasks import get_family
from trunkline.tasks.base import Family
from trunkline.text.examples import NerExample, QaExample, TextExample
from trunkline.text.packing import UnitText, pack
from trunkline.text.tokens import TextTokenizer

PENALTIES = (0.01, 0.1, 1.0)
_KINDS = {"ner": NerExample, "classification": TextExample, "qa": QaExample}
_TOKENS = 4096  # of held-out texts that are encoded at a time


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

    def __init__(self, name: str, section: ProbeSection, seed: int, finder: SourceFinder | None = None) -> None:
        finder = finder or FileFinder()
        self.name = name
        self.family = get_family(section.family)
        train, dev = (
            list(finder.open(part, _KINDS[section.family]).examples()) for part in (section.train, section.dev)
        )
        budget = section.per_class, section.sentences
        self.train = draw(train, self.family.classes, seed=seed, per_class=budget[0], sentences=budget[1])
        self.dev = draw(dev, self.family.classes, seed=seed, sentences=section.most_dev)
        self.labels = self.family.labels(train)

    def measure(self, model: PrefinetuneModel, tokenizer: TextTokenizer, *, bf16: bool) -> float:
        """The family's main score on dev, the penalty chosen on the same dev part: a monitor, not a result."""
        adapter = model.adapter(self.family.name)
        examples = [*self.train, *self.dev]
        features = fitting.example_features(self.family, examples, model.encoder, tokenizer, adapter, bf16=bf16)
        cut = len(self.train)
        return probe_score(self.family, (features[:cut], self.train), (features[cut:], self.dev), self.labels)


def probe_score(
    family: Family,
    train: tuple[Sequence[Features], Sequence[Any]],
    dev: tuple[Sequence[Features], Sequence[Any]],
    labels: tuple[str, ...],
) -> float:
    """The main score on dev of a head fitted on train, both as (features, examples)."""
    return fitting.fit(family, train, dev, labels, PENALTIES)[2]


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
