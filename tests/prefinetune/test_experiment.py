"""The experiment folder: what a run can be repeated from, and a card that says only what its files say."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny_models
from trunkline.config import PrefinetuneRecipe
from trunkline.data.source_card import SourceCard, write_source_card
from trunkline.encoder.bundle_files import Loaded, load_any
from trunkline.errors import EncoderError, MismatchError
from trunkline.prefinetune import prefinetune
from trunkline.prefinetune.model import Source
from trunkline.prefinetune.record import write_experiment, write_model_card
from trunkline.prefinetune.sources import recipe_sources
from trunkline.versions import versions

Folders = Callable[[str], Path]


@dataclasses.dataclass
class Run:
    """What `prefinetune` has at hand when it starts."""

    recipe: PrefinetuneRecipe
    start: Loaded
    sources: dict[str, list[Source]]

    def write(self, folder: Path) -> dict[str, Any]:
        return write_experiment(folder, self.recipe, self.start, self.sources)


def begin(encoder: Path, data: Path, **changes: Any) -> Run:
    tiny_models.write_jsonl(data / "towns.jsonl", tiny_models.ner_rows(40, seed=1))
    card = SourceCard(name="towns", title="Towns", home="https://example.org/towns", family="ner", licence="CC0-1.0")
    write_source_card(card, data / "towns.yaml")
    recipe = tiny_models.recipe_of(encoder, data)
    sources = {str(data / "ner.jsonl"): {"weight": 3}, str(data / "towns.yaml"): {}}
    families = {**recipe.model_dump()["families"], "ner": {"sources": sources, "tokens": 64}}
    recipe = tiny_models.recipe_of(encoder, data, families=families, **changes)
    start = load_any(recipe.encoder, fork=recipe.fork, max_length=recipe.max_length)
    return Run(recipe, start, recipe_sources(recipe))


@pytest.fixture
def run(tiny_folder: Folders, tmp_path: Path) -> Run:
    return begin(tiny_folder("bert"), tmp_path / "data")


def test_a_run_says_what_it_depends_on(run: Run, tmp_path: Path) -> None:
    run.write(tmp_path / "run")
    found = json.loads((tmp_path / "run" / "experiment.json").read_text())
    assert (found["recipe"]["seed"], found["precision"], found["recipe"]["strategy"]) == (3, "fp32", "task-primary")
    assert found["encoder"]["backbone"] == run.start.backbone
    rows = {row["source"]: row for row in found["data"]}
    assert rows.keys() == {"ner", "towns", "pairs"}
    assert (rows["towns"]["licence"], rows["towns"]["home"]) == ("CC0-1.0", "https://example.org/towns")
    assert (rows["ner"]["licence"], rows["ner"]["share"], rows["towns"]["share"]) == ("unknown", 0.75, 0.25)
    assert (rows["ner"]["examples"], rows["ner"]["held_out"], rows["ner"]["concepts"]) == (54, 6, 3)
    assert (rows["pairs"]["concepts"], rows["pairs"]["family"]) == (0, "classification")
    assert all(re.fullmatch("[0-9a-f]{64}", row["sha256"]) for row in rows.values())
    assert len({row["sha256"] for row in rows.values()}) == 3
    (start,) = found["starts"]
    assert start["versions"] == versions()
    assert start["hardware"]["cores"] >= 1
    assert start["at"].startswith("20")
    assert "git" in start


def test_each_start_is_added_and_the_rest_stays(run: Run, tmp_path: Path) -> None:
    first = run.write(tmp_path)
    second = run.write(tmp_path)
    assert second["starts"][:1] == first["starts"]
    assert len(second["starts"]) == 2
    assert {**second, "starts": []} == {**first, "starts": []}


def test_going_on_with_data_that_changed_is_refused_and_the_source_named(run: Run, tmp_path: Path) -> None:
    run.write(tmp_path / "run")
    data = tmp_path / "data"
    tiny_models.write_jsonl(data / "pairs.jsonl", tiny_models.pair_rows(60, seed=9))
    encoder = Path(run.recipe.encoder)
    before = (tmp_path / "run" / "experiment.json").read_text()
    with pytest.raises(MismatchError, match=r"other content of classification source pairs\..*--out"):
        begin(encoder, data).write(tmp_path / "run")
    assert (tmp_path / "run" / "experiment.json").read_text() == before


def test_going_on_with_another_result_of_decontamination_is_refused(run: Run, tmp_path: Path) -> None:
    run.write(tmp_path)
    # As many examples, but others of them.
    first = run.sources["ner"][0]
    run.sources["ner"][0] = dataclasses.replace(first, facts={**first.facts, "sha256": "0" * 64})
    with pytest.raises(MismatchError, match="ner source ner"):
        run.write(tmp_path)


def test_going_on_from_another_encoder_is_refused(run: Run, tiny_folder: Folders, tmp_path: Path) -> None:
    run.write(tmp_path)
    run.start = load_any(str(tiny_folder("distilbert")))
    with pytest.raises(MismatchError, match="encoder "):
        run.write(tmp_path)


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlicense: mit\nlanguage: en\n---\n# A model", "mit"),
        ("# A model\nlicense: mit", ""),
        ("---\nlicense: [mit, gpl]\n---\n", ""),
        ("---\n: {broken\n---\n", ""),
        ("---", ""),
        (None, ""),
    ],
)
def test_the_encoders_licence_is_what_its_readme_says(readme: str | None, licence: str, tmp_path: Path) -> None:
    encoder = tiny_models.save_model("bert", tmp_path / "encoder", 4)
    if readme is not None:
        (encoder / "README.md").write_text(readme, encoding="utf-8")
    found = begin(encoder, tmp_path / "data").write(tmp_path / "run")
    assert found["encoder"] == {
        "name": "encoder",
        "licence": licence,
        "bundle": False,
        "backbone": found["encoder"]["backbone"],
    }


@pytest.fixture(scope="module")
def done(tiny_folder: Folders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that ended."""
    folder = tmp_path_factory.mktemp("finished")
    run = begin(tiny_folder("bert"), folder / "data")
    prefinetune(run.recipe, folder / "run")
    run.write(folder / "run")
    return folder / "run"


@pytest.fixture
def finished(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "run"))


def card_of(folder: Path) -> str:
    write_model_card(folder, folder / "bundle", load_any(str(folder / "bundle")))
    text = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert (folder / "bundle" / "MODEL_CARD.md").read_text(encoding="utf-8") == text
    assert len(text.splitlines()) < 120
    return text


def test_the_card_is_made_of_the_runs_files(finished: Path) -> None:
    text = card_of(finished)
    head = yaml.safe_load(text.split("---")[1])
    assert head == {"library_name": "trunkline", "tags": ["ner", "classification"]}
    assert "# tiny\n" in text
    assert "| ner | [towns](https://example.org/towns) | 25.0% | 36 | 4 | CC0-1.0 |" in text
    assert "| ner | ner | 75.0% | 54 | 6 | unknown |" in text
    assert "Training: strategy task-primary, 10 steps over" in text and "tokens, precision fp32, seed 3" in text
    assert "Primary adapters: classification, ner\n" in text
    assert "arXiv 2510.07566" in text
    assert str(finished.parent) not in text, "no path of this machine"
    assert "{" not in text and "\n\n\n" not in text


def test_a_card_without_its_files_is_an_error_that_names_them(finished: Path) -> None:
    (finished / "experiment.json").unlink()
    with pytest.raises(EncoderError, match=r"experiment\.json"):
        card_of(finished)
