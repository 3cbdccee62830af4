"""The commands, run as a user runs them, on the tiny encoder."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from trunkline.cli import app
from trunkline.encoder.bundle_files import load_bundle

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


def test_a_task_is_adapted_on_the_rounded_backbone_and_exported_with_it(tiny_folder, table, tmp_path):
    bundle, out, texts = tmp_path / "bundle", tmp_path / "deployed", tmp_path / "texts.txt"
    texts.write_text("".join(f"{text}\n" for text, _ in ROWS), encoding="utf-8")
    options = ("kind", "--family", "classification", "--train", table, "--dev", table, "--encoder", tiny_folder("bert"))
    rounding = ("--weights", "int4", "--texts", texts)
    made = run("adapt", *options, *rounding, "--mode", "lora", "--out", bundle, "--json")
    assert made.returncode == 0, made.stderr
    scores = json.loads(made.stdout)
    assert scores["float32"]["dev"].keys() == scores["dev"].keys()
    (adapter,) = load_bundle(bundle).tasks.values()
    assert adapter.info["quantised"]["weights"] == "int4"
    # What is deployed is what the task was scored on.
    exported = run("export", bundle, "--out", out, *rounding, "--dev", f"kind={table}", "--json")
    assert exported.returncode == 0, exported.stderr
    judged = json.loads(exported.stdout)["weights"]["gate"]["tasks"]["kind"]
    assert judged["rounded"] == pytest.approx(scores["dev"]["accuracy"], abs=1 / 12 + 1e-6)
    plain = run("adapt", *options, "--mode", "lora", "--out", tmp_path / "plain", "--json")
    assert json.loads(plain.stdout)["dev"] == scores["float32"]["dev"]
    assert "float32" not in json.loads(plain.stdout)
    (exact,) = load_bundle(tmp_path / "plain").tasks.values()
    assert "quantised" not in exact.info
    assert (exact.head.weight != adapter.head.weight).any()


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
