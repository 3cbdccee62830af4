"""Cases that are measured side by side: a process for each, repeats in turn, ratios paired by repeat."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import typer

from trunkline.bundle.files import write_atomic
from trunkline.versions import git_state, hardware
from trunkline_lab.speed.gate import open_channel

QUIET = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}
Result = dict[str, Any]
OptionsT = TypeVar("OptionsT")


class Missing(Exception):
    """A case cannot run here; the text says why."""


@contextmanager
def imported(package: str) -> Iterator[None]:
    """Raises Missing where a peer's package cannot be imported in the block."""
    try:
        yield
    except ImportError as error:
        raise Missing(f"{package} is not installed ({error}); `pip install 'trunkline-lab[peers]'`") from error


@dataclass(frozen=True)
class Case:
    """One case: `kind` is the function that runs it, `settings` are its keywords; `says` is what it does."""

    name: str
    kind: str
    says: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    repeats: int = 5


@dataclass(frozen=True)
class Ratio:
    """`measure` of one case over that of another (or itself, without `under`), paired by repeat, and what is asked."""

    what: str
    measure: str
    over: str
    under: str = ""
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Part:
    """A section: its cases take turns, repeat by repeat."""

    title: str
    cases: tuple[Case, ...]
    ratios: tuple[Ratio, ...]


class Worker:
    """A case in a process of its own, which runs a module's `work` and measures whenever it is told to.

    Args:
        module: What Python runs with `--worker` and, as JSON, the case and the options.
        case: The case.
        options: A dataclass.
        env: Beside this process's environment.

    Attributes:
        result: `says`, `repeats`, memory when `ready` and at its `peak`, and what else the case says; or `missing`.
    """

    def __init__(self, module: str, case: Case, options: Any, env: Mapping[str, str]) -> None:
        self.name, self.repeats = case.name, case.repeats
        self.result: Result = {"says": case.says, "repeats": []}
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (closed in `close`)
        # A session of its own has its own share of a busy machine.
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, "--worker", json.dumps([asdict(case), asdict(options)])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **QUIET, **env},
            start_new_session=True,
        )
        self._messages = self._answers()

    def ready(self) -> bool:
        """Waits for the end of the warm-up; false where the case cannot run here, which its result says."""
        return "ready" in self._next("ready")

    def repeat(self) -> None:
        """Has the case run once, and takes its result; with the last repeat its peak of memory."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._fail()
        self.result["repeats"].append(self._next("seconds"))
        if len(self.result["repeats"]) == self.repeats:
            self._next("peak")

    def close(self) -> None:
        """Ends the process, and takes what the case says at its end."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        for line in self._process.stdout:
            self.result |= json.loads(line).get("extra", {})
        if self._process.wait():
            self._fail()
        self._log.close()

    def _next(self, key: str) -> dict[str, Any]:
        """The next message that has a key, or says that the case cannot run; what comes before is kept."""
        for message in self._messages:
            if key in ("ready", "peak") or "missing" in message:
                self.result |= {name: message[name] for name in ("ready", "peak", "missing") if name in message}
            self.result |= message.get("extra", {})
            if key in message or "missing" in message:
                return message
        raise AssertionError

    def _answers(self) -> Iterator[dict[str, Any]]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield json.loads(line)
        self._fail()

    def _fail(self) -> None:
        """Ends the run (SystemExit) with what the process wrote last."""
        self._process.wait()
        self._log.seek(0)
        tail = "".join(self._log.readlines()[-25:])
        raise SystemExit(f"{self.name} ended with code {self._process.returncode}:\n{tail}")


def work(content: str, options: type[OptionsT], run: Callable[[dict[str, Any], OptionsT, Any], None]) -> None:
    """The worker's side: runs a case, or says why it cannot; `content` is what `Worker` gives after `--worker`."""
    channel = open_channel()
    case, raw = json.loads(content)
    try:
        run(case, options(**raw), channel)
    except Missing as error:
        channel.write(json.dumps({"missing": str(error)}) + "\n")
        channel.flush()


