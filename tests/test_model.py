"""The one door: what is fitted is what predicts, what is printed is what is so, and what is saved is all of it."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import pickle
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deployed
import tiny_models
import trunkline
from trunkline.bundle.edit import add_task
from trunkline.bundle.files import change_tasks, open_bundle
from trunkline.encoder.bundle_files import Loaded, load_any
from trunkline.encoder.resolve import find_embedded
from trunkline.engine.torch import TorchEngine
from trunkline.errors import MismatchError, TrunklineError
from trunkline.model import Model
from trunkline.tasks import FAMILIES
from trunkline.text.examples import NerExample, Span, TextExample
from trunkline.text.words import split_words

needs_package = pytest.mark.skipif(find_embedded()[0] is None, reason="the default encoder is not installed")
KNOWN = {"company", "person", "place"}
KINDS = (("place", tiny_models.PLACES), ("name", tiny_models.NAMES), ("org", tiny_models.ORGS))


def labelled(count: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Texts of two words of one kind, and the kind."""
    rng = random.Random(seed)
    drawn = [rng.choice(KINDS) for _ in range(count)]
    return [" ".join(rng.choices(words, k=2)) for _, words in drawn], [label for label, _ in drawn]


def entities(count: int, seed: int = 0) -> tuple[list[str], list[list[tuple[int, int, str]]]]:
    rows = tiny_models.ner_rows(count, seed)
    return [row["text"] for row in rows], [[tuple(entity) for entity in row["entities"]] for row in rows]


@pytest.fixture(scope="module")
def _bundle(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Callable[[str], Path]) -> Path:
    loaded = deployed.whole(load_any(str(tiny_folder("bert")), fork=2, max_length=40))
    return deployed.with_both(dataclasses.replace(loaded, tasks={}), tmp_path_factory.mktemp("model"))


@pytest.fixture
def folder(_bundle: Path, tmp_path: Path) -> Path:
    """A bundle with primary adapters, graphs and weights, and without tasks."""
    return Path(shutil.copytree(_bundle, tmp_path / "bundle"))


@pytest.fixture
def model(folder: Path) -> Model:
    return trunkline.load(folder)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("engine", ["onnx", "torch"])
@pytest.mark.parametrize("family", ["classification", "ner"])
def test_the_score_that_is_printed_is_that_of_what_predict_returns(family: str, engine: str, folder: Path) -> None:
    model, make = trunkline.load(folder, engine=engine), labelled if family == "classification" else entities
    texts, gold = make(40, 3)
    # An entity that ends within a word cannot be predicted and is a miss.
    if family == "ner":
        start, end, label = gold[0][0]
        gold[0][0] = (start, end - 1, label)
    report = model.fit("task", *make(40, 1), test=(texts, gold))
    assert (report.task, report.family, report.mode, report.engine) == ("task", family, "head", engine)
    assert report.examples == {"train": 40, "dev": 0, "test": 40}
    found = [row["task"] for row in model.predict(texts)]
    if family == "classification":
        right = sum(row["label"] == label for row, label in zip(found, gold, strict=True))
        assert report.test["accuracy"] == right / 40 > 0.4
    else:
        said = {(n, e["start"], e["end"], e["label"]) for n, row in enumerate(found) for e in row}
        true = {(n, *entity) for n, row in enumerate(gold) for entity in row}
        assert report.test["f1"] == 2 * len(said & true) / (len(said) + len(true)) > 0.4
        assert all(texts[n][start:end] for n, start, end, _ in said)
    evaluation = model.evaluate("task", texts, gold)
    assert evaluation.scores == report.test
    again = trunkline.load(model.save(folder.parent / "saved"), engine=engine)
    assert again.evaluate("task", texts, gold) == evaluation
    assert again.predict(texts) == model.predict(texts)


