"""Opening bundles: what is in them reaches an engine as it was, and nothing else is let in."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save

import deployed
from trunkline.bundle.files import file_problems, open_bundle, read_manifest
from trunkline.bundle.manifest import SHAPES, FileEntry, Manifest
from trunkline.bundle.parts import Head, as_stored, fuse, read_primary, read_task, task_bytes, write_tensors
from trunkline.encoder.bundle_files import Loaded, load_bundle, save_bundle
from trunkline.engine.onnx import open_session
from trunkline.errors import DataError, MismatchError, TrunklineError


@pytest.fixture(scope="module")
def _made(_tiny: Loaded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    loaded = deployed.whole(_tiny)
    deployed.deploy(loaded, folder / "deployed")
    save_bundle(loaded, folder / "training")
    return folder


@pytest.fixture
def folder(_made: Path, tmp_path: Path) -> Path:
    shutil.copytree(_made / "deployed", tmp_path / "deployed")
    return tmp_path / "deployed"


def rewritten(folder: Path, file: str, content: bytes) -> None:
    """Puts another content under a file's name, and its size and hash into the manifest."""
    manifest = read_manifest(folder)
    (folder / file).write_bytes(content)
    entry = FileEntry(hashlib.sha256(content).hexdigest(), len(content))
    changed = dataclasses.replace(manifest, files={**manifest.files, file: entry})
    (folder / "manifest.json").write_bytes(changed.to_json())


def described(folder: Path, name: str, **changes: Any) -> bytes:
    """A task's file with another description."""
    path = folder / "tasks" / f"{name}.safetensors"
    with safe_open(str(path), framework="np") as file:
        description = json.loads(file.metadata()["trunkline"])
    return write_tensors(load_file(path), {"trunkline": json.dumps(description | changes)})


def test_adapters_and_tasks_are_the_same_bytes_for_torch_and_for_the_graphs(folder: Path, _made: Path) -> None:
    for path in sorted(folder.rglob("*.safetensors")):
        assert (_made / "training" / path.relative_to(folder)).read_bytes() == path.read_bytes()


def test_parts_are_those_that_were_written_in_half_precision(folder: Path, _tiny: Loaded) -> None:
    source, opened = deployed.whole(_tiny), open_bundle(folder)
    assert opened.tasks.keys() == source.tasks.keys()
    for name, task in opened.tasks.items():
        wanted = source.tasks[name]
        assert (task.family, task.labels, task.own_lora) == (wanted.family, wanted.labels, wanted.own_lora)
        assert (task.inputs["head.weight"] == wanted.head.weight).all()
        assert (task.inputs["head.bias"] == wanted.head.bias).all()
        assert (task.transitions is None) == (wanted.head.transitions is None)
        if task.transitions is not None:
            assert (task.transitions == wanted.head.transitions).all()
    assert any(task.transitions is not None for task in opened.tasks.values())
    assert opened.primaries.keys() == {"ner", "classification"}
    assert opened.tokenizer.is_file()


def test_what_shapes_add_has_a_row_a_shape(folder: Path, _tiny: Loaded) -> None:
    manifest, rng = read_manifest(folder), np.random.default_rng(0)
    labels = ("O", "B-x", "I-x")
    weight = deployed.half(rng.normal(size=(manifest.encoder.hidden_size + SHAPES, 3)))
    content = task_bytes(manifest, "ner", labels, Head(weight, np.zeros(3, np.float32)), units="words")
    read = read_task(content, manifest, "x")
    assert read.shapes is not None
    assert (np.concatenate([read.inputs["head.weight"], read.shapes]) == weight).all()
    short = task_bytes(manifest, "ner", labels, Head(weight[:-1], np.zeros(3, np.float32)), units="words")
    with pytest.raises(MismatchError, match=r"head of .*head\.shapes"):
        read_task(short, manifest, "x")


def test_a_bundle_for_torch_is_the_one_that_was_written_bit_for_bit(_made: Path, _tiny: Loaded, tmp_path: Path) -> None:
    first = load_bundle(_made / "training")
    save_bundle(first, tmp_path / "again")
    for path in sorted((_made / "training").rglob("*")):
        if path.is_file() and path.name != "manifest.json":
            assert (tmp_path / "again" / path.relative_to(_made / "training")).read_bytes() == path.read_bytes()
    source, config = deployed.whole(_tiny), _tiny.encoder.config
    for family, adapter in source.primaries.items():
        theirs = first.primaries[family]
        assert theirs.config == adapter.config
        for (name, ours), read in zip(adapter.state_dict().items(), theirs.state_dict().values(), strict=True):
            assert (ours == read).all(), name
    assert config == first.encoder.config


