"""The tables of cells: methods on the draws that all of them have, pairs of methods draw by draw, and the targets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.bundle.files import write_atomic
from trunkline.tasks import FAMILIES
from trunkline_lab.benchmark.stats import holm
from trunkline_lab.few_labels.draws import JUDGES
from trunkline_lab.resampling import RESAMPLES, interval

Row = Mapping[str, Any]
Cell = tuple[str, str, int, int]
FloatArray = npt.NDArray[np.float64]

GROUPS: Mapping[str, Sequence[Sequence[str]]] = {
    "classification": (("head", "build", "regression", "tf_idf"), ("auto", "head", "setfit")),
    "ner": (("head", "build"), ("auto", "head", "hf_full", "spacy")),
}
"""Methods that are shown together, on the draws that all have."""

PAIRS: Sequence[tuple[str, str, str]] = (
    *(("classification", "head", other) for other in ("build", "regression", "tf_idf")),
    *(("classification", "auto", other) for other in ("setfit", "head")),
    *(("ner", *pair) for pair in (("head", "build"), ("auto", "head"), ("auto", "hf_full"), ("auto", "spacy"))),
)
SEEN = ("cr", "sst5")
"""Judges that settings of the head, not of LoRA, were chosen on among others."""

TASKS = 8
"""Least number of tasks that a mean is judged by."""

LEAST_DRAWS = 5
"""For a test of a task."""


@dataclass(frozen=True)
class Compared:
    """One method over another: differences in percent by task, [draws] each, and the tasks significantly below."""

    differences: Mapping[str, FloatArray]
    below: Sequence[str]

    @property
    def mean(self) -> float:
        """Over tasks, of the means over draws."""
        return float(np.mean([part.mean() for part in self.differences.values()]))

    @property
    def bounds(self) -> list[float]:
        """Of `mean`, 95 %: tasks are drawn anew, then their draws."""
        rng, parts = np.random.default_rng(0), list(self.differences.values())
        chosen = rng.integers(len(parts), size=(RESAMPLES, len(parts)))
        return interval(
            np.asarray([np.mean([rng.choice(parts[n], len(parts[n])).mean() for n in row]) for row in chosen])
        )

    @property
    def worst(self) -> tuple[float, str]:
        """The least mean of a task."""
        return min((float(part.mean()), task) for task, part in self.differences.items())


def cells_of(rows: Sequence[Row], family: str) -> dict[str, dict[Cell, Row]]:
    """Rows of a family by method and (task, kind, size, seed)."""
    found: dict[str, dict[Cell, Row]] = {}
    for row in rows:
        if row["family"] == family:
            found.setdefault(row["method"], {})[row["task"], row["kind"], row["size"], row["seed"]] = row
    return found


def compare(over: Mapping[Cell, Row], under: Mapping[Cell, Row], measure: str) -> Compared | None:
    """Of the draws that both have; None without any.

    A task is below where a paired t-test of a kind and size with at least `LEAST_DRAWS` draws says so, corrected over
    the tasks of that kind and size (Holm 1979).
    """
    from scipy.stats import ttest_1samp

    both = sorted(over.keys() & under.keys())
    gaps = {cell: 100 * (over[cell][measure] - under[cell][measure]) for cell in both}
    tasks = {
        task: np.asarray([gaps[cell] for cell in both if cell[0] == task])
        for task in sorted({cell[0] for cell in both})
    }
    below = []
    for setting in sorted({cell[1:3] for cell in both}):
        parts = {task: np.asarray([gaps[c] for c in both if c[0] == task and c[1:3] == setting]) for task in tasks}
        tested = {task: part for task, part in parts.items() if len(part) >= LEAST_DRAWS and np.ptp(part) > 0}
        chances = holm([float(ttest_1samp(part, 0).pvalue) for part in tested.values()])
        pairs = zip(tested.items(), chances, strict=True)
        below += [f"{task} ({setting[0]}, {setting[1]})" for (task, part), p in pairs if p < 0.05 and part.mean() < 0]
    return Compared(tasks, below) if both else None


def means_table(rows: Sequence[Row], family: str, methods: Sequence[str]) -> list[str]:
    """Means over tasks and draws of the cells that all of these methods have, for each kind and size."""
    cells = cells_of(rows, family)
    known = [name for name in methods if name in cells]
    common = set.intersection(*(set(cells[name]) for name in known)) if known else set()
    main = FAMILIES[family].main_score
    heads = ("draws", "labels a class", "method", "tasks", "score", "macro-F1", "log loss", "ECE", "s", "kB a task")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for kind, size in sorted({cell[1:3] for cell in common}):
        for name in known:
            found = [cells[name][cell] for cell in sorted(common) if cell[1:3] == (kind, size)]
            shown = [f"{100 * mean_of(found, key):.1f}" for key in (main, "macro_f1")]
            calibration = "calibration_error" if family == "classification" else "entity_calibration_error"
            shown += [_or_none(found, key) for key in ("log_loss", calibration)]
            seconds = np.median([row["seconds"] for row in found])
            shown += [f"{seconds:.2f}" if seconds < 10 else f"{seconds:.0f}"]
            shown += [f"{np.mean([row['bytes'] for row in found]) / 1000:,.0f}" if found[0]["bytes"] else ""]
            lines.append(f"| {kind} | {size} | `{name}` | {len({r['task'] for r in found})} | {' | '.join(shown)} |")
    return lines if len(lines) > 2 else []


def mean_of(rows: Sequence[Row], name: str) -> float:
    """The mean over tasks of the means over their rows."""
    tasks = sorted({row["task"] for row in rows})
    return float(np.mean([np.mean([row[name] for row in rows if row["task"] == task]) for task in tasks]))


def _or_none(rows: Sequence[Row], name: str) -> str:
    return f"{mean_of(rows, name):.3f}" if all(name in row for row in rows) else ""


def pairs_table(rows: Sequence[Row], judges: bool) -> list[str]:
    """Each pair of methods on the draws that both have, both measures."""
    heads = (
        "family",
        "methods",
        "measure",
        "tasks",
        "draws",
        "difference",
        "95 %",
        "worst task",
        "significantly below",
    )
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for family, one, other in PAIRS:
        cells = cells_of([row for row in rows if (row["task"] in JUDGES) == judges or family == "ner"], family)
        for measure in (FAMILIES[family].main_score, "macro_f1"):
            found = compare(cells.get(one, {}), cells.get(other, {}), measure)
            if found is None:
                continue
            low, high = found.bounds
            worst = f"{found.worst[1]} {found.worst[0]:+.1f}"
            count = sum(map(len, found.differences.values()))
            what = f"| {family} | `{one}` - `{other}` | {measure} | {len(found.differences)} | {count} "
            lines.append(
                f"{what}| {found.mean:+.1f} | {low:+.1f} to {high:+.1f} | {worst} | {', '.join(found.below)} |"
            )
    return lines if len(lines) > 2 else []


def tasks_table(rows: Sequence[Row], family: str) -> list[str]:
    """The main score of each task, kind and size by method, over the draws that each method has."""
    cells = cells_of(rows, family)
    names = [name for group in GROUPS[family] for name in group if name in cells]
    names = list(dict.fromkeys(names))
    main = FAMILIES[family].main_score
    lines = ["| task | draws | labels a class | " + " | ".join(f"`{n}`" for n in names) + " |"]
    lines.append("|---" * (len(names) + 3) + "|")
    for task, kind, size in sorted({cell[:3] for name in names for cell in cells[name]}):
        shown = []
        for name in names:
            found = [100 * row[main] for cell, row in cells[name].items() if cell[:3] == (task, kind, size)]
            shown.append(f"{np.mean(found):.1f} ({len(found)})" if found else "")
        lines.append(f"| {task} | {kind} | {size} | {' | '.join(shown)} |")
    return lines if len(lines) > 2 else []


def report(rows: Sequence[Row]) -> str:
    """Markdown: means, pairs and tasks, for the judges and for the spare tasks."""
    parts = ["### Targets", "", *targets(rows), ""]
    for title, judges in (("Judges", True), ("Spare tasks", False)):
        chosen = [row for row in rows if (row["task"] in JUDGES) == judges]
        for family, groups in GROUPS.items():
            for group in groups:
                table = means_table([row for row in chosen if row["family"] == family], family, group)
                parts += (
                    [f"### {title}: {family}, {', '.join(f'`{n}`' for n in group)}", "", *table, ""] if table else []
                )
        pairs = pairs_table(chosen, judges)
        parts += [f"### {title}: differences, draw by draw", "", *pairs, ""] if pairs else []
    for family in GROUPS:
        table = tasks_table(rows, family)
        parts += [f"### Tasks of {family}", "", *table, ""] if table else []
    return "\n".join(parts).strip() + "\n"


Cells = Mapping[Cell, Row]
Line = tuple[str, str, bool]
"""What was asked, what was measured, and whether that is met."""

LEAST: Sequence[tuple[str, str, str, int, float]] = (
    ("classification", "head", "build", 0, 5.0),
    ("classification", "auto", "setfit", 0, 0.0),
    ("ner", "head", "build", 0, 12.0),
    ("ner", "auto", "hf_full", 16, 5.0),
    ("ner", "auto", "spacy", 16, 15.0),
)
"""Family, method over another, labels a class (0 for all), and points that were asked for."""


def targets(rows: Sequence[Row]) -> list[str]:
    """The lines of the targets, of judges in classification, of all tasks in NER."""
    judged = [row for row in rows if row["task"] in JUDGES or row["family"] == "ner"]
    cells = {family: cells_of(judged, family) for family in GROUPS}
    ours = cells["classification"]
    found: list[Line] = []
    for family, one, other, size, least in LEAST:
        parts = [_only(cells[family].get(name, {}), size=size) for name in (one, other)]
        if compared := compare(parts[0], parts[1], FAMILIES[family].main_score):
            low, high = compared.bounds
            few = len(compared.differences) < TASKS
            said = f"{compared.mean:+.1f} ({low:+.1f} to {high:+.1f}) on {len(compared.differences)} tasks"
            said += f" of the {TASKS} that are asked" if few else ""
            where = f" at {size}" if size else ""
            found.append(
                (f"{family}: `{one}` {least:g} above `{other}`{where}", said, not few and compared.mean >= least)
            )
    found += [*_above_regressions(ours), *_few_sets(ours), *_costs(ours), *_probabilities(ours)]
    lines = [f"| {asked} | {said} | {'yes' if met else '**no**'} |" for asked, said, met in found]
    return ["| asked | measured | met |", "|---|---|---|", *lines]


def _only(cells: Cells, *, task: str = "", kind: str = "", size: int = 0) -> Cells:
    wanted = (task, kind, size)
    return {
        cell: row for cell, row in cells.items() if all(not w or w == c for w, c in zip(wanted, cell, strict=False))
    }


def _above_regressions(cells: Mapping[str, Cells]) -> list[Line]:
    found = []
    for other in ("regression", "tf_idf"):
        for measure in ("accuracy", "macro_f1"):
            if compared := compare(cells.get("head", {}), cells.get(other, {}), measure):
                worst, task = compared.worst
                below = ", ".join(compared.below) or "none"
                said = f"{compared.mean:+.1f}; {task} {worst:+.1f}; significantly below: {below}"
                met = compared.mean >= 2 and worst >= -2 and not compared.below
                asked = f"`head` 2 points of {measure} above `{other}`, no task 2 or significantly below"
                found.append((asked, said, met))
    return found


def _few_sets(cells: Mapping[str, Cells]) -> list[Line]:
    found = []
    for task in ("cr", "sst5", "tweeteval_emotion", "ag_news"):
        parts = [_only(cells.get(name, {}), task=task, size=8) for name in ("auto", "setfit")]
        if compared := compare(parts[0], parts[1], "accuracy"):
            note = ", seen by choices of the head" if task in SEEN else ""
            said = f"{compared.mean:+.1f} on {sum(map(len, compared.differences.values()))} draws"
            found.append((f"{task}{note}: `auto` 2 above `setfit` at 8", said, compared.mean >= 2))
    return found


def _costs(cells: Mapping[str, Cells]) -> list[Line]:
    auto, peer = (cells.get(name, {}) for name in ("auto", "setfit"))
    by_task: dict[str, list[float]] = {}
    for cell in sorted(auto.keys() & peer.keys()):
        by_task.setdefault(cell[0], []).append(auto[cell]["seconds"] / peer[cell]["seconds"])
    if not by_task:
        return []
    ratio = float(np.median([np.median(part) for part in by_task.values()]))
    most = max(row["bytes"] for row in auto.values()) / 1000
    time = f"1/{1 / ratio:.0f}"
    return [
        ("`auto` in a twentieth of `setfit`'s time, median over tasks", time, ratio <= 1 / 20),
        ("`auto` at most 350 kB a task", f"{most:.0f} kB", most <= 350),
    ]


def _probabilities(cells: Mapping[str, Cells]) -> list[Line]:
    found = []
    if natural := [*_only(cells.get("head", {}), kind="natural").values()]:
        error = mean_of(natural, "calibration_error")
        found.append(("`head`: calibration error at most 0.08, natural draws", f"{error:.3f}", error <= 0.08))
    for kind in ("balanced", "natural"):
        ours, theirs = (_only(cells.get(name, {}), kind=kind) for name in ("head", "regression"))
        if common := ours.keys() & theirs.keys():
            losses = [mean_of([part[cell] for cell in sorted(common)], "log_loss") for part in (ours, theirs)]
            said = f"{losses[0]:.3f} against {losses[1]:.3f}"
            found.append((f"`head`: log loss below scikit-learn's, {kind} draws", said, losses[0] < losses[1]))
    return found


BEGIN, END = "<!-- the report -->", "<!-- the report ends -->"


def write_page(page: Path, text: str) -> None:
    """Puts a report between its marks on a page."""
    before = page.read_text(encoding="utf-8")
    write_atomic(page, re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{text}{END}", before, flags=re.S))
