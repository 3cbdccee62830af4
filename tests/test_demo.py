"""The server of the demo page gives its files and the bundle, to this computer alone; tests/browser tests the page."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

import deployed
from trunkline import demo
from trunkline.bundle.files import change_tasks
from trunkline.data.load import load_examples
from trunkline.demo import demo_bundle, demo_server
from trunkline.encoder.bundle_files import Loaded
from trunkline.errors import TrunklineError


@pytest.fixture
def page(tmp_path: Path) -> Path:
    folder = tmp_path / "page"
    (folder / "lib").mkdir(parents=True)
    (folder / "index.html").write_text("<title>page</title>")
    (folder / "lib" / "index.js").write_text("export {};")
    (tmp_path / "secret.txt").write_text("no")
    return folder


@pytest.fixture
def bundle(tiny: Loaded, tmp_path: Path) -> Path:
    return deployed.deploy(deployed.whole(tiny), tmp_path / "bundle")


@pytest.fixture
def port(page: Path, bundle: Path) -> Iterator[int]:
    with demo_server(bundle, page=page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def get(port: int, address: str, host: str | None = None) -> tuple[int, str, bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", address, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    found = answer.status, answer.headers.get("Content-Type", ""), answer.read()
    connection.close()
    return found


def test_it_gives_the_page_and_the_bundle_as_it_is_now(port: int, bundle: Path) -> None:
    assert get(port, "/?key=1") == (200, "text/html", b"<title>page</title>")
    assert get(port, "/lib/index.js")[:2] == (200, "text/javascript")
    assert get(port, "/bundle/manifest.json")[2] == (bundle / "manifest.json").read_bytes()
    task = "/bundle/tasks/topic.safetensors"
    assert get(port, task)[0] == 200
    change_tasks(bundle, {}, ["topic"])
    assert get(port, task)[0] == 404


@pytest.mark.parametrize(
    "address",
    [
        "/secret.txt",
        "/../secret.txt",
        "/lib/../../secret.txt",
        "/%2e%2e/secret.txt",
        "//secret.txt",
        "/lib",
        "/bundle/",
        "/bundle/../secret.txt",
        "/bundle/.trunkline.lock",
        "/bundle/signature.json",
    ],
)
def test_it_gives_nothing_else(port: int, address: str) -> None:
    assert get(port, address)[0] == 404


def test_another_name_for_this_computer_gets_nothing(port: int) -> None:
    assert get(port, "/", f"localhost:{port}")[0] == 200
    assert get(port, "/", f"evil.example:{port}")[0] == 404


def test_a_page_that_was_not_built_and_a_taken_port_are_named(port: int, bundle: Path, page: Path) -> None:
    with pytest.raises(TrunklineError, match=rf"port {port} cannot be used .*0 for one that is free"):
        demo_server(bundle, port, page)
    with pytest.raises(TrunklineError, match=r"has no index\.html.*`make page` builds it"):
        demo_server(bundle, page=page / "lib")


def test_without_a_bundle_there_are_the_tasks_of_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    def few(path: Path) -> tuple[str, list[Any]]:
        family, examples = load_examples(path)
        return family, examples[:30]

    monkeypatch.setattr(demo, "load_examples", few)
    first, again = demo_bundle(), demo_bundle()
    assert sorted(first.tasks) == ["events", "intents", "orders", "triage"]
    assert again.folder == first.folder
    assert again.manifest.name == "samples"
