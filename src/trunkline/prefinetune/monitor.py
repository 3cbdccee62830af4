"""What a run measures while it trains: losses and retrieval on held-out data, linear probes on tasks of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from trunkline.config import ProbeSection
from trunkline.encoder.encoder import TokenBatch
from trunkline.encoder.features import Branch, branch_features
from trunkline.heads.fit import LabelledFeatures, fit_head
from trunkline.prefinetune.grad_cache import chunk_slices
from trunkline.prefinetune.mixture import Source
from trunkline.prefinetune.model import PrefinetuneModel, to_device, with_targets
from trunkline.prefinetune.objectives import get_prefinetune_family
from trunkline.prefinetune.sources import FileFinder, SourceFinder
from trunkline.tasks import get_family
from trunkline.tasks.base import Family
from trunkline.text.examples import NerExample, QaExample, TextExample
from trunkline.text.tokens import TextTokenizer, UnitText, pack
from trunkline.text.words import split_words

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