def test_what_is_kept_of_a_task_is_its_feeds_alone(folder: Path) -> None:
    for task in open_bundle(folder).tasks.values():
        kept = [*task.inputs.values(), *([] if task.transitions is None else [task.transitions])]
        assert all(tensor.base is None or tensor.base.nbytes <= tensor.nbytes for tensor in kept), task.name


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed memory and can be told not to")
def test_opening_a_graph_gives_freed_memory_back(folder: Path) -> None:
    graph = open_bundle(folder).graphs["branch"]
    # Blocks so small that glibc takes them from its heap.
    blocks = [bytes(4096) for _ in range(20_000)]
    full = _resident()
    del blocks[:-1]
    open_session(graph)
    assert _resident() < full - 40e6


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_it_opens_without_torch_and_pydantic(folder: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'pydantic', 'onnx', 'cryptography'):\n"
        "    sys.modules[name] = None\n"
        "import trunkline.bundle.edit\n"
        "from trunkline.bundle.files import change_tasks, open_bundle\n"
        "print(sorted(open_bundle(sys.argv[1]).tasks))\n"
        "print(sorted(change_tasks(sys.argv[1], {}, ['tuned']).tasks))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    tasks = ["more.names-2", "names", "tone", "topic", "topic.tuned", "tuned"]
    assert done.stdout.splitlines() == [str(tasks), str(tasks[:-1])]


@pytest.mark.parametrize(
    "file", ["graphs/trunk.onnx", "tokenizer.json", "adapters/ner.safetensors", "tasks/tuned.safetensors"]
)
def test_missing_truncated_and_changed_files_are_named(folder: Path, file: str) -> None:
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[:-1])
    with pytest.raises(DataError, match=f"{file} has {len(content) - 1} bytes"):
        open_bundle(folder)
    (folder / file).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DataError, match=f"{file} has another SHA-256"):
        open_bundle(folder)
    (folder / file).unlink()
    with pytest.raises(DataError, match=rf"{file}: the file cannot be read \(No such file"):
        open_bundle(folder)


def test_all_files_are_named_at_once_and_sizes_are_checked_without_verifying(folder: Path) -> None:
    (folder / "graphs/trunk.onnx").unlink()
    (folder / "graphs/branch.onnx").write_bytes(b"x")
    with pytest.raises(DataError, match="2 of 12 files") as caught:
        open_bundle(folder, verify=False)
    assert "trunk.onnx" in str(caught.value)
    assert "branch.onnx" in str(caught.value)
    first, *problems, last = str(caught.value).splitlines()
    assert first.endswith("2 of 12 files of the bundle cannot be used:")
    assert all(problem.startswith("  - graphs/") for problem in problems)
    assert last == "Expected the files that its manifest names. Fetch or export the bundle again."


def test_links_out_of_the_folder_and_pipes_are_refused(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "graphs/trunk.onnx", tmp_path / "outside")
    (folder / "graphs/trunk.onnx").symlink_to(tmp_path / "outside")
    (folder / "graphs/branch.onnx").unlink()
    os.mkfifo(folder / "graphs/branch.onnx")
    shutil.move(folder / "tasks", tmp_path / "tasks")
    (folder / "tasks").symlink_to(tmp_path / "tasks")
    problems = file_problems(folder, read_manifest(folder))
    assert sum("is a link out of the folder" in problem for problem in problems) == 7
    assert any("branch.onnx: this is no plain file" in problem for problem in problems)


def test_links_into_the_blobs_of_the_hubs_cache_are_followed(folder: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "1f2e"
    blobs.mkdir(parents=True)
    for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        shutil.copy(path, blobs / str(number))
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blobs / str(number), link.parent))
    assert open_bundle(snapshot).tasks.keys() == open_bundle(folder).tasks.keys()
    other = shutil.copytree(snapshot, tmp_path / "models--a--b" / "other" / "1f2e", symlinks=True)
    with pytest.raises(DataError, match="is a link out of the folder"):
        open_bundle(other)


def test_a_bundle_that_is_changed_while_it_is_opened_is_opened_as_it_is_then(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trunkline.bundle import edit, files

    original = files.file_problems
    content = (folder / "tasks" / "tuned.safetensors").read_bytes()

    def meanwhile(*arguments: Any) -> list[str]:
        monkeypatch.undo()
        edit.add_task(folder, "names", content, replace=True)
        return original(*arguments)

    monkeypatch.setattr(files, "file_problems", meanwhile)
    assert open_bundle(folder).tasks["names"].own_lora


def test_what_is_no_bundle_is_said(tmp_path: Path) -> None:
    with pytest.raises(TrunklineError, match=r"no manifest\.json.*trunkline fit"):
        open_bundle(tmp_path)
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(DataError, match="no plain file"):
        open_bundle(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backbone": "0" * 64}, "trained on backbone 000000000000"),
        ({"primary": "ner@" + "0" * 64}, "sits on the adapter ner@0000"),
        ({"primary": ""}, "sits on the adapter none"),
        ({"family": "classification"}, "of family classification"),
        ({"labels": ["O", "B-person"]}, "has a head of"),
        ({"labels": ["O", "O", "B-person"]}, "a label stands there twice"),
        ({"kind": "adapter"}, "its description.kind"),
        ({"format": 3}, "its description.format"),
        ({"units": "letters"}, "its description.units"),
        ({"more": 1}, "unknown key"),
    ],
)
def test_foreign_tasks_are_refused(folder: Path, changes: dict[str, Any], said: str) -> None:
    rewritten(folder, "tasks/names.safetensors", described(folder, "names", **changes))
    with pytest.raises(TrunklineError, match=said):
        open_bundle(folder)


