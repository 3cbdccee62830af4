"""Speed and memory of training beside peers, as ratios, on the same encoder, texts and threads.

    trunkline-lab speed training --out lab/results/training-speed

Sections: `tokens` (the Trainer of transformers), `pairs` (sentence-transformers), `joint` (task-primary against naive
training, and the share of the machine's bf16 matrix peak), `gradcache`. Peers are in the extra `peers`; a case whose
peer is missing is left out and named. Without the data sets of the cards the shipped sample is used. With fewer
`--steps` than 32 everything gets smaller: to see that it runs, not to measure. Run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from trunkline.atomic import write_atomic
from trunkline.versions import git_state, hardware, versions
from trunkline_lab.data.cards import load_card
from trunkline_lab.speed.training.cases import Options, Part, parts
from trunkline_lab.speed.training.report import page, ratio, summarise
from trunkline_lab.speed.training.runner import run_part
from trunkline_lab.speed.training.workers import work

SAMPLES = {"sentences": "sample_events", "pairs": "sample_pairs"}


def say(text: str) -> None:
    """Shows what goes on."""
    typer.echo(text)


def options_of(arguments: argparse.Namespace) -> Options:
    """The options; a card without its data here is replaced by the shipped sample."""
    given = {field.name: getattr(arguments, field.name) for field in fields(Options)}
    for name, sample in SAMPLES.items():
        if "train" not in load_card(given[name]).splits_here():
            say(f"the data of {given[name]} are not here, {sample} is taken (TRUNKLINE_DATA names their folder)")
            given[name] = sample
    return Options(**given)


def measure(part: Part, options: Options) -> dict[str, Any]:
    """A section's results, their summary and ratios."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    began = datetime.now(UTC)
    results = run_part(part, options, say)
    return {
        "at": began.isoformat(timespec="seconds"),
        "minutes": (datetime.now(UTC) - began).total_seconds() / 60,
        "load": load,
        "threads": _threads(options),
        "options": asdict(options),
        "cases": results,
        "summary": summarise(results),
        "ratios": [found for asked in part.ratios if (found := ratio(asked, results))],
    }


def _threads(options: Options) -> int:
    import torch

    return options.threads or torch.get_num_threads()


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs sections and writes results.json and table.md; sections that are not run stay as they are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("lab/results/training-speed"))
    known = tuple(parts(Options()))
    parser.add_argument("--sections", nargs="+", choices=known, default=list(known))
    for field in fields(Options):
        kind = {"int": int, "int | None": int, "float | None": float}.get(str(field.type), str)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    given = parser.parse_args(arguments)
    options = options_of(given)
    sections = parts(options)
    path = given.out / "results.json"
    content: dict[str, Any] = {"parts": json.loads(path.read_text("utf-8"))["parts"] if path.is_file() else {}}
    content |= {"machine": hardware(), "versions": versions(), "git": git_state()}
    for name in given.sections:
        say(f"{name}: {', '.join(case.name for case in sections[name].cases)}")
        content["parts"][name] = measure(sections[name], options)
        write_atomic(path, json.dumps(content, indent=2) + "\n")
        # The names of cases say their sizes, so a section that was run in another size is shown by its own options.
        shown = {key: parts(Options(**found["options"]))[key] for key, found in content["parts"].items()}
        write_atomic(given.out / "table.md", page(content, {key: shown[key] for key in known if key in shown}))
    say((given.out / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2])
    else:
        main()
