"""A pre-finetuning run from recipe to bundle, resumable at every checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from trunkline.config import PrefinetuneRecipe
from trunkline.data.mixture import Mixture, Source
from trunkline.errors import MismatchError
from trunkline.families import get_family
from trunkline.model.adapter_file import AdapterFile
from trunkline.model.bundle_files import Loaded, load_any, save_bundle
from trunkline.model.embed import embed_texts
from trunkline.model.encoder import Encoder
from trunkline.model.storage import backbone_hash, write_json
from trunkline.prefinetune.mixing import schedule
from trunkline.prefinetune.model import PrefinetuneModel, StepBatch, check_families, draw_batch, primary_adapters
from trunkline.prefinetune.monitor import HeldOut, Probe, evaluate
from trunkline.prefinetune.sources import recipe_sources
from trunkline.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint, seed_everything
from trunkline.training.log import MetricsLog
from trunkline.training.loop import Hooks, LoopSettings, optimizer_for, run
from trunkline.training.precision import make_accelerator, resolve_precision
from trunkline.training.report import Report
from trunkline.versions import versions


def prefinetune(recipe: PrefinetuneRecipe, folder: Path, report: Report | None = None) -> Path:
    """Runs a recipe, or goes on with an interrupted run in the same folder.

    Args:
        recipe: What to do.
        folder: The run's folder: `recipe.json`, `metrics.jsonl`, `tensorboard/`, `checkpoints/` and, when it is done,
            `bundle/`.
        report: How the caller follows it.

    Returns:
        The folder of the bundle.

    Raises:
        MismatchError: The folder holds a run of another recipe.
        TrunklineError: Data, encoder or training problems; see `trunkline.errors`.
    """
    report = report or Report()
    bundle = folder / "bundle"
    _claim(folder, recipe)
    if (bundle / "manifest.json").is_file():
        report.say(f"{bundle} is complete, nothing to do")
        return bundle
    seed_everything(recipe.seed)
    start = load_any(recipe.encoder, fork=recipe.fork, max_length=recipe.max_length)
    if recipe.fork is not None and recipe.fork != start.encoder.fork:
        raise MismatchError(
            f"the recipe's fork is {recipe.fork}", expected=f"{start.encoder.fork}, that of the bundle {recipe.encoder}"
        )
    sources = recipe_sources(recipe, start.tokenizer, report.say)
    check_families(recipe, sources)
    plan = schedule(recipe, sources)
    write_json(plan, folder / "schedule.json")
    for row in plan:
        report.say(
            f"{row['family']}: {row['source']} {row['share']:.1%}, {row['examples']} draws, {row['epochs']} epochs"
        )
    session = Session(recipe, start, sources, folder, report)
    session.train()
    save_bundle(session.result(), bundle)
    report.say(f"saved {bundle}")
    return bundle


class Session:
    """The moving parts of one run."""

    def __init__(
        self,
        recipe: PrefinetuneRecipe,
        start: Loaded,
        sources: dict[str, list[Source]],
        folder: Path,
        report: Report,
    ) -> None:
        self.recipe, self.start, self.sources, self.folder, self.report = recipe, start, sources, folder, report
        self.bf16 = resolve_precision(recipe.precision) == "bf16"
        self.accelerator = make_accelerator(self.bf16, log_with="tensorboard", project_dir=str(folder))
        self.tokenizer = start.tokenizer
        encoder = start.encoder
        encoder.dropout = recipe.optimizer.dropout
        self.model = PrefinetuneModel(encoder, primary_adapters(recipe, encoder), self._objectives(encoder))
        optimizer = optimizer_for(_groups(self.model, recipe), recipe.optimizer.weight_decay)
        self.prepared, self.optimizer = self.accelerator.prepare(self.model, optimizer)
        total = sum(section.weight for section in recipe.families.values())
        self.weights = {family: section.weight / total for family, section in recipe.families.items()}
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
        self.tokens_seen = 0
        self.batches: dict[str, StepBatch] = {}
        self.last: dict[str, float] = {}

    def train(self) -> None:
        """Trains from the last checkpoint, or from the start, to the end."""
        recipe = self.recipe
        done = self._resume()
        self.metrics = MetricsLog(self.folder / "metrics.jsonl", done)
        self.accelerator.init_trackers("tensorboard")
        if done == 0 and recipe.monitor.every:
            self._evaluate(0)
        settings = LoopSettings(
            steps=recipe.optimizer.steps,
            warmup=recipe.optimizer.warmup,
            floor=recipe.optimizer.floor,
            clip=recipe.optimizer.clip,
            log_every=recipe.monitor.log_every,
            evaluate_every=recipe.monitor.every,
            save_every=recipe.checkpoint.every,
        )
        hooks = Hooks(
            log=self._log,
            evaluate=self._evaluate,
            save=self._save,
            not_finite=self._keep_batch,
            progress=lambda step: self.report.progress(step, recipe.optimizer.steps, self.last),
        )
        run(self.prepared, self.optimizer, self.losses, settings, hooks, accelerator=self.accelerator, start=done)
        self.accelerator.end_training()

    def result(self) -> Loaded:
        """The trained backbone with its primary adapters."""
        encoder = self.model.encoder.cpu().eval()
        backbone = backbone_hash(encoder)
        info = {
            "recipe": self.recipe.model_dump(mode="json"),
            "start": dict(self.start.info),
            "versions": versions(),
            "tokens_seen": self.tokens_seen,
        }
        primaries: dict[str, AdapterFile] = {
            family: AdapterFile(family, backbone, encoder.fork, adapter.cpu().eval(), info={"recipe": self.recipe.name})
            for family in self.recipe.families
            if (adapter := self.model.adapter(family)) is not None
        }
        return Loaded(encoder, self.tokenizer, self.start.config, backbone, primaries, {}, info)

    def _objectives(self, encoder: Encoder) -> dict[str, nn.Module]:
        def embed(texts: Sequence[str]) -> Tensor:
            return torch.from_numpy(embed_texts(encoder, self.tokenizer, texts))

        return {
            family: get_family(family).objective(section, self.sources[family], embed, self.recipe.seed)
            for family, section in self.recipe.families.items()
        }

    def losses(self, step: int) -> Iterator[tuple[str, float, Tensor]]:
        """Each family's name, weight and loss of a step, one after the other."""
        self.batches = {}
        for family, section in self.recipe.families.items():
            batch = draw_batch(
                family,
                self.mixtures[family],
                self.model.objectives[family],
                self.tokenizer,
                step=step,
                budget=section.tokens,
                pad_id=self.start.encoder.config.pad_id,
                device=self.accelerator.device,
            )
            self.batches[family] = batch
            self.tokens_seen += batch.tokens.n_tokens
            with self.accelerator.autocast():
                loss = self.prepared(family, batch)
            yield family, self.weights[family], loss

    def _log(self, step: int, values: dict[str, float]) -> None:
        self.last = values
        row = {**values, "tokens_seen": float(self.tokens_seen)}
        self.metrics.write(step, row)
        self.accelerator.log(row, step=step)

    def _evaluate(self, step: int) -> bool:
        values = evaluate(self.model, self.held_out, self.probes, self.tokenizer, bf16=self.bf16)
        self.metrics.write(step, values)
        self.accelerator.log(values, step=step)
        short = {name: value for name, value in values.items() if name.count("/") < 3}
        self.report.say(f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in short.items()))
        return False

    def _save(self, step: int) -> None:
        extra = {
            "recipe": self.recipe.model_dump(mode="json"),
            "mixtures": {family: mixture.state() for family, mixture in self.mixtures.items()},
            "tokens_seen": self.tokens_seen,
        }
        folder = self.folder / "checkpoints"
        save_checkpoint(folder, step, self.model, self.optimizer.optimizer, extra, self.recipe.checkpoint.keep)

    def _resume(self) -> int:
        found = checkpoints(self.folder / "checkpoints")
        if not found:
            return 0
        step, extra = load_checkpoint(found[-1], self.model, self.optimizer.optimizer)
        for family, mixture in self.mixtures.items():
            mixture.restore(extra["mixtures"][family])
        self.tokens_seen = int(extra["tokens_seen"])
        self.report.say(f"going on after step {step}")
        return step

    def _keep_batch(self, step: int) -> str:
        path = self.folder / f"not-finite-step-{step + 1}.json"
        rows = {
            family: [
                {"source": self.sources[family][source].name, "example": repr(example)}
                for source, example in batch.drawn
            ]
            for family, batch in self.batches.items()
        }
        write_json(rows, path)
        return str(path)


def _groups(model: PrefinetuneModel, recipe: PrefinetuneRecipe) -> dict[str, tuple[list[nn.Parameter], float]]:
    rates = recipe.optimizer
    return {
        "backbone": (list(model.encoder.parameters()), rates.backbone_rate),
        "adapters": (list(model.adapters.parameters()), rates.adapter_rate),
        "objectives": (list(model.objectives.parameters()), rates.objective_rate),
    }


def _claim(folder: Path, recipe: PrefinetuneRecipe) -> None:
    """Writes the resolved recipe into the run's folder, or checks that it is the one that is there."""
    path = folder / "recipe.json"
    ours = recipe.model_dump(mode="json")
    if not path.is_file():
        write_json(ours, path)
        return
    theirs = json.loads(path.read_text(encoding="utf-8"))
    changed = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
    if changed:
        raise MismatchError(
            f"{folder} holds a run whose recipe differs in {', '.join(changed)}",
            expected="the recipe that it was started with",
            todo="Choose another folder with --out, or delete this one",
        )
