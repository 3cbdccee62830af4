"""A pre-finetuning run from recipe to bundle, resumable at every checkpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from trunkline.config import PrefinetuneRecipe, parse_recipe
from trunkline.encoder.adapter_file import AdapterFile
from trunkline.encoder.bundle_files import Loaded, load_any, save_bundle
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.storage import backbone_hash, write_json
from trunkline.errors import MismatchError
from trunkline.prefinetune.conflict import ConflictLog, measure_conflict, shared_parameters
from trunkline.prefinetune.conflict_report import draw_batches
from trunkline.prefinetune.experiment import write_experiment
from trunkline.prefinetune.losses.masked_lm import MaskedLMObjective
from trunkline.prefinetune.mixing import schedule
from trunkline.prefinetune.mixture import Mixture, Source
from trunkline.prefinetune.model import PrefinetuneModel, StepBatch, check_families, draw_batch
from trunkline.prefinetune.model_card import write_model_card
from trunkline.prefinetune.monitor import HeldOut, Probe, evaluate
from trunkline.prefinetune.objectives import TextEmbedder, get_prefinetune_family
from trunkline.prefinetune.objectives.text import masked_lm_of
from trunkline.prefinetune.sources import load_sources, open_recipe
from trunkline.prefinetune.strategies import Losses, adapters_of, freeze, parameter_groups, project_conflicts
from trunkline.training.best import keep_best
from trunkline.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint, seed_everything
from trunkline.training.distributed import Place, gather_states, is_main_process, main_process_first
from trunkline.training.ema import Ema, averaged
from trunkline.training.folders import write_errors
from trunkline.training.log import MetricsLog, require_trackers
from trunkline.training.loop import Hooks, LoopSettings, optimizer_for, run
from trunkline.training.precision import make_accelerator
from trunkline.training.random_state import random_state
from trunkline.training.report import Report
from trunkline.training.speed import Speed, attention_setting, choose_speed, usual_speed
from trunkline.versions import versions


def prefinetune(recipe: PrefinetuneRecipe, folder: Path, report: Report | None = None) -> Path:
    """Runs a recipe, or goes on with an interrupted run in the same folder.

    Args:
        recipe: What to do.
        folder: The run's folder: `recipe.json`, `speed.json`, `metrics.jsonl`, `tensorboard/`, `checkpoints/` and, when
            it is done, `bundle/`.
        report: How the caller follows it.

    Returns:
        The folder of the bundle.

    Raises:
        MismatchError: The folder holds a run of another recipe.
        TrunklineError: Data, encoder or training problems; see `trunkline.errors`.
    """
    main = is_main_process()
    report = report if report is not None and main else Report()
    bundle = folder / "bundle"
    with main_process_first():
        _claim(folder, recipe)
        if (bundle / "manifest.json").is_file():
            if main and (folder / "experiment.json").is_file() and not (folder / "MODEL_CARD.md").is_file():
                write_model_card(folder, bundle)
            report.say(f"{bundle} is complete, nothing to do")
            return bundle
    seed_everything(recipe.seed)
    start = load_any(recipe.encoder, fork=recipe.fork, max_length=recipe.max_length)
    if recipe.fork is not None and recipe.fork != start.encoder.fork:
        raise MismatchError(
            f"the recipe's fork is {recipe.fork}", expected=f"{start.encoder.fork}, that of the bundle {recipe.encoder}"
        )
    with main_process_first():  # it fills the cache, the others read it
        opened = open_recipe(recipe, report.say)
        sources: dict[str, list[Source]] = {
            family: load_sources(family, section, recipe.seed, opened[family], start.tokenizer)
            for family, section in recipe.families.items()
        }
    check_families(recipe, sources)
    speed = choose_speed(recipe, start.encoder.config, folder, report.say)
    if main:
        _write_plan(recipe, sources, folder, report)
        write_experiment(folder, recipe.model_copy(update=speed._asdict()), start, opened, sources)
    session = Session(recipe, start, sources, folder, report, speed)
    session.train()
    if main:
        with averaged(session.ema), write_errors(bundle, "all checkpoints are intact"):
            save_bundle(session.result(), bundle)
        write_model_card(folder, bundle)
        report.say(f"saved {bundle}")
    session.accelerator.wait_for_everyone()
    session.accelerator.end_training()
    return bundle


def _write_plan(recipe: PrefinetuneRecipe, sources: dict[str, list[Source]], folder: Path, report: Report) -> None:
    plan = schedule(recipe, sources)
    write_json(plan, folder / "schedule.json")
    for row in plan:
        report.say(
            f"{row['family']}: {row['source']} {row['share']:.1%}, {row['examples']} draws, {row['epochs']} epochs"
        )


class Session:
    """The moving parts of one run."""

    def __init__(
        self,
        recipe: PrefinetuneRecipe,
        start: Loaded,
        sources: dict[str, list[Source]],
        folder: Path,
        report: Report,
        speed: Speed | None = None,
    ) -> None:
        self.recipe, self.start, self.sources, self.folder, self.report = recipe, start, sources, folder, report
        self.speed = speed or usual_speed(recipe)
        self.bf16 = self.speed.precision == "bf16"
        trackers = require_trackers(recipe.monitor.trackers)
        self.accelerator = make_accelerator(self.bf16, log_with=trackers, project_dir=str(folder))
        self.tokenizer = start.tokenizer
        encoder = start.encoder
        encoder.dropout = recipe.optimizer.dropout
        encoder.attention = attention_setting(self.speed, self.accelerator.device)
        distil = recipe.distil
        self.teachers: dict[str, Loaded] = {}
        for family, path in distil.teachers.items() if distil else ():
            self.teachers[family] = load_any(path)
            self.teachers[family].encoder.to(self.accelerator.device).eval()
        self.model = PrefinetuneModel(
            encoder,
            adapters_of(recipe, encoder),
            self._objectives(encoder),
            self._anchors(encoder),
            distil.weight if distil else 0.0,
        )
        thrown_away = nn.ModuleList([self.model.objectives, self.model.anchors])
        groups = parameter_groups(encoder, self.model.adapters, thrown_away, recipe)
        optimizer = optimizer_for(groups, recipe.optimizer.weight_decay)
        self.model.to(self.accelerator.device)
        self.optimizer = self.accelerator.prepare(optimizer)
        self.place = Place(self.accelerator.device, self.accelerator.process_index, self.accelerator.num_processes)
        total = sum(section.weight for section in recipe.families.values())
        self.weights: dict[str, float] = {family: section.weight / total for family, section in recipe.families.items()}
        self.mixtures = {
            family: Mixture(sources[family], recipe.seed, one_source_a_step=section.one_source_a_step)
            for family, section in recipe.families.items()
        }
        self.held_out = [
            HeldOut(family, index, source, self.tokenizer)
            for family, group in sources.items()
            for index, source in enumerate(group)
        ]
        self.probes = [Probe(name, section, recipe.seed) for name, section in recipe.monitor.probes.items()]
        self.ema = Ema(self.model, recipe.optimizer.ema) if recipe.optimizer.ema else None
        self.tokens_seen = 0
        self.batches: dict[str, StepBatch] = {}
        self.last: dict[str, float] = {}

    def train(self) -> None:
        """Trains from the last checkpoint, or from the start, to the end."""
        recipe = self.recipe
        done = self._resume()
        self.metrics = MetricsLog(self.folder / "metrics.jsonl", done) if self.accelerator.is_main_process else None
        self.accelerator.init_trackers("tensorboard")
        self.conflict = self._conflict_log(done)
        if done == 0:
            self._measure(0)
        settings = LoopSettings(
            steps=recipe.optimizer.steps,
            warmup=recipe.optimizer.warmup,
            floor=recipe.optimizer.floor,
            clip=recipe.optimizer.clip,
            log_every=recipe.monitor.log_every,
            evaluate_every=math.gcd(recipe.monitor.every, recipe.monitor.conflict_every if self.conflict else 0),
            save_every=recipe.checkpoint.every,
        )
        hooks = Hooks(
            log=self._log,
            evaluate=self._measure,
            save=self._save,
            not_finite=self._keep_batch,
            stepped=lambda step: self.ema.update() if self.ema else None,
            progress=lambda step: self.report.progress(step, recipe.optimizer.steps, self.last),
        )
        run(self.model, self.optimizer, self.losses, settings, hooks, accelerator=self.accelerator, start=done)

    def result(self) -> Loaded:
        """The trained backbone with its primary adapters."""
        encoder = self.model.encoder.cpu().eval()
        backbone = backbone_hash(encoder)
        info = {
            "recipe": self.recipe.model_dump(mode="json"),
            "start": dict(self.start.info),
            "versions": versions(),
            "speed": self.speed._asdict(),
            "tokens_seen": self.tokens_seen,
        }
        primaries: dict[str, AdapterFile] = {
            family: AdapterFile(family, backbone, encoder.fork, adapter.cpu().eval(), info={"recipe": self.recipe.name})
            for family in self.recipe.families
            if (adapter := self.model.adapter(family)) is not None
        }
        return Loaded(encoder, self.tokenizer, self.start.config, backbone, primaries, {}, info)

    def _objectives(self, encoder: Encoder) -> dict[str, nn.Module]:
        embed = TextEmbedder(encoder, self.tokenizer)
        return {
            family: get_prefinetune_family(family).objective(section, self.sources[family], embed, self.recipe.seed)
            for family, section in self.recipe.families.items()
        }

    def _anchors(self, encoder: Encoder) -> dict[str, MaskedLMObjective]:
        return {
            family: masked_lm_of(encoder, self.tokenizer, self.recipe.seed)
            for family, section in self.recipe.families.items()
            if section.anchor
        }

    def losses(self, step: int) -> Losses:
        """Each family's name, weight and loss of a step, one after the other."""
        freeze(self.model.encoder, self.recipe, step)
        losses = self._family_losses(step)
        if self.recipe.strategy != "pcgrad":
            return losses
        return project_conflicts(
            losses,
            list(self.model.encoder.parameters()),
            np.random.default_rng([self.recipe.seed, step]),
            self.place.processes,
        )

    def _family_losses(self, step: int) -> Losses:
        self.batches = {}
        for family, section in self.recipe.families.items():
            batch = draw_batch(
                family,
                self.mixtures[family],
                self.model.objectives[family],
                self.tokenizer,
                step=step,
                section=section,
                pad_id=self.start.encoder.config.pad_id,
                place=self.place,
            )
            self.batches[family] = batch
            self.tokens_seen += batch.n_tokens
            with self.accelerator.autocast():
                taught = self._taught(family, batch)
            for loss in self._parts(family, taught):
                yield family, self.weights[family], loss
            if section.anchor and self.model.encoder.embeddings.word.weight.requires_grad:
                with self.accelerator.autocast():
                    loss = self.model.anchor_loss(family, batch, step)
                yield f"{family}-anchor", self.weights[family] * section.anchor, loss

    def _parts(self, family: str, batch: StepBatch) -> Iterator[Tensor]:
        """The family's loss in parts; autocast is left while the caller back-propagates one."""
        parts = self.model.losses(family, batch)
        while True:
            with self.accelerator.autocast():
                part = next(parts, None)
            if part is None:
                return
            yield part

    def _taught(self, family: str, batch: StepBatch) -> StepBatch:
        """The batch with the features of the family's teacher, if it has one."""
        teacher = self.teachers.get(family)
        if teacher is None:
            return batch
        with torch.no_grad():
            adapter = teacher.primary(family)
            features = torch.cat([chunk.pool(teacher.encoder(chunk, adapter)) for chunk in batch.chunks])
        return replace(batch, teacher=features)

    def _log(self, step: int, values: dict[str, float]) -> None:
        self.last = values
        row = {**values, "tokens_seen": float(self.tokens_seen)}
        if self.metrics is not None:
            self.metrics.write(step, row)
        self.accelerator.log(row, step=step)

    def _conflict_log(self, done: int) -> ConflictLog | None:
        """Where conflict is written, with the batches on which it is measured; nothing where there can be none."""
        monitor, encoder = self.recipe.monitor, self.model.encoder
        freeze(encoder, self.recipe, done)
        if not monitor.conflict_every or len(self.recipe.families) < 2 or not shared_parameters(encoder)[0]:
            return None
        drawn = draw_batches(self.recipe, self.sources, self.model, self.tokenizer)
        self.compared = [
            {family: self._taught(family, batch) for family, batch in batches.items()}
            for batches in islice(drawn, monitor.conflict_batches)
        ]
        return ConflictLog(self.folder / "conflict.jsonl", done)

    def _measure(self, step: int) -> bool:
        """What is due after a step: held-out measures, and the families' conflict; the main process measures."""
        if not self.accelerator.is_main_process:
            self.accelerator.wait_for_everyone()
            return False
        try:
            return self._measure_here(step)
        finally:
            self.accelerator.wait_for_everyone()

    def _measure_here(self, step: int) -> bool:
        monitor = self.recipe.monitor
        if self.conflict and step % monitor.conflict_every == 0 and shared_parameters(self.model.encoder)[0]:
            measured = measure_conflict(self.model, self.compared, bf16=self.bf16, weights=self.weights)
            self.conflict.write(step, measured)
        return bool(monitor.every) and step % monitor.every == 0 and self._evaluate(step)

    def _evaluate(self, step: int) -> bool:
        with averaged(self.ema):
            values = evaluate(self.model, self.held_out, self.probes, self.tokenizer, bf16=self.bf16)
            rules: dict[str, str] = {f: m for f, m in self.recipe.checkpoint.best.items() if f in self.recipe.families}
            found = keep_best(self.folder / "checkpoints", rules, step, values, self.model)
        if self.metrics is not None:
            self.metrics.write(step, values)
        self.accelerator.log(values, step=step)
        short = {name: value for name, value in values.items() if name.count("/") < 3}
        self.report.say(f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in short.items()))
        if found:
            self.report.say(f"step {step}: the best so far for {' and '.join(found)}")
        return False

    def _save(self, step: int) -> None:
        extra = {
            "recipe": self.recipe.model_dump(mode="json"),
            "mixtures": {family: mixture.state() for family, mixture in self.mixtures.items()},
            "tokens_seen": self.tokens_seen,
        }
        states = gather_states(random_state(), self.place.processes)
        if self.metrics is not None:
            self.metrics.sync()
            folder, keep = self.folder / "checkpoints", self.recipe.checkpoint.keep
            save_checkpoint(folder, step, self.model, self.optimizer.optimizer, extra, keep, self.ema, states)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> int:
        found = checkpoints(self.folder / "checkpoints")
        if not found:
            return 0
        step, extra = load_checkpoint(found[-1], self.model, self.optimizer.optimizer, self.ema, self.place.rank)
        for family, mixture in self.mixtures.items():
            mixture.restore(extra["mixtures"][family])
        self.tokens_seen = int(extra["tokens_seen"])
        self.report.say(f"going on after step {step}")
        return step

    def _keep_batch(self, step: int) -> str:
        path = self.folder / f"not-finite-step-{step + 1}.json"
        rows = {
            family: [
                {
                    "source": self.sources[family][source].name,
                    "example": repr(self.sources[family][source].train[index]),
                }
                for source, index in batch.drawn
            ]
            for family, batch in self.batches.items()
        }
        write_json(rows, path)
        return str(path)


def _claim(folder: Path, recipe: PrefinetuneRecipe) -> None:
    """Writes the resolved recipe into the run's folder, or checks that it is the one that is there."""
    path = folder / "recipe.json"
    ours = recipe.model_dump(mode="json")
    if not path.is_file():
        write_json(ours, path)
        return
    # A key that the file lacks has its default.
    theirs = parse_recipe(json.loads(path.read_text(encoding="utf-8")), PrefinetuneRecipe, path).model_dump(mode="json")
    changed = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
    if changed:
        raise MismatchError(
            f"{folder} holds a run whose recipe differs in {', '.join(changed)}",
            expected="the recipe that it was started with",
            todo="Choose another folder with --out, or delete this one",
        )
