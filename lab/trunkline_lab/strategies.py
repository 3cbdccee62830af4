"""Every strategy on the same data, order, steps and seeds: dev measures and probes on spare tasks, none of the 21.

    trunkline-lab strategies --seeds 0 1 2 --out lab/results/strategies
    trunkline-lab strategies --start runs/mlm-restored/bundle --no-conflict --runs runs/strategies-restored \
        --strategies individual-ner individual-classification naive task-primary merge-average merge-ties \
        --out lab/results/strategies-restored
    trunkline-lab strategies --start runs/mlm-restored/bundle --no-conflict --steps 2000 --seeds 0 \
        --runs runs/strategies-longer --strategies task-primary task-primary@0.5 --out lab/results/strategies-longer

The second starts from the encoder of lab/recipes/mlm-restored.yaml instead of the default one; the third trains longer,
too. Besides recipes and merges, `NAME@0.5` is half of what NAME learnt (`NAME@0` nothing of it, `NAME@1` all). Can be
stopped and run again: finished runs are not repeated. Needs the data sets of lab/recipes/mixtures/open.yaml.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import typer
from scipy import stats

from trunkline.bundle.files import write_atomic
from trunkline.config import load_recipe
from trunkline.encoder.bundle_files import load_any
from trunkline.errors import TrunklineError
from trunkline.prefinetune import prefinetune
from trunkline.prefinetune.strategies import merge_bundles
from trunkline.training import read_rows, write_rows
from trunkline.training.loop import resolve_precision
from trunkline.ui import training_bar
from trunkline.versions import versions
from trunkline_lab.conflict.measure import FILE as CONFLICT_FILE
from trunkline_lab.conflict.report import ConflictWatch
from trunkline_lab.data.finder import CardFinder
from trunkline_lab.probes import Probe, ProbedRecipe, ProbeWatch, watch_all

RECIPES = Path("lab/recipes/strategies")
STRATEGIES = (
    "task-primary",
    "naive",
    "individual-ner",
    "individual-classification",
    "single-adapter",
    "frozen-backbone",
    "pcgrad",
)
MERGES = {"merge-average": "average", "merge-ties": "ties"}
REFERENCES = ("none", "naive", "task-primary")
"""Strategies with which the others are compared."""
CONFLICT_EVERY, CONFLICT_BATCHES, COMPARED = 100, 24, ("naive", "task-primary")
"""Steps between measurements of conflict, batches of each, and the strategies that are measured."""
MEASURES = ("dev/ner/recall_at_1", "dev/classification/mrr")


def last_measures(folder: Path) -> dict[str, float]:
    """The measures of a run's last evaluation, and of its first under `start/`."""
    rows = read_rows(folder / "metrics.jsonl")
    wanted = [key for row in rows for key in row if key.startswith("probe/") or key in MEASURES]
    last = {key: row[key] for row in rows for key in dict.fromkeys(wanted) if key in row}
    first = {key: row[key] for row in reversed(rows) for key in last if key in row}
    return {**last, **{f"start/{key}": value for key, value in first.items() if key.startswith("probe/")}}


def recipe_of(name: str, options: argparse.Namespace, seed: int) -> ProbedRecipe:
    """A strategy's recipe with a seed, and with the encoder, the steps and the monitoring that the options ask for.

    Other steps than the recipe's are measured at the end alone.
    """
    over: dict[str, Any] = {"seed": seed, "encoder": options.start}
    if options.steps is not None:
        over["monitor"] = {"every": options.steps}
        over["optimizer"] = {"steps": options.steps}
    recipe = load_recipe(RECIPES / f"{name}.yaml", ProbedRecipe, over)
    return recipe.model_copy(update={"name": f"{recipe.name}-{seed}"})


def run_strategy(recipe: ProbedRecipe, runs: Path, conflict: bool) -> dict[str, float]:
    """Runs a recipe, or reads what it measured."""
    watch: Any = ProbeWatch(recipe)
    if conflict and recipe.strategy in COMPARED:
        watch = watch_all(ConflictWatch(CONFLICT_EVERY, CONFLICT_BATCHES), watch)
    with training_bar(recipe.name) as report:
        prefinetune(recipe, runs / recipe.name, report, finder=CardFinder(), watch=watch)
    return last_measures(runs / recipe.name)


def run_merge(method: str, recipe: ProbedRecipe, seed: int, runs: Path) -> dict[str, float]:
    """Merges the two individual runs of a seed and probes the result; the recipe says of what and with which probes."""
    parts = [runs / f"individual-{family}-{seed}" / "bundle" for family in recipe.families]
    out = runs / f"merge-{method}-{seed}"
    if not (out / "manifest.json").is_file():
        merge_bundles(parts, out, base=recipe.encoder, method=method)  # type: ignore[arg-type]
    return probe(str(out), recipe, seed)


