"""Speed, memory, size and fidelity of deployed bundles beside peers, as ratios in one run.

    python benchmarks/deployment --out results/deployment --litert-python /path/to/an/environment/bin/python

Sections: `one` task with its adapter, `eight` tasks on one text, a `mixed` batch of eight rows, `twenty` tasks on disk
and in memory, `costs` of bundles by format and fork, `fidelity` of rounded weights. All bundles and models are made out
of the backbone of --bundle, in --work, and used again by the next run. Peers are in the extra `bench`; LiteRT is in an
environment of its own (lab/docs/litert.md). Without the data sets of the cards, fidelity is measured on the shipped sample.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])

from deployment.cases import parts
from deployment.measure import work
from deployment.options import Options
from deployment.report import page, summarise
from deployment.runner import run_part

SECTIONS = ("one", "eight", "mixed", "twenty", "costs", "fidelity")
PACKAGES = ("onnx", "onnxruntime", "transformers", "peft")


def say(text: str) -> None:
    """Shows what goes on."""
    print(text, flush=True)


def measure(name: str, options: Options) -> dict[str, Any]:
    """A section's results with when and under what load they were taken."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    began = datetime.now(UTC)
    found = _section(name, options)
    return {
        "at": began.isoformat(timespec="seconds"),
        "minutes": (datetime.now(UTC) - began).total_seconds() / 60,
        "load": load,
        # Where an environment lies says nothing about a result.
        "options": {key: value for key, value in asdict(options).items() if key != "litert_python"},
        **found,
    }


def _section(name: str, options: Options) -> dict[str, Any]:
    if name == "twenty":
        from deployment.twenty import measure_twenty

        return measure_twenty(options, say)
    if name == "costs":
        from deployment.costs import measure_costs

        return measure_costs(options, say)
    if name == "fidelity":
        from deployment.fidelity import measure_fidelity

        return measure_fidelity(options, say)
    part = parts(options)[name]
    results = run_part(part, options, say)
    return {"cases": results, **summarise(results, part.ratios)}


def _versions() -> dict[str, str]:
    from trunkline.versions import versions

    found = versions()
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _prepare(options: Options, say: Callable[[str], None]) -> dict[str, str]:
    from deployment.make import make_all
    from deployment.rows import write_rows

    missing = make_all(options, say)
    write_rows(options)
    return missing


def main() -> None:
    """Makes what is missing, runs sections and writes results.json, table.md and deployment.png."""
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/deployment"))
    parser.add_argument("--sections", nargs="*", choices=SECTIONS, default=list(SECTIONS))
    for field in fields(Options):
        kind = {"int": int, "float": float}.get(str(field.type), str)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    arguments = parser.parse_args()
    options = Options(**{field.name: getattr(arguments, field.name) for field in fields(Options)})
    for name, why in _prepare(options, say).items():
        say(f"{name} is left out: {why}")
    from deployment.plot import plot
    from trunkline.atomic import write_atomic
    from trunkline.versions import git_state, hardware

    path = arguments.out / "results.json"
    content: dict[str, Any] = {"parts": json.loads(path.read_text("utf-8"))["parts"] if path.is_file() else {}}
    content |= {"machine": hardware(), "versions": _versions(), "git": git_state()}
    for name in arguments.sections:
        say(f"section {name}")
        content["parts"][name] = measure(name, options)
        write_atomic(path, json.dumps(content, indent=2) + "\n")
        write_atomic(arguments.out / "table.md", page(content, parts(options)))
    if "one" in content["parts"]:
        plot(content, arguments.out / "deployment.png")
    if "costs" in content["parts"]:
        from deployment.costs import plot_costs

        plot_costs(content["parts"]["costs"], arguments.out / "costs.png")
    say((arguments.out / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
