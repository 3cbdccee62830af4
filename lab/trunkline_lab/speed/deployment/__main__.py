"""Speed, memory and size of bundles beside peers, as ratios in one run.

    trunkline-lab speed deployment --out lab/results/deployment --litert-python /path/to/an/environment/bin/python

Sections: `one` task with its adapter, `eight` tasks on one text, a `mixed` batch of eight rows, `twenty` tasks on disk
and in memory. All bundles and models are made out of the backbone of --bundle, in --work, and used again by the next
run; another backbone needs another folder. Peers are in the extra `peers`; LiteRT is in an environment of its own
(lab/docs/litert.md). `trunkline-lab quantisation` says what rounding costs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from trunkline_lab.speed.deployment.cases import Options, parts
from trunkline_lab.speed.deployment.report import page, summarise
from trunkline_lab.speed.deployment.timing import ONE_THREAD, run_case
from trunkline_lab.speed.side_by_side import Worker, parser_of, run_sections, say, take_turns, work

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
    given = parser_of(__doc__ or "", "lab/results/deployment", SECTIONS, Options).parse_args(arguments)
    from trunkline_lab.speed.deployment.make import make_all

    options = Options(**{field.name: getattr(given, field.name) for field in fields(Options)})
    for name, why in make_all(options, say).items():
        say(f"{name} is left out: {why}")
    shown = partial(page, parts=parts(options))
    run_sections(given.sections, given.out, lambda name: measure(name, options), shown, _versions())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], Options, run_case)
    else:
        main()
