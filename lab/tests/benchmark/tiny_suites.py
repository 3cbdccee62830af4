"""Small tasks in files of their own, and suites over them on the tiny encoder."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import yaml

import tiny_models
from trunkline.config import parse_recipe
from trunkline_lab.benchmark.suite import SuiteRecipe

LABELS = {"place": tiny_models.PLACES, "name": tiny_models.NAMES, "org": tiny_models.ORGS}


def text_rows(count: int, seed: int) -> list[tuple[str, str]]:
    rng = random.Random(seed)
    names = sorted(LABELS)
    return [(" ".join(rng.sample(LABELS[names[i % 3]], 2)), names[i % 3]) for i in range(count)]


def write_task(folder: Path, name: str, family: str, sizes: dict[str, int], **changes: Any) -> Path:
    """A card with a file for each split; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for number, (split, size) in enumerate(sizes.items()):
        path = folder / f"{name}-{split}.jsonl"
        if family == "ner":
            rows: list[Any] = tiny_models.ner_rows(size, number)
        else:
            rows = [{"text": text, "label": label} for text, label in text_rows(size, number)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        files[split] = f"./{path.name}"
    card = {
        "name": name,
        "title": name,
        "role": "task",
        "family": family,
        "kind": "ner" if family == "ner" else "text",
        "home": "here",
        "licence": "none",
        "files": files,
        "reader": "spans" if family == "ner" else "jsonl_text",
        **changes,
    }
    target = folder / f"{name}.yaml"
    target.write_text(yaml.safe_dump(card), encoding="utf-8")
    return target


def write_tasks(folder: Path) -> dict[str, Path]:
    """A task of each family."""
    sizes = {"train": 30, "dev": 12, "test": 15}
    return {
        "kinds": write_task(folder, "kinds", "classification", sizes),
        "people": write_task(folder, "people", "ner", sizes),
    }


def raw_suite(encoder: Path | str, tasks: dict[str, Path], /, **changes: Any) -> dict[str, Any]:
    """The content of a suite of heads: one encoder, two label budgets, one seed."""
    return {
        "name": "tiny",
        "encoders": {"none": str(encoder)},
        "baseline": "none",
        "tasks": [str(path) for path in tasks.values()],
        "budgets": [{"per_class": 2}, {"all": True}],
        "adapt": {
            "head": {"precision": "fp32", "max_length": 32},
            "lora": {"precision": "fp32", "max_length": 32, "steps": 4, "rank": 2},
        },
        "seeds": [0],
        **changes,
    }


def suite(encoder: Path | str, tasks: dict[str, Path], /, **changes: Any) -> SuiteRecipe:
    return parse_recipe(raw_suite(encoder, tasks, **changes), SuiteRecipe, "tiny suite")
