"""A benchmark's report as Markdown, and the words and numbers that its plots share with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

MARK = "*"
"""Stands at a gain or loss that is significant after correction."""
_MEASURES = {"f1": "strict entity F1", "accuracy": "accuracy", "token_f1": "token F1"}
_FAMILIES = {"ner": "NER", "classification": "Classification", "qa": "Question answering"}
_MOST_LISTED = 100

Row = Mapping[str, Any]
Key = tuple[str, str]
"""Task and encoder."""


def percent(value: float) -> str:
    """A score in percent."""
    return f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference of scores in absolute points, with its sign."""
    return f"{round(100 * value, 1) + 0.0:+.1f}"


def span(interval: Sequence[float], form: Callable[[float], str] = percent) -> str:
    """An interval."""
    return f"{form(interval[0])} to {form(interval[1])}"


def called(name: str) -> str:
    """A name without what Markdown would read as a column, a line or a tag."""
    return " ".join(name.replace("|", "/").replace("<", "&lt;").split())


def outcomes(row: Row) -> str:
    """Wins, ties and losses, and how many are unclear."""
    return f"{row['win']}/{row['tie']}/{row['loss']}" + (f" +{row['unclear']}" if row["unclear"] else "")


def contrast(row: Row) -> str:
    """The pair of a comparison."""
    return f"{called(row['first'])} - {called(row['second'])}"


def by_family(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by their family, in order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["family"], []).append(row)
    return found


def family_title(report: Row, family: str) -> str:
    """A family and its measure in words."""
    measure = next((row["measure"] for row in report["scores"] if row["family"] == family), "")
    return f"{_FAMILIES.get(family, family)} ({_MEASURES.get(measure, measure)})"


def across(scores: Sequence[Row], place: tuple[str, str, str]) -> dict[Key, Row]:
    """The scores of a family, method and label budget by task and encoder."""
    return {(row["task"], row["encoder"]): row for row in scores if _place(row) == place}


def over_baseline(report: Row, place: tuple[str, str, str]) -> dict[Key, Row]:
    """The comparisons with the baseline of a family, method and label budget by task and encoder."""
    rows = [row for row in report["comparisons"] if row["second"] == report["baseline"]]
    return {(row["task"], row["first"]): row for row in rows if _place(row) == place}


def _place(row: Row) -> tuple[str, str, str]:
    return row["family"], row["method"], row["budget"]


def summary(report: Row) -> list[str]:
    """What the report is about, in sentences."""
    totals = report["totals"]
    tasks = ", ".join(f"{len(names)} {_FAMILIES.get(family, family)}" for family, names in totals["tasks"].items())
    seeds = ", ".join(map(str, totals["seeds"]))
    cells = f"{totals['finished']:,} cells" + "".join(
        f", {totals[name]:,} {words}"
        for name, words in (("failed", "failed"), ("missing", "missing"), ("left_out", "left out"))
        if totals[name]
    )
    return [
        f"{cells}. Tasks: {tasks}. Encoders: {', '.join(totals['encoders'])}. Methods: {', '.join(totals['methods'])}. "
        f"Labels: {', '.join(totals['budgets'])}. Seeds: {seeds}.",
        f"Gains are over {report['baseline']} with the same method, labels and seeds, in absolute points.",
    ]


def to_markdown(report: Row, plots: Sequence[str] = ()) -> str:
    """The report as Markdown.

    Args:
        report: What `trunkline_lab.benchmark.report.make_report` returns.
        plots: Paths of its plots, relative to the file.
    """
    parts = ["# Benchmark", *summary(report), _NOTES.format(resamples=f"{report['resamples']:,}")]
    parts += ["## Averages over tasks", *_averages(report), *_images(plots, "strategies-")]
    parts += list(_pairs(report))
    parts += list(_methods(report, plots))
    for family, tables in by_family(report["tables"]).items():
        parts += [f"## {family_title(report, family)}", *_images(plots, f"curve-{family}-")]
        for table in tables:
            parts += list(_tasks(report, table, plots))
    parts += list(_gaps(report))
    versions = ", ".join(f"{name} {' and '.join(found)}" for name, found in report["totals"]["versions"].items())
    parts += [f"Made with {versions}." if versions else ""]
    return "\n\n".join(part for part in parts if part) + "\n"


