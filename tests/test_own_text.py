"""From a folder of plain text to pre-finetuning on it, by the commands."""

import json
import subprocess
import sys

import click
import pytest
import typer
import yaml
from typer.testing import CliRunner

import tiny_models
from trunkline.cli import app

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


@pytest.fixture
def gazetteer(tmp_path):
    rows = [(name.title(), "person") for name in tiny_models.NAMES] + [(p.title(), "town") for p in tiny_models.PLACES]
    path = tmp_path / "names.tsv"
    rows.insert(0, ("surface", "concept"))
    path.write_text("".join(f"{surface}\t{concept}\n" for surface, concept in rows), encoding="utf-8")
    return path


def test_an_encoder_for_pairs_needs_an_extra(notes, tmp_path):
    command = ["label", "pairs", str(notes), "--method", "title-body", "--encoder", "default", "--out"]
    code = "import sys; sys.modules['torch'] = None; from trunkline.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *command, tmp_path / "p.jsonl"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "trunkline[train]" in done.stderr and "Traceback" not in done.stderr
    shown = " ".join(invoke("label", "pairs", "--help").stdout.replace("│", " ").split())
    assert "needs [train]" in shown


def test_a_folder_of_text_becomes_sources_of_pre_finetuning(notes, gazetteer, tmp_path, tiny_folder):
    spans, pairs = tmp_path / "spans.jsonl", tmp_path / "pairs.jsonl"
    options = ("--method", "gazetteer", "--gazetteer", gazetteer, "--set", "max_words=80")
    report = json.loads(invoke("label", "weak", notes, *options, "--out", spans, "--json").stdout)
    assert report["concepts"] == 2 and report["labelled"] >= 2 * len(list(notes.iterdir()))
    encoder = str(tiny_folder("bert"))
    for method, filtered in (("question_answer", ()), ("adjacent", ("--encoder", encoder, "--top-k", 30))):
        mined = invoke("label", "pairs", notes, "--method", method, *filtered, "--out", pairs, "--json")
        assert json.loads(mined.stdout)["kept"] >= 12
    recipe = tiny_models.recipe_of(tiny_folder("bert"), tmp_path / "unused").model_dump(mode="json")
    recipe["families"]["ner"]["sources"] = {str(spans): {}}
    recipe["families"]["classification"]["sources"] = {str(pairs.with_suffix(".yaml")): {}}
    recipe["optimizer"]["steps"] = 2
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    invoke("prefinetune", "run", path, "--out", tmp_path / "run")
    data = json.loads((tmp_path / "run" / "experiment.json").read_text())["data"]
    assert [(row["source"], row["share"]) for row in data] == [("pairs", 1.0), ("spans", 1.0)]
    assert (tmp_path / "run" / "bundle").is_dir()


def test_overlapping_and_open_labels_arrive(tmp_path):
    """Pre-finetuning takes all concepts of a span, and what is unlabelled as unknown."""
    from trunkline.config import PrefinetuneRecipe, parse_recipe
    from trunkline.label import label_text
    from trunkline.prefinetune.sources import recipe_sources

    table, out = tmp_path / "g.tsv", tmp_path / "w.jsonl"
    table.write_text("surface\tconcept\nNile\triver\nJordan\tcountry\nJordan\triver\n")
    label_text(["She saw Jordan and the Nile."] * 20, out, method="gazetteer", gazetteer=table)
    raw = {"name": "r", "families": {"ner": {"sources": {str(out): {}}, "held_out": 2}}}
    (source,) = recipe_sources(parse_recipe(raw, PrefinetuneRecipe, "r"))["ner"]
    assert not source.closed
    assert source.concepts == {"river": "river", "country": "country"}
    assert (len(source.train), len(source.held_out)) == (18, 2)
    assert {span.label for span in source.train[0].spans} == {"country", "river"} and len(source.train[0].spans) == 3


def test_tables_for_people(notes, gazetteer, tmp_path):
    shown = invoke(
        "label", "weak", notes, "--method", "gazetteer", "--gazetteer", gazetteer, "--out", tmp_path / "s.jsonl"
    )
    assert "person" in shown.stdout and "sentences have labels" in shown.stdout
    shown = invoke("label", "pairs", notes, "--method", "title-body", "--min-words", 4, "--out", tmp_path / "p.jsonl")
    assert "candidates" in shown.stdout and "12" in shown.stdout


@pytest.mark.parametrize("name", ["weak", "pairs"])
def test_help_fits(name):
    group = typer.main.get_command(app).commands["label"]
    command = group.commands[name]
    options = [
        parameter for parameter in command.params if isinstance(parameter, click.Option) or "--" in parameter.opts[0]
    ]
    assert len(options) <= 20
    assert all(parameter.help for parameter in options)
    assert f"Example: trunkline label {name}" in command.help


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("weak", "x.txt", "--method", "gazetter"), "did you mean 'gazetteer'"),
        (("weak", "x.txt", "--method", "chat"), "--base-url is missing"),
        (("weak", "x.txt", "--method", "chat", "--set", "retrys=3"), "did you mean 'retries'"),
        (("weak", "x.txt", "--method", "chat", "--set", "retries"), "NAME=VALUE"),
        (
            ("weak", "x.txt", "--method", "gazetteer", "--gazetteer", "g.tsv", "--model", "m"),
            "model: unknown key",
        ),
        (("pairs", "x.txt", "--method", "columns"), "--left-column is missing"),
        (("pairs", "x.txt", "--method", "adjacent", "--set", "pool=few"), "pool"),
        (("pairs", "none.txt", "--method", "adjacent"), "no such file"),
    ],
)
def test_bad_options_are_named(arguments, words):
    result = runner.invoke(app, ["label", *arguments, "--out", "o.jsonl"])
    assert result.exit_code != 0
    assert words in result.output + str(result.exception)
