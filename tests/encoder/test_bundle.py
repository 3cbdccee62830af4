"""Bundles in torch: the same predictions after a round trip, and parts that do not belong together are refused."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import deployed
import tiny_models
import trunkline
from deployed import TEXTS
from trunkline.bundle.files import open_bundle, read_manifest
from trunkline.bundle.manifest import SHAPES, FileEntry
from trunkline.bundle.parts import read_primary
from trunkline.encoder import bundle_files
from trunkline.encoder.bundle_files import (
    Loaded,
    adapter_files,
    cached_bundle,
    load_any,
    load_bundle,
    lora_of,
    manifest_of,
    save_bundle,
)
from trunkline.engine.base import Predictor
from trunkline.engine.torch import TorchEngine
from trunkline.errors import MismatchError, TrunklineError
from trunkline.text.words import SHAPE


@pytest.fixture
def folder(tiny: Loaded, tmp_path: Path) -> Path:
    save_bundle(deployed.whole(tiny), tmp_path / "bundle")
    return tmp_path / "bundle"


def in_memory(loaded: Loaded) -> Predictor:
    """What predicts with an encoder and tasks that were never written."""
    manifest, contents = manifest_of(loaded), adapter_files(loaded)
    primaries = {
        family: read_primary(contents[file], manifest, family).inputs for family, file in manifest.adapters.items()
    }
    return Predictor(loaded.tokenizer, TorchEngine(loaded.encoder), primaries, loaded.tasks.values())


def test_predictions_after_save_and_load_are_the_same_to_the_last_bit(tiny: Loaded, folder: Path) -> None:
    before = in_memory(deployed.whole(tiny)).predict(TEXTS)
    model = trunkline.load(folder)
    assert model.predict(TEXTS) == before
    model.save(folder.parent / "again")
    assert trunkline.load(folder.parent / "again").predict(TEXTS) == before
    assert any(row["names"] for row in before)


def test_each_task_runs_through_the_adapter_it_was_made_with(tiny: Loaded, folder: Path) -> None:
    from trunkline.encoder.encoder import FeatureRequest, branch_features
    from trunkline.tasks.classification import softmax
    from trunkline.text.tokens import text_unit

    loaded = deployed.whole(tiny)
    units = [text_unit(tokens) for tokens in tiny.tokenizer.encode(TEXTS)]
    for name, lora in (
        ("topic", loaded.primaries.get("classification")),
        ("topic.tuned", lora_of(loaded.tasks["topic.tuned"], tiny.encoder.config)),
    ):
        features = branch_features(tiny.encoder, [FeatureRequest(units, lora)])[0]
        head, labels = loaded.tasks[name].head, loaded.tasks[name].labels
        for row, part in zip(trunkline.load(folder).predict(TEXTS, [name]), features, strict=True):
            expected = dict(zip(labels, softmax(part @ head.weight + head.bias)[0].tolist(), strict=True))
            assert row[name]["probabilities"] == pytest.approx(expected, abs=1e-5)


def test_entities_are_stretches_of_their_text(folder: Path) -> None:
    for text, row in zip(TEXTS, trunkline.load(folder).predict(TEXTS), strict=True):
        for task in ("names", "more.names-2", "tuned"):
            assert all(text[e["start"] : e["end"]] == e["text"] and e["text"] for e in row[task])


def test_transitions_of_a_task_count_in_what_it_predicts(tiny: Loaded) -> None:
    predictor = in_memory(deployed.whole(tiny))
    task = next(task for task in predictor.tasks.values() if task.transitions is not None)
    assert any(row[task.name] for row in predictor.predict(TEXTS, [task.name]))
    never = np.full_like(task.transitions, -1000)
    never[:, task.labels.index("O")] = 0
    predictor.add(dataclasses.replace(task, transitions=never))
    assert not any(row[task.name] for row in predictor.predict(TEXTS, [task.name]))


def test_shapes_of_units_count_in_what_a_task_predicts(tiny: Loaded) -> None:
    predictor = in_memory(deployed.whole(tiny))
    task = next(task for task in predictor.tasks.values() if task.family == "ner" and task.units == "words")
    tags = task.labels
    begins = np.asarray([100.0 if tag.startswith("B-") else 0.0 for tag in tags], np.float32)
    shapes = np.zeros((SHAPES, len(tags)), np.float32)
    shapes[SHAPE.index("title")] = begins
    shapes[SHAPE.index("small"), tags.index("O")] = 300
    shapes[SHAPE.index("stop"), tags.index("O")] = 300
    predictor.add(dataclasses.replace(task, shapes=shapes, name="capital"))
    row = predictor.predict(["we met Ann and Bob, then rain"], ["capital"])[0]["capital"]
    assert [entity["text"] for entity in row] == ["Ann", "Bob"]


def test_a_changed_backbone_is_refused(folder: Path) -> None:
    weights = folder / "encoder" / "model.safetensors"
    tensors = load_file(weights)
    tensors["encoder.layer.0.output.dense.bias"][0] += 0.5
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(TrunklineError, match=r"model\.safetensors has another SHA-256"):
        trunkline.load(folder)
    manifest = read_manifest(folder)
    import hashlib

    content = weights.read_bytes()
    entry = FileEntry(hashlib.sha256(content).hexdigest(), len(content))
    files = {**manifest.files, "encoder/model.safetensors": entry}
    (folder / "manifest.json").write_bytes(dataclasses.replace(manifest, files=files).to_json())
    for opened in (load_bundle, trunkline.load):
        with pytest.raises(MismatchError, match="the backbone's hash is"):
            opened(folder)


def test_a_bundle_for_onnx_alone_says_so_in_torch(tiny: Loaded, tmp_path: Path) -> None:
    with pytest.raises(TrunklineError, match="graphs for ONNX Runtime alone"):
        load_bundle(deployed.deploy(tiny, tmp_path / "graphs"))


@pytest.mark.parametrize("name", ["../x", "..", "a/b", "/tmp/x", ".hidden", "", "a" * 101, "a\n", "a\\b"])
def test_names_that_could_leave_the_folder_are_refused(name: str, tiny: Loaded, tmp_path: Path) -> None:
    task = deployed.whole(tiny).tasks["tuned"]
    with pytest.raises(TrunklineError, match="name "):
        save_bundle(dataclasses.replace(tiny, tasks={name: task}), tmp_path / "other")
    assert not list(tmp_path.iterdir())


def test_a_bundle_is_never_written_over_other_files(tiny: Loaded, folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(TrunklineError, match="has files already"):
        save_bundle(tiny, folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_an_encoder_opens_in_transformers(tiny: Loaded, folder: Path) -> None:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(str(folder / "encoder")).eval()
    theirs = tiny_models.hugging_face_states(model, tiny.tokenizer)
    assert tiny_models.difference(tiny_models.states(tiny.encoder, tiny.tokenizer), theirs) < 1e-5


def test_a_plain_encoder_is_a_model_without_tasks_kept_in_the_cache(tiny_folder: Any) -> None:
    source = tiny_folder("bert")
    model = trunkline.load(source)
    assert (model.engine, model.tasks) == ("torch", {})
    assert model.folder == cached_bundle(str(source))
    assert model.bundle.manifest.backbone == load_any(str(source)).backbone
    with pytest.raises(TrunklineError, match=r"no tasks yet.*fit\(name, texts, labels\)"):
        model.predict(["ann"])


def test_a_plain_encoder_may_lie_in_a_folder_whose_name_is_none_of_a_bundle(tiny_folder: Any, tmp_path: Path) -> None:
    place = shutil.copytree(tiny_folder("bert"), tmp_path / "my encoder (2)")
    shutil.rmtree(cached_bundle(str(tiny_folder("bert"))))
    assert trunkline.load(place).name == "encoder"


def test_encoders_of_other_weights_or_another_tokenizer_are_other_models_in_the_cache(
    tiny_folder: Any, tmp_path: Path
) -> None:
    plain, weights = tiny_folder("bert"), tiny_models.save_model("bert", tmp_path / "weights", seed=1)
    tokens = shutil.copytree(plain, tmp_path / "tokens")
    file = tokens / "tokenizer.json"
    file.write_text(file.read_text().replace('"lowercase": true', '"lowercase": false'))
    copied = shutil.copytree(plain, tmp_path / "copied")
    folders = [trunkline.load(source).folder for source in (plain, weights, tokens)]
    assert len(set(folders)) == 3
    assert trunkline.load(copied).folder == folders[0]


def test_of_two_first_starts_at_once_one_makes_the_bundle_and_the_other_waits(
    tiny_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, original = str(tiny_folder("bert")), bundle_files.save_bundle
    both, written = threading.Barrier(2), []

    def save(*arguments: Any) -> Any:
        # Both would get here at once if neither waited for the other.
        with suppress(threading.BrokenBarrierError):
            both.wait(1)
        written.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(bundle_files, "save_bundle", save)
    shutil.rmtree(cached_bundle(source), ignore_errors=True)
    written.clear()
    both.reset()
    with ThreadPoolExecutor(2) as pool:
        folders = [future.result() for future in [pool.submit(cached_bundle, source) for _ in range(2)]]
    assert folders[0] == folders[1]
    assert len(written) == 1
    assert open_bundle(folders[0]).manifest.checkpoint


def test_window_lengths_survive_the_file(tiny: Loaded, tmp_path: Path) -> None:
    for length in (24, 64):
        loaded = load_any(str(_plain(tiny, tmp_path / f"plain{length}")), fork=1, max_length=length)
        save_bundle(loaded, tmp_path / str(length))
        encoder = open_bundle(tmp_path / str(length)).manifest.encoder
        assert (encoder.max_length, encoder.fork) == (length, 1)
        again = load_any(str(tmp_path / str(length)))
        assert (again.tokenizer.max_length, again.tokenizer.overlap, again.encoder.fork) == (
            length,
            loaded.tokenizer.overlap,
            1,
        )
        reader = trunkline.load(tmp_path / str(length)).tokenizer
        text = " ".join(tiny_models.WORDS)
        assert max(reader.encode([text])[0].sizes) == length


def _plain(tiny: Loaded, folder: Path) -> Path:
    return tiny_models.save_model("bert", folder)
