"""The whole way: options, output, source card, and that pre-finetuning takes it as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trunkline.config import load_recipe
from trunkline.data.source_card import SourceCard
from trunkline.errors import DataError, TrunklineError
from trunkline.label import label_text

TEXTS = ["The Nile is long. Nobody knows why.", "She saw Jordan and the Nile."]


@pytest.fixture
def gazetteer(tmp_path: Path) -> Path:
    path = tmp_path / "g.tsv"
    path.write_text("surface\tconcept\nNile\triver\nJordan\tcountry\nJordan\triver\n")
    return path


def label(source: Any, out: Path, gazetteer: Path, **options: Any) -> dict[str, Any]:
    return label_text(source, out, method="gazetteer", gazetteer=gazetteer, **options)


def test_files_and_report(gazetteer: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "My Labels-1.jsonl"
    report = label(TEXTS, out, gazetteer, licence="CC0")
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        {"text": "The Nile is long.", "spans": [[4, 8, "river"]]},
        {"text": "She saw Jordan and the Nile.", "spans": [[8, 14, "country"], [8, 14, "river"], [23, 27, "river"]]},
    ]
    card = load_recipe(out.with_suffix(".yaml"), SourceCard)
    assert (card.name, card.family, card.coverage, card.licence) == ("my_labels_1", "ner", "open", "CC0")
    assert card.counts == {"train": 2}
    assert card.quirks[1] == "Method gazetteer: gazetteer g.tsv."
    numbers = {key: report[key] for key in ("sentences", "labelled", "spans", "concepts", "top", "surfaces")}
    assert numbers == {
        "sentences": 3, "labelled": 2, "spans": 4, "concepts": 2, "top": [("river", 3), ("country", 1)], "surfaces": 2,
    }  # fmt: skip
    assert (report["out"], report["card"]) == (str(out), str(out.with_suffix(".yaml")))
    assert sorted(path.name for path in out.parent.iterdir()) == ["My Labels-1.jsonl", "My Labels-1.yaml"]


def test_options_of_every_method(gazetteer: Path, tmp_path: Path) -> None:
    out = tmp_path / "w.jsonl"
    assert label(TEXTS, out, gazetteer, limit=1)["sentences"] == 1
    assert label(TEXTS, out, gazetteer, drop=("River",))["top"] == [("country", 1)]


def test_what_is_read(gazetteer: Path, tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "a.md").write_text("# The Nile\n\nIt is\nnear Jordan.\n\n```\nNile = 3\n```\n")
    (folder / "b.txt").write_text("\n".join(TEXTS))
    (folder / "c.csv").write_text('said,by\n"Nile, or not",x\n')
    out = tmp_path / "w.jsonl"
    assert label(folder, out, gazetteer)["sentences"] == 5
    assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == [
        "# The Nile", "It is near Jordan.", "The Nile is long.", "She saw Jordan and the Nile.",
    ]  # fmt: skip
    assert label(folder, out, gazetteer, text_column="said")["sentences"] == 1
    assert label(str(folder / "c.csv"), out, gazetteer, text_column="said")["labelled"] == 1
    with pytest.raises(DataError, match=r"c\.csv:2: no column 'text'.*--text-column"):
        label(folder / "c.csv", out, gazetteer)
    with pytest.raises(DataError, match="no such file"):
        label(tmp_path / "none.txt", out, gazetteer)


def test_nothing_to_label(gazetteer: Path, tmp_path: Path) -> None:
    out = tmp_path / "w.jsonl"
    with pytest.raises(TrunklineError, match="there is no sentence to label"):
        label(["12 !"], out, gazetteer)
    with pytest.raises(TrunklineError, match="none of 1 sentences got a label"):
        label(["Nothing."], out, gazetteer)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.tsv"]


def test_an_error_leaves_the_old_output(gazetteer: Path, tmp_path: Path) -> None:
    out = tmp_path / "w.jsonl"
    label(TEXTS, out, gazetteer)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def texts() -> Any:
        yield TEXTS[0]
        raise DataError("a bad line", path="x")

    with pytest.raises(DataError, match="a bad line"):
        label(texts(), out, gazetteer)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_outputs_that_would_do_harm(gazetteer: Path, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").mkdir()
    for name in ("w.json", "d.jsonl", "___.jsonl"):
        with pytest.raises(DataError, match=r"no output of this name.*my_notes\.jsonl"):
            label(TEXTS, tmp_path / name, gazetteer)
    (tmp_path / "w.yaml").write_text("name: mine\n")
    with pytest.raises(DataError, match=r"w\.yaml: this file is not ours"):
        label(TEXTS, tmp_path / "w.jsonl", gazetteer)
    own = tmp_path / "own.jsonl"
    own.write_text('{"surface": "Nile", "concept": "river", "text": "the Nile"}\n')
    with pytest.raises(DataError, match="would overwrite an input"):
        label(TEXTS, own, own)
    with pytest.raises(DataError, match="would overwrite an input"):
        label(own, own, gazetteer)
    with pytest.raises(DataError, match="would overwrite an input"):
        label(tmp_path, own, gazetteer, text_column="text")
    with pytest.raises(TrunklineError, match=r"below\.jsonl cannot be written"):
        label(TEXTS, gazetteer / "below.jsonl", gazetteer)
