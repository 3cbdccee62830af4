"""Decisions of the npm package are those of Python."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import numpy as np
import pytest
from chromium import WEB, missing

from trunkline.bundle.parts import Task
from trunkline.heads.decisions import decider

pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(missing()), reason=missing())]

LABELS = ("a", "b", "c")
OPTIONS: list[dict[str, Any]] = [
    {},
    {"top_k": 2, "coverage": 0.9},
    {"min_score": 0.5, "coverage": 0.8},
    {"coverage": 0.85},
    {"min_score": {"kinds": 0, "several": 0.2}},
    {"min_score": 0},
]
NAMES = {"top_k": "topK", "min_score": "minScore"}
SCRIPT = """
import { deciders } from "DIST/decisions.js";
const { tasks, rows, options } = JSON.parse(process.argv[1]);
const decided = options.map((asked) => {
  const decide = deciders(tasks, asked);
  return rows.map((row) => Object.fromEntries(Object.entries(row).map(([name, one]) => [name, decide.get(name)(one)])));
});
console.log(JSON.stringify(decided));
"""


def said(rng: np.random.Generator) -> dict[str, Any]:
    """What four tasks say of a text."""
    chances = rng.dirichlet(np.full(3, 0.5))
    ranked = {LABELS[n]: round(float(chances[n]), 6) for n in np.argsort(-chances)}
    best = next(iter(ranked))
    one = {"label": best, "score": ranked[best], "probabilities": ranked}
    several = {"labels": [label for label, chance in ranked.items() if chance >= 0.5], "probabilities": ranked}
    names = [{"label": "a", "score": round(float(score), 6)} for score in rng.random(4)]
    return {"kinds": one, "other": one, "names": names, "several": several}


def test_decisions_are_those_of_python() -> None:
    rng = np.random.default_rng(0)
    held = {"a": {"true": np.round(rng.random(25), 6).tolist()}, "b": {"true": np.round(rng.random(14), 6).tolist()}}
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "kinds": ("classification", {"held_out": held, "min_score": 0.4}),
        "other": ("classification", {"held_out": held, "other": "b"}),
        "names": ("ner", {"min_score": 0.3}),
        "several": ("multilabel", {"min_score": 0.6}),
    }
    tasks = {n: Task(kind, {}, 0.0, b"", n, LABELS, "text", None, None, False, own) for n, (kind, own) in kinds.items()}
    rows = [said(rng) for _ in range(50)]
    given = {
        "tasks": [
            {"name": n, "family": t.family, "labels": LABELS, "decisions": t.decisions} for n, t in tasks.items()
        ],
        "options": [{NAMES.get(name, name): value for name, value in asked.items()} for asked in OPTIONS],
        "rows": rows,
    }
    command = ["node", "--input-type=module", "-e", SCRIPT.replace("DIST", (WEB / "dist").as_uri()), json.dumps(given)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    for asked, theirs in zip(OPTIONS, found, strict=True):
        ours = [decider(tasks, **asked)(row) for row in rows]
        assert json.dumps(theirs) == json.dumps(ours, separators=(", ", ": ")), asked
