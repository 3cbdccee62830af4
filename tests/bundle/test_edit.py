"""Tasks in and out of a bundle: graphs untouched, crashes harmless, all changes or none, signatures right."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from pathlib import Path
from secrets import token_hex

import pytest

import crashes
import deployed
from trunkline.bundle import files
from trunkline.bundle.edit import add_task, public_half, sign_bundle, write_bundle
from trunkline.bundle.files import change_tasks, check_target, open_bundle, read_manifest
from trunkline.bundle.manifest import MANIFEST
from trunkline.encoder.bundle_files import Loaded, save_bundle
from trunkline.errors import DataError, MismatchError, TrunklineError


@pytest.fixture(scope="module")
def _made(_tiny: Loaded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return deployed.deploy(deployed.whole(_tiny), tmp_path_factory.mktemp("bundles") / "deployed")


@pytest.fixture
def folder(_made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(_made, tmp_path / "deployed"))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".trunkline.lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def new_task(folder: Path, labels: str = "abcd") -> bytes:
    manifest = read_manifest(folder)
    head = deployed.head(len(labels), 9)
    return deployed.task_file(manifest, "classification", tuple(labels), head)


def test_removed_and_added_again_it_is_the_same_bundle(folder: Path, tmp_path: Path) -> None:
    before = contents(folder)
    shutil.copy(folder / "tasks" / "names.safetensors", tmp_path / "names")
    assert "names" not in change_tasks(folder, {}, ["names"]).tasks
    assert contents(folder).keys() == before.keys() - {"tasks/names.safetensors"}
    assert "names" not in open_bundle(folder).tasks
    add_task(folder, "names", tmp_path / "names")
    assert contents(folder) == before


def test_an_update_changes_one_task_and_leaves_no_file_behind(folder: Path) -> None:
    content, before = new_task(folder), contents(folder)
    with pytest.raises(TrunklineError, match="has a task topic already"):
        add_task(folder, "topic", content)
    assert contents(folder) == before
    add_task(folder, "topic", content, replace=True)
    assert open_bundle(folder).tasks["topic"].labels == tuple("abcd")
    after = contents(folder)
    changed = {file for file in before.keys() | after.keys() if after.get(file) != before.get(file)}
    assert len(after) == len(before)
    assert {file.split(".")[0] for file in changed} == {"manifest", "tasks/topic"}
    add_task(folder, "topic", content, replace=True)
    assert contents(folder) == after
    add_task(folder, "topic", content)
    assert contents(folder) == after, "the same bytes under the same name are no other task"
    add_task(folder, "topic", before["tasks/topic.safetensors"], replace=True)
    assert contents(folder) == before


def test_several_changes_are_one(folder: Path) -> None:
    content, before = new_task(folder), contents(folder)
    with pytest.raises(MismatchError):
        change_tasks(folder, {"one": content, "two": content.replace(b"classification", b"classifjcation")}, ["names"])
    with pytest.raises(TrunklineError, match="has a task tone already"):
        change_tasks(folder, {"one": content, "tone": content}, ["names"], replace=["topic"])
    with pytest.raises(TrunklineError, match="no task nmaes"):
        change_tasks(folder, {"one": content}, ["nmaes"])
    assert contents(folder) == before
    after = change_tasks(folder, {"one": content, "topic": content}, ["names", "tone"], replace=["topic"])
    assert after.tasks.keys() == {"more.names-2", "one", "topic", "topic.tuned", "tuned"}
    assert open_bundle(folder).tasks.keys() == after.tasks.keys()


@pytest.mark.parametrize("name", ["x" * 100, "A" * 100, "tone.0123456789abcdef"])
def test_any_name_can_be_added_and_replaced(name: str, folder: Path, tmp_path: Path) -> None:
    for labels in ("abc", "abcd", "ab", "abc"):
        add_task(folder, name, new_task(folder, labels), replace=True)
        assert open_bundle(folder).tasks[name].labels == tuple(labels)


def test_names_that_differ_in_case_alone_are_two_tasks_in_files_that_do_not(folder: Path, tmp_path: Path) -> None:
    content = new_task(folder)
    for name in ("Topic", "TOPIC"):
        add_task(folder, name, content)
    opened = open_bundle(folder)
    assert {"topic", "Topic", "TOPIC"} <= opened.tasks.keys()
    files = [entry.file.lower() for entry in opened.manifest.tasks.values()]
    assert len(files) == len(set(files))
    copied = write_bundle(
        tmp_path / "copy",
        opened.manifest,
        {file: folder / file for file in opened.manifest.files if not file.startswith("tasks/")},
        {name: task.content for name, task in opened.tasks.items()},
    )
    assert copied.tasks.keys() == opened.tasks.keys()
    assert open_bundle(tmp_path / "copy").tasks["Topic"].labels == tuple("abcd")


def test_killed_at_any_moment_it_leaves_the_bundle_before_or_after(folder: Path, _made: Path) -> None:
    content = new_task(folder)
    steps, states = 0, set()

    def prepare() -> None:
        shutil.rmtree(folder)
        shutil.copytree(_made, folder)

    def work() -> None:
        change_tasks(folder, {"topic": content, "new": content}, ["names"], replace=["topic"])

    for _ in crashes.killed_everywhere(prepare, work):
        steps += 1
        found = open_bundle(folder).tasks
        done = "new" in found
        states.add(done)
        assert ("names" not in found, found["topic"].labels == tuple("abcd")) == (done, done)
        # Whoever comes next finds no lock and nothing in the way.
        change_tasks(folder, {"topic": content, "new": content}, replace=["topic", "new"])
        opened = open_bundle(folder)
        assert opened.tasks["new"].content == opened.tasks["topic"].content == content
        assert not list(folder.rglob("*.part"))
    assert steps > 6
    assert states == {False, True}


def test_killed_at_any_moment_a_new_bundle_is_whole_or_not_there(folder: Path, tmp_path: Path) -> None:
    opened, place = open_bundle(folder), tmp_path / "place" / "new"
    there = set()

    def prepare() -> None:
        shutil.rmtree(place.parent, ignore_errors=True)

    def work() -> None:
        files = {file: folder / file for file in opened.manifest.files if not file.startswith("tasks/")}
        write_bundle(place, opened.manifest, files, {"names": opened.tasks["names"].content})

    for _ in crashes.killed_everywhere(prepare, work):
        there.add(place.exists())
        if place.exists():
            assert open_bundle(place).tasks.keys() == {"names"}
    assert there == {False, True}


def test_what_does_not_fit_leaves_everything_as_it_was(folder: Path, tmp_path: Path) -> None:
    before = contents(folder)
    for content in (b"", b"x" * 100, (folder / "adapters" / "ner.safetensors").read_bytes()):
        with pytest.raises(DataError):
            add_task(folder, "new", content)
    for name in ("../new", "..", "a/b", "/tmp/x", ".hidden", "", "a" * 101, "a\n", "a\\b"):
        with pytest.raises(TrunklineError, match="name"):
            add_task(folder, name, new_task(folder))
    with pytest.raises(DataError):
        add_task(folder, "new", tmp_path / "missing")
    with pytest.raises(TrunklineError, match=r"no task new\. Expected one of more\.names-2, names, tone"):
        change_tasks(folder, {}, ["new"])
    assert contents(folder) == before


def test_a_task_of_another_backbone_or_adapter_is_refused(folder: Path, tiny: Loaded) -> None:
    before = contents(folder)
    manifest = read_manifest(folder)
    other = dataclasses.replace(manifest, backbone="0" * 64)
    bare = dataclasses.replace(manifest, adapters={})
    head = deployed.head(5, 1)
    with pytest.raises(MismatchError, match="trained on backbone 000000000000"):
        add_task(folder, "new", deployed.task_file(other, "ner", deployed.NER_LABELS, head))
    with pytest.raises(MismatchError, match="sits on the adapter none"):
        add_task(folder, "names", deployed.task_file(bare, "ner", deployed.NER_LABELS, head), replace=True)
    assert contents(folder) == before


def test_a_bundle_with_an_adapter_of_another_backbone_is_not_written(folder: Path, tmp_path: Path) -> None:
    manifest = read_manifest(folder)
    parts = {file: folder / file for file in manifest.files if not file.startswith("tasks/")}
    with pytest.raises(MismatchError, match=manifest.backbone[:12]):
        write_bundle(tmp_path / "new", dataclasses.replace(manifest, backbone="0" * 64), parts)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_where_the_disk_is_full_a_change_leaves_everything_as_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, write = contents(folder), files.write_atomic

    def full(path: Path, content: bytes) -> None:
        if path.name == MANIFEST:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    monkeypatch.setattr(files, "write_atomic", full)
    with pytest.raises(TrunklineError, match="No space left on device"):
        add_task(folder, "new", new_task(folder))
    assert contents(folder) == before


def test_where_tasks_may_go_is_asked_before_the_work(folder: Path, tiny: Loaded, tmp_path: Path) -> None:
    manifest = read_manifest(folder)
    check_target(folder, manifest, ["new"])
    check_target(folder, manifest, ["topic"], replace=True)
    check_target(tmp_path / "a" / "b", manifest, ["new"])
    (tmp_path / "empty").mkdir()
    check_target(tmp_path / "empty", manifest, ["new"])
    with pytest.raises(TrunklineError, match="has a task topic already"):
        check_target(folder, manifest, ["topic"])
    with pytest.raises(MismatchError, match="is a bundle of backbone"):
        check_target(folder, dataclasses.replace(manifest, backbone="1" * 64), ["new"])
    with pytest.raises(TrunklineError, match="has files already"):
        check_target(tmp_path, manifest, ["new"])
    with pytest.raises(TrunklineError, match="is a file"):
        check_target(folder / "manifest.json", manifest, ["new"])
    for place in (folder / "manifest.json" / "x", Path("/proc/x"), tmp_path / ("x" * 300)):
        with pytest.raises(TrunklineError, match="cannot be written to"):
            check_target(place, manifest, ["new"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deployed", "empty"]


def test_the_working_directory_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(TrunklineError, match="the working directory"):
        check_target(Path(), read_manifest(folder), ["new"])


def test_files_have_the_mode_that_the_umask_leaves(folder: Path, tiny: Loaded, tmp_path: Path) -> None:
    def modes(place: Path) -> set[tuple[bool, int]]:
        paths = [path for path in place.rglob("*") if path.name != ".trunkline.lock"]
        return {(path.is_dir(), path.stat().st_mode & 0o777) for path in (place, *paths)}

    for mask in (0o022, 0o002, 0o077):
        before = os.umask(mask)
        try:
            place = tmp_path / f"{mask:o}"
            save_bundle(tiny, place)
            manifest = read_manifest(place)
            head = deployed.head(3, 1)
            add_task(place, "topic", deployed.task_file(manifest, "classification", ("a", "b", "c"), head))
        finally:
            os.umask(before)
        assert modes(place) == {(True, 0o777 & ~mask), (False, 0o666 & ~mask)}
    place.chmod(0o755)
    (place / "manifest.json").chmod(0o640)
    change_tasks(place, {}, ["topic"])
    assert (place / "manifest.json").stat().st_mode & 0o777 == 0o640, "what is replaced keeps its mode"


def test_signatures(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="the package cryptography is not installed")
    private, other = token_hex(32), token_hex(32)
    public = public_half(private)
    with pytest.raises(MismatchError, match="is not signed"):
        open_bundle(folder, public_key=public)
    sign_bundle(folder, private)
    assert open_bundle(folder, public_key=public).tasks
    assert open_bundle(folder, public_key=bytes.fromhex(public)).tasks
    with pytest.raises(MismatchError, match="the signature is not that"):
        open_bundle(folder, public_key=public_half(other))
    shutil.copy(folder / "signature.json", tmp_path / "old")
    content = (folder / "tasks" / "tuned.safetensors").read_bytes()
    add_task(folder, "again", content)
    assert not (folder / "signature.json").exists()
    sign_bundle(folder, private)
    assert "again" in open_bundle(folder, public_key=public).tasks
    shutil.copy(tmp_path / "old", folder / "signature.json")
    with pytest.raises(MismatchError, match="the signature is not that"):
        open_bundle(folder, public_key=public)
    change_tasks(folder, {}, ["again"])
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
    (folder / "graphs" / "trunk.onnx").write_bytes(b"x")
    with pytest.raises(DataError, match="not signed"):
        sign_bundle(folder, token_hex(32))