def run_part(name: str, share: float, recipe: ProbedRecipe, seed: int, runs: Path) -> dict[str, float]:
    """Goes a share of the way from the start to what a run has learnt, and probes the result."""
    if share in (0.0, 1.0):
        return probe(str(runs / f"{name}-{seed}" / "bundle") if share else recipe.encoder, recipe, seed)
    out = runs / f"{name}@{share:g}-{seed}"
    if not (out / "manifest.json").is_file():
        merge_bundles([runs / f"{name}-{seed}" / "bundle"], out, base=recipe.encoder, scale=share)
    return probe(str(out), recipe, seed)


def probe(bundle: str, recipe: ProbedRecipe, seed: int) -> dict[str, float]:
    """A bundle's probes, as the recipe has them."""
    loaded = load_any(bundle)
    bf16 = resolve_precision(recipe.precision) == "bf16"
    return {
        f"probe/{name}": Probe(section, seed).measure(
            loaded.encoder, loaded.primaries.get(section.family), loaded.tokenizer, bf16=bf16
        )
        for name, section in recipe.monitor.probes.items()
    }


def measure(asked: str, base: ProbedRecipe, seed: int, options: argparse.Namespace) -> tuple[str, dict[str, float]]:
    """What a strategy is called in the tables, and its measures."""
    runs: Path = options.runs
    name, at, share = asked.partition("@")
    if at:
        shown = {0.0: "none", 1.0: name}.get(float(share), asked)
        return shown, run_part(name, float(share), base, seed, runs)
    if name in MERGES:
        return name, run_merge(MERGES[name], base, seed, runs)
    return name, run_strategy(recipe_of(name, options, seed), runs, options.conflict)


def summarise(rows: Sequence[dict[str, Any]], families: Mapping[str, str]) -> list[dict[str, Any]]:
    """Mean and 95 % t-interval over seeds of each measure and of the mean probe of each family, by strategy.

    `over` holds the same of the differences to other strategies. They are paired, as a seed draws the same data and the
    same few labels of the probes for all.
    """
    values: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for row in rows:
        measures = dict(row["measures"])
        for family in sorted(set(families.values())):
            probes = [v for k, v in measures.items() if families.get(k.removeprefix("probe/")) == family]
            if probes:
                measures[f"probes/{family}"] = float(np.mean(probes))
        for name, value in measures.items():
            values[row["strategy"], name][row["seed"]] = value
    summary = []
    for (strategy, name), found in values.items():
        over = {}
        for other in REFERENCES:
            seeds = sorted(found.keys() & values.get((other, name), {}).keys())
            if seeds and other != strategy:
                over[other] = _mean_and_half([found[seed] - values[other, name][seed] for seed in seeds])
        mean = _mean_and_half(list(found.values()))
        summary.append({"strategy": strategy, "measure": name, "seeds": len(found), **mean, "over": over})
    return summary


def _mean_and_half(values: Sequence[float]) -> dict[str, float | None]:
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "half": half}


