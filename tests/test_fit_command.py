"""`trunkline fit` from a file to a task's file: every option counts, and what cannot be is refused before the work."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import deployed
import tiny_models
import trunkline
from trunkline.bundle.files import open_bundle
from trunkline.bundle.parts import Task, tensors_of
from trunkline.cli import app
from trunkline.encoder.bundle_files import load_any
from trunkline.encoder.resolve import find_embedded
from trunkline.errors import TrunklineError
from trunkline.model import Model

needs_package = pytest.mark.skipif(find_embedded()[0] is None, reason="the default encoder is not installed")
KINDS = {"place": tiny_models.PLACES, "name": tiny_models.NAMES, "org": tiny_models.ORGS}
Pairs = list[tuple[str, str]]


def pairs(count: int, seed: int = 0, kinds: Sequence[str] = ("place", "name", "org")) -> Pairs:
    rng = random.Random(seed)
    return [
        (" ".join(rng.choices(KINDS[label], k=2)), label) for label in (kinds[n % len(kinds)] for n in range(count))
    ]


def table(path: Path, rows: Pairs, header: str = "text,label", delimiter: str = ",") -> Path:
    lines = [header, *(delimiter.join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def _model(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Callable[[str], Path]) -> Path:
    loaded = deployed.whole(load_any(str(tiny_folder("bert")), fork=2, max_length=40))
    return deployed.with_both(dataclasses.replace(loaded, tasks={}), tmp_path_factory.mktemp("fit"))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Callable[[str], Path]) -> Path:
    """A bundle without primary adapters; treat it as read-only."""
    loaded = load_any(str(tiny_folder("bert")), fork=2, max_length=40)
    return deployed.with_both(loaded, tmp_path_factory.mktemp("bare"))


@pytest.fixture
def model(_model: Path, tmp_path: Path) -> Path:
    """A bundle of a tiny encoder without tasks."""
    return Path(shutil.copytree(_model, tmp_path / "model"))


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def fit(name: str, train: Path, *options: object) -> dict[str, Any]:
    result = run("fit", name, "--train", train, *options, "--json")
    assert result.exit_code == 0, result.output
    record: dict[str, Any] = json.loads(result.stdout)
    return record


def task_of(folder: Path, name: str) -> Task:
    return open_bundle(folder).tasks[name]


def numbers(task: Task) -> list[list[float]]:
    """What was learnt; the file says besides which settings were given."""
    return [array.ravel().tolist() for _, array in sorted(tensors_of(task.content, task.name)[0].items())]


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".trunkline.lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_from_a_file_to_a_task_that_predicts_it(model: Path, tmp_path: Path) -> None:
    train, test = table(tmp_path / "train.csv", pairs(30)), table(tmp_path / "test.csv", pairs(12, 5))
    record = fit("kinds", train, "--test", test, "--model", model, "--out", tmp_path / "bot")
    assert record["examples"] == {"train": 30, "dev": 0, "test": 12}
    assert (record["task"], record["family"], record["mode"]) == ("kinds", "classification", "head")
    assert record["labels"] == ["name", "org", "place"]
    assert record["bundle"] == str(tmp_path / "bot")
    file = tmp_path / "bot" / "tasks" / "kinds.safetensors"
    assert record["bytes"] == file.stat().st_size
    found = trunkline.load(tmp_path / "bot").predict([text for text, _ in pairs(12, 5)])
    right = sum(row["kinds"]["label"] == label for row, (_, label) in zip(found, pairs(12, 5), strict=True))
    assert record["test"]["accuracy"] == right / 12
    known = trunkline.load(tmp_path / "bot").predict([text for text, _ in pairs(30)])
    hits = sum(row["kinds"]["label"] == label for row, (_, label) in zip(known, pairs(30), strict=True))
    assert hits >= 27, "it has learnt what it was given"
    again = run("evaluate", tmp_path / "bot", "--task", "kinds", "--data", test, "--json")
    assert json.loads(again.stdout)["scores"] == record["test"]
    assert files(model).keys() == files(tmp_path / "bot").keys() - {"tasks/kinds.safetensors"}


@pytest.mark.parametrize("mode", ["head", "lora"])
def test_each_part_is_used_for_what_it_is(mode: str, model: Path, tmp_path: Path) -> None:
    # What is learnt from train is wrong for the other parts, whose labels go round.
    turned = {"place": "name", "name": "org", "org": "place"}
    train = table(tmp_path / "train.csv", pairs(36))
    dev = table(tmp_path / "dev.csv", [(text, turned[label]) for text, label in pairs(15, 1)])
    test = table(tmp_path / "test.csv", [(text, turned[label]) for text, label in pairs(9, 2)])
    lora = ("--mode", "lora", "--steps", 1, "--set", "rate=0.0001") if mode == "lora" else ()
    parts = ("--dev", dev, "--test", test, "--model", model)
    record = fit("kinds", train, *parts, *lora, "--out", tmp_path / "a")
    assert record["examples"] == {"train": 36, "dev": 15, "test": 9}
    assert record["mode"] == mode
    assert record["test"]["accuracy"] < 0.5
    assert record["cross_validation"]["scores"]["accuracy"] < 0.5
    found = trunkline.load(tmp_path / "a").evaluate(
        "kinds", [t for t, _ in pairs(36)], [label for _, label in pairs(36)]
    )
    assert found.scores["accuracy"] > 0.6
    # The task on the dev part scores what was printed for it.
    rows = [(text, turned[label]) for text, label in pairs(15, 1)]
    dev_scores = trunkline.load(tmp_path / "a").evaluate("kinds", *(list(part) for part in zip(*rows, strict=True)))
    tolerance = 1e-6 if mode == "head" else 0.1
    printed = record["cross_validation"]["scores"]["accuracy"]
    assert dev_scores.scores["accuracy"] == pytest.approx(printed, abs=tolerance)
    # Test changes nothing that is learnt, train and dev do.
    same = fit("kinds", train, "--dev", dev, "--model", model, *lora, "--out", tmp_path / "b")
    assert same["test"] == {}
    assert task_of(tmp_path / "a", "kinds").content == task_of(tmp_path / "b", "kinds").content
    fit("kinds", train, "--model", model, *lora, "--out", tmp_path / "c")
    assert task_of(tmp_path / "a", "kinds").content != task_of(tmp_path / "c", "kinds").content


@pytest.mark.parametrize("mode", ["head", "lora"])
def test_the_seed_counts_and_equal_seeds_give_equal_bytes(mode: str, model: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    noisy = [(text, rng.choice(["place", "name", "org", label])) for text, label in pairs(40)]
    train = table(tmp_path / "train.csv", noisy)
    lora = ("--mode", "lora", "--steps", 1) if mode == "lora" else ()
    made = []
    for number, seed in enumerate((0, 0, 1)):
        fit("kinds", train, "--model", model, "--seed", seed, *lora, "--out", tmp_path / str(number))
        made.append(task_of(tmp_path / str(number), "kinds"))
    assert made[0].content == made[1].content
    assert numbers(made[0]) != numbers(made[2])


@pytest.mark.parametrize(
    "options",
    [
        ("--rank", 2), ("--steps", 1), ("--set", "dropout=0.5"), ("--set", "dropout=0.0"), ("--set", "rate=0.001"),
        ("--set", "batch=4"), ("--set", "targets=query,value"),
    ],
    ids=str,
)  # fmt: skip
def test_each_setting_of_lora_counts(options: Sequence[object], bare: Path, tmp_path: Path) -> None:
    train = table(tmp_path / "train.csv", pairs(16))
    given = [*([] if "--steps" in options else ["--steps", 2]), *options]
    record = fit("kinds", train, "--model", bare, "--mode", "lora", *given, "--out", tmp_path / "other")
    fit("kinds", train, "--model", bare, "--mode", "lora", "--steps", 2, "--out", tmp_path / "plain")
    plain, other = (task_of(tmp_path / name, "kinds") for name in ("plain", "other"))
    assert plain.own_lora
    assert numbers(plain) != numbers(other)
    if "--rank" in options:
        assert {a.shape[1] for name, a in other.lora_arrays().items() if name.endswith(".a")} == {2}
    if "targets=query,value" in options:
        assert {name.split(".")[2] for name in other.lora_arrays()} == {"query", "value"}
    if "--steps" in options:
        assert record["cross_validation"]["steps"] == 1


@pytest.mark.parametrize("seed", range(4))
def test_no_class_is_lost_whatever_the_seed(seed: int, model: Path, tmp_path: Path) -> None:
    train = table(tmp_path / "train.csv", [*pairs(60), ("the old river", "water")])
    record = fit("kinds", train, "--model", model, "--seed", seed, "--out", tmp_path / "bot")
    assert record["labels"] == ["name", "org", "place", "water"]
    assert task_of(tmp_path / "bot", "kinds").labels == ("name", "org", "place", "water")
    assert any("water" in warning for warning in record["warnings"])
    shown = run("fit", "again", "--train", train, "--model", model, "--out", tmp_path / "shown")
    assert "water" in shown.output, "people see the warning, too"
    assert trunkline.load(tmp_path / "bot").predict(["the old river"])[0]["kinds"]["label"] == "water"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a b", "x"), ("c d", "x")], "all 2 texts have the label 'x'"),
        ([], "no example|empty|there are no|is no"),
        ([("a b", "x"), ("c d", "")], "label"),
    ],
)
def test_labels_that_cannot_be_learnt_are_refused_and_nothing_is_written(
    rows: Pairs, message: str, model: Path, tmp_path: Path
) -> None:
    before = files(model)
    for out in (("--out", tmp_path / "new"), ()):
        with pytest.raises(TrunklineError, match=message):
            run("fit", "kinds", "--train", table(tmp_path / "train.csv", rows), "--model", model, *out)
    assert not (tmp_path / "new").exists()
    assert files(model) == before


def test_labels_that_train_lacks_are_named(model: Path, tmp_path: Path) -> None:
    train = table(tmp_path / "train.csv", pairs(30))
    parts = {part: table(tmp_path / part, [*pairs(6, 3), ("a", f"only-{part}")]) for part in ("dev.csv", "test.csv")}
    record = fit("kinds", train, "--dev", parts["dev.csv"], "--test", parts["test.csv"], "--model", model)
    assert record["labels"] == ["name", "org", "place"]
    assert "only-dev.csv" in " ".join(record["warnings"])
    assert "only-test.csv" in " ".join(record["warnings"])
    assert record["test"]["accuracy"] <= 6 / 7


def test_columns_and_delimiters_are_those_that_are_named(model: Path, tmp_path: Path) -> None:
    header = "number;satz;klasse"
    train = table(
        tmp_path / "train.csv", [(f"{n};{text}", label) for n, (text, label) in enumerate(pairs(30))], header, ";"
    )
    columns = ("--text-column", "satz", "--label-column", "klasse", "--delimiter", ";")
    record = fit("kinds", train, "--model", model, *columns, "--test", train)
    assert record["labels"] == ["name", "org", "place"]
    plain = fit("plain", table(tmp_path / "plain.csv", pairs(30)), "--model", model)
    assert record["cross_validation"] == plain["cross_validation"]
    with pytest.raises(TrunklineError, match="kategorie"):
        run("fit", "x", "--train", train, "--model", model, *columns[:2], "--label-column", "kategorie")


def test_each_file_may_have_columns_of_its_own_and_warnings_of_readers_are_in_json(model: Path, tmp_path: Path) -> None:
    train = table(tmp_path / "train.csv", pairs(24), "text,label")
    dev = table(tmp_path / "dev.csv", pairs(9, seed=1), "satz,art")
    lines = [{"text": t, "label": label, "answer": "ignore" if n == 0 else "accept"} for n, (t, label) in
             enumerate(pairs(10, seed=2))]  # fmt: skip
    test = tmp_path / "test.jsonl"
    test.write_text("".join(json.dumps(line) + "\n" for line in lines))
    own = ["--text-column", "dev=satz", "--label-column", "dev=art"]
    files = ["--train", train, "--dev", dev, "--test", test]
    record = json.loads(run("fit", "kinds", *files, *own, "--model", model, "--json").stdout)
    assert record["examples"] == {"train": 24, "dev": 9, "test": 9}
    assert f"{test}: left out: 1 ignored by the annotator" in record["warnings"]
    report = json.loads(run("check", *files, *own, "--json").stdout)
    assert report["counts"] == record["examples"]
    with pytest.raises(TrunklineError, match=r"--text-column text and --text-column satz.*PART=NAME.*'text\+satz'"):
        run("fit", "other", *files, "--text-column", "text", "--text-column", "satz", "--model", model)
    scored = run("evaluate", model, "--task", "kinds", "--data", test, "--json")
    assert f"{test}: left out: 1 ignored by the annotator" in json.loads(scored.stdout)["warnings"]


def test_entities_and_the_family_that_is_asked_for(model: Path, tmp_path: Path) -> None:
    train = tiny_models.write_jsonl(tmp_path / "train.jsonl", tiny_models.ner_rows(30))
    record = fit("entities", train, "--model", model, "--test", train)
    assert (record["family"], record["labels"]) == ("ner", ["company", "person", "place"])
    with pytest.raises(TrunklineError, match="a text and a label"):
        run("fit", "x", "--train", train, "--model", model, "--family", "classification")
    with pytest.raises(TrunklineError, match="verbs"):
        run("fit", "x", "--train", train, "--model", model, "--family", "verbs")


def test_where_the_task_goes(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = table(tmp_path / "train.csv", pairs(30))
    before = files(model)
    assert fit("one", train, "--model", model)["bundle"] == str(model), "into the bundle that it was fitted on"
    assert files(model).keys() - before.keys() == {"tasks/one.safetensors"}
    assert fit("two", train, "--model", model, "--out", tmp_path / "both")["bundle"] == str(tmp_path / "both")
    assert trunkline.load(tmp_path / "both").tasks.keys() == {"one", "two"}
    assert trunkline.load(model).tasks.keys() == {"one"}
    assert fit("three", train, "--out", tmp_path / "both")["bundle"] == str(tmp_path / "both")
    assert trunkline.load(tmp_path / "both").tasks.keys() == {"one", "two", "three"}
    # Into a bundle that is there goes this task alone.
    fit("four", train, "--model", model, "--out", tmp_path / "both")
    assert trunkline.load(tmp_path / "both").tasks.keys() == {"one", "two", "three", "four"}
    assert trunkline.load(model).tasks.keys() == {"one"}
    monkeypatch.chdir(tmp_path)
    plain = tiny_models.save_model("bert", tmp_path / "encoder")
    assert fit("five", train, "--model", plain)["bundle"] == "bundles/five"
    assert trunkline.load("bundles/five").engine == "torch"


def test_a_task_is_replaced_only_with_replace(model: Path, tmp_path: Path) -> None:
    train, other = (
        table(tmp_path / "train.csv", pairs(30)),
        table(tmp_path / "other.csv", pairs(20, 8, ("place", "org"))),
    )
    first = fit("kinds", train, "--model", model)
    before = files(model)
    for out in ((), ("--out", model)):
        with pytest.raises(TrunklineError, match=r"a task kinds already.*--replace"):
            run("fit", "kinds", "--train", other, "--model", model, *out)
    assert files(model) == before
    record = fit("kinds", other, "--model", model, "--replace")
    assert record["replaced"] == first["cross_validation"]["scores"]
    assert task_of(model, "kinds").labels == ("org", "place")
    copied = Path(shutil.copytree(model, tmp_path / "copy"))
    fit("kinds", train, "--model", model, "--out", copied, "--replace")
    assert task_of(copied, "kinds").labels == ("name", "org", "place")
    assert task_of(model, "kinds").labels == ("org", "place")


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that were fitted."""
    names: list[str] = []
    original = Model.fit

    def watched(self: Model, name: str, *arguments: Any, **options: Any) -> Any:
        names.append(name)
        return original(self, name, *arguments, **options)

    monkeypatch.setattr(Model, "fit", watched)
    return names