_NOTES = (
    "Scores are means over seeds on test, in percent, with 95 % intervals of a bootstrap over seeds and test "
    f"examples ({{resamples}} draws). {MARK} marks gains and losses that are significant (p < 0.05) after Holm's "
    "correction over the tasks of a family. Win/tie/loss counts tasks: significant gains, intervals that contain 0, "
    "significant losses; `+n` more whose interval excludes 0, but which are not significant after correction."
)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table; the first `left` columns are aligned to the left."""
    lines = [head, ["---"] * left + ["---:"] * (len(head) - left), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _images(plots: Sequence[str], start: str) -> list[str]:
    names = [(path, path.rpartition("/")[2]) for path in plots]
    return [f"![{name.removesuffix('.png')}]({path})" for path, name in names if name.startswith(start)]


def _with_gain(mean: str, gain: float | None, bounds: Sequence[float] | None, mark: str = "") -> str:
    if gain is None or bounds is None:
        return mean
    return f"{mean}<br>{points(gain)}{mark} ({span(bounds, points)})"


def _mean(row: Row) -> str:
    return f"{percent(row['mean'])} ({span(row['interval'])})"


def _averages(report: Row) -> Iterator[str]:
    for family, tables in by_family(report["tables"]).items():
        encoders = [
            name
            for name in report["totals"]["encoders"]
            if any(r["encoder"] == name for t in tables for r in t["rows"])
        ]
        rows = []
        for table in tables:
            cells = {row["encoder"]: _with_gain(_mean(row), row["gain"], row["gain_interval"]) for row in table["rows"]}
            head = [table["method"], table["budgets"][0], str(len(table["tasks"]))]
            rows.append([*head, *(cells.get(name, "-") for name in encoders)])
        yield f"### {family_title(report, family)}"
        yield _table(["method", "labels", "tasks", *map(called, encoders)], rows, left=2)
        for table in tables:
            if table["left_out"]:
                where = f"{table['method']}, {table['budgets'][0]}"
                yield f"{where}: without {', '.join(table['left_out'])}, fewer than half of the tasks are there."


def _pairs(report: Row) -> Iterator[str]:
    """Each encoder against the baseline, chosen pairs, and pairs across methods."""
    if report["families"]:
        yield "## Pairs"
        yield (
            "The gain is the mean over the tasks that both have. Its first interval is for these tasks, the second "
            "for other tasks like these. The sign test and Wilcoxon's signed-rank test are over tasks, two-sided."
        )
    head = ["method", "labels", "pair", "tasks", "gain", "these tasks", "tasks like these", "p", "win/tie/loss"]
    head += ["up/down", "sign p", "Wilcoxon p"]
    for family, found in by_family(report["families"]).items():
        rows = []
        for row in found:
            tasks = "-" if row["tasks_interval"] is None else span(row["tasks_interval"], points)
            cells = [row["method"] or "", row["budget"], contrast(row), str(len(row["tasks"])), points(row["gain"])]
            cells += [span(row["interval"], points), tasks, f"{row['p']:.3f}", outcomes(row)]
            rows.append([*cells, f"{row['up']}/{row['down']}", f"{row['sign_p']:.3f}", f"{row['wilcoxon_p']:.3f}"])
        yield f"### {family_title(report, family)}"
        yield _table(head, rows, left=3)


def _methods(report: Row, plots: Sequence[str]) -> Iterator[str]:
    """Methods side by side on the same tasks, with what they cost."""
    if not report["methods"]:
        return
    yield "## Methods, size and speed"
    yield "Averages over the tasks that all methods have; bytes a task adds, time a text and time a cell are medians."
    for table in report["methods"]:
        rows = [
            [
                row["method"],
                called(row["encoder"]),
                _mean(row),
                _kilobytes(row["n_bytes"]),
                _known(row["ms_per_text"], "{:.2f}"),
                _known(row["seconds"], "{:.1f}"),
            ]
            for row in table["rows"]
        ]
        budget = table["budgets"][0]
        yield f"### {family_title(report, table['family'])}, {budget}, {len(table['tasks'])} tasks"
        yield _table(["method", "encoder", "score", "kB a task", "ms a text", "s a cell"], rows, left=2)
    yield from _images(plots, "cost-")


def _kilobytes(value: float | None) -> str:
    return "-" if value is None else f"{value / 1000:,.0f}" if value >= 10_000 else f"{value / 1000:.1f}"


def _known(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _tasks(report: Row, averages: Row, plots: Sequence[str]) -> Iterator[str]:
    place = (averages["family"], averages["method"], averages["budgets"][0])
    scores, gains = across(report["scores"], place), over_baseline(report, place)
    encoders = [name for name in report["totals"]["encoders"] if any(key[1] == name for key in scores)]
    rows = []
    for task in dict.fromkeys(task for task, _ in scores):
        cells = []
        for name in encoders:
            gain = gains.get((task, name), {})
            mark = MARK if gain.get("outcome") in ("win", "loss") else ""
            score = scores.get((task, name))
            cells.append(
                "-" if score is None else _with_gain(_mean(score), gain.get("gain"), gain.get("interval"), mark)
            )
        rows.append([called(task), *cells])
    mean = {row["encoder"]: _with_gain(_mean(row), row["gain"], row["gain_interval"]) for row in averages["rows"]}
    number = len(averages["tasks"])
    rows.append([f"**average of {number}**", *(mean.get(name, "-") for name in encoders)])
    won = {
        row["first"]: outcomes(row)
        for row in report["families"]
        if row["second"] == report["baseline"] and (row["family"], row["method"], row["budget"]) == place
    }
    if won:
        rows.append(["**win/tie/loss**", *(won.get(name, "") for name in encoders)])
    yield f"### {averages['method']}, {averages['budgets'][0]}"
    yield _table(["task", *map(called, encoders)], rows)
    yield from _images(plots, f"gain-{plot_name(*place)}.png")


def plot_name(*parts: str) -> str:
    """Names as part of a file's name."""
    text = "-".join(parts).replace("%", "percent").lower()
    return "-".join(filter(None, "".join(c if c.isalnum() or c in "_." else "-" for c in text).split("-")))


def _gaps(report: Row) -> Iterator[str]:
    """What failed, is missing, or was left out."""
    lists = {
        "Failed": [f"{_where(row)}, seed {row['seed']}: {called(row['error'])}" for row in report["failed"]],
        "Missing": [f"{_where(row)}, seeds {', '.join(map(str, row['seeds']))}" for row in report["missing"]],
        "Left out or doubtful": list(report["problems"]),
    }
    for title, lines in lists.items():
        if lines:
            more = [f"... and {len(lines) - _MOST_LISTED} more, in report.json"] if len(lines) > _MOST_LISTED else []
            yield f"## {title}"
            yield "\n".join(f"- {called(line)}" for line in [*lines[:_MOST_LISTED], *more])


def _where(row: Row) -> str:
    return ", ".join(row[name] for name in ("task", "budget", "method", "encoder"))
