"""Tables of the data commands fit 100 columns and say what they were given."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from trunkline_lab.data.describe import list_cards_table, show
from trunkline_lab.ui import data


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
