"""The commands, run as a user runs them, on a tiny encoder."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import deployed
import tiny_models
import trunkline
from trunkline.cli import app
from trunkline.cli.tasks import ORDER
from trunkline.encoder.bundle_files import load_any

runner = CliRunner()


def run(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trunkline.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, input=stdin)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Callable[[str], Path]) -> Path:
    """A bundle with tasks; treat it as read-only."""
    loaded = deployed.whole(load_any(str(tiny_folder("bert")), fork=2, max_length=40))
    return deployed.deploy(loaded, tmp_path_factory.mktemp("cli") / "bundle")


def test_every_command_has_help_with_an_example_and_none_is_cut_off() -> None:
    shown = runner.invoke(app, ["--help"])
    assert shown.exit_code == 0
    lines = [line.strip("│ ") for line in shown.output.splitlines() if line.startswith(("│", "  "))]
    listed = [line.split()[0] for line in lines if line and line.split()[0] in ORDER]
    assert listed == list(ORDER)
    assert not any(line.endswith(("...", "…")) for line in lines)
    groups = {group.name for group in app.registered_groups}
    names = [command.name or command.callback.__name__ for command in app.registered_commands]  # type: ignore[union-attr]
    assert {"fit", "predict", "evaluate"} <= set(names)
    assert "bundle" in groups
    for name in names:
        result = runner.invoke(app, [name, "--help"])
        assert result.exit_code == 0
        assert "Example: trunkline" in " ".join(result.output.split())
        options = {word.rstrip(",") for word in result.output.split() if word.startswith("--")}
        assert len(options) <= 24, name


def test_predictions_of_arguments_stdin_and_files_are_those_of_python(bundle: Path, tmp_path: Path) -> None:
    texts = ["ann lives in berlin", "the old river"]
    expected = trunkline.load(bundle).predict(texts, ["names", "topic"])
    rows = [{"text": text, "tasks": row} for text, row in zip(texts, expected, strict=True)]
    asked = ("--task", "names", "--task", "topic", "--json")
    given = run("predict", bundle, *texts, *asked)
    assert [json.loads(line) for line in given.stdout.splitlines()] == rows, given.stderr
    piped = run("predict", bundle, *asked, stdin="\n".join(texts) + "\n\n")
    assert piped.stdout == given.stdout
    assert "stdin: blank lines left out: 1" in piped.stderr
    records = [{"id": 7, "text": texts[0], "nested": {"a": [1]}}, {"id": 8, "text": texts[1]}]
    file = tiny_models.write_jsonl(tmp_path / "in.jsonl", records)
    read = run("predict", bundle, "--file", file, *asked)
    found = [json.loads(line) for line in read.stdout.splitlines()]
    assert found == [{**record, **row} for record, row in zip(records, rows, strict=True)], "other keys are kept"
    packed = tmp_path / "in.jsonl.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert run("predict", bundle, "--file", packed, *asked).stdout == read.stdout
    plain = tmp_path / "in.txt"
    plain.write_text("\n\n \n".join(texts) + "\n", encoding="utf-8")
    listed = run("predict", bundle, "--file", plain, *asked)
    assert listed.stdout == given.stdout
    assert f"{plain}: blank lines left out: 2" in listed.stderr


def test_tables_for_predictions_have_their_header_left_out(bundle: Path, tmp_path: Path) -> None:
    for name, delimiter in (("in.csv", ";"), ("in.tsv", "\t")):
        path = tmp_path / name
        path.write_text(f"number{delimiter}satz\n1{delimiter}ann, bob\n2{delimiter}rome\n", encoding="utf-8")
        options = ("--text-column", "satz", "--delimiter", "tab" if delimiter == "\t" else delimiter)
        done = run("predict", bundle, "--file", path, "--task", "topic", "--json", *options)
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert [row["text"] for row in found] == ["ann, bob", "rome"], done.stderr
        assert [row["number"] for row in found] == ["1", "2"]


def test_predictions_go_to_a_file_that_is_whole_or_not_there(bundle: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "in.jsonl", tmp_path / "deep" / "out.jsonl"
    file.write_text('{"text": "buy milk"}\n{"text": "ring"}\n', encoding="utf-8")
    assert run("predict", bundle, "--file", file, "--out", out).returncode == 0
    assert [json.loads(line)["text"] for line in out.read_text(encoding="utf-8").splitlines()] == ["buy milk", "ring"]
    before = out.read_bytes()
    file.write_text('{"text": "buy milk"}\n{"words": "ring"}\n', encoding="utf-8")
    for options in ((), ("--out", out, "--replace")):
        refused = run("predict", bundle, "--file", file, *options)
        assert refused.returncode == 2
        assert f"{file}:2" in refused.stderr
        assert "Traceback" not in refused.stderr
    assert out.read_bytes() == before
    assert [path.name for path in out.parent.iterdir()] == ["out.jsonl"]
    for place, said in (
        (tmp_path, "is a folder"),
        (file / "x", "cannot be written to"),
        ("/dev/null", "no plain file"),
    ):
        file.write_text('{"text": "buy milk"}\n', encoding="utf-8")
        refused = run("predict", bundle, "--file", file, "--out", place)
        assert refused.returncode == 2
        assert said in refused.stderr


def test_predictions_replace_no_file_unasked(bundle: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    file.write_text('{"text": "buy milk"}\n', encoding="utf-8")
    out.write_text("mine\n", encoding="utf-8")
    link = tmp_path / "link.jsonl"
    link.symlink_to(file)
    for place, options, said in (
        (file, ["--replace"], "is the file that is read"),
        (link, ["--replace"], "is the file that is read"),
        (out, [], "--replace"),
    ):
        # Before any work: the bundle is not even looked for.
        refused = runner.invoke(app, ["predict", "nowhere", "--file", str(file), "--out", str(place), *options])
        assert said in str(refused.exception)
    assert (file.read_text(encoding="utf-8"), out.read_text(encoding="utf-8")) == ('{"text": "buy milk"}\n', "mine\n")
    assert run("predict", bundle, "--file", file, "--out", out, "--replace").returncode == 0
    assert json.loads(out.read_text(encoding="utf-8"))["text"] == "buy milk"
    packed = tmp_path / "empty.jsonl.gz"
    packed.touch()
    assert run("predict", bundle, "--file", file, "--out", packed).returncode == 0
    assert gzip.decompress(packed.read_bytes()) == out.read_bytes()


def test_files_of_any_length_are_predicted_on_in_bounded_memory(bundle: Path, tmp_path: Path) -> None:
    model, taken, ahead = trunkline.load(bundle), 0, []

    def endless() -> Iterator[tuple[str, dict[str, Any]]]:
        nonlocal taken
        for number in range(3000):
            taken += 1
            yield tiny_models.WORDS[number % 90], {"number": number}

    for number, _ in enumerate(model.predict_iter((text for text, _ in endless()), ["topic"])):
        ahead.append(taken - number)
    assert taken == 3000
    assert max(ahead) <= 257
    done = run("predict", bundle, "--task", "topic", "--out", tmp_path / "out.jsonl", stdin="one\n\ntwo\n")
    assert done.stdout.startswith("2 predictions")


def test_people_are_shown_tables_that_are_not_cut_when_piped(bundle: Path, tmp_path: Path) -> None:
    rows = tiny_models.write_jsonl(
        tmp_path / "rows.jsonl", [{"text": "ann", "label": "a"}, {"text": "rome", "label": "b"}]
    )
    long = "x" * 300
    shown = run("predict", bundle, f"ann met {long}", "--task", "topic")
    assert long in shown.stdout.replace("\n", "")
    assert "topic" in shown.stdout
    table = run("evaluate", bundle, "--task", "topic", "--data", rows)
    assert table.returncode == 0, table.stderr
    assert "accuracy" in table.stdout
    assert "…" not in table.stdout
    record = json.loads(run("evaluate", bundle, "--task", "topic", "--data", rows, "--json").stdout)
    assert record["examples"] == 2


def test_bytes_that_are_no_text_are_shown_as_question_marks(bundle: Path) -> None:
    command = [sys.executable, "-m", "trunkline.cli", "predict", str(bundle), "--task", "topic"]
    done = subprocess.run([*command, b"ann \xff bob"], capture_output=True, env=os.environ | {"PYTHONUTF8": "1"})
    assert done.returncode == 0, done.stderr
    assert b"ann ? bob" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prefinetune", "nowhere.yaml"], ["nowhere.yaml"]),
        (["predict", "nowhere", "hello"], ["nowhere"]),
        (["predict", "{bundle}", "a", "--file", "x.txt"], ["one of both"]),
        (["predict", "{bundle}", "a", "--task", "nmaes"], ["nmaes", "names"]),
        (["predict", "{bundle}", "--file", "x.txt"], ["x.txt"]),
        (["evaluate", "{bundle}", "--task", "nmaes", "--data", "x.csv"], ["nmaes"]),
        (["evaluate", "{bundle}", "--task", "topic", "--data", "x.csv"], ["x.csv"]),
        (["bundle", "remove", "{bundle}", "nmaes"], ["no task nmaes"]),
        (["bundle", "show", "nowhere"], ["nowhere", "manifest.json"]),
        (["fti", "a"], ["fti", "fit"]),
    ],
)
def test_mistakes_end_in_one_message_and_exit_code_two(arguments: list[str], words: list[str], bundle: Path) -> None:
    result = run(*(argument.format(bundle=bundle) for argument in arguments))
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert all(word in result.stderr for word in words), result.stderr


def test_what_predict_reads_comes_from_one_place(bundle: Path, tmp_path: Path) -> None:
    done = run("predict", bundle, "a", "--file", tmp_path / "x.txt")
    assert done.returncode == 2
    assert "one of both" in done.stderr


def test_a_signature_is_checked_told_of_and_its_end_is_said(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="the package cryptography is not installed")
    folder, task = Path(shutil.copytree(bundle, tmp_path / "renamed")), bundle / "tasks" / "topic.safetensors"

    def verified(*options: object) -> str:
        return run("bundle", "verify", folder, *options).stdout.strip().removeprefix(f"{folder}: ")

    assert verified() == "12 files good, not signed"
    assert run("bundle", "add", folder, "a", task).stderr == ""
    public = run("bundle", "sign", folder, "--key", tmp_path / "key", "--new-key").stdout
    (tmp_path / "public").write_text(public)
    assert verified() == "13 files good, signed, check by whom with --public-key"
    for key in (public.strip(), tmp_path / "public"):
        assert verified("--public-key", key) == "13 files good, signature good"
    for key in ("00ff", "f" * 300):
        wrong = run("bundle", "verify", folder, "--public-key", key)
        assert wrong.returncode == 2
        assert wrong.stderr.strip().endswith("). Expected 64 hexadecimal digits or a file with them.")
    said = f"the signature of {folder} is gone, sign it again with `trunkline bundle sign`"
    assert said in run("bundle", "remove", folder, "a").stderr
    assert said not in run("bundle", "add", folder, "a", task).stderr
    run("bundle", "sign", folder, "--key", tmp_path / "key")
    train = tmp_path / "train.csv"
    train.write_text("text,label\n" + "ann,name\nbob,name\nberlin,place\nrome,place\n" * 4)
    fitted = run("fit", "kinds", "--train", train, "--out", folder)
    assert (fitted.returncode, said in fitted.stderr) == (0, True), fitted.stderr
