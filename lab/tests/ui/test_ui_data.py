"""Tables of the data commands fit 100 columns and say what they were given; the plot is a PNG that shows the labels."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from trunkline.errors import TrunklineError
from trunkline_lab.data.describe import list_cards_table, show, stats
from trunkline_lab.ui import data
from trunkline_lab.ui import data_plots as plots


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(data, "console", Console(file=stream, width=100))
    return stream


def lines(screen: io.StringIO) -> list[str]:
    found = screen.getvalue().split("\n")
    assert max(map(len, found)) <= 100
    return found


def test_list(screen: io.StringIO) -> None:
    rows = list_cards_table()
    data.print_card_list(rows)
    shown = lines(screen)
    assert len(shown) == len(rows) + 3
    for row, line in zip(rows, shown[1:], strict=False):
        assert line.split()[:3] == [row["name"], row["role"], row["kind"]]
    assert f"{len(rows)} cards" in shown[-2]


def test_empty_list(screen: io.StringIO) -> None:
    data.print_card_list([])
    assert "no card" in screen.getvalue()


@pytest.mark.parametrize("name", ["sample_intents", "sample_events", "sample_pairs", "banking77", "sgd_slots", "subj"])
def test_show(screen: io.StringIO, name: str) -> None:
    card = show(name)
    data.print_card(card)
    text = " ".join(" ".join(lines(screen)).split())
    assert card["licence"] in text and card["home"] in text
    assert all(label in text.replace(" ", "") for label in (label.replace(" ", "") for label in card["labels"]))
    assert "None" not in text and "{}" not in text


@pytest.mark.parametrize("name", ["sample_intents", "sample_events", "sample_pairs"])
def test_stats(screen: io.StringIO, name: str) -> None:
    found = stats(name)
    data.print_stats(found, most=5)
    text = "\n".join(lines(screen))
    for split, part in found["splits"].items():
        assert f"{split} {part['examples']:,} examples" in text
        for row in part.get("labels", ())[:5]:
            assert row["label"] in text
        if len(part.get("labels", ())) > 5:
            assert f"and {len(part['labels']) - 5} more labels" in text


def made_up(counts: list[int]) -> dict[str, Any]:
    labels = [
        {"label": f"l{n}", "concept": f"label number {n} " + "x" * n, "count": c, "share": c / sum(counts)}
        for n, c in enumerate(counts)
    ]
    part = {"examples": sum(counts), "labels": labels}
    return {"name": "made_up", "splits": {"train": part, "test": {"examples": 0}}}


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are drawn, which are not rendered."""
    kept: list[Any] = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: kept.append(figure) or path)
    return kept


def test_the_plot_is_a_png(tmp_path: Path) -> None:
    path = plots.label_distribution(made_up([3, 2]), tmp_path / "new" / "a.png")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert width == 1200 and height > 200


def test_the_plot_grows_with_the_labels(tmp_path: Path, figures: list[Any]) -> None:
    for number in (1, 6, 40, 70):
        plots.label_distribution(made_up([100 - n for n in range(number)]), tmp_path / "a.png")
    assert {figure.get_figwidth() for figure in figures} == {8}
    heights = [figure.get_figheight() for figure in figures]
    assert heights[0] < heights[1] < heights[2] == heights[3]
    assert [len(figure.axes[0].patches) for figure in figures] == [1, 6, 40, 40]


@pytest.mark.parametrize(("counts", "scale"), [([300, 200, 100], "linear"), ([3000, 40, 1], "log")])
def test_what_the_plot_shows(tmp_path: Path, figures: list[Any], counts: list[int], scale: str) -> None:
    plots.label_distribution(made_up(counts), tmp_path / "a.png")
    (axes,) = figures[0].axes
    assert axes.get_xscale() == scale
    assert [bar.get_width() for bar in axes.patches] == counts
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [f"label number {n} " + "x" * n for n in range(3)]
    bottom, top = axes.get_ylim()
    assert bottom > top
    texts = {text.get_text() for text in [*figures[0].texts, *axes.texts]}
    assert {"made_up", f"{sum(counts):,} examples with 3 labels", *(f"{n:,}" for n in counts)} <= texts


def test_a_plot_of_no_labels(tmp_path: Path) -> None:
    with pytest.raises(TrunklineError, match="sample_pairs has no labels in train"):
        plots.label_distribution(stats("sample_pairs"), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
