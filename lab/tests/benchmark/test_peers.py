"""Peers: errors that name what to install, words and tokens that fit, and answers in the families' form."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_models
from trunkline.encoder.bundle_files import load_any
from trunkline.errors import EncoderError, TrunklineError
from trunkline.tasks import FAMILIES
from trunkline.text.examples import NerExample, Span, TextExample
from trunkline.text.words import split_words
from trunkline_lab import fitting
from trunkline_lab.benchmark import peers
from trunkline_lab.benchmark.peers import BOTH, PEERS, PeerOutput, common, get_peer, linear_probe, rows, setfit
from trunkline_lab.benchmark.peers.trainer import TrainerSettings
from trunkline_lab.fitting import TaskData
from trunkline_lab.resampling import counts_of, score_of_counts

Folder = Callable[[str], Path]


def texts(count: int, seed: int) -> list[TextExample]:
    rng = random.Random(seed)
    kinds = (("place", tiny_models.PLACES), ("name", tiny_models.NAMES), ("org", tiny_models.ORGS))
    drawn = [kinds[number % 3] for number in range(count)]
    return [TextExample(" ".join(rng.sample(words, 2)), label) for label, words in drawn]


def sentences(count: int, seed: int) -> list[NerExample]:
    return [
        NerExample(row["text"], split_words(row["text"]), tuple(Span(*entity) for entity in row["entities"]))
        for row in tiny_models.ner_rows(count, seed)
    ]


def task_of(family: str, **changes: Any) -> TaskData:
    make: Callable[[int, int], Sequence[Any]] = texts if family == "classification" else sentences
    return dataclasses.replace(TaskData("easy", family, make(45, 1), make(24, 2), make(24, 3)), **changes)


def fitted(name: str, task: TaskData, folder: Path, seed: int = 0, **settings: Any) -> PeerOutput:
    """What a peer gives with other settings, after the checks that every peer has."""
    module = importlib.import_module(f"trunkline_lab.benchmark.peers.{name}")
    output: PeerOutput = module.fit_predict(task, folder, seed=seed, settings=module.Settings(**settings))
    return output


def scores(task: TaskData, output: PeerOutput) -> tuple[float, float]:
    """The main scores on dev and test, by `score` and by `counts_of`, which must agree."""
    family, found = FAMILIES[task.family], []
    for gold, predicted in ((task.dev, output.dev_predictions), (task.test, output.predictions)):
        main = family.score(gold, predicted)[family.main_score]
        counts = counts_of(task.family, gold, predicted)
        assert score_of_counts(task.family)(np.sum(counts, axis=0)) == pytest.approx(main)
        found.append(main)
    assert output.ms_per_text > 0 and output.n_bytes > 0
    json.dumps([output.predictions, output.dev_predictions])
    return found[0], found[1]


def test_importing_the_peers_loads_none_of_their_packages() -> None:
    code = "import sys, trunkline_lab.benchmark.peers as p; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "trunkline_lab.benchmark.peers" in loaded
    assert not {"torch", "transformers", "peft", "setfit", "spacy"} & set(loaded)


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_says_what_its_results_depend_on(name: str) -> None:
    described = peers.describe(name)
    assert described["settings"] and "transformers" in described["versions"]
    assert PEERS[name].distribution in {"", *described["versions"]}
    json.dumps(described)


def test_an_unknown_peer_and_a_missing_package_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrunklineError, match="hf_full, peft_lora, linear_probe"):
        get_peer("gpt")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name, entry in PEERS.items():
        if entry.package:
            with pytest.raises(TrunklineError, match=f"pip install {entry.distribution}"):
                get_peer(name)
        else:
            get_peer(name)


def test_tasks_that_cannot_be_learnt_are_refused(tiny_folder: Folder) -> None:
    probe, folder = get_peer("linear_probe"), tiny_folder("bert")
    with pytest.raises(TrunklineError, match="a task of the family ner"):
        peers._Checked("setfit").fit_predict(task_of("ner"), folder, seed=0)
    with pytest.raises(TrunklineError, match="0 dev examples"):
        probe.fit_predict(task_of("ner", dev=()), folder, seed=0)
    with pytest.raises(TrunklineError, match="1 classes in train: place"):
        probe.fit_predict(task_of("classification", train=texts(1, 0)), folder, seed=0)
    bare = NerExample("the train", ((0, 3), (4, 9)), ())
    with pytest.raises(TrunklineError, match="0 classes in train"):
        probe.fit_predict(task_of("ner", train=(bare,)), folder, seed=0)


def test_nothing_that_could_run_code_reaches_a_peer(tiny_folder: Folder, tmp_path: Path) -> None:
    source = tiny_models.save_model("bert", tmp_path / "encoder")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "modeling.Evil"}}))
    for name in ("model_head.pkl", "pytorch_model.bin", "modeling.py"):
        (source / name).write_text("raise SystemExit")
    with common.clean_folder(source) as folder:
        names = {path.name for path in folder.iterdir()}
        assert "auto_map" not in (folder / "config.json").read_text()
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
        assert not [name for name in names if name.endswith((".pkl", ".bin", ".py"))]
    assert not folder.exists() and (source / "model.safetensors").is_file()
    (source / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match="safetensors"), common.clean_folder(source):
        pass


def test_damaged_weights_are_an_error_of_the_encoder(tmp_path: Path) -> None:
    folder = tiny_models.save_model("bert", tmp_path / "encoder")
    (folder / "model.safetensors").write_bytes(b"no")
    with pytest.raises(EncoderError, match="cannot be loaded"):
        get_peer("linear_probe").fit_predict(task_of("classification"), folder, seed=0)


def test_entities_of_words_score_as_the_gold_ones() -> None:
    gold = sentences(30, 5)
    predicted = [common.entities(e, [(*span, 1.0) for span in common.word_spans(e)]) for e in gold]
    assert FAMILIES["ner"].score(gold, predicted)["f1"] == 1.0
    assert all(
        row["text"] == e.text[row["start"] : row["end"]]
        for e, found in zip(gold, predicted, strict=True)
        for row in found
    )


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_each_word_has_its_label_at_its_first_token_in_one_window(kind: str, tiny_folder: Folder) -> None:
    rng = random.Random(7)
    words = [rng.choice(["berlin", "zyx", "the", "qqqqqq", "eve"]) for _ in range(200)]
    text, position, offsets, spans = " ".join(words), 0, [], []
    for word in words:
        offsets.append((position, position + len(word)))
        spans += [Span(*offsets[-1], "place")] if word == "berlin" else []
        position += len(word) + 1
    # The words are those of the rule, whatever the file has: control characters are none.
    odd = NerExample("eve \x07 berlin", ((0, 3), (4, 5), (6, 12)), (Span(6, 12, "place"),))
    examples = [NerExample(text, tuple(offsets), tuple(spans)), odd, NerExample("", (), ())]
    with common.clean_folder(tiny_folder(kind)) as folder:
        tokenizer = common.load_tokenizer(folder)
        made = rows.make_rows("ner", examples, ["O", "B-place", "I-place"], tokenizer)
        assert len(made.inputs) > 5
        assert max(len(row["input_ids"]) for row in made.inputs) == tokenizer.model_max_length
        for example, spots in zip(examples, made.places, strict=True):
            for word, spot in zip(common.plain_words(example), spots, strict=True):
                assert spot is not None
                row, token = made.inputs[spot[0]], spot[1]
                assert row["input_ids"][token] == tokenizer(word, add_special_tokens=False)["input_ids"][0]
                assert row["labels"][token] == (1 if word == "berlin" else 0)
    labelled = sum(label != rows.IGNORED for row in made.inputs for label in row["labels"])
    assert labelled == sum(len(common.plain_words(example)) for example in examples)


def test_outputs_come_back_to_their_words_and_a_dropped_word_is_outside() -> None:
    made = rows.Rows([{}, {}], [[(1, 2), None, (0, 1)], [(0, 0)]])
    logits = np.zeros((2, 3, 3), np.float32)
    logits[1, 2, 2] = logits[0, 1, 1] = 9.0
    first, second = rows.unit_probabilities(logits, made, ["O", "B-x", "I-x"])
    assert first.argmax(1).tolist() == [2, 0, 1] and first[1].tolist() == [1.0, 0.0, 0.0]
    assert second == pytest.approx(np.full((1, 3), 1 / 3))


@pytest.mark.parametrize(
    ("n_rows", "steps", "every"), [(4, 200, 20), (96, 200, 20), (1600, 300, 100), (3200, 600, 200)]
)
def test_few_labels_get_more_epochs_and_at_most_ten_looks_at_dev(n_rows: int, steps: int, every: int) -> None:
    assert TrainerSettings().schedule(n_rows) == (steps, every)


@pytest.mark.parametrize("counts", [(3, 3, 3), (9, 1), (2, 30, 1)])
def test_the_steps_of_setfit_are_counted_as_it_makes_pairs(counts: Sequence[int]) -> None:
    targets = [label for label, count in enumerate(counts) for _ in range(count)]
    pairs = [(a, b) for i, a in enumerate(targets) for b in targets[i:]]
    like = sum(a == b for a, b in pairs)
    assert setfit.pair_steps(targets, 4) == -(-2 * max(like, len(pairs) - like) // 4)


@pytest.mark.parametrize("family", BOTH)
def test_the_probe_sees_the_features_of_our_last_layer(family: str, tiny_folder: Folder) -> None:
    from transformers import AutoModel

    examples = task_of(family).test
    last = load_any(str(tiny_folder("bert")), fork=3, max_length=64)  # a branch of one layer
    ours = fitting.example_features(FAMILIES[family], examples, last.encoder, last.tokenizer)
    with common.quiet(), common.clean_folder(tiny_folder("bert")) as folder:
        tokenizer, model = common.load_tokenizer(folder), common.load_model(folder, AutoModel).eval()
        labels = FAMILIES[family].labels(examples)
        made = rows.make_rows(family, examples, labels, tokenizer)
        theirs = linear_probe._unit_features(model, tokenizer, made, family == "ner", 5)
    assert [part.shape for part in theirs] == [part.shape for part in ours]
    assert max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True)) < 1e-4


def test_the_probe_tells_texts_apart(tiny_folder: Folder) -> None:
    task = task_of("classification")
    assert min(scores(task, get_peer("linear_probe").fit_predict(task, tiny_folder("bert"), seed=0))) > 0.7


def test_the_probe_finds_entities(tiny_folder: Folder) -> None:
    task = task_of("ner")
    output = get_peer("linear_probe").fit_predict(task, tiny_folder("bert"), seed=0)
    assert min(scores(task, output)) > 0.7
    assert output.n_bytes == 4 * 7 * (tiny_models.WIDTH + 1)


def test_the_probe_stands_a_single_tag_and_no_test_part(tiny_folder: Folder) -> None:
    word = NerExample("berlin", ((0, 6),), (Span(0, 6, "place"),))
    output = get_peer("linear_probe").fit_predict(TaskData("one", "ner", [word], [word]), tiny_folder("bert"), seed=0)
    assert output.predictions == [] and output.ms_per_text == 0.0
    assert output.dev_predictions[0][0]["label"] == "place"


@pytest.mark.slow
@pytest.mark.parametrize("family", BOTH)
@pytest.mark.parametrize(("name", "rate", "steps"), [("hf_full", 2e-3, 120), ("peft_lora", 1e-2, 200)])
def test_fine_tuning_learns_and_the_seed_decides(
    name: str, rate: float, steps: int, family: str, tiny_folder: Folder
) -> None:
    task, folder = task_of(family), tiny_folder("bert")
    quick: dict[str, Any] = {"rate": rate, "min_steps": steps, "epochs": 3, "evaluations": 4}
    output = fitted(name, task, folder, **quick)
    assert min(scores(task, output)) > 0.7
    assert output == dataclasses.replace(fitted(name, task, folder, **quick), ms_per_text=output.ms_per_text)
    model_bytes = (folder / "model.safetensors").stat().st_size
    assert output.n_bytes < model_bytes / 4 if name == "peft_lora" else output.n_bytes > model_bytes / 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "family", "settings"),
    [
        ("setfit", "classification", {"rate": 1e-3, "max_steps": 60}),
        *(("spacy", family, {"patience": 120, "max_steps": 120, "eval_frequency": 40}) for family in BOTH),
    ],
)
def test_other_libraries_learn(name: str, family: str, settings: dict[str, Any], tiny_folder: Folder) -> None:
    if importlib.util.find_spec(PEERS[name].package) is None:
        pytest.skip(f"{PEERS[name].distribution} is not installed")
    task = task_of(family)
    assert min(scores(task, fitted(name, task, tiny_folder("bert"), **settings))) > 0.6
