"""Opening deployed bundles: what is in them reaches the graphs as it was, and nothing else is let in."""

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
from safetensors.numpy import load_file, save

import tiny_deployed
from trunkline.bundle.files import file_problems, open_bundle, read_manifest, read_task
from trunkline.bundle.lora import fuse
from trunkline.bundle.manifest import FileEntry, Manifest
from trunkline.bundle.tensors import write_tensors
from trunkline.encoder.bundle_files import Loaded, load_bundle
from trunkline.engine.session import give_back_memory
from trunkline.errors import DataError, MismatchError, TrunklineError
from trunkline.export.adapters import adapter_feeds


@pytest.fixture(scope="module")
def _made(_tiny: Loaded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    tiny_deployed.exported(_tiny, folder)
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
    from safetensors import safe_open

    with safe_open(str(path), framework="np") as file:
        description = json.loads(file.metadata()["trunkline"])
    return write_tensors(load_file(path), {"trunkline": json.dumps(description | changes)})


def test_feeds_are_those_of_the_training_bundle_in_half_precision(folder: Path, _made: Path) -> None:
    loaded, deployed = load_bundle(_made / "training"), open_bundle(folder)
    assert deployed.tasks.keys() == loaded.tasks.keys()
    for name, task in deployed.tasks.items():
        source = loaded.tasks[name]
        wanted = adapter_feeds(source.lora, source.head)
        assert task.feeds.keys() == wanted.keys()
        for key, value in wanted.items():
            assert (task.feeds[key] == value.astype(np.float16).astype(np.float32)).all()
        assert (task.family, task.labels, task.own_lora) == (source.family, source.labels, source.lora is not None)
        assert task.info == source.info
    transitions = loaded.tasks["people"].head.transitions
    assert (deployed.tasks["people"].transitions == transitions.astype(np.float16)).all()
    assert deployed.tasks["own"].transitions is None
    assert deployed.primaries.keys() == {"ner"}
    assert deployed.tokenizer.is_file()


def test_what_is_kept_of_a_task_is_its_feeds_alone(folder: Path) -> None:
    for task in open_bundle(folder).tasks.values():
        kept = [*task.feeds.values(), *([] if task.transitions is None else [task.transitions])]
        assert all(tensor.base is None or tensor.base.nbytes <= tensor.nbytes for tensor in kept), task.name


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed memory and can be told not to")
def test_freed_memory_is_given_back() -> None:
    # Blocks so small that glibc takes them from its heap.
    blocks = [bytes(4096) for _ in range(20_000)]
    full = _resident()
    del blocks[:-1]
    assert give_back_memory()
    assert _resident() < full - 40e6


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_it_opens_without_torch_and_pydantic(folder: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'pydantic', 'safetensors', 'onnx', 'cryptography'):\n"
        "    sys.modules[name] = None\n"
        "from trunkline.bundle import edit, files as bundle_files\n"
        "print(sorted(bundle_files.open_bundle(sys.argv[1]).tasks))\n"
        "print(sorted(edit.remove_task(sys.argv[1], 'own').tasks))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['own', 'people', 'topics']", "['people', 'topics']"]


@pytest.mark.parametrize("file", ["trunk.onnx", "tokenizer.json", "adapters/ner.safetensors", "tasks/own.safetensors"])
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
    (folder / "trunk.onnx").unlink()
    (folder / "branch.onnx").write_bytes(b"x")
    with pytest.raises(DataError, match="2 of 7 files") as caught:
        open_bundle(folder, verify=False)
    assert "trunk.onnx" in str(caught.value)
    assert "branch.onnx" in str(caught.value)


def test_links_out_of_the_folder_and_pipes_are_refused(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "trunk.onnx", tmp_path / "outside")
    (folder / "trunk.onnx").symlink_to(tmp_path / "outside")
    (folder / "branch.onnx").unlink()
    os.mkfifo(folder / "branch.onnx")
    shutil.move(folder / "tasks", tmp_path / "tasks")
    (folder / "tasks").symlink_to(tmp_path / "tasks")
    problems = file_problems(folder, read_manifest(folder))
    assert sum("is a link out of the folder" in problem for problem in problems) == 4
    assert any("branch.onnx: this is no plain file" in problem for problem in problems)


