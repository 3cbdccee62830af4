"""Tasks in and out of a deployed bundle: graphs untouched, crashes harmless, signatures right."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import tiny_deployed
from trunkline.bundle import edit
from trunkline.bundle.edit import add_task, remove_task, sign_bundle
from trunkline.bundle.files import open_bundle, read_manifest
from trunkline.bundle.signature import new_private_key, public_half
from trunkline.encoder.adapter_file import save_adapter
from trunkline.encoder.bundle_files import Loaded, load_bundle
from trunkline.errors import DataError, MismatchError, TrunklineError
from trunkline.export.adapter_bytes import converted_task


@pytest.fixture(scope="module")
def _made(_tiny: Loaded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    tiny_deployed.exported(_tiny, folder)
    return folder


@pytest.fixture
def folder(_made: Path, tmp_path: Path) -> Path:
    shutil.copytree(_made / "deployed", tmp_path / "deployed")
    return tmp_path / "deployed"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_removed_and_added_again_it_is_the_same_bundle(folder: Path, tmp_path: Path) -> None:
    before = contents(folder)
    shutil.copy(folder / "tasks" / "people.safetensors", tmp_path / "people")
    assert "people" not in remove_task(folder, "people").tasks
    assert contents(folder).keys() == before.keys() - {"tasks/people.safetensors"}
    assert open_bundle(folder).tasks.keys() == {"own", "topics"}
    add_task(folder, "people", tmp_path / "people")
    assert contents(folder) == before


def test_an_update_changes_one_task_and_leaves_no_file_behind(folder: Path, _made: Path, tmp_path: Path) -> None:
    loaded = load_bundle(_made / "training")
    new = tiny_deployed.adapter(loaded, "classification", head=tiny_deployed.head(loaded, 4, 9), labels=tuple("abcd"))
    save_adapter(new, tmp_path / "new.safetensors")
    content = converted_task(tmp_path / "new.safetensors", folder, read_manifest(folder))
    before = contents(folder)
    with pytest.raises(TrunklineError, match="has a task topics already"):
        add_task(folder, "topics", content)
    add_task(folder, "topics", content, replace=True)
    opened = open_bundle(folder)
    assert opened.tasks["topics"].labels == tuple("abcd")
    after = contents(folder)
    assert len(after) == len(before)
    assert {file for file in before if after.get(file) != before[file]} == {"manifest.json", "tasks/topics.safetensors"}
    add_task(folder, "topics", content, replace=True)
    assert contents(folder) == after


@pytest.mark.parametrize("step", ["write_atomic", "_replace_manifest", "_clean"])
def test_a_crash_leaves_a_whole_bundle(folder: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    content = (folder / "tasks" / "own.safetensors").read_bytes()
    original = getattr(edit, step)

    class Killed(BaseException):
        pass

    def crash(*arguments: Any) -> None:
        if step == "write_atomic" and "manifest" not in str(arguments[0]):
            original(*arguments)
            return
        raise Killed

    monkeypatch.setattr(edit, step, crash)
    with pytest.raises(Killed):
        add_task(folder, "people", content, replace=True)
    monkeypatch.undo()
    assert open_bundle(folder).tasks["people"].own_lora == (step == "_clean")


def test_what_does_not_fit_leaves_everything_as_it_was(folder: Path, _made: Path, tmp_path: Path) -> None:
    before = contents(folder)
    for content in (b"", b"x" * 100, (_made / "training" / "tasks" / "people.safetensors").read_bytes()):
        with pytest.raises(DataError):
            add_task(folder, "new", content)
    with pytest.raises(DataError):
        add_task(folder, "../new", (folder / "tasks" / "own.safetensors").read_bytes())
    with pytest.raises(DataError):
        add_task(folder, "new", tmp_path / "missing")
    with pytest.raises(TrunklineError, match=r"no task new\. Expected one of own, people, topics"):
        remove_task(folder, "new")
    assert contents(folder) == before


def test_two_editors_at_once_do_not_lose_a_task(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = edit.read_task

    def meanwhile(*arguments: Any) -> Any:
        monkeypatch.undo()
        remove_task(folder, "topics")
        return original(*arguments)

    monkeypatch.setattr(edit, "read_task", meanwhile)
    with pytest.raises(MismatchError, match="changed by somebody else"):
        add_task(folder, "copy", (folder / "tasks" / "own.safetensors").read_bytes())
    assert open_bundle(folder).tasks.keys() == {"own", "people"}
    assert not (folder / "tasks" / "copy.safetensors").exists()


def test_tasks_of_another_backbone_or_adapter_are_not_converted(folder: Path, _made: Path, tmp_path: Path) -> None:
    loaded = load_bundle(_made / "training")
    manifest = read_manifest(folder)
    bare = tiny_deployed.adapter(loaded, "ner", head=tiny_deployed.head(loaded, 3, 1), labels=tiny_deployed.TAGS)
    save_adapter(bare, tmp_path / "bare.safetensors")
    with pytest.raises(MismatchError, match="sits on the adapter none"):
        converted_task(tmp_path / "bare.safetensors", folder, manifest)


def test_signatures(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="the package cryptography is not installed")
    private, other = new_private_key(), new_private_key()
    public = public_half(private)
    with pytest.raises(MismatchError, match="is not signed"):
        open_bundle(folder, public_key=public)
    sign_bundle(folder, private)
    assert open_bundle(folder, public_key=public).tasks
    assert open_bundle(folder, public_key=bytes.fromhex(public)).tasks
    with pytest.raises(MismatchError, match="the signature is not that"):
        open_bundle(folder, public_key=public_half(other))
    shutil.copy(folder / "signature.json", tmp_path / "old")
    content = (folder / "tasks" / "own.safetensors").read_bytes()
    add_task(folder, "again", content, key=private)
    assert "again" in open_bundle(folder, public_key=public).tasks
    shutil.copy(tmp_path / "old", folder / "signature.json")
    with pytest.raises(MismatchError, match="the signature is not that"):
        open_bundle(folder, public_key=public)
    remove_task(folder, "again")
    assert not (folder / "signature.json").exists()
    for broken in ("{", "[]", '{"algorithm": "none", "signature": ""}', '{"algorithm": "ed25519", "signature": 3}'):
        (folder / "signature.json").write_text(broken)
        with pytest.raises(DataError, match="no signature"):
            open_bundle(folder, public_key=public)
    for key in ("", "zz", "a" * 63, b"\0" * 31):
        with pytest.raises(TrunklineError, match="key cannot be used"):
            open_bundle(folder, public_key=key)
        with pytest.raises(TrunklineError, match="key cannot be used"):
            sign_bundle(folder, key)


def test_a_damaged_bundle_is_not_signed(folder: Path) -> None:
    pytest.importorskip("cryptography", reason="the package cryptography is not installed")
    (folder / "trunk.onnx").write_bytes(b"x")
    with pytest.raises(DataError, match="not signed"):
        sign_bundle(folder, new_private_key())
