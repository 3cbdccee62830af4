"""What quantisation and a smaller vocabulary cost.

    trunkline-lab quantisation --bundle runs/strategies/task-primary-0/bundle --out lab/results/quantisation

Sections: `cosine` of tokens against float32, with sizes and times; `gate`, tasks whose heads were fitted in float32 or
on the export, scored on it; `vocabulary`. A section that `results.json`
has is not measured again unless --sections names it; `table.md` is made anew every time. Needs the data sets of the
cards that `sections.py` names.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trunkline.bundle.files import write_atomic
from trunkline.errors import TrunklineError
from trunkline.versions import git_state, hardware, versions
from trunkline_lab.benchmark.executors import limited_threads
from trunkline_lab.quantise.sections import SECTIONS, Amounts, Found, Setup, prepare
from trunkline_lab.speed.side_by_side import say

PACKAGES = ("onnx", "onnxruntime")


def measure(name: str, setup: Setup) -> Found:
    """A section's results, with when, with what and under what load they were taken."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    began, at = time.process_time(), datetime.now(UTC).isoformat(timespec="seconds")
    found = SECTIONS[name](setup, say)
    packages = {**versions(), **{package: version(package) for package in PACKAGES}}
    about = {"at": at, "cpu_minutes": (time.process_time() - began) / 60, "load": load, "git": git_state()}
    return {**about, "versions": packages, "machine": hardware(), "amounts": asdict(setup.amounts), **found}


def run(bundle: str, out: Path, sections: Sequence[str], amounts: Amounts) -> Found:
    """Measures sections, by default those that are missing; writes `results.json` and `table.md` after each."""
    names = sections or [name for name in SECTIONS if name not in read(out).get("sections", {})]
    with limited_threads(1):
        setup = prepare(bundle, amounts)
        own = setup.start.backbone
        known = read(out).get("backbone", own)
        if known != own:
            raise TrunklineError(
                f"{out} has results of the backbone {known[:12]}, {bundle} has {own[:12]}",
                todo="Choose another folder, or delete the results",
            )
        for name in names:
            say(f"== {name}")
            found = measure(name, setup)
            # Read again, because another run may have measured another section meanwhile.
            done = {**read(out).get("sections", {}), name: found}
            ordered = {section: done[section] for section in SECTIONS if section in done}
            results = {"bundle": bundle, "backbone": own, "sections": ordered}
            write_atomic(out / "results.json", json.dumps(results, indent=1) + "\n")
            # As they are in the file, where all keys are strings and tuples are lists.
            write_atomic(out / "table.md", page(read(out)))
    return read(out)


def read(out: Path) -> Found:
    """The results in a folder; nothing where there are none."""
    path = out / "results.json"
    found: Found = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found


def page(results: Mapping[str, Any]) -> str:
    """All sections as Markdown."""
    lines = ["# What quantisation costs", "", f"Of `{results['bundle']}`, by `trunkline-lab quantisation`."]
    for name, found in results["sections"].items():
        lines += ["", f"## {name}", "", *TABLES[name](found)]
        git = found["git"] or {}
        commit = f"{(git.get('commit') or 'unknown')[:12]}{' with changes' if git.get('dirty') else ''}"
        machine = f"one of {found['machine']['cores']} cores of {found['machine']['processor']}"
        lines += ["", f"Measured {found['at']} at commit {commit} on {machine}, load {found['load']:.1f}, "]
        lines[-1] += f"{found['cpu_minutes']:.1f} CPU minutes."
    return "\n".join(lines) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Lines of a Markdown table."""
    return ["| " + " | ".join(map(str, row)) + " |" for row in (head, ["---"] * len(head), *rows)]


def _cosine(found: Found) -> list[str]:
    cases = list(found["plans"][0]["cosine"])
    rows = []
    for row in found["plans"]:
        cells = [f"{row['cosine'][case]['mean']:.4f} / {row['cosine'][case]['p1']:.3f}" for case in cases]
        time_ms = f"{row['ms']['median']:.2f} [{row['ms']['q1']:.2f}, {row['ms']['q3']:.2f}]"
        rows.append([row["plan"], f"{row['bytes'] / 1e6:.2f}", *cells, time_ms])
    texts = ", ".join(f"{part['texts']} {kind} ({part['tokens']} tokens)" for kind, part in found["texts"].items())
    return [
        "Cosine of tokens against the graphs in float32: mean / 1st percentile. MB of trunk and branch graph. Median",
        f"and quartiles of {found['rounds']} runs of 32 tokens without adapter, in processor time of one thread.",
        f"Texts: {texts}; calibrated with {found['calibration']['tokens']} tokens.",
        "",
        *table(["plan", "MB", *cases, "ms"], rows),
    ]


def gain(found: Mapping[str, Any], digits: int = 2) -> str:
    """A gain in points with its interval."""
    low, high = found["interval"]
    return f"{found['gain']:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def _gate(found: Found) -> list[str]:
    rows = []
    for row in found["tasks"]:
        own = [gain(row[plan]) for plan in found["mean"]]
        same = [f"{100 * row[plan]['same']:.1f} %" for plan in ("int8", "int4")]
        counts = [row["train"], row["judged_on"]]
        rows.append([row["task"], row["metric"], *counts, f"{row['float32']:.2f}", *own, *same])
    rows.append(["mean", "", "", "", "", *(gain(mean) for mean in found["mean"].values()), "", ""])
    head = ["task", "score", "trained on", "judged on", "float32", *found["mean"], "same, int8", "same, int4"]
    return [
        "Heads fitted in float32, or on the export that they are scored with. Points gained over float32,",
        "with 95 % intervals of the paired bootstrap over examples; the share of examples that are predicted as by",
        "float32 where the head was fitted in it.",
        "",
        *table(head, rows),
    ]


def _vocabulary(found: Found) -> list[str]:
    kinds = ("corpus", "same kind", "other kinds")
    rows = []
    for row in found["sizes"]:
        sizes = [
            f"{row['pieces']:,}",
            f"{row['embedding_bytes'] / 1e6:.2f} MB",
            f"{row['tokenizer_bytes'] / 1e3:.0f} kB",
        ]
        rows.append([*sizes, *(f"{row[kind]:.3f}" if kind in row else "1" for kind in kinds)])
    changed = sum(a != b for row in found["sizes"] for a, b in row.get("unknown", {}).values())
    texts = ", ".join(f"{count:,} of {kind}" for kind, count in found["texts"].items())
    return [
        f"Tokens after over tokens before. Texts: {texts}.",
        f"Cases in which the number of unknown tokens changed: {changed}.",
        "",
        *table(["pieces", "embedding in int8", "tokenizer.json", *kinds], rows),
    ]


TABLES = {"cosine": _cosine, "gate": _gate, "vocabulary": _vocabulary}


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the options and runs."""
    parser = argparse.ArgumentParser(description="Measure what quantisation and a smaller vocabulary cost.")
    parser.add_argument("--bundle", default="runs/strategies/task-primary-0/bundle", help="a pre-finetuned bundle")
    parser.add_argument("--out", type=Path, default=Path("lab/results/quantisation"))
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=[], help="all that are missing")
    options = parser.parse_args(arguments)
    try:
        run(options.bundle, options.out, options.sections, Amounts())
    except TrunklineError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