def test_a_place_that_cannot_be_is_refused_before_the_work(model: Path, tmp_path: Path, worked: list[str]) -> None:
    train = table(tmp_path / "train.csv", pairs(30))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("important")
    (tmp_path / "file").write_text("important")
    for out, message in (
        (mine, "has files already"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "x", "cannot be written to"),
        ("/proc/nowhere", "cannot be written to"),
        (tmp_path / ("x" * 300), "cannot be written to"),
    ):
        with pytest.raises(TrunklineError, match=message):
            run("fit", "kinds", "--train", train, "--model", model, "--out", out)
    assert worked == []
    assert files(mine) == {"thesis.tex": b"important"}
    assert (tmp_path / "file").read_text() == "important"
    assert fit("kinds", train, "--model", model, "--out", tmp_path / "new")["task"] == "kinds"
    assert worked == ["kinds"]


def test_a_bundle_that_cannot_take_the_task_is_refused_before_the_work(
    model: Path, tiny_folder: Callable[[str], Path], tmp_path: Path, worked: list[str]
) -> None:
    train = table(tmp_path / "train.csv", pairs(30))
    other = deployed.deploy(load_any(str(tiny_folder("roberta")), fork=1, max_length=40), tmp_path / "other")
    fit("kinds", train, "--model", model)
    copied = Path(shutil.copytree(model, tmp_path / "copy"))
    worked.clear()
    for name, out, message in (
        ("more", other, "is a bundle of backbone"),
        ("kinds", copied, "has a task kinds already"),
        ("../x", copied, "the name"),
    ):
        with pytest.raises(TrunklineError, match=message):
            run("fit", name, "--train", train, "--model", model, "--out", out)
    assert worked == []


