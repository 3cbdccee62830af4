"""An evaluation as one HTML page that asks nobody for anything: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from trunkline.results import plots
from trunkline.results.show import pieces, shortened, taken_for, verdict, visible

MOST_ROWS = 300
"""Rows of a table."""


def page(
    evaluation: Mapping[str, Any],
    comparison: Mapping[str, Any] | None = None,
    curve: Mapping[str, Any] | None = None,
    title: str = "",
) -> str:
    """The page of what `Evaluation.to_dict`, `Comparison.to_dict` and `LearningCurve.to_dict` return."""
    sections = dict(_sections(evaluation, comparison, curve))
    name = title or f"{evaluation['task']} of {evaluation['bundle']}"
    what = f"held-out folds of {curve['folds']}," if curve else "predictions for"
    links = "".join(f'<a href="#{_anchor(title)}">{title}</a>' for title in sections)
    tiles = [(measure, f"{value:.2%}") for measure, value in evaluation["scores"].items()]
    tiles += [("wrong", f"{evaluation['n_wrong']:,}")]
    head = [
        f"<header><h1>{_text(name)}</h1>",
        f'<p class="soft">{_text(evaluation["family"])}, {what} {evaluation["examples"]:,} examples</p>',
        f'<ul class="tiles">{"".join(f"<li>{_text(key)}<b>{value}</b></li>" for key, value in tiles)}</ul>',
        *(f'<p class="warn">Note: {_text(warning)}</p>' for warning in evaluation["warnings"]),
        f"<nav>{links}</nav></header><main>",
    ]
    body = [
        f'<section id="{_anchor(title)}" aria-labelledby="{_anchor(title)}-title">'
        f'<h2 id="{_anchor(title)}-title">{title}</h2>{content}</section>'
        for title, content in sections.items()
    ]
    template = Template((files("trunkline.results") / "page.html").read_text(encoding="utf-8"))
    return template.substitute(title=_text(name), body="\n".join([*head, *body, "</main>"]))


def _sections(
    evaluation: Mapping[str, Any], comparison: Mapping[str, Any] | None, curve: Mapping[str, Any] | None
) -> Iterator[tuple[str, str]]:
    if comparison:
        yield "Comparison", _comparison(comparison)
    if evaluation["labels"]:
        yield "Labels", _labels(evaluation["labels"])
    if evaluation["confusion"] and (content := _confusion(evaluation)):
        yield "Confusion", content
    found = evaluation["reliability"]
    if found["answers"]:
        loss = "" if found["log_loss"] is None else f" Log loss {found['log_loss']:.3f} nats."
        error = f"Expected calibration error {found['ece']:.1%} over {found['answers']:,} predicted answers.{loss}"
        both = (
            (plots.reliability(found["bins"]), "Bins of equal numbers. Above the dashed line scores are too low."),
            (plots.histogram(found["histogram"]), "How many answers have which score."),
        )
        shown = "".join(f"<figure>{plot}<figcaption>{text}</figcaption></figure>" for plot, text in both)
        yield "Reliability", f'<p>{error}</p><div class="plots">{shown}</div>'
    if curve:
        shown = plots.curve(curve["points"], curve["measure"])
        note = "Of heads that learnt from so many of the labels; bars are one standard deviation over folds."
        yield "Learning curve", f"<figure>{shown}<figcaption>{note}</figcaption></figure>"
    if evaluation["wrong"]:
        yield "Wrong examples", _wrong(evaluation)


def _labels(labels: Mapping[str, Mapping[str, float]]) -> str:
    measures, numbers = ("F1", "precision", "recall"), ("support", "predicted")
    rows = sorted(labels.items(), key=lambda item: (item[1]["f1"], -item[1]["support"]))
    cells = [
        (label, plots.bar(row["f1"]), *(f"{row[m.lower()]:.2%}" for m in measures), *(f"{row[n]:,}" for n in numbers))
        for label, row in rows
    ]
    return _table("Weakest first.", ("label", "", *measures, *numbers), cells)


def _confusion(evaluation: Mapping[str, Any]) -> str:
    confusion = evaluation["confusion"]
    labels = {label for gold, row in confusion.items() for label in (gold, *row)}
    rows = [(said, count) for count, said in taken_for(confusion)[:15]]
    table = _table("The largest", ("", "number"), rows) if rows else ""
    if evaluation["family"] == "multilabel":
        return table
    note = "Gold labels down, predicted ones across. A cell is the darker, the larger its share of the gold label."
    if len(labels) > plots.MOST_LABELS:
        note += f" Of {len(labels)} labels the {plots.MOST_LABELS} that are confused most."
    if "" in labels:
        note += " None: no answer stands there."
    if evaluation["family"] == "ner":
        note += " Entities that overlap stand for each other, also where borders differ."
        note += f" Of all entities: {', '.join(f'{kind} {count:,}' for kind, count in evaluation['errors'].items())}."
    plot = _wide(plots.heat_map(confusion), "Confusion matrix")
    return f'<p class="soft">{note}</p><div class="side">{plot}<div>{table}</div></div>'


def _comparison(found: Mapping[str, Any]) -> str:
    names = [f"{found[side]['task']} of {found[side]['bundle']}" for side in ("first", "second")]
    rows = []
    for measure, row in found["measures"].items():
        points = (f"{100 * value:+.2f}" for value in (row["difference"], *row["interval"]))
        rows.append((measure, f"{row['first']:.2%}", f"{row['second']:.2%}", *points, f"{row['p']:.4f}"))
    note = "Differences in points, with the 95 % interval of a paired bootstrap; p by swaps of predictions;"
    note += f" {found['resamples']} draws of each, seed {found['seed']}."
    table = _table(note, ("measure", *names, "difference", "from", "to", "p"), rows)
    counts = ", ".join(f"{where} {count:,}" for where, count in found["right"].items())
    parts = [f"<p><b>{_text(verdict(found))}</b></p>", table]
    parts.append(f"<p>Examples that are wholly right: {counts}.</p>")
    if changed := found["changed"]:
        shown = "".join(_example(row, {"gold": "gold", "first": names[0], "second": names[1]}) for row in changed)
        parts.append(
            f"<details><summary>{len(changed)} that are right in one alone</summary><ol>{shown}</ol></details>"
        )
    return "".join(parts)


def _wrong(evaluation: Mapping[str, Any]) -> str:
    rows, count = evaluation["wrong"], evaluation["n_wrong"]
    note = "The surest first: where a high score is wrong, look whether the gold label is right."
    if count > len(rows):
        note = f"{len(rows)} of {count:,}. {note}"
    shown = "".join(_example(row, {"gold": "gold", "predicted": "predicted"}) for row in rows)
    return f'<p class="soft">{note}</p><ol>{shown}</ol>'


def _example(row: Mapping[str, Any], sides: Mapping[str, str]) -> str:
    """A text and its answers on some sides; entities are marked in the text."""
    spans = any(len(answer) == 4 for side in sides for answer in row[side])
    parts = [] if spans else [f'<p class="text"><bdi>{_text(shortened(row["text"]))}</bdi></p>']
    parts.append("<dl>")
    for side, name in sides.items():
        answers = row[side]
        scores = [f" {score:.0%}" for score in row["scores"]] if side == "predicted" else [""] * len(answers)
        if spans:
            other = [answer for own in sides if (own == "gold") != (side == "gold") for answer in row[own]]
            fault = "missed" if side == "gold" else "wrong"
            marked = pieces(row["text"], answers, other)
            notes = [label if right or not label else f"{label}, {fault}" for _, label, right in marked]
            shown = "".join(_mark(p[0], n, p[2]) if n else _text(p[0]) for p, n in zip(marked, notes, strict=True))
        else:
            other = row["gold"] if side != "gold" else row.get("predicted", row["gold"])
            chips = [_mark(str(a[-1]) or "no answer", s, a in other) for a, s in zip(answers, scores, strict=True)]
            shown = " ".join(chips) or "<small>nothing</small>"
        parts.append(f"<dt>{_text(name)}</dt><dd>{shown}</dd>")
    return f"<li>{''.join(parts)}</dl></li>"


def _mark(text: str, note: str, right: bool) -> str:
    kind = "" if right else ' class="bad"'
    return f"<mark{kind}><bdi>{_text(shortened(text))}</bdi>{f'<small>{_text(note)}</small>' if note else ''}</mark>"


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    heads = "".join(f'<th scope="col">{_text(name)}</th>' for name in head)
    lines = []
    for first, *cells in rows[:MOST_ROWS]:
        own = "".join(f"<td>{cell if isinstance(cell, plots.Svg) else _text(cell)}</td>" for cell in cells)
        lines.append(f'<tr><th scope="row"><bdi>{_text(first)}</bdi></th>{own}</tr>')
    if len(rows) > MOST_ROWS:
        caption += f" The first {MOST_ROWS} of {len(rows)}."
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f'<p class="soft">{_text(caption)}</p>{_wide(table, caption)}'


def _wide(content: str, name: str) -> str:
    """What may be wider than a phone scrolls for itself, with the keyboard too."""
    return f'<div class="wide" tabindex="0" role="region" aria-label="{_text(name)}">{content}</div>'


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _text(value: object) -> str:
    return escape(visible(value))
