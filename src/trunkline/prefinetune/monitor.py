"""What a run measures while it trains: losses and retrieval on held-out data, linear probes on tasks of their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from trunkline.adapt import fitting
from trunkline.config import ProbeSection
from trunkline.encoder.features import Branch, branch_features
from trunkline.errors import TrunklineError
from trunkline.prefinetune.mixture import Source
from trunkline.prefinetune.model import PrefinetuneModel, to_device, with_targets
from trunkline.prefinetune.objectives import get_prefinetune_family
from trunkline.tasks import get_family
from trunkline.text.packing import UnitText
from trunkline.text.tokens import TextTokenizer
from trunkline_lab.data.cards import load_card
from trunkline_lab.data.sample import draw

PENALTIES = (0.01, 0.1, 1.0)


class HeldOut:
    """One source's held-out examples, tokenised once."""

    def __init__(self, family: str, index: int, source: Source, tokenizer: TextTokenizer) -> None:
        self.family = family
        self.name = source.name
        self.drawn = [(index, example) for example in source.held_out]
        self.units: list[UnitText] = get_prefinetune_family(family).unit_texts(source.held_out, tokenizer)

    def measure(self, model: PrefinetuneModel, *, bf16: bool) -> dict[str, float]:
        """Loss and retrieval over all held-out examples as one batch."""
        device = next(model.parameters()).device
        objective = model.objectives[self.family]
        with torch.inference_mode():
            units, made = with_targets(objective, self.drawn, self.units, 0)
            branch = Branch(units, model.adapter(self.family))
            features = branch_features(model.encoder, [branch], bf16=bf16, last=True)[0]
            tensor = torch.from_numpy(np.concatenate(features)).to(device)
            targets = to_device(made, device)
            loss = float(objective(tensor, targets))
            measure, values = objective.measure(tensor, targets)  # type: ignore[operator]
        return {"loss": loss, measure: float(values.mean()) if len(values) else 0.0}


class Probe:
    """A linear probe on a task's train and dev parts: a few labels to fit on, the same ones at every step."""

    def __init__(self, name: str, section: ProbeSection, seed: int) -> None:
        card = load_card(name)
        if "dev" not in card.splits:
            raise TrunklineError(f"probe {name} has no dev split", todo="Choose another task for the monitor")
        self.name = name
        self.family = get_family(card.family)
        train = card.load("train")
        budget = section.per_class, section.sentences
        self.train = draw(train, self.family.classes, seed=seed, per_class=budget[0], sentences=budget[1])
        self.dev = draw(card.load("dev"), self.family.classes, seed=seed, sentences=section.dev)
        self.labels = self.family.labels(train)

    def measure(self, model: PrefinetuneModel, tokenizer: TextTokenizer, *, bf16: bool) -> float:
        """The family's main score on dev, the penalty chosen on the same dev part: a monitor, not a result."""
        adapter = model.adapter(self.family.name)
        examples = [*self.train, *self.dev]
        features = fitting.example_features(self.family, examples, model.encoder, tokenizer, adapter, bf16=bf16)
        cut = len(self.train)
        _, _, score = fitting.fit(
            self.family, (features[:cut], self.train), (features[cut:], self.dev), self.labels, PENALTIES
        )
        return score


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
