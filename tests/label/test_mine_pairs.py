"""From files to a source of pre-finetuning: what is written, what is reported, and what is left after a failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trunkline.config import load_recipe
from trunkline.data.source_card import SourceCard
from trunkline.errors import DataError, TrunklineError
from trunkline.label import mine_pairs

WORDS = ["red", "green", "blue", "black", "white", "grey"]


def mine(sources: list[Path], out: Path, *, embed: Any = None, **options: Any) -> dict[str, Any]:
    return mine_pairs(sources, out, encoder=embed, **{"min_words": 2, **options})


def rows_of(out: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for word in WORDS:
        (folder / f"{word}.txt").write_text(f"all about {word}\n\n{word} is a colour\n\n{word}\n", encoding="utf-8")
    return folder


@pytest.fixture
def tickets(tmp_path: Path) -> Path:
    rows = [{"text": f"{word} does not work, case {n}", "intent": word} for word in WORDS for n in range(5)]
    path = tmp_path / "tickets.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def embed(texts: Any) -> Any:
    """One axis for each word, and a little of everything else."""
    vectors = np.full((len(texts), len(WORDS)), 0.1)
    for row, text in enumerate(texts):
        for column, word in enumerate(WORDS):
            vectors[row, column] += word in text
    return vectors


def test_output_is_a_source(texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "My-colours.jsonl"
    report = mine([texts], out, method="adjacent", licence="CC0")
    assert (report["candidates"], report["dropped"], report["kept"]) == (12, {"too short": 6}, 6)
    assert report["consistency"] is None
    assert rows_of(out) == [{"left": f"all about {word}", "right": f"{word} is a colour"} for word in sorted(WORDS)]
    card = load_recipe(Path(report["card"]), SourceCard)
    assert (card.name, card.licence, card.family) == ("my_colours", "CC0", "classification")
    assert card.counts == {"train": 6}
    assert str(tmp_path) not in Path(report["card"]).read_text()
    assert sorted(path.name for path in out.parent.iterdir()) == ["My-colours.jsonl", "My-colours.yaml"]


def test_groups_arrive(tickets: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs.jsonl"
    report = mine([tickets], out, method="duplicates", group_column="intent", per_row=2)
    assert len(rows_of(out)) == report["kept"] > 0
    for row in rows_of(out):
        assert row["group"] == row["left"].split()[0] == row["right"].split()[0]
        assert row["left"] != row["right"]


def test_consistency_filter(tickets: Path, tmp_path: Path) -> None:
    rows = [{"left": f"{word} shirts", "right": f"we have {word} ones"} for word in WORDS]
    rows[2]["right"] = "also in red"
    source, out = tmp_path / "rows.jsonl", tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"method": "columns", "left_column": "left", "right_column": "right", "top_k": 2}
    report = mine([source], out, embed=embed, **options)
    assert report["dropped"] == {"not consistent": 1}
    assert (report["kept"], report["consistency"]["kept"], report["consistency"]["pairs"]) == (5, 5, 6)
    assert [row["left"] for row in rows_of(out)] == [f"{w} shirts" for w in WORDS if w != "blue"]
    card = load_recipe(Path(report["card"]), SourceCard)
    assert "5 of 6 pairs passed the consistency filter" in card.title
    grouped = {"method": "duplicates", "group_column": "intent", "top_k": 1}
    assert mine([tickets], out, embed=embed, **grouped)["kept"] == 24
    assert {row["group"] for row in rows_of(out)} == set(WORDS)


def test_mining_again_gives_the_same_bytes(tickets: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs.jsonl"
    options = {"method": "duplicates", "group_column": "intent", "max_pairs": 3}
    mine([tickets], out, **options)
    before = out.read_bytes(), out.with_suffix(".yaml").read_bytes()
    mine([tickets], out, **options)
    assert (out.read_bytes(), out.with_suffix(".yaml").read_bytes()) == before
    mine([tickets], out, **options, seed=1)
    assert out.read_bytes() != before[0]


@pytest.mark.parametrize("with_filter", [False, True])
def test_a_failure_leaves_the_old_files(tickets: Path, tmp_path: Path, with_filter: bool) -> None:
    out = tmp_path / "out" / "pairs.jsonl"
    mine([tickets], out, method="duplicates", group_column="intent")
    before = {path.name: path.read_bytes() for path in out.parent.iterdir()}
    with tickets.open("a") as stream:
        stream.write("{broken\n")
    with pytest.raises(DataError, match=r"tickets\.jsonl:31: the line is not JSON"):
        mine([tickets], out, embed=embed if with_filter else None, method="duplicates", group_column="intent")
    assert {path.name: path.read_bytes() for path in out.parent.iterdir()} == before


@pytest.mark.parametrize("with_filter", [False, True])
def test_nothing_left(texts: Path, tmp_path: Path, with_filter: bool) -> None:
    out = tmp_path / "out" / "pairs.jsonl"
    chosen = embed if with_filter else None
    with pytest.raises(TrunklineError, match=r"no pair is left of 12 candidates \(12 too short\).*--min-words"):
        mine([texts], out, embed=chosen, method="adjacent", min_words=50)
    with pytest.raises(TrunklineError, match=r"no pair is left of 0 candidates\. .*blank lines"):
        mine([texts], out, embed=chosen, method="question-answer")
    with pytest.raises(TrunklineError, match="no file to mine"):
        mine([], out, method="adjacent")
    assert not out.parent.exists() or not list(out.parent.iterdir())


def test_a_filter_that_keeps_nothing(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(TrunklineError, match="6 not consistent"):
        mine([texts], tmp_path / "out" / "a.jsonl", embed=lambda t: np.ones((len(t), 2)), method="adjacent")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", ["pairs.json", "pairs", "___.jsonl"])
def test_names_of_the_output(texts: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"my_notes\.jsonl"):
        mine([texts], tmp_path / name, method="adjacent")


def test_a_card_of_the_users_own_is_not_replaced(texts: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.yaml").write_text("name: precious\n")
    with pytest.raises(DataError, match="this file is not ours"):
        mine([texts], tmp_path / "pairs.jsonl", method="adjacent")
    assert (tmp_path / "pairs.yaml").read_text() == "name: precious\n"
    assert not (tmp_path / "pairs.jsonl").exists()
