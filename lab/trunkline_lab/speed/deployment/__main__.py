"""Speed, memory and size of bundles beside peers, as ratios in one run.

    trunkline-lab speed deployment --out lab/results/deployment --litert-python /path/to/an/environment/bin/python

Sections: `one` task with its adapter, `eight` tasks on one text, a `mixed` batch of eight rows, `twenty` tasks on disk
and in memory. All bundles and models are made out of the backbone of --bundle, in --work, and used again by the next
run; another backbone needs another folder. Peers are in the extra `peers`; LiteRT is in an environment of its own
(lab/docs/litert.md). `trunkline-lab size` breaks a bundle down, `trunkline-lab quantisation` says what rounding costs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trunkline_lab.speed.deployment.cases import Options, parts
from trunkline_lab.speed.deployment.report import page, summarise
from trunkline_lab.speed.deployment.timing import ONE_THREAD, run_case
from trunkline_lab.speed.side_by_side import Worker, add_options, say, take_turns, timed, work

SECTIONS = ("one", "eight", "mixed", "twenty")
PACKAGES = ("onnx", "onnxruntime", "transformers", "peft")


def measure(name: str, options: Options) -> dict[str, Any]:
    """A section's results."""
    # Where an environment lies says nothing about a result.
    given = {"options": {key: value for key, value in asdict(options).items() if key != "litert_python"}}
    if name == "twenty":
        from trunkline_lab.speed.deployment.twenty import measure_twenty

        return {**given, **measure_twenty(options, say)}
    part = parts(options)[name]
    env = {**ONE_THREAD, "HF_HUB_OFFLINE": "1"}
    results = take_turns([partial(Worker, __package__ or "", case, options, env) for case in part.cases], say)
    return {**given, "cases": results, **summarise(results, part.ratios)}


def _versions() -> dict[str, str]:
    from trunkline.versions import versions

    found = versions()
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes what is missing, runs sections and writes results.json and table.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("lab/results/deployment"))
    parser.add_argument("--sections", nargs="*", choices=SECTIONS, default=list(SECTIONS))
    add_options(parser, Options)
    given = parser.parse_args(arguments)
    from trunkline.bundle.files import write_atomic
    from trunkline.versions import git_state, hardware
    from trunkline_lab.speed.deployment.make import make_all

    options = Options(**{field.name: getattr(given, field.name) for field in fields(Options)})
    for name, why in make_all(options, say).items():
        say(f"{name} is left out: {why}")
    path = given.out / "results.json"
    content: dict[str, Any] = {"parts": json.loads(path.read_text("utf-8"))["parts"] if path.is_file() else {}}
    content |= {"machine": hardware(), "versions": _versions(), "git": git_state()}
    for name in given.sections:
        say(f"section {name}")
        content["parts"][name] = timed(partial(measure, name, options))
        write_atomic(path, json.dumps(content, indent=2) + "\n")
        write_atomic(given.out / "table.md", page(content, parts(options)))
    say((given.out / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], Options, run_case)
    else:
        main()
