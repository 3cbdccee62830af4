"""Probes: linear heads on frozen features, fitted on a few labels of spare tasks while pre-finetuning goes on.

They are monitors that compare encoders, and no results of tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from trunkline.config import MonitorSection, PositiveInt, PrefinetuneRecipe, Section
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.lora import LoraAdapter
from trunkline.heads.fit import fit_head
from trunkline.prefinetune.run import Session
from trunkline.tasks import FAMILIES
from trunkline.text.examples import NerExample, TextExample
from trunkline.text.tokens import TextTokenizer
from trunkline_lab.data.finder import CardFinder
from trunkline_lab.data.sample import draw
from trunkline_lab.fitting import example_features, labelled

PENALTIES = (0.01, 0.1, 1.0)
_KINDS = {"ner": NerExample, "classification": TextExample}


class ProbeSection(Section):
    """A task that is used for nothing else: `train` and `dev` are named as sources are, `train` is drawn from."""

    family: Literal["ner", "classification"]
    train: str
    dev: str
    per_class: PositiveInt | None = None
    sentences: PositiveInt | None = Field(None, validate_default=True)
    most_dev: PositiveInt = 300

    @field_validator("sentences")
    @classmethod
    def _one_budget(cls, sentences: int | None, info: ValidationInfo) -> int | None:
        if (info.data.get("per_class") is None) == (sentences is None):
            raise ValueError("give either per_class or sentences")
        return sentences


class ProbedMonitor(MonitorSection):
    """What is measured, with probes by name."""

    probes: dict[str, ProbeSection] = Field(default_factory=dict)


class ProbedRecipe(PrefinetuneRecipe):
    """A recipe of pre-finetuning whose monitor may have probes."""

    monitor: ProbedMonitor = ProbedMonitor()


class Probe:
    """A probe on a task's train and dev parts: a few labels to fit on, the same ones at every step."""

    def __init__(self, section: ProbeSection, seed: int) -> None:
        finder, self.family = CardFinder(), FAMILIES[section.family]
        kind = _KINDS[section.family]
        train, dev = (list(finder.open(part, kind).examples()) for part in (section.train, section.dev))
        budget = {"sentences": section.sentences, "per_class": section.per_class}
        self.train = draw(train, self.family.classes, seed=seed, **budget)
        self.dev = draw(dev, self.family.classes, seed=seed, sentences=section.most_dev)
        self.labels = self.family.labels(train)

    def measure(self, encoder: Encoder, adapter: LoraAdapter | None, tokenizer: TextTokenizer, *, bf16: bool) -> float:
        """The family's main score on dev, the penalty chosen on the same dev part."""
        examples = [*self.train, *self.dev]
        features = example_features(self.family, examples, encoder, tokenizer, adapter, bf16=bf16)
        data = labelled(self.family, examples, features, self.labels)
        fitted = fit_head(self.family, data, self.labels, n_dev=len(self.dev), penalties=PENALTIES)
        return fitted.scores[self.family.main_score]


class ProbeWatch:
    """Measures a recipe's probes as often as its monitor says, as `probe/NAME` in `metrics.jsonl`."""

    def __init__(self, recipe: ProbedRecipe) -> None:
        self.every = recipe.monitor.every
        self.probes = {name: Probe(section, recipe.seed) for name, section in recipe.monitor.probes.items()}
        self._begun = False

    def __call__(self, step: int, session: Session) -> None:
        """See `watch` of `prefinetune`."""
        # A run that goes on has measured the step at which it starts.
        known, self._begun = step > 0 and not self._begun, True
        if not self.probes or not self.every or step % self.every or known or session.metrics is None:
            return
        model, training = session.model, session.model.training
        model.eval()
        values = {
            f"probe/{name}": probe.measure(
                model.encoder, model.adapter(probe.family.name), session.tokenizer, bf16=session.bf16
            )
            for name, probe in self.probes.items()
        }
        model.train(training)
        session.metrics.write(step, values)
        session.report.say(f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in values.items()))


def watch_all(*watches: Callable[[int, Session], None]) -> Callable[[int, Session], None]:
    """One watch of several, called in turn."""

    def watch(step: int, session: Session) -> None:
        for one in watches:
            one(step, session)

    return watch