def test_the_report_says_what_was_learnt(model: Model) -> None:
    report = model.fit("kinds", *labelled(40, 1))
    assert report.labels == ["name", "org", "place"]
    kept = {"penalty", "temperature", "discriminant", "log_loss", "scores", "never_predicted"}
    assert report.cross_validation.keys() == kept
    assert report.bytes == len(model._predictor.tasks["kinds"].content)
    assert report.precision == "float32"
    assert (report.test, report.replaced, report.warnings) == ({}, None, [])
    entities_report = model.fit("entities", *entities(40, 1))
    assert entities_report.labels == ["company", "person", "place"]
    assert model.tasks == {"entities": "ner", "kinds": "classification"}
    assert "kinds (classification)" in repr(model)


def containers() -> Iterator[tuple[str, Any, Any]]:
    texts, labels = labelled(30, 1)
    yield "tuples", tuple(texts), tuple(labels)
    yield "arrays", np.asarray(texts), np.asarray(labels)
    yield "generators", (text for text in texts), iter(labels)
    yield "examples", [TextExample(*pair) for pair in zip(texts, labels, strict=True)], None
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    yield "series", pandas.Series(texts), pandas.Series(labels)


def test_all_containers_give_the_same_task(model: Model) -> None:
    texts, labels = labelled(30, 1)
    model.fit("list", texts, labels)
    content = model._predictor.tasks["list"].content
    for name, given, marks in containers():
        model.fit(name, given, marks)
        assert model._predictor.tasks[name].content == content
    by_label: dict[str, list[str]] = {}
    for text, label in zip(texts, labels, strict=True):
        by_label.setdefault(label, []).append(text)
    assert model.fit("dict", by_label).examples["train"] == 30
    rows = [NerExample(t, split_words(t), tuple(Span(*e) for e in own)) for t, own in zip(*entities(20), strict=True)]
    model.fit("ner", rows)
    model.fit("ner2", *entities(20))
    assert model._predictor.tasks["ner"].content == model._predictor.tasks["ner2"].content
    expected = [row["list"] for row in model.predict(texts, ["list"])]
    for given in (tuple(texts), np.asarray(texts), iter(texts)):
        assert [row["list"] for row in model.predict(given, ["list"])] == expected


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((["a b", "c d"], ["x", "x"]), {}, "all 2 texts have the label 'x'"),
        ((["a", "A "], ["x", "y", "z"]), {}, "2 texts and 3 labels"),
        (([], []), {"family": "classification"}, "there are no examples"),
        ((["same", "same"], ["x", "y"]), {}, "all examples have one text"),
        ((["a b", "c d"], [[], []]), {}, "all labels are empty"),
        ((["a b", "c d"], [[], []]), {"family": "ner"}, "none of the 2 sentences has an entity"),
        ((["a b", "c d"], [["x", "y"], ["y", "x"]]), {}, "all 2 texts have the labels x, y"),
        ((["a b", "c d"], [[], []]), {"family": "multilabel"}, "all 2 texts have the labels none"),
        ((["a b", "c d"], [1, 2]), {}, "a label as a string"),
        ((["a b", None], ["x", "y"]), {}, r"texts\[1\] is None"),
        ((["a b", "c d"], ["x", "y"]), {"mode": "full"}, "mode 'full'.*head, lora"),
        ((["a b", "c d"], ["x", "y"]), {"rank": 4}, "mode head has no setting 'rank'.*mode='lora'"),
        ((["a b", "c d"], ["x", "y"]), {"rank": 4}, "--mode lora on the command line"),
        *(
            ((["a b", "c d"], ["x", "y"]), {"seed": seed, "mode": mode}, rf"seed={seed!r}.*from 0 to 2\*\*32 - 1")
            for mode in ("head", "lora", "auto")
            for seed in ("a", 1.5, -1, 2**32, None)
        ),
        ((["a b", "c d"], ["x", "y"]), {"family": "verbs"}, "verbs"),
        ((["a b", "c d"], ["x", "y"]), {"dev": (["a"], ["x", "y"])}, "dev: 1 texts and 2 labels"),
        ((["a b", "c d"], ["x", "y"]), {"test": "file.csv"}, "test: "),
    ],
)
def test_what_cannot_be_learnt_is_refused_and_changes_nothing(
    arguments: Any, options: Any, message: str, model: Model
) -> None:
    with pytest.raises(TrunklineError, match=message):
        model.fit("task", *arguments, **options)
    assert model.tasks == {}


