"""`trunkline export`, from a bundle with weights for torch to a signed one with graphs."""

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
from trunkline.model import load


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def source(tiny: Loaded, tmp_path: Path) -> Path:
    (tmp_path / "texts.txt").write_text("\n".join(tiny_models.SENTENCES), encoding="utf-8")
    return tiny_deployed.training_bundle(tiny, tmp_path / "training")


def test_from_export_to_a_bundle_that_takes_tasks(source: Path, tmp_path: Path) -> None:
    out, texts = tmp_path / "out", tmp_path / "texts.txt"
    more = ("--set", "lora_targets=down", "--variant", "bank", "--name", "small")
    done = run("export", source, "--out", out, "--task", "people", "--texts", texts, *more)
    assert "MB in" in done.output
    assert "branch beside torch" in done.output and "branch-bank beside torch" in done.output
    opened = open_bundle(out)
    assert (opened.manifest.name, opened.manifest.lora_targets) == ("small", ("qkv", "down"))
    run("bundle", "add", out, "own", source / "tasks" / "own.safetensors")
    run("bundle", "add", out, "topics", source / "tasks" / "topics.safetensors")
    assert set(open_bundle(out).tasks) == {"own", "people", "topics"}
    with pytest.raises(TrunklineError, match="new or empty folder"):
        run("export", source, "--out", out, "--texts", texts)


def test_rounded_weights_are_judged_on_dev(source: Path, tmp_path: Path) -> None:
    texts, dev = tmp_path / "texts.txt", tmp_path / "dev.csv"
    found = load(source).predict(tiny_models.SENTENCES, ["topics"])
    rows = zip(tiny_models.SENTENCES, found, strict=True)
    dev.write_text("said;kind\n" + "".join(f'"{text}";{row["topics"]["label"]}\n' for text, row in rows))
    columns = ("--text-column", "said", "--label-column", "kind", "--max-drop", "100")
    record = json.loads(
        run(
            *("export", source, "--out", tmp_path / "out", "--weights", "int8", "--task", "topics"),
            *("--dev", f"topics={dev}", "--json", *columns),
        ).stdout
    )
    assert record["gate"]["tasks"]["topics"]["float32"] == 1.0
    assert record["weights"]["kind"] == "int8"
    with pytest.raises(TrunklineError, match="without examples to judge them by"):
        run("export", source, "--out", tmp_path / "x", "--weights", "int8", "--texts", texts)


@pytest.mark.parametrize("pair", ["people", "=x", "people=", "nothing=file.jsonl"])
def test_pairs_that_are_none(source: Path, tmp_path: Path, pair: str) -> None:
    with pytest.raises(TrunklineError, match="--dev"):
        run("export", source, "--out", tmp_path / "out", "--weights", "int8", "--dev", pair)


@pytest.mark.parametrize("setting", ["variants=bank", "lora_targets=query"])
def test_settings_that_are_none(source: Path, tmp_path: Path, setting: str) -> None:
    with pytest.raises(TrunklineError, match=setting.split("=")[0]):
        run("export", source, "--out", tmp_path / "out", "--set", setting)


def test_signing(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="the package cryptography is not installed")
    out, key = tmp_path / "out", tmp_path / "private.key"
    run("export", source, "--out", out, "--texts", tmp_path / "texts.txt")
    public = run("bundle", "sign", out, "--key", key, "--new-key").output.strip()
    assert key.stat().st_mode & 0o077 == 0
    assert "signature good" in run("bundle", "verify", out, "--public-key", public).output


def test_the_command_has_few_options() -> None:
    assert sum(line.lstrip().startswith("--") for line in run("export", "--help").output.splitlines()) <= 20
