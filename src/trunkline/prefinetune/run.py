"""A pre-finetuning run from recipe to bundle, resumable at every checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device, set_seed
from torch import nn

from trunkline.bundle.manifest import MANIFEST, Licence
from trunkline.config import PrefinetuneRecipe
from trunkline.encoder.bundle_files import Loaded, load_any, save_bundle
from trunkline.encoder.encoder import FeatureRequest, branch_features
from trunkline.errors import MismatchError, TrunklineError
from trunkline.prefinetune.model import Mixture, PrefinetuneModel, Source, StepBatch, draw_batch
from trunkline.prefinetune.objectives import make_objective
from trunkline.prefinetune.record import CARD, check_recipe, write_experiment, write_model_card
from trunkline.prefinetune.sources import FileFinder, recipe_sources
from trunkline.prefinetune.strategies import Losses, adapters_of, freeze, project_conflicts, trained
from trunkline.text.examples import Example
from trunkline.training import MetricsLog, Report, loop, write_errors
from trunkline.training.checkpoint import checkpoints, load_checkpoint, random_state, save_checkpoint

_LOOK = 20
"""Steps after which it is told which examples will be drawn very often."""


def prefinetune(
    recipe: PrefinetuneRecipe,
    folder: Path,
    report: Report | None = None,
    *,
    finder: FileFinder | None = None,
    watch: Callable[[int, Session], None] | None = None,
) -> Path:
    """Runs a recipe, or goes on with an interrupted run in the same folder.

    The folder gets `experiment.json`, `metrics.jsonl`, `checkpoints/` and at the end `bundle/`, which is returned.
    `finder` knows what the names of sources mean, files by default. `watch` is called in the main process with the
    steps done and the session, once before the first step and after every step; it must leave weights, gradients and
    random generators as they are. Raises MismatchError if the folder holds a run of another recipe, and TrunklineError
    if another run is at work in it, or for problems of data, encoder or training.
    """
    state = loop.process_state()
    main: bool = state.is_main_process
    report = report if report is not None and main else Report()
    bundle = folder / "bundle"
    with _locked(folder) if main else nullcontext():
        check_recipe(folder, recipe)
        if (bundle / MANIFEST).is_file():
            if main and not (folder / CARD).is_file():
                write_model_card(folder, bundle, load_any(str(bundle)))
            report.say(f"{bundle} is complete, nothing to do")
            return bundle
        set_seed(recipe.seed)
        start = load_any(recipe.encoder, fork=recipe.fork, max_length=recipe.max_length)
        if recipe.fork is not None and recipe.fork != start.encoder.fork:
            expected = f"{start.encoder.fork}, that of the bundle {recipe.encoder}"
            raise MismatchError(f"the recipe's fork is {recipe.fork}", expected=expected)
        with state.main_process_first():  # it fills the cache, the others read it
            sources = recipe_sources(recipe, start.tokenizer, finder=finder, say=report.say)
        session = Session(recipe, start, sources, folder, report)
        experiment = write_experiment(folder, recipe, start, sources) if main else {}
        session.train(watch)
        if main:
            result = session.result(experiment)
            with write_errors(bundle, "all checkpoints are intact"):
                save_bundle(result, bundle, recipe.name)
            write_model_card(folder, bundle, result)
            report.say(f"saved {bundle}")
        session.accelerator.wait_for_everyone()
        session.accelerator.end_training()
    return bundle


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a folder; a killed process leaves no lock behind."""
    from filelock import FileLock, Timeout

    with write_errors(folder, "nothing was trained yet"):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout:
        todo = "Wait until it ends, or choose another folder with --out"
        given, expected = f"another run is at work in {folder}", "one run in a folder at a time"
        raise TrunklineError(given, expected=expected, todo=todo) from None
    with held:
        yield


