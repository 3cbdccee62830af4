"""The commands, run as a user runs them, on the tiny encoder."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from trunkline.cli import app

runner = CliRunner()
ROWS = [("call me back", "call"), ("ring her at noon", "call"), ("buy milk", "shop"), ("order bread and eggs", "shop")]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS * 3), encoding="utf-8")
    return path


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "trunkline.cli", *map(str, arguments)], capture_output=True, text=True)


def test_every_command_has_help_with_an_example():
    names = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert {"encoders", "prefinetune", "adapt", "predict", "sweep", "quickstart"} <= set(names)
    for name in names:
        result = runner.invoke(app, [name, "--help"])
        assert result.exit_code == 0
        assert "Example: trunkline" in " ".join(result.output.split())


def test_adapt_then_predict(tiny_folder, table, tmp_path):
    bundle = tmp_path / "bundle"
    options = ("--family", "classification", "--train", table, "--dev", table, "--test", table)
    made = run("adapt", "kind", *options, "--encoder", tiny_folder("bert"), "--out", bundle, "--json")
    assert made.returncode == 0, made.stderr
    scores = json.loads(made.stdout)
    assert scores["examples"] == {"train": 12, "dev": 12, "test": 12}
    assert scores["bytes"] < 100_000
    shown = run("predict", bundle, "buy eggs", "ring me", "--json")
    rows = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [row["text"] for row in rows] == ["buy eggs", "ring me"]
    assert all(set(row["tasks"]["kind"]["probabilities"]) == {"call", "shop"} for row in rows)


def test_predict_reads_files_and_stdin_and_writes_lines(tiny_folder, table, tmp_path):
    bundle, texts, out = tmp_path / "bundle", tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    options = ("--family", "classification", "--train", table, "--encoder", tiny_folder("bert"), "--out", bundle)
    assert run("adapt", "kind", *options).returncode == 0
    texts.write_text('{"text": "buy milk"}\n{"text": "ring"}\n', encoding="utf-8")
    assert run("predict", bundle, "--file", texts, "--out", out).returncode == 0
    assert len(out.read_text(encoding="utf-8").splitlines()) == 2
    texts.write_text('{"text": "buy milk"}\n{"words": "ring"}\n', encoding="utf-8")
    refused = run("predict", bundle, "--file", texts)
    assert refused.returncode == 2
    assert f"{texts}:2" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prefinetune", "nowhere.yaml"], ["nowhere.yaml"]),
        (["predict", "nowhere", "hello"], ["nowhere", "manifest.json"]),
        (["adapt", "a", "--family", "verbs", "--train", "x.csv"], ["verbs", "ner", "classification"]),
        (["adapt", "../a", "--family", "ner", "--train", "x.conll"], ["../a", "letters"]),
        (["adapt", "a", "--family", "ner", "--train", "x.conll", "--mode", "heads"], ["heads", "lora"]),
    ],
)
def test_mistakes_end_in_one_message_and_exit_code_two(arguments, words):
    result = run(*arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert all(word in result.stderr for word in words), result.stderr