@pytest.mark.parametrize("mode", ["head", "lora", "auto"])
@pytest.mark.parametrize("settings", [{"class_weight": "even"}, {"seed": -1}])
def test_wrong_settings_are_refused_before_anything_is_computed(
    settings: Any, mode: str, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(model.tokenizer), "encode", lambda *_: pytest.fail("a text is read"))
    with pytest.raises(TrunklineError, match=next(iter(settings))):
        model.fit("task", ["a b", "c d"], ["x", "y"], mode=mode, **settings)


def test_scores_of_no_example_are_refused(model: Model) -> None:
    model.fit("kinds", *labelled(12))
    for nothing in (([], []), ({},), ([],)):
        with pytest.raises(TrunklineError, match="there are no examples"):
            model.evaluate("kinds", *nothing)


@pytest.mark.parametrize("name", ["", "a/b", "../a", "a b", "x" * 101, "é"])
def test_names_that_are_none_are_refused(name: str, model: Model) -> None:
    with pytest.raises(TrunklineError, match="the name"):
        model.fit(name, *labelled(10))


def test_a_task_is_replaced_only_where_it_is_asked_for(model: Model) -> None:
    first = model.fit("kinds", *labelled(30, 1))
    with pytest.raises(TrunklineError, match=r"a task kinds already.*replace=True \(--replace\)"):
        model.fit("kinds", *entities(20))
    assert model.tasks == {"kinds": "classification"}
    second = model.fit("kinds", *labelled(12, 2), replace=True)
    assert second.replaced == first.cross_validation["scores"]
    assert second.examples["train"] == 12
    model.fit("kinds", *entities(20), replace=True)
    assert model.tasks == {"kinds": "ner"}


def test_a_dev_part_is_chosen_on_and_not_trained_on(model: Model) -> None:
    dev = labelled(12, 5)
    report = model.fit("kinds", *labelled(30, 1), dev=dev)
    assert report.examples == {"train": 30, "dev": 12, "test": 0}
    scores = model.evaluate("kinds", *dev).scores
    assert report.cross_validation["scores"] == pytest.approx(scores, abs=1e-6)
    task = model._predictor.tasks["kinds"].content
    model.fit("kinds", *labelled(30, 1), dev=(dev[0], ["place"] * 12), replace=True)
    alone = model._predictor.tasks["kinds"].content
    assert task != alone, "what is chosen depends on it"
    model.fit("kinds", *(a + b for a, b in zip(labelled(30, 1), dev, strict=True)), replace=True)
    assert model._predictor.tasks["kinds"].content not in (task, alone)


@pytest.mark.parametrize("mode", ["head", "lora"])
@pytest.mark.parametrize("family", ["classification", "ner"])
def test_labels_that_only_dev_has_move_no_other(family: str, mode: str, model: Model) -> None:
    make = labelled if family == "classification" else entities
    texts, labels = make(12, 5)
    settings = {"steps": 1} if mode == "lora" else {}
    model.fit("known", *make(30, 1), dev=(texts, labels), mode=mode, **settings)
    other: Any = ["about", *labels[1:]] if family == "classification" else [[(0, 3, "about")], *labels[1:]]
    report = model.fit("more", *make(30, 1), dev=(["all " + texts[0], *texts[1:]], other), mode=mode, **settings)
    assert report.labels == sorted({"name", "org", "place"} if family == "classification" else KNOWN)
    assert "about" in report.warnings[0]
    found, again = model.evaluate("known", *make(30, 2)).scores, model.evaluate("more", *make(30, 2)).scores
    measure = FAMILIES[family].main_score
    assert again[measure] > found[measure] - 0.2


def test_warnings_name_what_is_rare_or_not_known(model: Model) -> None:
    texts, labels = labelled(20, 1)
    report = model.fit(
        "kinds", [*texts, "the old river"], [*labels, "thing"], dev=(["a sea"], ["water"]), test=(["a"], ["letter"])
    )
    assert "thing" in report.labels, "no label is lost"
    said = " | ".join(report.warnings)
    for part in ("fewer than 4 examples of thing", "dev has labels that train lacks", "water", "test has", "letter"):
        assert part in said
    assert report.test == {"accuracy": 0.0, "macro_f1": 0.0}


