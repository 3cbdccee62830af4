"""The Kotlin library says on the JVM what Python says; ONNX Runtime's Java API is stood in for by the test's own.

The stand-in sends every run back to this process, which computes it, and counts what was opened and not closed.
"""

from __future__ import annotations

import json
import shutil
import socket
import struct
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from browser.many_texts import many_texts
from browser.web_bundles import tiny_bundle, tiny_encoder
from deployed import NER_LABELS, head, task_file
from trunkline.bundle.files import change_tasks, open_bundle
from trunkline.bundle.manifest import TOKENIZER
from trunkline.encoder.resolve import find_embedded
from trunkline.model import load
from trunkline.text.tokens import TextTokenizer

ROOT = Path(__file__).resolve().parents[2]
KOTLIN = ROOT / "kotlin"
MISSING = ", ".join(tool for tool in ("kotlinc", "java", "javac") if not shutil.which(tool))

pytestmark = [pytest.mark.kotlin, pytest.mark.skipif(bool(MISSING), reason=f"{MISSING} not installed")]

TEXTS = many_texts(2000)
PREDICTED = 500
LEAST = 100
"""Texts to predict on in the fast run; and with a least score that is asked for."""
WINDOW, OVERLAP = 64, 31


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The class path of the library, compiled with the test, and its tables."""
    place = tmp_path_factory.mktemp("kotlin")
    tables = place / "tables" / "trunkline"
    tables.mkdir(parents=True)
    for table in ("src/trunkline/text/words.json", "web/data/bert.json"):
        shutil.copy(ROOT / table, tables)
    stubs = sorted(map(str, (KOTLIN / "src/test/java").rglob("*.java")))
    subprocess.run(["javac", "-d", str(place / "stubs"), *stubs], check=True)
    sources = [str(KOTLIN / "src" / part / "kotlin") for part in ("main", "onnx", "test")]
    out = ["-include-runtime", "-d", str(place / "check.jar")]
    done = subprocess.run(
        ["kotlinc", "-cp", str(place / "stubs"), *sources, *out], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "warning: " not in done.stderr.replace("OpenJDK 64-Bit Server VM warning: ", "")
    return ":".join(str(place / part) for part in ("check.jar", "stubs", "tables"))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tasks for words, pieces and texts, with and without adapters, and the graph whose inputs are all required."""
    place = tmp_path_factory.mktemp("bundle")
    folder = tiny_bundle(tiny_encoder(place / "encoder"), place, "float32")
    manifest, labels = open_bundle(folder).manifest, ("a", "b", "ü")
    sure = replace(head(len(labels), 12), decisions={"min_score": 0.6, "other": "b"})
    some = replace(head(len(NER_LABELS), 13), decisions={"min_score": 0.5})
    decided = {"decided": ("classification", labels, sure), "some": ("ner", NER_LABELS, some)}
    added = {name: task_file(manifest, *parts) for name, parts in decided.items()}
    change_tasks(folder, added, [name for name, family in load(folder).tasks.items() if family == "qa"])
    return folder