def test_what_is_no_bundle_is_said(tmp_path: Path, _made: Path) -> None:
    with pytest.raises(TrunklineError, match=r"no manifest\.json.*trunkline export"):
        open_bundle(tmp_path)
    with pytest.raises(DataError, match="training bundle"):
        open_bundle(_made / "training")
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(DataError, match="no plain file"):
        open_bundle(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backbone": "0" * 64}, "trained on backbone 000000000000"),
        ({"primary": "ner@" + "0" * 64}, "sits on the adapter ner@0000"),
        ({"primary": ""}, "sits on the adapter none"),
        ({"family": "classification", "primary": ""}, "of family classification"),
        ({"labels": ["O", "B-person"]}, "has a head of"),
        ({"labels": ["O", "O", "B-person"]}, "a label stands there twice"),
        ({"kind": "adapter"}, "its description.kind"),
        ({"format": 2}, "its description.format"),
        ({"more": 1}, "unknown key"),
    ],
)
def test_foreign_tasks_are_refused(folder: Path, changes: dict[str, Any], said: str) -> None:
    rewritten(folder, "tasks/people.safetensors", described(folder, "people", **changes))
    with pytest.raises(TrunklineError, match=said):
        open_bundle(folder)


def test_a_task_must_fit_the_graphs(folder: Path) -> None:
    manifest = read_manifest(folder)
    path = folder / "tasks" / "own.safetensors"
    for slots, said in ((("qkv",), "for which the graph has no input"), (("qkv", "down"), None)):
        changed = dataclasses.replace(manifest, slots=slots)
        if said is None:
            assert read_task(path, changed, "own").own_lora
        else:
            with pytest.raises(MismatchError, match=said):
                read_task(path, changed, "own")
    wider = dataclasses.replace(manifest.encoder, hidden_size=64)
    with pytest.raises(MismatchError, match="the width of the encoder"):
        read_task(path, dataclasses.replace(manifest, encoder=wider), "own")


def test_training_files_and_other_files_are_recognised(folder: Path, _made: Path, tmp_path: Path) -> None:
    manifest = read_manifest(folder)
    with pytest.raises(DataError, match="bundle add"):
        read_task(_made / "training" / "tasks" / "people.safetensors", manifest)
    (tmp_path / "x.safetensors").write_bytes(save({"a": np.zeros(3, np.float16)}))
    with pytest.raises(DataError, match="no task of a deployed bundle"):
        read_task(tmp_path / "x.safetensors", manifest)
    with pytest.raises(DataError, match=r"its description\.kind"):
        read_task(folder / "adapters" / "ner.safetensors", manifest)


def test_a_primary_adapter_of_another_family_is_refused(folder: Path) -> None:
    manifest: Manifest = read_manifest(folder)
    changed = dataclasses.replace(
        manifest,
        adapters={"qa": manifest.adapters["ner"]},
        tasks={},
        files={file: entry for file, entry in manifest.files.items() if not file.startswith("tasks/")},
    )
    (folder / "manifest.json").write_bytes(changed.to_json())
    with pytest.raises(MismatchError, match=r"is of family ner\. Expected qa"):
        open_bundle(folder)


def test_fused_plans_do_not_mix_adapters_of_one_shape() -> None:
    shapes = {"lora.1.query.a": (4, 2), "lora.1.query.b": (2, 4), "lora.1.value.a": (4, 3), "lora.1.value.b": (3, 4)}
    rng = np.random.default_rng(0)
    for _ in range(2):
        tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        feeds = fuse(tensors)
        update = feeds["lora.1.qkv.a"] @ feeds["lora.1.qkv.b"]
        for place, target in ((0, "query"), (2, "value")):
            wanted = tensors[f"lora.1.{target}.a"] @ tensors[f"lora.1.{target}.b"]
            assert np.allclose(update[:, place * 4 : place * 4 + 4], wanted, atol=1e-6)
        assert not update[:, 4:8].any()