@pytest.mark.parametrize("family", ["classification", "ner"])
def test_results_are_json_without_nan(family: str, model: Model) -> None:
    make = labelled if family == "classification" else entities
    one = (["a b", "c d"], ["x", "y"]) if family == "classification" else (["ann met", "bob"], [[(0, 3, "x")], []])
    for texts, labels in (make(30, 1), one):
        report = model.fit(
            "task", texts, labels, test=(["nothing"], ["y"] if family == "classification" else [[]]), replace=True
        ).to_dict()
        evaluation = model.evaluate("task", texts[:1], labels[:1]).to_dict()
        for record in (report, evaluation):
            assert json.loads(json.dumps(record, allow_nan=False)).keys() == record.keys()


def test_an_evaluation_has_a_row_a_label_what_is_confused_and_what_is_wrong(model: Model) -> None:
    model.fit("kinds", *labelled(30, 1))
    texts, labels = labelled(30, 2)
    texts, labels = [*texts, "the old river"], [*labels, "thing"]
    result = model.evaluate("kinds", texts, labels)
    said = [row["kinds"]["label"] for row in model.predict(texts)]
    assert result.examples == 31
    assert result.labels.keys() == {"name", "org", "place", "thing"}
    for label, row in result.labels.items():
        hits = sum(a == b == label for a, b in zip(said, labels, strict=True))
        assert row["support"] == labels.count(label)
        assert row["predicted"] == said.count(label)
        assert row["recall"] == hits / max(labels.count(label), 1)
        assert row["precision"] == hits / max(said.count(label), 1)
    pairs = [(gold, guess) for gold, row in result.confusion.items() for guess, n in row.items() for _ in range(n)]
    assert sorted(pairs) == sorted(zip(labels, said, strict=True))
    wrong = [(text, gold, guess) for text, gold, guess in zip(texts, labels, said, strict=True) if gold != guess]
    assert result.n_wrong == len(wrong)
    assert sorted((texts.index(row["text"]), row["gold"], row["predicted"]) for row in result.wrong) == [
        (texts.index(text), [[gold]], [[guess]]) for text, gold, guess in wrong
    ]
    assert [row["text"] for row in result.wrong] == [texts[row["index"]] for row in result.wrong]
    assert sorted((row["scores"] for row in result.wrong), reverse=True) == [row["scores"] for row in result.wrong]
    assert "thing" in result.warnings[0]
    model.fit("entities", *entities(30, 1))
    found = model.evaluate("entities", *entities(20, 5))
    assert found.labels.keys() == {"company", "person", "place"}
    assert sum(row["support"] for row in found.labels.values()) == sum(
        n for gold, row in found.confusion.items() for n in row.values() if gold
    )
    assert found.scores == FAMILIES["ner"].score(
        [NerExample(t, (), tuple(Span(*e) for e in own)) for t, own in zip(*entities(20, 5), strict=True)],
        [row["entities"] for row in model.predict(entities(20, 5)[0], ["entities"])],
    )
    with pytest.raises(TrunklineError, match=r"nmaes.*not in this bundle"):
        model.evaluate("nmaes", texts, labels)