def test_decisions_are_kept_and_a_file_without_any_is_read(folder: Path) -> None:
    task = open_bundle(folder).tasks["topic"]
    assert task.decisions == {}
    held = {"a": {"right": [0.9, 1], "wrong": [], "true": [0.25], "count": 3}}
    said = {"min_score": 0.5, "thresholds": {"a": 0.25}, "other": "b", "held_out": held, "chosen": {"x": None}}
    content = described(folder, "topic", decisions=said)
    found = read_task(content, read_manifest(folder), "topic")
    assert found.decisions == found.head.decisions == said
    parts = found.family, found.labels, as_stored(found.head)
    again = task_bytes(read_manifest(folder), *parts, units=found.units, info=found.info)
    assert read_task(again, read_manifest(folder), "topic").decisions == said


@pytest.mark.parametrize(
    ("decisions", "said"),
    [
        ([], "expected an object"),
        ({"minimum": 0.5}, "decisions.minimum is an unknown key"),
        ({"min_score": -0.5}, "expected a number from 0"),
        ({"held_out": {"a": {"right": ["0.5"]}}}, r"decisions.held_out.a.right\[0\] is '0.5'"),
    ],
)
def test_decisions_of_another_form_are_refused(folder: Path, decisions: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_task(described(folder, "topic", decisions=decisions), read_manifest(folder), "topic")


def test_a_task_must_fit_the_graphs(folder: Path) -> None:
    manifest = read_manifest(folder)
    path = folder / "tasks" / "topic.tuned.safetensors"
    with pytest.raises(MismatchError, match="for which the graph has no input"):
        read_task(path, dataclasses.replace(manifest, lora_targets=("qkv",)), "topic.tuned")
    assert read_task(path, dataclasses.replace(manifest, lora_targets=("qkv", "down")), "topic.tuned").own_lora
    wider = dataclasses.replace(manifest.encoder, hidden_size=64)
    with pytest.raises(MismatchError, match="the width of the encoder"):
        read_task(path, dataclasses.replace(manifest, encoder=wider), "topic.tuned")


def test_other_files_are_recognised(folder: Path, tmp_path: Path) -> None:
    manifest = read_manifest(folder)
    (tmp_path / "x.safetensors").write_bytes(save({"a": np.zeros(3, np.float16)}))
    with pytest.raises(DataError, match="no task of a bundle"):
        read_task(tmp_path / "x.safetensors", manifest, "x")
    (tmp_path / "old.safetensors").write_bytes(save({"a": np.zeros(3, np.float16)}, {"trunkline": '{"format": 1}'}))
    with pytest.raises(DataError, match="Make or fetch it again"):
        read_task(tmp_path / "old.safetensors", manifest, "old")
    with pytest.raises(DataError, match=r"its description\.kind"):
        read_task(folder / "adapters" / "ner.safetensors", manifest, "ner")
    with pytest.raises(DataError, match=r"its description\.kind"):
        read_primary(folder / "tasks" / "tuned.safetensors", manifest, "ner")


def test_a_primary_adapter_of_another_family_is_refused(folder: Path) -> None:
    manifest: Manifest = read_manifest(folder)
    changed = dataclasses.replace(manifest, adapters={"qa": manifest.adapters["ner"]}, tasks={})
    with pytest.raises(MismatchError, match=r"is of family ner\. Expected qa"):
        read_primary(folder / "adapters" / "ner.safetensors", changed, "qa")


def test_values_that_are_not_finite_or_too_large_never_reach_a_file_or_come_from_one(folder: Path) -> None:
    path = folder / "tasks" / "names.safetensors"
    tensors = load_file(path)
    for value in (np.nan, np.inf):
        tensors["head.bias"][0] = value
        with safe_open(str(path), framework="np") as file:
            content = write_tensors(tensors, file.metadata())
        with pytest.raises(DataError, match=r"head\.bias has values that are not finite"):
            read_task(content, read_manifest(folder), "names")
    from trunkline.bundle.parts import Head, task_bytes

    for value in (np.nan, 1e6):
        head = Head(np.full((32, 1), value, np.float32), np.zeros(1, np.float32))
        with pytest.raises(MismatchError, match=r"head\.weight has values that float16 cannot hold"):
            task_bytes(read_manifest(folder), "ner", ("O",), head, units="words")


def test_fused_plans_do_not_mix_adapters_of_one_shape() -> None:
    shapes = {"lora.1.query.a": (4, 2), "lora.1.query.b": (2, 4), "lora.1.value.a": (4, 3), "lora.1.value.b": (3, 4)}
    rng = np.random.default_rng(0)
    for _ in range(2):
        tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        inputs = fuse(tensors)
        update = inputs["lora.1.qkv.a"] @ inputs["lora.1.qkv.b"]
        for place, target in ((0, "query"), (2, "value")):
            wanted = tensors[f"lora.1.{target}.a"] @ tensors[f"lora.1.{target}.b"]
            assert np.allclose(update[:, place * 4 : place * 4 + 4], wanted, atol=1e-6)
        assert not update[:, 4:8].any()
