"""Bundles on the Hugging Face hub: its own client against a stand-in, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from secrets import token_hex

import pytest

import deployed
import trunkline
from hub_server import Hub
from trunkline.bundle.files import change_tasks, read_manifest
from trunkline.encoder.bundle_files import Loaded
from trunkline.errors import DataError, TrunklineError

pytest.importorskip("huggingface_hub", reason="the extra [hub] is not installed")


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as found:
        yield found


@pytest.fixture
def folder(tiny: Loaded, tmp_path: Path) -> Path:
    loaded = deployed.whole(tiny)
    return deployed.deploy(replace(loaded, tasks={n: loaded.tasks[n] for n in ("names", "tuned")}), tmp_path / "bundle")


def python(hub: Hub | str, home: Path, script: str) -> list[str]:
    """The lines that Python prints, with an address for the hub and a cache for what is fetched."""
    address = hub if isinstance(hub, str) else hub.address
    places = {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    code = "import trunkline\n" + textwrap.dedent(script)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | places)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def push(hub: Hub, folder: Path, home: Path) -> None:
    script = f"print(trunkline.load({str(folder)!r}).push_to_hub('me/bot', token='hf_x'))"
    assert python(hub, home, script) == [f"{hub.address}/me/bot"]


def test_what_is_uploaded_is_fetched_and_predicts_the_same(hub: Hub, folder: Path, tmp_path: Path) -> None:
    (folder / "notes.txt").write_text("mine alone")
    push(hub, folder, tmp_path / "mine")
    files = hub.repositories["me/bot"]
    assert files.keys() - {".gitattributes"} == {"manifest.json", *read_manifest(folder).files}
    assert hub.private["me/bot"]
    files["extra.bin"] = b"of somebody else"
    hub.requests.clear()
    found = python(
        hub,
        tmp_path / "theirs",
        f"""
        import copy
        model = trunkline.load("me/bot")
        print(model.predict(["ann lives in berlin"])[0])
        print(model.folder)
        print(copy.deepcopy(model).tasks, trunkline.load(model.folder).tasks)
        print(model.save({str(tmp_path / "saved")!r}))
        print(trunkline.load("me/bot@refs-1").tasks)
        """,
    )
    assert found[0] == str(trunkline.load(folder).predict(["ann lives in berlin"])[0])
    snapshot = Path(found[1])
    assert snapshot.is_relative_to(tmp_path / "theirs")
    assert (snapshot / "tokenizer.json").is_symlink(), "the test needs links"
    assert found[2] == "{'names': 'ner', 'tuned': 'ner'} {'names': 'ner', 'tuned': 'ner'}"
    assert not any(path.is_symlink() for path in (tmp_path / "saved").rglob("*"))
    assert found[4] == "{'names': 'ner', 'tuned': 'ner'}"
    asked = [path for _, path in hub.requests]
    assert not any("extra.bin" in path for path in asked)
    assert any("/resolve/refs-1/" in path for path in asked)


def test_another_upload_takes_away_what_is_gone(hub: Hub, folder: Path, tmp_path: Path) -> None:
    push(hub, folder, tmp_path / "mine")
    hub.repositories["me/bot"]["trunk.onnx"] = b"of an earlier layout"
    change_tasks(folder, {}, ["names"])
    push(hub, folder, tmp_path / "mine")
    files = hub.repositories["me/bot"]
    assert files.keys() - {".gitattributes"} == {"manifest.json", *read_manifest(folder).files}
    assert python(hub, tmp_path / "theirs", "print(trunkline.load('me/bot').tasks)") == ["{'tuned': 'ner'}"]


def test_a_signature_goes_along(hub: Hub, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="the package cryptography is not installed")
    from trunkline.bundle.edit import public_half, sign_bundle

    private = token_hex(32)
    sign_bundle(folder, private)
    push(hub, folder, tmp_path / "mine")
    script = f"print(trunkline.load('me/bot', public_key={public_half(private)!r}).tasks)"
    assert python(hub, tmp_path / "theirs", script) == ["{'names': 'ner', 'tuned': 'ner'}"]


def test_what_cannot_be_used_is_said(hub: Hub, folder: Path, tmp_path: Path) -> None:
    push(hub, folder, tmp_path / "mine")
    hub.repositories["me/other"] = {"README.md": b"no bundle"}
    hub.repositories["me/damaged"] = dict(hub.repositories["me/bot"])
    content = bytearray(hub.repositories["me/bot"]["graphs/branch.onnx"])
    content[100] ^= 1
    hub.repositories["me/damaged"]["graphs/branch.onnx"] = bytes(content)
    found = python(
        hub,
        tmp_path / "theirs",
        """
        for name in ("me/missing", "me/other", "me/damaged", "me/..bad"):
            try:
                trunkline.load(name)
                print("opened")
            except trunkline.TrunklineError as error:
                print(str(error).replace("\\n", " "))
        """,
    )
    for line, part in zip(
        found, ("'me/missing'", "'me/other'", "branch.onnx has another SHA-256", "..bad"), strict=True
    ):
        assert part in line
    assert "OWNER/NAME" in found[0]


def test_a_hub_that_cannot_be_reached_is_an_error_of_ours(folder: Path, tmp_path: Path) -> None:
    found = python(
        "http://127.0.0.1:9",
        tmp_path / "home",
        f"""
        import os
        try:
            trunkline.load({str(folder)!r}).push_to_hub("me/bot", token="hf_x")
        except trunkline.TrunklineError as error:
            print(error)
        """,
    )
    assert "is unreachable" in found[0]
    # The tests themselves run without the hub.
    with pytest.raises(TrunklineError, match="'me/bot' cannot be used"):
        trunkline.load("me/bot")


def test_a_bundle_that_is_not_whole_or_not_saved_is_not_uploaded(hub: Hub, folder: Path) -> None:
    model = trunkline.load(folder)
    model.remove("names")
    with pytest.raises(TrunklineError, match=r"not saved.*save\(folder\)"):
        model.push_to_hub("me/bot")
    model.save(folder)
    (folder / "graphs" / "trunk.onnx").write_bytes(b"x")
    with pytest.raises(DataError, match="a bundle that is not whole is not uploaded"):
        model.push_to_hub("me/bot")
    assert hub.requests == []


def test_without_the_extra_it_is_named(folder: Path, tmp_path: Path) -> None:
    found = python(
        "http://127.0.0.1:9",
        tmp_path,
        f"""
        import sys
        sys.modules["huggingface_hub"] = None
        for use in (lambda: trunkline.load("me/bot"), lambda: trunkline.load({str(folder)!r}).push_to_hub("me/bot")):
            try:
                use()
            except trunkline.TrunklineError as error:
                print(error)
        """,
    )
    assert len(found) == 2
    assert all("trunkline[hub]" in line for line in found)