def test_what_auto_chose_is_printed_with_the_scores_of_both(bare: Path, tmp_path: Path) -> None:
    train, more = table(tmp_path / "train.csv", pairs(16)), table(tmp_path / "more.csv", pairs(40))
    loss = r"log loss [01]\.\d+"
    scores = rf"{loss}, accuracy [\d.]+ %, macro_f1 [\d.]+ %"
    for number, (mode, rows, rate, said) in enumerate(
        (
            ("auto", train, 0, "LoRA was not tried: it takes 32 texts to tell whether it is better"),
            ("auto", more, 0, rf"mode head was taken; on the first fold: head {loss}; lora {loss}"),
            ("lora", train, 0.001, f"mode lora was taken; held out: head {scores}; lora {scores}"),
        )
    ):
        asked = ("--mode", mode, "--steps", 1, "--set", f"rate={rate}")
        shown = run("fit", "kinds", "--train", rows, "--model", bare, *asked, "--out", tmp_path / str(number))
        assert re.search(f"^{said}$", shown.output, flags=re.M), shown.output
    assert "was taken" not in run("fit", "kinds", "--train", train, "--model", bare, "--out", tmp_path / "head").output


def test_mistakes_end_in_one_message_and_exit_code_two(model: Path, tmp_path: Path) -> None:
    train = table(tmp_path / "train.csv", pairs(30))
    (tmp_path / "file").write_text("important")
    for arguments, words in (
        (["--train", train, "--out", tmp_path / "file" / "x"], ["cannot be written to", "Choose another"]),
        (["--train", tmp_path / "missing.csv", "--model", model], ["missing.csv"]),
        (["--train", train, "--model", tmp_path / "nowhere"], ["nowhere"]),
        (["--train", train, "--model", model, "--mode", "heads"], ["heads", "head, lora"]),
        (["--train", train, "--model", model, "--rank", "4"], ["rank", "mode='lora'", "--mode lora"]),
        (["--train", train, "--model", model, "--set", "rate=0.1"], ["rate", "--mode lora"]),
        (["--train", train, "--model", model, "--mode", "lora", "--set", "targets=qery"], ["targets.0", "'qery'"]),
        (["--train", train, "--model", model, "--mode", "lora", "--set", "dropuot=0.1"], ["did you mean 'dropout'"]),
        (["--train", train, "--model", model, "--mode", "lora", "--set", "dropout=x"], ["dropout", "a valid number"]),
        (["--train", train, "--model", model, "--seed", "-1"], ["--seed"]),
    ):
        command = [sys.executable, "-m", "trunkline.cli", "fit", "kinds", *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 2, result.stderr
        assert "Traceback" not in result.stderr
        assert all(word in result.stderr for word in words), result.stderr
    assert trunkline.load(model).tasks == {}


@needs_package
def test_the_default_model_learns_from_a_file(tmp_path: Path) -> None:
    calls = ["call me back", "ring her at noon", "phone the office", "dial mum"]
    shopping = ["buy milk", "order bread and eggs", "get two apples", "pick up rice"]
    rows = [(text, label) for label, texts in (("call", calls), ("shop", shopping)) for text in texts]
    train = table(tmp_path / "train.csv", rows)
    record = fit("kind", train, "--out", tmp_path / "bot", "--test", train)
    assert (record["engine"], record["precision"], record["test"]["accuracy"]) == ("onnx", "int8", 1.0)
    shown = run("predict", tmp_path / "bot", "buy eggs", "--json")
    assert json.loads(shown.stdout)["tasks"]["kind"]["label"] == "shop"