def test_predictions_stream_with_bounded_look_ahead(model: Model) -> None:
    model.fit("kinds", *labelled(30, 1))
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        for number in itertools.count():
            taken += 1
            yield tiny_models.WORDS[number % 100]

    stream = model.predict_iter(endless(), batch=8)
    assert taken == 0
    for number in range(40):
        assert next(stream)["kinds"]["label"]
        assert number < taken <= (number // 8 + 1) * 8
    texts = labelled(50, 4)[0]
    expected = model.predict(texts)
    for batch in (1, 7, 50, 1000):
        for found, row in zip(model.predict_iter(texts, batch=batch), expected, strict=True):
            assert found["kinds"]["label"] == row["kinds"]["label"]
            assert found["kinds"]["probabilities"] == pytest.approx(row["kinds"]["probabilities"], abs=1e-5)


def test_mistakes_of_a_stream_are_said_at_once_or_where_they_are(model: Model) -> None:
    with pytest.raises(TrunklineError, match=r"no tasks yet.*fit\(name, texts, labels\)"):
        model.predict_iter(["a"])
    model.fit("kinds", *labelled(30, 1))
    for texts, message in (("one text", r"\[text\]"), ({"a": 1}, "dict"), (3, "int"), (b"x", "bytes")):
        with pytest.raises(TrunklineError, match=message):
            model.predict_iter(texts)
    with pytest.raises(TrunklineError, match="nmaes"):
        model.predict_iter(["a"], ["nmaes"])
    for batch in (0, -1, "8"):
        with pytest.raises(TrunklineError, match="batch="):
            model.predict_iter(["a"], batch=batch)  # type: ignore[arg-type]
    stream = model.predict_iter(["a", "b", None, "c"], batch=2)
    assert [next(stream)["kinds"]["label"] != "" for _ in range(2)] == [True, True]
    with pytest.raises(TrunklineError, match=r"texts\[2\] is None"):
        next(stream)


def test_tasks_come_from_files_and_go(model: Model, folder: Path, tmp_path: Path) -> None:
    model.fit("kinds", *labelled(30, 1))
    model.save(folder)
    other, path = trunkline.load(folder), folder / "tasks" / "kinds.safetensors"
    other.add("same", path)
    other.add("bytes", path.read_bytes())
    with pytest.raises(TrunklineError, match="a task same already"):
        other.add("same", path)
    other.add("same", path, replace=True)
    row = other.predict(["paris rome"])[0]
    assert row["same"] == row["bytes"] == row["kinds"] == model.predict(["paris rome"])[0]["kinds"]
    other.remove("kinds")
    assert other.tasks.keys() == {"bytes", "same"}
    with pytest.raises(TrunklineError, match=r"kinds.*not in this bundle"):
        other.remove("kinds")
    with pytest.raises(TrunklineError, match=r"missing.*cannot be read"):
        other.add("x", tmp_path / "missing")


def test_a_new_place_gets_a_whole_bundle_and_another_things_stay(model: Model, folder: Path, tmp_path: Path) -> None:
    model.fit("kinds", *labelled(30, 1))
    place = model.save(tmp_path / "a" / "support-bot")
    assert model.folder == place
    opened = trunkline.load(place)
    assert (opened.name, opened.tasks) == ("support-bot", {"kinds": "classification"})
    assert trunkline.load(place, engine="torch").tasks == opened.tasks
    assert trunkline.load(model.save(tmp_path / "my bot (2)")).name == "support-bot", "no name has blanks"
    for taken in (tmp_path, tmp_path / "a"):
        before = files(taken)
        with pytest.raises(TrunklineError, match="has files already"):
            model.save(taken)
        assert files(taken) == before
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "x"):
        with pytest.raises(TrunklineError, match=r"is a file|cannot be written to"):
            model.save(place)
    assert (tmp_path / "file").read_text() == "mine"
    assert trunkline.load(folder).tasks == {}, "where it was opened nothing changed"


def test_into_its_own_bundle_go_changes_alone_and_those_of_others_stay(folder: Path) -> None:
    one, other = trunkline.load(folder), trunkline.load(folder)
    one.fit("first", *labelled(30, 1))
    one.fit("second", *labelled(30, 2))
    one.save(folder)
    other.fit("third", *entities(30, 1))
    other.save(folder)
    assert trunkline.load(folder).tasks.keys() == {"first", "second", "third"}
    one.remove("first")
    one.fit("second", *entities(30, 2), replace=True)
    one.save(folder)
    assert trunkline.load(folder).tasks == {"second": "ner", "third": "ner"}
    before = files(folder)
    one.save(folder)
    assert files(folder) == before
    # What another one added under the same name meanwhile is not lost.
    other.fit("fourth", *labelled(30, 3))
    other.save(folder)
    one.fit("fourth", *entities(30, 3))
    with pytest.raises(TrunklineError, match=r"has a task fourth already"):
        one.save(folder)
    assert trunkline.load(folder).tasks["fourth"] == "classification"
    one.save(folder, replace_tasks=True)
    assert trunkline.load(folder).tasks["fourth"] == "ner"


