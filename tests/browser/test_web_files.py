"""The npm package carries Python's tables, its page of documentation runs, and it refuses what does not belong."""

from __future__ import annotations

import base64
import dataclasses
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from chromium import ROOT, WEB, missing
from web_bundles import tiny_bundle

import tiny_models
from trunkline.bundle.edit import add_task, public_half, sign_bundle, write_bundle
from trunkline.bundle.files import open_bundle
from trunkline.bundle.manifest import TOKENIZER
from trunkline.encoder.bundle_files import load_any
from trunkline.model import load

pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(missing()), reason=missing())]
PRIVATE = "07" * 32
"""A key for signatures."""


def generated(name: str) -> Any:
    text = (WEB / "dist" / "generated" / f"{name}.js").read_text(encoding="utf-8")
    return json.loads(re.fullmatch(r"(?s)//[^\n]*\nexport const \w+ = (.*);\n", text)[1])


def test_the_tables_are_those_of_python() -> None:
    for name, path in (("words", "src/trunkline/text/words.json"), ("schema", "docs/bundle.schema.json")):
        assert generated(name) == json.loads((ROOT / path).read_text(encoding="utf-8"))
    script = WEB / "scripts" / "bert_table.py"
    spec = importlib.util.spec_from_file_location("bert_table", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made, kept = module.table(), json.loads((WEB / "data" / "bert.json").read_text(encoding="ascii"))
    assert made | {"tokenizers": ""} == kept | {"tokenizers": ""}, f"run {script}"
    assert generated("bert") == kept


@pytest.fixture(scope="module")
def folder(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole bundle `float32`, and others that must be refused."""
    place = tmp_path_factory.mktemp("damaged")
    whole = shutil.copytree(bundles / "float32", place / "float32")
    for name in ("changed", "cut", "gone", "later", "bare", "signed"):
        shutil.copytree(whole, place / name)
    task = Path("tasks") / "topic.safetensors"
    content = (whole / task).read_bytes()
    (place / "changed" / task).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (place / "cut" / task).write_bytes(content[:-7])
    (place / "gone" / task).unlink()
    manifest = json.loads((whole / "manifest.json").read_text())
    (place / "later" / "manifest.json").write_text(json.dumps(manifest | {"version": 3}))
    (place / "bare" / "manifest.json").write_text(json.dumps(manifest | {"graphs": {}}))
    sign_bundle(place / "signed", PRIVATE)

    opened = open_bundle(whole)
    tokenizer = json.loads(opened.tokenizer.read_text())
    tokenizer["model"] = {"type": "BPE", "vocab": tokenizer["model"]["vocab"], "merges": [], "unk_token": "[UNK]"}
    files: dict[str, bytes | Path] = {file: whole / file for file in opened.manifest.files if "tasks/" not in file}
    files[TOKENIZER] = json.dumps(tokenizer).encode()
    write_bundle(place / "other", dataclasses.replace(opened.manifest, tasks={}), files)
    return place


def run_node(folder: Path, orders: list[dict[str, Any]]) -> dict[str, Any]:
    given, answer = folder / "orders.json", folder / "answer.json"
    given.write_text(json.dumps(orders))
    script = str(Path(__file__).with_name("check_node.mjs"))
    subprocess.run(["node", script, str(given), str(answer), str(folder)], check=True)
    return dict(json.loads(answer.read_text()))


def test_what_does_not_belong_is_refused(folder: Path, tmp_path: Path) -> None:
    tiny_models.save_model("bert", tmp_path / "foreign")
    foreign = tiny_bundle(load_any(str(tmp_path / "foreign"), fork=2, max_length=64), tmp_path, "float32")
    file = base64.b64encode((foreign / "tasks" / "topic.safetensors").read_bytes()).decode()
    names = ("changed", "cut", "gone", "later", "other", "bare")
    orders = [{"name": name, "does": "predict", "bundle": name, "texts": ["a"]} for name in names]
    orders.append({"name": "foreign", "does": "add", "bundle": "float32", "file": file})
    orders.append({"name": "unknown", "does": "predict", "bundle": "float32", "texts": ["a"], "tasks": ["nothing"]})
    orders.append({"name": "one line", "does": "predict", "bundle": "float32", "texts": ["a"], "tasks": ["answers"]})
    orders.append({"name": "no text", "does": "predict", "bundle": "float32", "texts": [1], "tasks": ["topic"]})
    for name, asked in {"share": {"minScore": 2}, "sets": {"coverage": 0.99}, "best": {"topK": 0}}.items():
        order = {"name": name, "does": "predict", "bundle": "float32", "texts": ["a"], "tasks": ["sure"]}
        orders.append(order | {"asked": asked})
    found = run_node(folder, orders)
    for name, said in {
        "changed": r"topic\.safetensors has another SHA-256 than the manifest says",
        "cut": r"topic\.safetensors has \d+ bytes\. Expected \d+, as the manifest says",
        "gone": r"topic\.safetensors cannot be read",
        "later": r"has version 3\. Expected version 2",
        "other": r'tokenizer\.json has the model "BPE"\. Expected WordPiece',
        "bare": r"the bundle tiny has no graphs\. Expected one with the graphs trunk and branch\. `trunkline export",
        "foreign": r"was trained on backbone [0-9a-f]{12}\. Expected [0-9a-f]{12}, the bundle's",
        "unknown": r'there is no task "nothing"\. Expected one of .*topic',
        "one line": r"has one line\. Expected a question, a line feed and the context",
        "no text": r"a text is of type number",
        "share": r"minScore of task sure is 2\. Expected a number from 0 to 1",
        "sets": r"coverage 0\.99 with 5 held-out texts of task sure\. Expected at most 0\.833, or 99 labelled texts",
        "best": r"topK 0\. Expected a whole number from 1",
    }.items():
        assert re.search(said, found[name].get("error", "")), (name, found[name])


def test_a_signature_is_checked_where_a_key_is_given(folder: Path) -> None:
    key, other = public_half(PRIVATE), public_half("01" * 32)
    manifest = (folder / "signed" / "manifest.json").read_bytes()
    shutil.copytree(folder / "signed", folder / "edited", dirs_exist_ok=True)
    (folder / "edited" / "manifest.json").write_bytes(manifest.replace(b'"name"', b' "name"', 1))
    cases = {"good": ("signed", key), "other": ("signed", other), "edited": ("edited", key)}
    cases |= {"unsigned": ("float32", key), "no key": ("signed", "ab")}
    order = {"does": "predict", "texts": ["a"], "tasks": ["topic"]}
    found = run_node(folder, [{"name": n, "bundle": b, "publicKey": k, **order} for n, (b, k) in cases.items()])
    assert "topic" in found["good"]["found"][0]
    assert {name: one.get("error", "").partition(".")[0] for name, one in found.items()} == {
        "good": "",
        "other": "the signature is not that of this manifest under the key given",
        "edited": "the signature is not that of this manifest under the key given",
        "unsigned": "the bundle is not signed",
        "no key": "the public key cannot be used",
    }


def test_a_bundle_may_be_given_by_its_files(folder: Path) -> None:
    whole = folder / "float32"
    files = [path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file()]
    found = run_node(folder, [{"name": "files", "does": "files", "bundle": "float32", "files": files}])
    assert found["files"] == [load(whole).tasks] * 2


def test_the_page_of_the_package_runs(tmp_path: Path) -> None:
    text = (WEB / "README.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"(?ms)^```js\n(.*?)^```$", text)
    (made,), (add,) = (re.findall(rf"(?m)^{name} .*$", text) for name in ("python -c", "trunkline"))
    subprocess.run([sys.executable, *shlex.split(made)[1:]], cwd=tmp_path, check=True)
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "trunkline").symlink_to(WEB)
    (tmp_path / "page.mjs").write_text(script)
    done = subprocess.run(["node", "page.mjs"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == re.findall(r"(?m)^// (.*)$", script)

    _, _, _, folder, name, file = add.split()
    add_task(tmp_path / folder, name, tmp_path / file)
    (found,) = load(tmp_path / folder).predict(["My package is late"])
    assert found["intent"]["label"] == "delivery"
