"""From a folder of plain text to a bundle, by the commands; and the commands about data."""

import json

import pytest
import yaml
from typer.testing import CliRunner

import tiny_models
from trunkline.cli import app
from trunkline.encoder.bundle_files import load_any

runner = CliRunner()


def invoke(*arguments):
    result = runner.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output + str(result.exception)
    return result


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    for number, (name, place) in enumerate(zip(tiny_models.NAMES, tiny_models.PLACES, strict=False)):
        text = (
            f"Notes about the {number}th day\n\n"
            f"We met {name.title()} in {place.title()} near the river. Then it rained for {number + 2} hours.\n\n"
            f"What did {name.title()} say about {place}?\n\n"
            f"{name.title()} said that {place.title()} is a quiet town with {number + 3} bridges.\n"
        )
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    return folder


def test_a_folder_of_text_becomes_sources_of_pre_finetuning(notes, tmp_path, tiny_folder):
    rows = [(name.title(), "person") for name in tiny_models.NAMES] + [(p.title(), "town") for p in tiny_models.PLACES]
    gazetteer = tmp_path / "names.tsv"
    gazetteer.write_text("".join(f"{surface}\t{concept}\n" for surface, concept in rows), encoding="utf-8")
    spans, pairs = tmp_path / "spans.jsonl", tmp_path / "pairs.jsonl"
    options = ("--method", "gazetteer", "--gazetteer", gazetteer, "--columns", "surface,concept")
    report = json.loads(invoke("weak-label", notes, *options, "--out", spans, "--json").stdout)
    assert report["concepts"] == 2 and report["labelled"] >= 2 * len(list(notes.iterdir()))
    encoder = str(tiny_folder("bert"))
    for method, filtered in (("question-answer", ()), ("adjacent", ("--encoder", encoder, "--top-k", 30))):
        mined = json.loads(invoke("mine-pairs", notes, "--method", method, *filtered, "--out", pairs, "--json").stdout)
        assert mined["kept"] >= 12
    checked = runner.invoke(
        app, ["check-data", "--train", str(spans), "--family", "ner", "--json", "--encoder", "none"]
    )
    assert checked.exit_code == 0 and json.loads(checked.stdout)[0]["counts"]["train"]["loaded"] == report["labelled"]
    recipe = tiny_models.recipe_of(tiny_folder("bert"), tmp_path / "unused").model_dump(mode="json")
    recipe["families"]["ner"]["sources"] = {str(spans): {}}
    recipe["families"]["classification"]["sources"] = {str(pairs.with_suffix(".yaml")): {}}
    recipe["optimizer"]["steps"] = 2
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    invoke("prefinetune", path, "--out", tmp_path / "run", "--seed", 1)
    assert set(load_any(str(tmp_path / "run" / "bundle")).primaries) == {"ner", "classification"}
    plan = {row["source"]: row for row in json.loads((tmp_path / "run" / "schedule.json").read_text())}
    assert plan["spans"]["share"] == 1.0 and plan["pairs"]["epochs"] > 0


def test_data_commands(tmp_path):
    listed = json.loads(invoke("data", "list", "--role", "source", "--json").stdout)
    assert "sample_pairs" in {row["name"] for row in listed} and {row["role"] for row in listed} == {"source"}
    assert json.loads(invoke("data", "show", "sample_events", "--json").stdout)["licence"] == "Apache-2.0"
    stats = invoke("data", "stats", "sample_events", "--split", "test", "--plot", tmp_path / "p.png", "--json").stdout
    assert json.loads(stats)["splits"]["test"]["examples"] == 220
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    mixture = {"name": "m", "families": {"ner": {"sources": {"sample_sentences": {"cap": 500}}}}}
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(mixture))
    report = json.loads(invoke("data", "mix", tmp_path / "m.yaml", "--out", tmp_path / "m.json", "--json").stdout)
    assert report["totals"]["ner"]["examples"] == 500 and json.loads((tmp_path / "m.json").read_text()) == report
    for command in (("list",), ("show", "sample_events"), ("stats", "sample_intents"), ("mix", tmp_path / "m.yaml")):
        assert invoke("data", *command).stdout.strip()


def test_check_data_says_leak_by_its_exit_code(tmp_path):
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("text,label\nplease call me back at noon,call\nbuy two bottles of milk,shop\n")
    test.write_text("text,label\nPlease call me back at noon!,call\norder some bread for me,shop\n")
    leaking = runner.invoke(app, ["check-data", "--train", str(train), "--test", str(test), "--encoder", "none"])
    assert leaking.exit_code == 1 and "test_in_train" in leaking.output
    clean = runner.invoke(app, ["check-data", "--train", str(train), "--encoder", "none"])
    assert clean.exit_code == 0
    assert runner.invoke(app, ["check-data", "sample_events", "--encoder", "none"]).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("weak-label", "x.txt", "--method", "gazetter", "--out", "o.jsonl"), "gazetteer"),
        (("weak-label", "x.txt", "--method", "chat", "--out", "o.jsonl"), "base_url"),
        (("mine-pairs", "x.txt", "--method", "columns", "--out", "o.jsonl"), "left_column"),
        (("check-data",), "--train"),
        (("data", "stats", "wnut"), "wnut17"),
    ],
)
def test_bad_options_are_named(arguments, words):
    result = runner.invoke(app, arguments)
    assert result.exit_code != 0
    assert words in result.output + str(result.exception)