def test_a_task_that_another_one_removed_can_be_removed_again(folder: Path) -> None:
    model = trunkline.load(folder)
    model.fit("kinds", *labelled(30, 1))
    model.save(folder)
    change_tasks(folder, {}, ["kinds"])
    model.remove("kinds")
    model.save(folder)
    assert trunkline.load(folder).tasks == {}


def test_tasks_go_into_another_bundle_of_the_same_encoder_all_or_none(
    model: Model, folder: Path, tmp_path: Path
) -> None:
    model.fit("kinds", *labelled(30, 1))
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    model.fit("entities", *entities(30, 1))
    model.save(other, tasks=["kinds"])
    assert trunkline.load(other).tasks == {"kinds": "classification"}
    assert model.folder == folder
    model.save(other)
    assert trunkline.load(other).tasks == model.tasks
    model.fit("more", *labelled(30, 2))
    stranger = trunkline.load(folder)
    stranger.fit("kinds", *labelled(30, 9))
    stranger.fit("a", *labelled(30, 9))
    before = files(other)
    with pytest.raises(TrunklineError, match="has a task kinds already"):
        stranger.save(other)
    assert files(other) == before
    stranger.save(other, replace_tasks=True)
    assert trunkline.load(other).tasks.keys() == {"a", "entities", "kinds"}


def test_a_bundle_of_another_encoder_is_refused(
    model: Model, tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    model.fit("kinds", *labelled(30, 1))
    other = deployed.deploy(load_any(str(tiny_folder("roberta")), fork=1, max_length=40), tmp_path / "other")
    before = files(other)
    with pytest.raises(MismatchError, match="is a bundle of backbone"):
        model.save(other)
    assert files(other) == before


def test_a_saved_model_pickles_by_its_folder_with_its_engine(
    model: Model, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.fit("kinds", *labelled(30, 1))
    for way in (pickle.dumps, copy.deepcopy, copy.copy):
        with pytest.raises(TrunklineError, match=r"not saved.*save\(folder\)"):
            way(model)
    model.save(folder)
    expected = model.predict(["paris rome", "ann"])
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), copy.copy(model)):  # noqa: S301
        assert again is not model
        assert again.predict(["paris rome", "ann"]) == expected
    monkeypatch.chdir(folder.parent)
    torch_model = trunkline.load(folder.name, engine="torch", threads=2)
    content = pickle.dumps(torch_model)
    assert len(content) < 1000
    monkeypatch.chdir("/")
    again = pickle.loads(content)  # noqa: S301
    assert isinstance(again._predictor.engine, TorchEngine)
    assert (again.engine, again._threads) == ("torch", 2)
    add_task(folder, "more", (folder / "tasks" / "kinds.safetensors").read_bytes())
    assert "more" in copy.deepcopy(model).tasks
    shutil.rmtree(folder)
    with pytest.raises(TrunklineError, match="no folder"):
        pickle.loads(content)  # noqa: S301


def test_a_model_goes_to_another_process(model: Model, folder: Path) -> None:
    model.fit("kinds", *labelled(30, 1))
    model.save(folder)
    path = folder.parent / "pickle"
    path.write_bytes(pickle.dumps(model))
    script = f"import pickle; m = pickle.load(open({str(path)!r}, 'rb')); print(m.predict(['paris rome'])[0])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(model.predict(["paris rome"])[0])


def test_what_is_no_model_is_said(tmp_path: Path, folder: Path) -> None:
    for source, message in (
        (tmp_path / "missing", r"no folder.*OWNER/NAME"),
        (tmp_path, r"neither manifest\.json nor config\.json"),
        ("x" * 300, r"no folder|cannot be looked at"),
        ("just-a-name", "there is no folder just-a-name"),
    ):
        with pytest.raises(TrunklineError, match=message):
            trunkline.load(source)
    (folder / "graphs" / "branch.onnx").write_bytes(b"damaged")
    with pytest.raises(TrunklineError, match=r"branch\.onnx"):
        trunkline.load(folder)


