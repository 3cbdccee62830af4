"""Several processes on one bundle at once: nobody's task is lost, and whoever is killed leaves a whole bundle."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import deployed
import tiny_models
import trunkline
from trunkline.bundle import edit, files
from trunkline.bundle.edit import add_task
from trunkline.bundle.files import file_problems, open_bundle, read_manifest
from trunkline.encoder.bundle_files import Loaded
from trunkline.errors import MismatchError, TrunklineError

WRITERS = 6
ROUNDS = 3

FIT = """
import os, random, sys, time
import trunkline

folder, number, rounds, gate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
os.umask(0o027)
words = {"name": ["ann", "bob", "carla"], "place": ["berlin", "rome", "oslo"]}
rng = random.Random(number)
labels = ["name", "place"] * 8
texts = [" ".join(rng.choices(words[label], k=2)) for label in labels]
model = trunkline.load(folder)
model.fit(f"task-{number}-0", texts, labels)
open(os.path.join(gate, str(number)), "w").close()
while len(os.listdir(gate)) < int(sys.argv[5]):
    time.sleep(0.005)
for turn in range(rounds):
    if turn:
        model.fit(f"task-{number}-{turn}", texts, labels)
    model.save(folder)
"""

EDIT = """
import os, sys
from pathlib import Path
from trunkline.bundle.edit import add_task
from trunkline.bundle.files import change_tasks
folder = sys.argv[1]
content = (Path(folder) / "tasks" / "tuned.safetensors").read_bytes()
print("ready", flush=True)
while True:
    add_task(folder, "coming-and-going", content)
    change_tasks(folder, {}, ["coming-and-going"])
"""


def processes(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_of_several_processes_that_add_tasks_at_once_none_loses_one(tiny: Loaded, tmp_path: Path) -> None:
    folder, gate = deployed.deploy(tiny, tmp_path / "bundle"), tmp_path / "gate"
    gate.mkdir()
    writers = [processes(FIT, folder, number, ROUNDS, gate, WRITERS) for number in range(WRITERS)]
    for writer in writers:
        _, said = writer.communicate(timeout=120)
        assert writer.returncode == 0, said
    model = trunkline.load(folder)
    assert set(model.tasks) == {f"task-{number}-{turn}" for number in range(WRITERS) for turn in range(ROUNDS)}
    assert all(row["label"] in ("name", "place") for row in model.predict(["ann bob"])[0].values())
    assert {path.stat().st_mode & 0o777 for path in (folder / "tasks").iterdir()} == {0o640}, "the umask's mode"
    assert len(list((folder / "tasks").iterdir())) == WRITERS * ROUNDS


def test_a_killed_writer_leaves_a_whole_bundle_and_no_lock(tiny: Loaded, tmp_path: Path) -> None:
    folder = deployed.deploy(deployed.whole(tiny), tmp_path / "bundle")
    rng, tasks = random.Random(0), set(read_manifest(folder).tasks)
    content = (folder / "tasks" / "tuned.safetensors").read_bytes()
    for number in range(5):
        writer = processes(EDIT, folder)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.01, 0.08))
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
        assert file_problems(folder, read_manifest(folder)) == []
        assert set(open_bundle(folder).tasks) - {"coming-and-going"} == tasks
        began = time.perf_counter()
        add_task(folder, f"after-{number}", content)
        assert time.perf_counter() - began < 5
        tasks.add(f"after-{number}")
    left = {path.name for path in folder.rglob("*") if path.name.endswith(".part")}
    assert not left


def test_a_reader_beside_a_writer_always_finds_a_whole_bundle(tiny: Loaded, tmp_path: Path) -> None:
    folder = deployed.deploy(deployed.whole(tiny), tmp_path / "bundle")
    writer = processes(EDIT, folder)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        seen = set()
        for _ in range(60):
            seen.add("coming-and-going" in open_bundle(folder).tasks)
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        _, said = writer.communicate()
    assert seen == {True, False}
    assert not said, said
    assert trunkline.load(folder).predict([tiny_models.SENTENCES[0]])


def test_a_file_that_was_gone_for_a_moment_is_looked_for_again(
    tiny: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = deployed.deploy(deployed.whole(tiny), tmp_path / "bundle")
    found, answers = files.file_problems, [["tasks/x is gone"], []]
    monkeypatch.setattr(files, "file_problems", lambda *given: answers.pop(0) if answers else found(*given))
    assert open_bundle(folder).tasks
    assert not answers
    monkeypatch.setattr(files, "file_problems", lambda *given: ["tasks/x is gone"])
    with pytest.raises(TrunklineError, match="tasks/x is gone"):
        open_bundle(folder)


START = """
import os, sys, time
import trunkline
from pathlib import Path
from trunkline.bundle.files import check_target

base, folder, number, gate, writers = sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])
model = trunkline.load(base)
model.fit(f"task-{number}", ["ann", "bob", "berlin", "rome"] * 4, ["name", "name", "place", "place"] * 4)
open(os.path.join(gate, number), "w").close()
while len(os.listdir(gate)) < writers:
    time.sleep(0.002)
check_target(folder, model.bundle.manifest, [f"task-{number}"])
model.save(folder)
assert f"task-{number}" in trunkline.load(folder).tasks
"""


@pytest.mark.parametrize("there", [False, True])
def test_of_several_processes_that_make_one_bundle_at_once_none_fails(
    tiny: Loaded, tmp_path: Path, there: bool
) -> None:
    base = deployed.deploy(tiny, tmp_path / "base")
    for turn in range(ROUNDS):
        folder, gate = tmp_path / f"deep-{turn}" / "new", tmp_path / f"gate-{turn}"
        gate.mkdir()
        if there:
            folder.mkdir(parents=True)
        writers = [processes(START, base, folder, number, gate, WRITERS) for number in range(WRITERS)]
        for writer in writers:
            _, said = writer.communicate(timeout=120)
            assert writer.returncode == 0, said
        assert set(trunkline.load(folder).tasks) == {f"task-{number}" for number in range(WRITERS)}
        assert file_problems(folder, read_manifest(folder)) == []
        assert [path.name for path in folder.parent.iterdir()] == ["new"], "nothing half done is left"


@pytest.mark.parametrize("moment", ["is_bundle", "check_free"])
def test_a_bundle_that_appears_meanwhile_gets_the_tasks_if_it_is_of_the_same_encoder(
    tiny: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    base = deployed.deploy(tiny, tmp_path / "base")
    examples = ["ann", "bob", "berlin", "rome"] * 4, ["name", "name", "place", "place"] * 4
    first, second = trunkline.load(base), trunkline.load(base)
    first.fit("first", *examples)
    second.fit("second", *examples)
    owner = edit if moment == "check_free" else files
    original, place = getattr(owner, moment), tmp_path / "new"

    def meanwhile(folder: Path) -> object:
        found = original(folder)
        if folder == place and not place.exists():
            monkeypatch.undo()
            first.save(place)
        return found

    monkeypatch.setattr(owner, moment, meanwhile)
    files.check_target(place, second.bundle.manifest, ["second"])
    second.save(place)
    assert set(trunkline.load(place).tasks) == {"first", "second"}

    other = dataclasses.replace(second.bundle.manifest, backbone="1" * 64)
    monkeypatch.setattr(files, "is_bundle", lambda folder: monkeypatch.undo())
    with pytest.raises(MismatchError, match="is a bundle of backbone"):
        files.check_target(place, other, ["third"])