class Session:
    """The moving parts of one run; the arguments are those of `prefinetune`, with the start and its sources loaded."""

    def __init__(
        self,
        recipe: PrefinetuneRecipe,
        start: Loaded,
        sources: Mapping[str, Sequence[Source]],
        folder: Path,
        report: Report,
    ) -> None:
        self.recipe, self.start, self.sources, self.folder, self.report = recipe, start, sources, folder, report
        self.tokenizer = start.tokenizer
        self.bf16 = loop.resolve_precision(recipe.precision) == "bf16"
        self.accelerator = loop.make_accelerator(self.bf16)
        device = self.accelerator.device
        self.place = loop.Place(device, self.accelerator.process_index, self.accelerator.num_processes)
        start.encoder.dropout = recipe.optimizer.dropout
        objectives: dict[str, nn.Module] = {}
        for family, section in recipe.families.items():
            objectives[family] = make_objective(family, section, sources[family], start, recipe.seed)
        self.model = PrefinetuneModel(start.encoder, adapters_of(recipe, start.encoder), objectives).to(device)
        freeze(start.encoder, recipe)
        rates, parts = recipe.optimizer, self.model
        groups = {
            "backbone": (list(parts.encoder.parameters()), rates.backbone_rate),
            "adapters": (list(parts.adapters.parameters()), rates.adapter_rate),
            "objectives": (list(parts.objectives.parameters()), rates.objective_rate),
        }
        self.optimizer = self.accelerator.prepare(loop.optimizer_for(groups, rates.weight_decay))
        total = sum(section.weight for section in recipe.families.values())
        self.weights: dict[str, float] = {family: section.weight / total for family, section in recipe.families.items()}
        self.mixtures = {
            family: Mixture(sources[family], recipe.seed, one_source_a_step=section.one_source_a_step)
            for family, section in recipe.families.items()
        }
        self.tokens_seen = 0
        self.batches: dict[str, StepBatch] = {}
        self.last: dict[str, float] = {}

    def train(self, watch: Callable[[int, Session], None] | None = None) -> None:
        """Trains from the last checkpoint, or from the start, to the end; `watch` is that of `prefinetune`."""
        rates, monitor, main = self.recipe.optimizer, self.recipe.monitor, self.accelerator.is_main_process
        done = self._resume()
        self.metrics = MetricsLog(self.folder / "metrics.jsonl", done) if main else None

        def stepped(step: int) -> None:
            if watch is not None and main:
                watch(step, self)
            if step == min(_LOOK, rates.steps) > done:
                for told in (told for one in self.mixtures.values() for told in one.repeats(step / rates.steps)):
                    self.report.say(f"warning: {told}")
            if step > done:
                self.report.progress(step, rates.steps, self.last)

        stepped(done)
        if done == 0 and monitor.every:
            self._measure(0)
        intervals = monitor.log_every, monitor.every, self.recipe.checkpoint.every
        settings = loop.LoopSettings(rates.steps, rates.warmup, rates.clip, *intervals)
        hooks = loop.Hooks(stepped, self._log, self._measure, self._save)
        loop.run(self.model, self.optimizer, self.losses, settings, hooks, accelerator=self.accelerator, start=done)

    def result(self, experiment: Mapping[str, Any]) -> Loaded:
        """The trained backbone with its primary adapters; `experiment` is what `write_experiment` wrote."""
        info = {key: experiment[key] for key in ("recipe", "encoder", "precision")}
        parts = {experiment["encoder"]["name"]: experiment["encoder"]["licence"]}
        parts |= {known.part: known.licence for known in self.start.licences}
        parts |= {row["source"]: row["licence"] for row in experiment["data"]}
        licences = tuple(Licence(str(part), str(licence or "unknown")) for part, licence in parts.items())
        found = {str(family): self.model.adapter(family) for family in self.recipe.families}
        adapters = {family: adapter for family, adapter in found.items() if adapter is not None}
        start = replace(self.start, licences=licences)
        return trained(start, self.model.encoder, adapters, {**info, "tokens_seen": self.tokens_seen})

    def losses(self, step: int) -> Losses:
        """Each family's name, weight and loss of a step, one after the other."""
        losses = self._family_losses(step)
        if self.recipe.strategy != "pcgrad":
            return losses
        rng = np.random.default_rng([self.recipe.seed, step])
        return project_conflicts(losses, list(self.model.encoder.parameters()), rng, self.place.processes)

    def _family_losses(self, step: int) -> Losses:
        self.batches = {}
        for family, section in self.recipe.families.items():
            self.batches[family] = batch = draw_batch(
                self.mixtures[family],
                self.model.objectives[family],
                self.tokenizer,
                step=step,
                section=section,
                pad_id=self.start.encoder.config.pad_id,
                place=self.place,
            )
            self.tokens_seen += batch.n_tokens
            with self.accelerator.autocast():
                loss = self.model(family, batch)
            yield family, self.weights[family], loss

    def _log(self, step: int, values: dict[str, float]) -> None:
        self.last = values
        if self.metrics is not None:
            self.metrics.write(step, {**values, "tokens_seen": float(self.tokens_seen)})

    def _measure(self, step: int) -> None:
        """The held-out measures, by the main process; the others wait."""
        if self.metrics is not None:
            values = self.evaluate()
            self.metrics.write(step, values)
            shown = ", ".join(f"{name} {value:.3f}" for name, value in values.items() if name.count("/") < 3)
            self.report.say(f"step {step}: {shown}")
        self.accelerator.wait_for_everyone()

    def evaluate(self) -> dict[str, float]:
        """All measures by flat names: `dev/FAMILY/MEASURE` (mean over sources), `dev/FAMILY/SOURCE/MEASURE`."""
        self.model.eval()
        values: dict[str, float] = {}
        totals: dict[str, list[float]] = {}
        for family, group in self.sources.items():
            for number, source in enumerate(group):
                for measure, value in self._held_out(family, number, source.held_out).items():
                    values[f"dev/{family}/{source.name}/{measure}"] = value
                    totals.setdefault(f"dev/{family}/{measure}", []).append(value)
        return values | {name: sum(row) / len(row) for name, row in totals.items()}

    def _held_out(self, family: str, source: int, examples: Sequence[Example]) -> dict[str, float]:
        """Loss and retrieval over a source's held-out examples as one batch, on the last layer as in training."""
        if not len(examples):
            return {}
        objective: Any = self.model.objectives[family]
        units = objective.unit_texts(examples, self.tokenizer)
        units, targets = objective.prepare(units, [(source, example) for example in examples], 0)
        branch = FeatureRequest(units, self.model.adapter(family))
        parts = branch_features(self.model.encoder, [branch], bf16=self.bf16, last=True)[0]
        features = torch.from_numpy(np.concatenate(parts)).to(self.place.device)
        targets = send_to_device(targets, self.place.device)
        with torch.inference_mode():
            measure, values = objective.measure(features, targets)
            return {"loss": float(objective(features, targets)), measure: float(values.mean()) if len(values) else 0.0}

    def _save(self, step: int) -> None:
        # Of all processes, by rank.
        own = {name: tensor[None].to(self.place.device) for name, tensor in random_state().items()}
        gathered = {name: tensor.cpu() for name, tensor in self.accelerator.gather(own).items()}
        if self.metrics is not None:
            random = [{name: part[rank] for name, part in gathered.items()} for rank in range(self.place.processes)]
            mixtures = {family: mixture.state() for family, mixture in self.mixtures.items()}
            extra = {"mixtures": mixtures, "tokens_seen": self.tokens_seen}
            folder, keep = self.folder / "checkpoints", self.recipe.checkpoint.keep
            save_checkpoint(folder, step, self.model, self.optimizer.optimizer, extra, keep, random)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> int:
        found = checkpoints(self.folder / "checkpoints")
        if not found:
            return 0
        step, extra = load_checkpoint(found[-1], self.model, self.optimizer.optimizer, self.place.rank)
        for family, mixture in self.mixtures.items():
            mixture.restore(extra["mixtures"][family])
        self.tokens_seen = int(extra["tokens_seen"])
        self.report.say(f"going on after step {step}")
        return step
