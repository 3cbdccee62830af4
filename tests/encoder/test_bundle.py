"""Bundles: the same predictions after a round trip, and parts that do not belong together are refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_models
import trunkline
from trunkline.encoder.adapter_file import AdapterFile, lora_hash, save_adapter
from trunkline.encoder.bundle_files import Loaded, add_task, load_any, load_bundle, save_bundle
from trunkline.encoder.encoder import Encoder
from trunkline.engine.torch import Bundle
from trunkline.errors import MismatchError, TrunklineError
from trunkline.heads.linear import LinearHead

TEXTS = [*tiny_models.SENTENCES, "", " ".join(["berlin", "and", "ann"] * 60)]
NER_LABELS = ("O", "B-person", "I-person", "B-place", "I-place")


def head(labels: int, seed: int) -> LinearHead:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(labels, tiny_models.WIDTH)).astype(np.float32)
    return LinearHead(weight, rng.normal(size=labels).astype(np.float32))


def whole(tiny: Loaded) -> Loaded:
    """A bundle with a primary adapter, two heads on it, a head on the bare backbone, and a task with its own LoRA."""
    config = tiny.encoder.config
    primary = tiny_models.random_adapter(config, (2, 3), seed=1)
    own = tiny_models.random_adapter(config, (3,), rank=2, seed=2, targets=("out", "up"))
    on = {"family": "ner", "backbone": tiny.backbone, "fork": 2}
    primaries = {"ner": AdapterFile(**on, lora=primary)}
    tasks = {
        "names": AdapterFile(**on, head=head(5, 3), labels=NER_LABELS, primary=lora_hash(primary)),
        "more.names-2": AdapterFile(**on, head=head(5, 4), labels=NER_LABELS, primary=lora_hash(primary)),
        "tuned": AdapterFile(**on, lora=own, head=head(5, 5), labels=NER_LABELS),
        "topic": AdapterFile("classification", tiny.backbone, 2, head=head(3, 6), labels=("a", "b", "ü")),
    }
    return dataclasses.replace(tiny, primaries=primaries, tasks=tasks)


@pytest.fixture
def folder(tiny: Loaded, tmp_path: Path) -> Path:
    save_bundle(whole(tiny), tmp_path / "bundle")
    return tmp_path / "bundle"


def change_manifest(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_predictions_after_save_and_load_are_the_same_to_the_last_bit(tiny: Loaded, folder: Path) -> None:
    before = Bundle(whole(tiny)).predict(TEXTS)
    loaded = trunkline.load(folder)
    assert loaded.predict(TEXTS) == before
    assert loaded.tasks == {"more.names-2": "ner", "names": "ner", "topic": "classification", "tuned": "ner"}
    assert any(row["names"] for row in before)


def test_a_saved_bundle_saved_again_has_the_same_tensors_and_manifest(folder: Path, tmp_path: Path) -> None:
    save_bundle(load_any(str(folder)), tmp_path / "again")
    assert tiny_models.same_bits(tiny_models.bundle_tensors(folder), tiny_models.bundle_tensors(tmp_path / "again"))
    assert (folder / "manifest.json").read_text() == (tmp_path / "again" / "manifest.json").read_text()


def test_all_tasks_at_once_equal_one_task_at_a_time(folder: Path) -> None:
    bundle = trunkline.load(folder)
    together = bundle.predict(TEXTS)
    for task in bundle.tasks:
        assert [row[task] for row in bundle.predict(TEXTS, [task])] == [row[task] for row in together]


def test_all_texts_at_once_equal_one_text_at_a_time(folder: Path) -> None:
    bundle = trunkline.load(folder)
    for text, together in zip(TEXTS, bundle.predict(TEXTS), strict=True):
        alone = bundle.predict([text])[0]
        assert alone["topic"]["probabilities"] == pytest.approx(together["topic"]["probabilities"], abs=1e-5)
        for task in ("names", "tuned"):
            assert [(e["start"], e["end"], e["label"]) for e in alone[task]] == [
                (e["start"], e["end"], e["label"]) for e in together[task]
            ]


def test_the_trunk_runs_once_and_heads_of_a_family_share_a_branch(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {"trunk": 0, "read": 0}
    for name in calls:
        original = getattr(Encoder, name)

        def counted(*args: Any, _name: str = name, _original: Any = original, **kwargs: Any) -> Any:
            calls[_name] += 1
            return _original(*args, **kwargs)

        monkeypatch.setattr(Encoder, name, counted)
    trunkline.load(folder).predict(["ann lives in berlin"])
    assert calls == {"trunk": 1, "read": 3}


def test_each_task_runs_through_the_adapter_it_was_made_with(tiny: Loaded, folder: Path) -> None:
    from trunkline.encoder.features import Branch, branch_features
    from trunkline.text.packing import text_unit

    loaded = whole(tiny)
    units = [text_unit(tokens) for tokens in tiny.tokenizer.encode(TEXTS)]
    bare = branch_features(tiny.encoder, [Branch(units)])[0]
    topic = loaded.tasks["topic"].head
    assert topic is not None
    for row, features in zip(trunkline.load(folder).predict(TEXTS, ["topic"]), bare, strict=True):
        expected = dict(zip(("a", "b", "ü"), topic.probabilities(features)[0].tolist(), strict=True))
        assert row["topic"]["probabilities"] == pytest.approx(expected, abs=1e-5)


def test_entities_are_stretches_of_their_text(folder: Path) -> None:
    for text, row in zip(TEXTS, trunkline.load(folder).predict(TEXTS), strict=True):
        for task in ("names", "more.names-2", "tuned"):
            assert all(text[e["start"] : e["end"]] == e["text"] and e["text"] for e in row[task])


def test_no_text_or_no_task_gives_no_prediction(folder: Path) -> None:
    bundle = trunkline.load(folder)
    assert bundle.predict([]) == []
    assert bundle.predict(["a", "b"], []) == [{}, {}]


def test_half_a_surrogate_pair_is_a_character_that_says_nothing(folder: Path) -> None:
    bundle = trunkline.load(folder)
    broken, replaced = bundle.predict(["ann \ud800 bob", "ann \ufffd bob"])
    assert [(e["start"], e["end"]) for e in broken["names"]] == [(e["start"], e["end"]) for e in replaced["names"]]
    assert broken["topic"] == replaced["topic"]


@pytest.mark.parametrize(
    ("texts", "tasks", "message"),
    [
        ("ann", None, r"one string.*predict\(\[text\]\)"),
        (["ann"], "names", r"a list of names, such as \['names'\]"),
        (["ann"], ["nmaes"], "nmaes.*not in this bundle.*names, topic, tuned"),
        (["ann", None], None, "text 1 is a NoneType"),
        (["a" * 1_000_001], None, "1000001 characters.*1000000"),
    ],
)
def test_wrong_arguments_are_refused(texts: Any, tasks: Any, message: str, folder: Path) -> None:
    with pytest.raises(TrunklineError, match=message):
        trunkline.load(folder).predict(texts, tasks)


def test_a_changed_backbone_is_refused(folder: Path) -> None:
    weights = folder / "backbone" / "model.safetensors"
    tensors = load_file(weights)
    tensors["encoder.layer.0.output.dense.bias"][0] += 0.5
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(MismatchError, match="the backbone's hash is"):
        load_bundle(folder)


def test_a_task_of_a_foreign_backbone_is_refused(tiny: Loaded, folder: Path) -> None:
    foreign = AdapterFile("classification", "0" * 64, 2, head=head(3, 1), labels=("a", "b", "c"))
    with pytest.raises(MismatchError, match="task foreign was adapted on backbone 000000000000"):
        add_task(folder, "foreign", foreign)
    save_adapter(foreign, folder / "foreign.safetensors")
    with pytest.raises(MismatchError, match="trained on backbone 000000000000"):
        trunkline.load(folder).add("foreign", folder / "foreign.safetensors")
    shutil.move(folder / "foreign.safetensors", folder / "tasks" / "names.safetensors")
    with pytest.raises(MismatchError, match="trained on backbone 000000000000"):
        load_bundle(folder)


def test_a_task_on_another_primary_adapter_is_refused_everywhere(tiny: Loaded, folder: Path) -> None:
    other = AdapterFile("ner", tiny.backbone, 2, head=head(5, 1), labels=NER_LABELS, primary="1" * 64)
    message = "task other sits on ner adapter 111111111111"
    with pytest.raises(MismatchError, match=message):
        add_task(folder, "other", other)
    save_adapter(other, folder / "other.safetensors")
    with pytest.raises(MismatchError, match=message):
        trunkline.load(folder).add("other", folder / "other.safetensors")
    shutil.move(folder / "other.safetensors", folder / "tasks" / "other.safetensors")
    change_manifest(folder, tasks=["other"])
    with pytest.raises(MismatchError, match=message):
        load_bundle(folder)


def test_a_primary_adapter_under_the_name_of_another_family_is_refused(folder: Path) -> None:
    shutil.copy(folder / "adapters" / "ner.safetensors", folder / "adapters" / "classification.safetensors")
    change_manifest(folder, adapters=["classification", "ner"])
    with pytest.raises(MismatchError, match=r"classification.*family ner"):
        load_bundle(folder)


def test_a_refused_task_leaves_the_bundle_as_it_was(tiny: Loaded, folder: Path) -> None:
    before = trunkline.load(folder).predict(TEXTS)
    for name in ("other", "names"):
        with pytest.raises(MismatchError):
            add_task(
                folder, name, AdapterFile("ner", tiny.backbone, 2, head=head(5, 1), labels=NER_LABELS, primary="1")
            )
    with pytest.raises(MismatchError, match="no head"):
        add_task(folder, "primary", whole(tiny).primaries["ner"])
    assert trunkline.load(folder).predict(TEXTS) == before


def test_an_added_task_leaves_all_other_files_alone(tiny: Loaded, folder: Path) -> None:
    before = {
        path: path.read_bytes() for path in folder.rglob("*.*") if path.is_file() and path.name != "manifest.json"
    }
    task = dataclasses.replace(whole(tiny).tasks["topic"], head=head(3, 9))
    path = add_task(folder, "topic2", task)
    assert all(file.read_bytes() == content for file, content in before.items())
    assert path == folder / "tasks" / "topic2.safetensors"
    loaded = trunkline.load(folder)
    assert loaded.tasks["topic2"] == "classification"
    bundle = Bundle(whole(tiny))
    bundle.add("topic2", path)
    assert bundle.predict(TEXTS, ["topic2"]) == loaded.predict(TEXTS, ["topic2"])


@pytest.mark.parametrize("name", ["../x", "..", "a/b", "/tmp/x", ".hidden", "", "a" * 101, "a\n", "a\\b"])
def test_names_that_could_leave_the_folder_are_refused(name: str, tiny: Loaded, folder: Path) -> None:
    task = whole(tiny).tasks["topic"]
    with pytest.raises(TrunklineError, match="name "):
        add_task(folder, name, task)
    with pytest.raises(TrunklineError, match="name "):
        save_bundle(dataclasses.replace(tiny, tasks={name: task}), folder.parent / "other")
    change_manifest(folder, tasks=[name])
    with pytest.raises(TrunklineError, match="name "):
        load_bundle(folder)
    assert sorted(item.name for item in folder.parent.iterdir() if item.name != "other") == ["bundle"]


def test_a_later_manifest_version_is_refused(folder: Path) -> None:
    change_manifest(folder, format=2)
    with pytest.raises(MismatchError, match=r"manifest\.json has format 2.*format 1.*Update"):
        load_bundle(folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}', "nonsense"])
def test_a_manifest_that_is_none_is_refused(content: str, folder: Path) -> None:
    (folder / "manifest.json").write_text(content)
    with pytest.raises(TrunklineError, match=r"manifest\.json"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "changes", [{"fork": "two"}, {"fork": None}, {"max_length": []}, {"tasks": 3}, {"adapters": [4]}]
)
def test_a_manifest_with_values_of_another_type_is_refused(changes: dict[str, Any], folder: Path) -> None:
    change_manifest(folder, **changes)
    with pytest.raises(TrunklineError, match=r"manifest\.json|name 4"):
        load_bundle(folder)


def test_a_folder_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(TrunklineError, match=r"no manifest\.json"):
        trunkline.load(tmp_path)


def test_a_bundle_that_was_not_finished_is_not_taken_for_one(
    tiny: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trunkline.encoder import bundle_files

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle_files, "save_adapter", killed)
    with pytest.raises(KeyboardInterrupt):
        save_bundle(whole(tiny), tmp_path / "bundle")
    assert not (tmp_path / "bundle" / "manifest.json").exists()
    with pytest.raises(TrunklineError, match=r"no manifest\.json"):
        trunkline.load(tmp_path / "bundle")


def test_a_bundle_missing_a_file_is_refused(folder: Path) -> None:
    (folder / "tasks" / "names.safetensors").unlink()
    with pytest.raises(TrunklineError, match=r"names\.safetensors cannot be read"):
        load_bundle(folder)


def test_the_backbone_of_a_bundle_opens_in_transformers(tiny: Loaded, folder: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(str(folder / "backbone")).eval()
    theirs = tiny_models.hugging_face_states(model, tiny.tokenizer)
    assert tiny_models.difference(tiny_models.states(tiny.encoder, tiny.tokenizer), theirs) < 1e-5
    ids = AutoTokenizer.from_pretrained(str(folder / "backbone"))("ann lives in berlin")["input_ids"]
    assert torch.equal(
        torch.tensor(ids), torch.from_numpy(tiny.tokenizer.encode(["ann lives in berlin"])[0].windows[0].ids)
    )