def table(summary: Sequence[dict[str, Any]], measures: Sequence[str], over: str | None = None) -> str:
    """The summary in Markdown, in percent, or the gains over a strategy in points."""
    cells = {(row["strategy"], row["measure"]): row for row in summary}
    lines = ["| strategy | " + " | ".join(measures) + " |", "|---" * (len(measures) + 1) + "|"]
    for strategy in dict.fromkeys(row["strategy"] for row in summary):
        if strategy != over:
            found = [cells.get((strategy, measure), {}) for measure in measures]
            shown = [_cell(row if over is None else row.get("over", {}).get(over, {}), over) for row in found]
            lines.append(f"| {strategy} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def _cell(row: dict[str, Any], over: str | None) -> str:
    if not row:
        return ""
    spread = "" if row["half"] is None else f" ± {100 * row['half']:.1f}"
    return f"{100 * row['mean']:{'+' if over else ''}.1f}{spread}"


def write_tables(summary: Sequence[dict[str, Any]], families: Mapping[str, str], out: Path) -> None:
    """Writes table.md: all measures, then the paired differences to each strategy of `REFERENCES`."""
    shown = [*MEASURES, "probes/ner", "probes/classification", *(f"probe/{probe}" for probe in families)]
    parts = [table(summary, shown)]
    for other in REFERENCES:
        measures = shown[len(MEASURES) :] if other == "none" else shown[: len(MEASURES) + 2]
        parts.append(f"Difference to {other}, in points, paired by seed:\n\n" + table(summary, measures, other))
    write_atomic(out / "table.md", "\n".join(parts))


def pool_conflict(runs: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Cosines of the families' gradients by layer, averaged over steps after 0 and over seeds, with 95 % intervals.

    `half` is the larger of the t-interval over seeds and of what the noise of batches within the runs amounts to: three
    seeds can agree by chance far better than their batches allow. All steps of a run see the same batches, so that they
    do not make its noise smaller. `over_naive` is the difference to naive training, the noise of both counted in full.
    """
    cosines: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    noise: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for strategy, seed in ((name, seed) for name in ("naive", "task-primary") for seed in seeds):
        found: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
        for row in read_rows(runs / f"{strategy}-{seed}" / CONFLICT_FILE):
            shown = strategy if strategy == "naive" or row["adapters"] else f"{strategy}, adapters out"
            if row["step"]:
                found[shown, row["group"]].append((row["cosine"], row["cosine_se"]))
        for key, values in found.items():
            cosines[key][seed], noise[key][seed] = (float(x) for x in np.mean(values, axis=0))
    pooled = []
    for (shown, group), by_seed in cosines.items():
        errors = noise[shown, group]
        row = {"strategy": shown, "group": group, "seeds": len(by_seed), **_no_narrower(by_seed, errors)}
        if shown != "naive":
            differences = {seed: value - cosines["naive", group][seed] for seed, value in by_seed.items()}
            both = {seed: float(np.hypot(error, noise["naive", group][seed])) for seed, error in errors.items()}
            row["over_naive"] = _no_narrower(differences, both)
        pooled.append(row)
    return pooled


def _no_narrower(values: dict[int, float], errors: dict[int, float]) -> dict[str, float | None]:
    found = _mean_and_half(list(values.values()))
    batches = 1.96 * float(np.linalg.norm(list(errors.values()))) / len(errors)
    return {**found, "half": max(found["half"] or 0.0, batches), "half_over_seeds": found["half"]}


def conflict_table(pooled: Sequence[dict[str, Any]]) -> str:
    """The pooled cosines in Markdown: whole layers as rows, strategies as columns."""
    cells = {(row["group"], row["strategy"]): row for row in pooled}
    strategies = list(dict.fromkeys(row["strategy"] for row in pooled))
    lines = ["| group | " + " | ".join([*strategies, "task-primary over naive"]) + " |", "|---" * 5 + "|"]
    for group in dict.fromkeys(row["group"] for row in pooled if "/" not in row["group"]):
        found = [cells[group, name] for name in strategies] + [cells[group, "task-primary"]["over_naive"]]
        shown = [f"{row['mean']:+.3f}" + (f" ± {row['half']:.3f}" if row["half"] else "") for row in found]
        lines.append(f"| {group} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is missing and writes results.jsonl, summary.json, table.md, conflict.json and conflict.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--strategies", nargs="+", default=[*STRATEGIES, *MERGES])
    parser.add_argument("--runs", type=Path, default=Path("runs/strategies"))
    parser.add_argument("--out", type=Path, default=Path("lab/results/strategies"))
    parser.add_argument("--start", default="default", help="encoder or bundle to start from")
    parser.add_argument("--no-conflict", dest="conflict", action="store_false", help="leave the conflict unmeasured")
    parser.add_argument("--steps", type=int, help="instead of the recipes'")
    options = parser.parse_args(arguments)
    try:
        bases = {seed: recipe_of("task-primary", options, seed) for seed in options.seeds}
    except TrunklineError as error:
        parser.error(str(error))
    base = bases[options.seeds[0]]
    families = {name: section.family for name, section in base.monitor.probes.items()}
    for seed in options.seeds:
        for asked in options.strategies:
            name, measures = measure(asked, bases[seed], seed, options)
            rows = [r for r in read_rows(options.out / "results.jsonl") if (r["strategy"], r["seed"]) != (name, seed)]
            start = {k.removeprefix("start/"): v for k, v in measures.items() if k.startswith("start/")}
            if start and name == "naive":
                rows = [r for r in rows if (r["strategy"], r["seed"]) != ("none", seed)]
                rows.append({"strategy": "none", "seed": seed, "measures": start, "versions": versions()})
            kept = {k: v for k, v in measures.items() if not k.startswith("start/")}
            rows.append({"strategy": name, "seed": seed, "measures": kept, "versions": versions()})
            write_rows(options.out / "results.jsonl", rows)
            summary = summarise(rows, families)
            write_atomic(options.out / "summary.json", json.dumps(summary, indent=2) + "\n")
            write_tables(summary, families, options.out)
    if options.conflict:
        pooled = pool_conflict(options.runs, options.seeds)
        write_atomic(options.out / "conflict.json", json.dumps(pooled, indent=2) + "\n")
        write_atomic(options.out / "conflict.md", conflict_table(pooled))
    typer.echo((options.out / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
