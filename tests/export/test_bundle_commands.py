"""`trunkline export` and `trunkline bundle`, from a training bundle to a signed deployed one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import tiny_deployed
import tiny_models
from trunkline.bundle.files import open_bundle
from trunkline.cli import app
from trunkline.encoder.bundle_files import Loaded
from trunkline.errors import TrunklineError


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def source(tiny: Loaded, tmp_path: Path) -> Path:
    (tmp_path / "texts.txt").write_text("\n".join(tiny_models.SENTENCES), encoding="utf-8")
    return tiny_deployed.training_bundle(tiny, tmp_path / "training")


def test_from_export_to_a_signed_bundle(source: Path, tmp_path: Path) -> None:
    out, report = tmp_path / "out", tmp_path / "report.json"
    texts = tmp_path / "texts.txt"
    done = run("export", source, "--out", out, "--task", "people", "--slots", "down", "--texts", texts)
    assert "MB in" in done.output
    assert "branch beside torch" in done.output
    run("export", source, "--out", out, "--task", "people", "--slots", "down", "--texts", texts, "--report", report)
    assert json.loads(report.read_text())["parity"]["branch"]["runs"] > 50
    assert "task people (ner)" in run("bundle", "list", out).output
    assert json.loads(run("bundle", "list", out, "--json").output)["format"] == "trunkline-bundle"
    run("bundle", "add", out, "own", source / "tasks" / "own.safetensors")
    run("bundle", "add", out, "topics", source / "tasks" / "topics.safetensors")
    assert set(open_bundle(out).tasks) == {"own", "people", "topics"}
    with pytest.raises(TrunklineError, match="--replace"):
        run("bundle", "add", out, "topics", source / "tasks" / "topics.safetensors")
    run("bundle", "add", out, "topics", source / "tasks" / "topics.safetensors", "--replace")
    assert run("bundle", "remove", out, "own").output == "left: people, topics\n"
    assert "files good" in run("bundle", "verify", out).output


def test_signing_and_verifying(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="the package cryptography is not installed")
    out, key = tmp_path / "out", tmp_path / "private.key"
    run("export", source, "--out", out, "--texts", tmp_path / "texts.txt")
    public = run("bundle", "sign", out, "--key", key).output.strip()
    assert key.stat().st_mode & 0o077 == 0
    assert "signature good" in run("bundle", "verify", out, "--public-key", public).output
    (tmp_path / "public").write_text(public)
    run("bundle", "remove", out, "own", "--sign", key)
    assert "signature good" in run("bundle", "verify", out, "--public-key", tmp_path / "public").output
    (out / "manifest.json").write_bytes((out / "manifest.json").read_bytes().replace(b"bert", b"tree", 1))
    with pytest.raises(TrunklineError, match="signature is not that"):
        run("bundle", "verify", out, "--public-key", public)


def test_other_formats(source: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    run("export", source, "--out", tmp_path / "one", "--format", "merged", "--task", "people", "--texts", texts)
    assert (tmp_path / "one" / "model.onnx").is_file()
    done = run("export", source, "--out", tmp_path / "files", "--format", "onnx-adapter", "--json")
    assert "people.onnx_adapter" in json.loads(done.output)["files"]
    for extra in ((), ("--task", "people", "--task", "topics"), ("--task", "people", "--sign", texts)):
        with pytest.raises(TrunklineError, match=r"--task|--sign"):
            run("export", source, "--out", tmp_path / "x", "--format", "merged", *extra)


@pytest.mark.parametrize("pair", ["people", "=x", "people=", "nothing=file.jsonl"])
def test_pairs_that_are_none(source: Path, tmp_path: Path, pair: str) -> None:
    with pytest.raises(TrunklineError, match="--dev"):
        run("export", source, "--out", tmp_path / "out", "--weights", "int8", "--dev", pair)
