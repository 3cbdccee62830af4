"""Cells, a task, draw and method each: run where they are missing, kept as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trunkline.bundle.files import write_atomic
from trunkline.tasks import FAMILIES
from trunkline.versions import git_state, hardware, versions
from trunkline_lab.few_labels.draws import Draw, Pool, calibration_error
from trunkline_lab.few_labels.methods import METHODS, Answer, Options, method_of

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """The cells: cards, methods (see `METHODS`), kinds of draws, labels a class, and draws of each kind and size.

    With `again` cells that are there are replaced. Methods that do not serve a task's family leave it out.
    """

    tasks: Sequence[str]
    methods: Sequence[str]
    kinds: Sequence[str]
    sizes: Sequence[int]
    seeds: int
    again: bool = False


def run(folder: Path, plan: Plan, options: Options, say: Callable[[str], None] = print) -> None:
    """Runs the cells of a plan that are missing in a folder, METHOD/TASK.jsonl, or METHOD@ENCODER/TASK.jsonl.

    A file is written whole after each answer, so that a run may be stopped at any time. `say` receives a line a cell.
    """
    made: dict[str, Any] = {}
    for task in plan.tasks:
        pool = Pool.of(task)
        for name in plan.methods:
            if pool.family not in METHODS[name][0]:
                continue
            label = name if options.encoder is None else f"{name}@{options.name}"
            path = folder / label / f"{task}.jsonl"
            rows = {_key(row): row for row in read(path)}
            every = pool.draws(plan.kinds, plan.sizes, plan.seeds)
            draws = [found for found in every if plan.again or _key(_place(found)) not in rows]
            made[name] = made.get(name) or method_of(name, options)
            about = about_run()
            for found, answer in made[name](draws, pool.test) if draws else ():
                row = {**_place(found), "method": label, **measures(found, pool.test, answer), **about}
                rows[_key(row)] = row
                write_atomic(path, "".join(json.dumps(one) + "\n" for one in rows.values()))
                main = row[FAMILIES[pool.family].main_score]
                say(f"{task} {label} {found.kind} {found.size} {found.seed}: {100 * main:.1f} ({row['seconds']:.1f} s)")


def read(path: Path) -> list[Row]:
    """The rows of a file of cells; none where it is missing."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else ()
    return [json.loads(line) for line in lines]


def read_all(folder: Path) -> list[Row]:
    """The rows of all methods and tasks."""
    return [row for path in sorted(folder.glob("*/*.jsonl")) for row in read(path)]


def measures(found: Draw, test: Sequence[Any], answer: Answer) -> Row:
    """Scores on test, and what said probabilities are worth: log loss and calibration error, of entities only this."""
    family, predicted = FAMILIES[found.family], answer.predictions
    row: Row = {name: round(value, 5) for name, value in family.score(test, predicted).items()}
    if found.family == "ner":
        spans = [{(s.start, s.end, s.label) for s in example.spans} for example in test]
        pairs = [
            (entity.get("score", 1.0), (entity["start"], entity["end"], entity["label"]) in true)
            for true, entities in zip(spans, predicted, strict=True)
            for entity in entities
        ]
        row["entity_calibration_error"] = round(calibration_error(*zip(*pairs, strict=True)), 5) if pairs else 0.0
    elif predicted and "probabilities" in predicted[0]:
        labels = {example.label for example in found.train}
        rows = [(e, p) for e, p in zip(test, predicted, strict=True) if e.label in labels]
        right = [example.label == p["label"] for example, p in rows]
        losses = [-np.log(max(p["probabilities"].get(example.label, 0.0), 1e-9)) for example, p in rows]
        said = [max(p["probabilities"].values()) for _, p in rows]
        row |= {"log_loss": round(float(np.mean(losses)), 5)}
        row |= {"calibration_error": round(calibration_error(said, right), 5)}
    rest = {"seconds": round(answer.seconds, 4), "bytes": answer.bytes, "examples": len(found.train)}
    return {**row, **rest, "about": dict(answer.about)}


def about_run() -> Row:
    """What a cell was measured with."""
    state = git_state(Path(__file__).parent) or {}
    machine = {key: hardware()[key] for key in ("processor", "cores")}
    commit = f"{(state.get('commit') or '')[:12]}{'+' if state.get('dirty') else ''}"
    return {"commit": commit, "machine": machine, "versions": versions()}


def _place(found: Draw) -> Row:
    return {name: value for name, value in asdict(found).items() if name != "train"}


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["kind"], row["size"], row["seed"]