def test_fitting_and_predicting_need_no_torch(tiny: Loaded, tmp_path: Path) -> None:
    folder = deployed.deploy(tiny, tmp_path / "graphs")
    texts, labels = labelled(30, 1)
    script = f"""
import sys
for name in ("torch", "transformers", "accelerate", "datasets", "onnx", "sklearn", "pandas", "huggingface_hub"):
    sys.modules[name] = None
import trunkline
model = trunkline.load({str(folder)!r})
model.fit("kinds", {texts!r}, {labels!r})
model.fit("names", ["ann met bob", "the sea", "bob", "carla is old"], [[(0, 3, "n")], [], [(0, 3, "n")], [(0, 5, "n")]])
model.save({str(tmp_path / "saved")!r})
print(sorted(trunkline.load({str(tmp_path / "saved")!r}).predict(["ann"])[0]))
try:
    model.fit("x", {texts!r}, {labels!r}, mode="lora")
except trunkline.TrunklineError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tasks, refused = done.stdout.splitlines()
    assert tasks == "['kinds', 'names']"
    assert "[train]" in refused
    assert "torch" in refused


@needs_package
def test_the_default_model_fits_predicts_and_keeps_what_it_learnt(tmp_path: Path) -> None:
    model = trunkline.load()
    assert model.tasks == {}
    texts = ["where is my parcel", "the package has not come", "track my order", "when will it be delivered"]
    other = ["my card was charged twice", "i want my money back", "the bill is wrong", "refund the payment please"]
    report = model.fit("intents", {"delivery": texts, "billing": other})
    assert report.cross_validation["scores"]["accuracy"] >= 0.75
    assert (report.engine, report.precision) == ("onnx", "int8")
    model.fit(
        "people",
        ["Ana Lima lives in Porto", "I met Tom Berg", "nobody came", "call Eva Stein now", "rain again"],
        [[(0, 8, "person")], [(6, 14, "person")], [], [(5, 14, "person")], []],
    )
    asked = ["has my package been sent?", "Ana Lima wants a refund", "", "北京"]
    found = model.predict(asked)
    assert found[0]["intents"]["label"] == "delivery"
    assert found[1]["intents"]["label"] == "billing"
    assert found[1]["people"][0]["text"] == "Ana Lima"
    # In int8 what stands beside a text counts a little.
    for text, row in zip(asked, found, strict=True):
        [alone] = model.predict([text])
        assert alone["intents"]["label"] == row["intents"]["label"]
        assert alone["intents"]["score"] == pytest.approx(row["intents"]["score"], abs=0.01 if text else 0.1)
        assert [one["text"] for one in alone["people"]] == [one["text"] for one in row["people"]]
    again = trunkline.load(model.save(tmp_path / "bot"))
    assert again.predict(asked) == found
    assert trunkline.load().tasks == {}, "the default model is nobody's own"
    assert open_bundle(tmp_path / "bot").manifest.licences[0].licence == "apache-2.0"


@needs_package
def test_five_texts_are_learnt_from() -> None:
    model = trunkline.load()
    model.fit("mood", ["good film", "bad film", "great day", "sad day", "lovely food"], ["y", "n", "y", "n", "y"])
    good, bad = (
        ["good film", "great food", "nice day", "lovely song"],
        ["bad film", "awful food", "sad day", "ugly song"],
    )
    assert [row["mood"]["label"] for row in model.predict(good + bad)] == ["y"] * 4 + ["n"] * 4


@needs_package
def test_lora_is_trained_on_the_default_encoder_for_its_graphs(tmp_path: Path) -> None:
    model = trunkline.load()
    train, test = labelled(30, 1), labelled(20, 2)
    report = model.fit("kinds", *train, mode="lora", test=test, steps=1)
    assert report.engine == "onnx"
    assert report.test == model.evaluate("kinds", *test).scores
    assert trunkline.load(model.save(tmp_path / "bot")).bundle.tasks["kinds"].own_lora