def take_turns(starts: Sequence[Callable[[], Worker]], say: Callable[[str], None]) -> dict[str, Result]:
    """Measures all cases in turn, each round in the other direction than the last; their results by name."""
    workers: list[Worker] = []
    ready: list[Worker] = []
    try:
        # One after the other, so that loading disturbs no warm-up.
        for start in starts:
            workers.append(start())
            if workers[-1].ready():
                ready.append(workers[-1])
            else:
                say(f"{workers[-1].name}: left out, {workers[-1].result['missing']}")
        for number in range(max((worker.repeats for worker in ready), default=0)):
            say(f"repeat {number + 1}")
            for worker in ready if number % 2 == 0 else reversed(ready):
                if number < worker.repeats:
                    worker.repeat()
    finally:
        for worker in workers:
            worker.close()
    return {worker.name: worker.result for worker in workers}


def say(text: str) -> None:
    """Shows what goes on."""
    typer.echo(text)


def parser_of(text: str, out: str, sections: Sequence[str], options: Any) -> argparse.ArgumentParser:
    """A parser of `--out`, `--sections`, and an option for each field of a dataclass of numbers and texts."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(out))
    parser.add_argument("--sections", nargs="*", choices=sections, default=list(sections))
    for item in fields(options):
        kind = {"int": int, "float": float}.get(str(item.type).partition(" ")[0], str)
        parser.add_argument(f"--{item.name.replace('_', '-')}", type=kind, default=item.default)
    return parser


def run_sections(
    names: Sequence[str],
    out: Path,
    measure: Callable[[str], Result],
    page: Callable[[Result], str],
    packages: Mapping[str, str],
) -> None:
    """Measures sections and writes `results.json` and `table.md` after each; others stay as they are there."""
    path = out / "results.json"
    content: Result = {"parts": json.loads(path.read_text("utf-8"))["parts"] if path.is_file() else {}}
    content |= {"machine": hardware(), "versions": packages, "git": git_state()}
    for name in names:
        say(f"section {name}")
        content["parts"][name] = timed(partial(measure, name))
        write_atomic(path, json.dumps(content, indent=2) + "\n")
        write_atomic(out / "table.md", page(content))
    say((out / "table.md").read_text(encoding="utf-8"))


def timed(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is measured, with when and under what load."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    began = datetime.now(UTC)
    found = measure()
    minutes = (datetime.now(UTC) - began).total_seconds() / 60
    return {"at": began.isoformat(timespec="seconds"), "minutes": minutes, "load": load, **found}


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and extremes."""
    quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {
        "median": statistics.median(values),
        "lower_quartile": quartiles[0],
        "upper_quartile": quartiles[2],
        "least": min(values),
        "most": max(values),
    }


def ratio(asked: Ratio, over: Sequence[float], under: Sequence[float]) -> dict[str, Any] | None:
    """`summary` of a ratio over repeats, with what is asked of its median; none where a case is missing."""
    if not over or (asked.under and not under):
        return None
    found = summary([a / b for a, b in zip(over, under, strict=False)] if asked.under else over)
    return {"what": asked.what, "measure": asked.measure, **found, **judged(found["median"], asked)}


def judged(median: float, asked: Ratio) -> dict[str, Any]:
    """What is asked of a median, and whether it is met."""
    met = None
    if asked.at_least is not None or asked.at_most is not None:
        met = (asked.at_least or median) <= median <= (asked.at_most or median)
    return {"at_least": asked.at_least, "at_most": asked.at_most, "met": met}


def ratio_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Ratios as lines of Markdown."""
    lines = ["| compared | measure | median | asked | met |", "|---|---|---|---|---|"]
    for row in rows:
        asked = f"at least {row['at_least']}" if row["at_least"] is not None else ""
        asked = f"at most {row['at_most']}" if row["at_most"] is not None else asked
        met = {None: "", True: "yes", False: "**no**"}[row["met"]]
        lines.append(f"| {row['what']} | {row['measure'].replace('_', ' ')} | {spread(row)} | {asked} | {met} |")
    return lines


def spread(values: Mapping[str, float], form: str = "") -> str:
    """A median with its quartiles in brackets, where they differ from it."""
    keys = ("median", "lower_quartile", "upper_quartile")
    shown = [format(values[key], form or (".3g" if values[key] < 100 else ".0f")) for key in keys if key in values]
    return shown[0] if len(set(shown)) == 1 else f"{shown[0]} ({shown[1]} to {shown[2]})"
