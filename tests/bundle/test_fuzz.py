"""Whatever is put in, there is an answer of the promised form or an error of ours: texts, and files of a bundle."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import deployed
import tiny_models
import trunkline
from trunkline.bundle.files import open_bundle
from trunkline.bundle.manifest import FileEntry, parse_manifest
from trunkline.bundle.parts import read_primary, read_task
from trunkline.encoder.bundle_files import load_any
from trunkline.engine.base import open_tokenizer
from trunkline.errors import TrunklineError

PIECES = (
    *tiny_models.NAMES[:3], "\x00", "\ud83d", "\ude00", "\U0001f600", "e\u0301", "\u202e", "\ufeff", "\r\n", "\n",
    "7pm", "北京", "İ", "ß", "\u0130\u0307", "ﷺ", "a" * 120, "##ing", "[SEP]", "[CLS]", "<s>", "\x7f", "\u2028", "_",
)  # fmt: skip
ANY_TEXT = st.text(st.characters(codec=None, categories=None), max_size=60)
TEXTS = st.lists(
    st.one_of(ANY_TEXT, st.lists(st.sampled_from(PIECES), max_size=40).map("".join)), min_size=1, max_size=12
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Callable[[str], Path]) -> Path:
    loaded = deployed.whole(load_any(str(tiny_folder("bert")), fork=2, max_length=24), qa=True)
    return deployed.deploy(loaded, tmp_path_factory.mktemp("fuzz") / "bundle")


def run(check: Callable[[Any], None], strategy: st.SearchStrategy[Any], examples: int) -> None:
    options = settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    options(given(strategy)(check))()


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes changed, taken out, put in, cut off, or doubled; sometimes nothing but noise."""
    how = draw(st.sampled_from(("change", "change", "change", "cut", "double", "noise")))
    if how == "noise":
        return draw(st.binary(max_size=80))
    place = draw(st.integers(0, len(content)))
    if how == "cut":
        return content[:place]
    if how == "double":
        return content[:place] + content[place // 2 :]
    for _ in range(draw(st.integers(1, 3))):
        place = min(draw(st.one_of(st.integers(0, 900), st.integers(0, len(content)))), len(content))
        width = draw(st.integers(0, 3))
        filling = st.one_of(st.binary(max_size=3), st.sampled_from((b"9" * 20, b"-1", b'"', b"[" * 200, b"\x7f\xfc")))
        content = content[:place] + draw(filling) + content[place + width :]
    return content


def check_prediction(prediction: Any, text: str) -> None:
    if isinstance(prediction, list):
        ends = [0]
        for entity in prediction:
            assert ends[-1] <= entity["start"] < entity["end"] <= len(text)
            assert text[entity["start"] : entity["end"]] == entity["text"]
            ends.append(entity["end"])
    elif "answer" in prediction:
        begin = text.index("\n") + 1
        if prediction["answer"]:
            assert text[begin + prediction["start"] : begin + prediction["end"]] == prediction["answer"]
        assert 0 <= prediction["score"] <= 1
    else:
        assert prediction["score"] == max(prediction["probabilities"].values())
        assert sum(prediction["probabilities"].values()) == pytest.approx(1, abs=1e-4)


def fuzz_texts(folder: Path, examples: int) -> int:
    """Predicts on drawn texts; returns how many."""
    bundle = trunkline.load(folder)
    plain = [name for name, family in bundle.tasks.items() if family != "qa"]
    asked = [name for name, family in bundle.tasks.items() if family == "qa"]
    count = 0

    def check(texts: list[str]) -> None:
        nonlocal count
        count += len(texts)
        for text, row in zip(texts, bundle.predict(texts, plain), strict=True):
            for prediction in row.values():
                check_prediction(prediction, text)
        questions = [text if "\n" in text else f"who\n{text}" for text in texts]
        for text, row in zip(questions, bundle.predict(questions, asked), strict=True):
            for prediction in row.values():
                check_prediction(prediction, text)
        requests = [(text, plain[number % len(plain)]) for number, text in enumerate(texts)]
        for (text, _), prediction in zip(requests, bundle.predict_mixed(requests), strict=True):
            check_prediction(prediction, text)

    run(check, TEXTS, examples)
    return count


def fuzz_files(folder: Path, examples: int) -> int:
    """Reads damaged files of every kind that a bundle's reader reads itself; returns how many."""
    opened = open_bundle(folder)
    bundle = trunkline.load(folder)
    manifest = opened.manifest
    place = folder.parent / "damaged"
    files = [*(entry.file for entry in manifest.tasks.values()), *manifest.adapters.values()]
    kinds = [*files, "manifest.json", "tokenizer.json"]
    contents = {file: (folder / file).read_bytes() for file in kinds}
    count = 0

    def check(drawn: tuple[str, list[bytes]]) -> None:
        nonlocal count
        file, found = drawn
        for content in found:
            count += 1
            place.write_bytes(content)
            try:
                if file == "manifest.json":
                    parse_manifest(content)
                elif file == "tokenizer.json":
                    open_tokenizer(place, manifest.encoder).encode(["ann lives\x00 in berlin", ""])
                elif file in manifest.adapters.values():
                    assert read_primary(place, manifest, "ner").family == "ner"
                else:
                    task = read_task(place, manifest, "damaged")
                    bundle.add("damaged", place, replace=True)
                    text = "who\nann lives in berlin"
                    check_prediction(bundle.predict([text], ["damaged"])[0]["damaged"], text)
                    assert task.name == "damaged"
            except TrunklineError as error:
                assert str(error).strip()

    drawn = st.sampled_from(kinds).flatmap(
        lambda file: st.tuples(st.just(file), st.lists(damaged(contents[file]), min_size=4, max_size=4))
    )
    run(check, drawn, examples)
    return count


def fuzz_bundles(folder: Path, place: Path, examples: int) -> int:
    """Opens bundles with one damaged file, as they are and with a manifest that fits the damage; returns how many."""
    shutil.copytree(folder, place)
    manifest = parse_manifest((folder / "manifest.json").read_bytes())
    contents = {file: (folder / file).read_bytes() for file in manifest.files}
    small = {file: content for file, content in contents.items() if not file.endswith(".onnx")}
    count = 0

    def check(drawn: tuple[str, bytes, bool]) -> None:
        nonlocal count
        file, content, fitted = drawn
        count += 1
        (place / file).write_bytes(content)
        if fitted and content and file in small:
            entry = FileEntry(hashlib.sha256(content).hexdigest(), len(content))
            fitting = dataclasses.replace(manifest, files={**manifest.files, file: entry})
            (place / "manifest.json").write_bytes(fitting.to_json())
        try:
            bundle = trunkline.load(place)
            assert content == contents[file] or fitted
            row = bundle.predict(["who\nann lives in berlin"])[0]
            for prediction in row.values():
                check_prediction(prediction, "who\nann lives in berlin")
        except TrunklineError as error:
            assert str(error).strip()
            assert content != contents[file]
        finally:
            (place / file).write_bytes(contents[file])
            (place / "manifest.json").write_bytes(manifest.to_json())

    drawn = st.sampled_from(sorted(contents)).flatmap(
        lambda file: st.tuples(st.just(file), damaged(contents[file]), st.booleans())
    )
    run(check, drawn, examples)
    return count


def test_drawn_texts_have_answers(folder: Path) -> None:
    assert fuzz_texts(folder, 40) > 40


def test_damaged_files_are_refused_or_read(folder: Path) -> None:
    assert fuzz_files(folder, 60) == 240


def test_damaged_bundles_are_refused_or_opened(folder: Path, tmp_path: Path) -> None:
    assert fuzz_bundles(folder, tmp_path / "bundle", 30) == 30


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_hundred_thousand_inputs_never_crash(folder: Path, tmp_path: Path) -> None:
    texts = fuzz_texts(folder, 10_000)
    files = fuzz_files(folder, 15_000)
    bundles = fuzz_bundles(folder, tmp_path / "bundle", 2_000)
    assert texts + files + bundles >= 100_000, (texts, files, bundles)