def run(classes: str, orders: list[dict[str, Any]], folder: Path) -> list[Any]:
    """What the library says to some orders."""
    asked, answers = folder / "orders.json", folder / "answers.json"
    asked.write_text(json.dumps(orders))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(120)
        port = str(server.getsockname()[1])
        command = ["java", "-cp", classes, "trunkline.CheckKt", port, str(asked), str(answers)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            thread = threading.Thread(target=compute, args=(server,), daemon=True)
            thread.start()
            _, said = process.communicate(timeout=240)
            assert process.returncode == 0, said
            thread.join(10)
    return json.loads(answers.read_text())


def compute(server: socket.socket) -> None:
    """Runs graphs as the stand-in asks for them, until it hangs up."""
    sessions: dict[str, onnxruntime.InferenceSession] = {}
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    connection, _ = server.accept()
    with connection, connection.makefile("rwb") as stream:

        def take(form: str) -> Any:
            return struct.unpack(form, stream.read(struct.calcsize(form)))[0]

        def text() -> str:
            return stream.read(take(">H")).decode()

        while stream.peek(1):
            path, output, feeds = text(), text(), {}
            for _ in range(take(">i")):
                name, whole = text(), take(">?")
                shape = [take(">q") for _ in range(take(">i"))]
                kind = np.dtype(">i8" if whole else ">f4")
                content = stream.read(int(np.prod(shape)) * kind.itemsize)
                feeds[name] = np.frombuffer(content, kind).reshape(shape).astype(kind.newbyteorder("="))
            if path not in sessions:
                sessions[path] = onnxruntime.InferenceSession(path, options)
            (found,) = sessions[path].run([output], feeds)
            stream.write(struct.pack(f">i{found.ndim}q", found.ndim, *found.shape) + found.astype(">f4").tobytes())
            stream.flush()


@pytest.fixture(scope="session")
def results(classes: str, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    source, reason = find_embedded()
    assert source is not None, reason
    tokenizer = str(source / TOKENIZER)
    orders = [
        {"does": "read", "tokenizer": tokenizer, "texts": TEXTS, "maxLength": WINDOW, "overlap": OVERLAP},
        {"does": "predict", "bundle": str(bundle), "texts": TEXTS[:PREDICTED]},
        {"does": "predict", "bundle": str(bundle), "texts": TEXTS[:50], "tasks": ["tone", "parts"]},
        {"does": "predict", "bundle": str(bundle), "texts": TEXTS[:LEAST], "least": 0.7},
    ]
    return run(classes, orders, tmp_path_factory.mktemp("orders"))


def test_words_pieces_and_tokens_of_2000_texts_in_12_scripts(results: list[Any]) -> None:
    source, _ = find_embedded()
    assert source is not None
    read = TextTokenizer.from_file(source / TOKENIZER, WINDOW, OVERLAP).encode(TEXTS)
    assert len(results[0]) == len(TEXTS) == 2000
    assert sum(len(one["sizes"]) > 1 for one in results[0]) > 100, "several windows"
    for text, own, one in zip(TEXTS, read, results[0], strict=True):
        assert one == {
            "starts": own.offsets[:, 0].tolist(),
            "ends": own.offsets[:, 1].tolist(),
            "ids": own.ids.tolist(),
            "sizes": list(own.sizes),
            "place": own.place.tolist(),
            "words": [list(border) for border in own.borders("words")],
            "pieces": [list(border) for border in own.borders("pieces")],
        }, ascii(text)


def in_code_points(text: str, place: int) -> int:
    """A place that counts UTF-16 units, as Python counts."""
    return len(text.encode("utf-16-le", "surrogatepass")[: 2 * place].decode("utf-16-le", "surrogatepass"))


def compare(bundle: Path, texts: list[str], found: list[Any], least: float | None = None) -> list[Any]:
    """Compares with Python, whose predictions it returns."""
    model = load(bundle)
    tasks, whole = model.tasks, model.predict(texts, min_score=least)
    assert set(tasks.values()) == {"ner", "classification", "multilabel"}
    for text, row, true in zip(texts, found, whole, strict=True):
        assert row.keys() == tasks.keys()
        for name, family in tasks.items():
            said, expected = row[name], true[name]
            if family != "ner":
                key = "label" if family == "classification" else "labels"
                assert said[key] == expected[key]
                assert said["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)
                assert list(said["probabilities"]) == list(expected["probabilities"])
                assert said.get("score") == (max(said["probabilities"].values()) if key == "label" else None)
                continue
            for entity in said:
                entity |= {side: in_code_points(text, entity[side]) for side in ("start", "end")}
            scores = [[entity.pop("score") for entity in entities] for entities in (said, expected)]
            assert said == expected
            assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    return whole


def test_predictions_are_those_of_python(results: list[Any], bundle: Path) -> None:
    compare(bundle, TEXTS[:PREDICTED], results[1]["found"])
    assert [row.keys() for row in results[2]["found"]] == [{"tone", "parts"}] * 50
    assert results[2]["found"][7]["tone"] == results[1]["found"][7]["tone"]


def test_what_is_not_sure_enough_is_not_said(results: list[Any], bundle: Path) -> None:
    kept = [row["decided"]["label"] for row in results[1]["found"]]
    assert {None, "a"} <= set(kept)
    assert "b" not in kept
    asked = compare(bundle, TEXTS[:LEAST], results[3]["found"], least=0.7)
    assert any(row["tone"]["label"] is None for row in asked)
    assert 0 < sum(len(row["kinds"]["labels"]) for row in asked) < 3 * LEAST


@pytest.mark.slow
def test_predictions_of_2000_texts_are_those_of_python(classes: str, bundle: Path, tmp_path: Path) -> None:
    (result,) = run(classes, [{"does": "predict", "bundle": str(bundle), "texts": TEXTS}], tmp_path)
    compare(bundle, TEXTS, result["found"])


def test_every_tensor_is_closed(results: list[Any]) -> None:
    sessions = 2
    assert [(one["left"], one["closed"]) for one in results[1:]] == [(sessions, 0)] * 3


def test_what_is_damaged_or_foreign_is_refused(classes: str, bundle: Path, tmp_path: Path) -> None:
    changes = {
        "graphs/branch-required.onnx": "another SHA-256",
        "tasks/tone.safetensors": "another SHA-256",
        "tokenizer.json": "another SHA-256",
    }
    orders, expected = [], []
    for number, (file, message) in enumerate(changes.items()):
        folder = tmp_path / str(number)
        shutil.copytree(bundle, folder)
        content = bytearray((folder / file).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / file).write_bytes(content)
        orders.append({"does": "open", "bundle": str(folder)})
        expected.append(f"{file} has {message}")
    short, gone, foreign = (tmp_path / name for name in ("short", "gone", "foreign"))
    for folder in (short, gone, foreign):
        shutil.copytree(bundle, folder)
    (short / "graphs/trunk.onnx").write_bytes(b"x")
    (gone / "tokenizer.json").unlink()
    manifest = json.loads((foreign / "manifest.json").read_text())
    (foreign / "manifest.json").write_text(json.dumps(manifest | {"backbone": "0" * 64}))
    for folder, message in ((short, "has 1 bytes"), (gone, "no file tokenizer.json"), (foreign, "trained on backbone")):
        orders.append({"does": "open", "bundle": str(folder)})
        expected.append(message)
    task = bundle / "tasks" / "tone.safetensors"
    (tmp_path / "cut.safetensors").write_bytes(task.read_bytes()[:-2])
    orders += [{"does": "open", "bundle": str(bundle), "add": str(tmp_path / "cut.safetensors")}]
    orders += [{"does": "open", "bundle": str(bundle), "add": str(task)}]
    *found, added = run(classes, orders, tmp_path)
    for answer, message in zip(found, [*expected, "does not fit the file"], strict=True):
        assert message in answer.get("error", ""), answer
    assert added["tasks"] == load(bundle).tasks | {"added": "classification"}
