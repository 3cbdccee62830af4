"""Runs ONNX graphs by onnxruntime-web in headless Chromium: a page served on localhost posts what it computed."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

HERE = Path(__file__).parent
DIST = HERE / "node_modules" / "onnxruntime-web" / "dist"
TYPES = {".html": "text/html", ".mjs": "text/javascript", ".wasm": "application/wasm", ".json": "application/json"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SECONDS = 180

Arrays = Mapping[str, npt.NDArray[Any]]
Run = tuple[str, str, Arrays]
"""Name of the run, name of the graph, inputs."""


def missing() -> str:
    """Why graphs cannot be run here; empty where they can."""
    if not DIST.is_dir():
        return "onnxruntime-web is not installed: `npm ci` in tests/browser, as `make test-browser` does where npm is"
    if browser() is None:
        return "no Chromium is installed: Debian has it as the package chromium; or name one in CHROMIUM"
    return ""


def browser() -> str | None:
    """The program that is started."""
    named = os.environ.get("CHROMIUM")
    return named or next((found for name in BROWSERS if (found := shutil.which(name))), None)


def run_graphs(graphs: Mapping[str, bytes], runs: Sequence[Run]) -> dict[str, dict[str, npt.NDArray[Any]]]:
    """The outputs of every run by its name.

    Raises:
        RuntimeError: An error inside the page, or no answer in time.
    """
    work = [
        {"name": name, "graph": graph, "inputs": {key: _encode(value) for key, value in inputs.items()}}
        for name, graph, inputs in runs
    ]
    pages = {"/work.json": json.dumps({"graphs": list(graphs), "runs": work}).encode()}
    pages |= {f"/graphs/{name}.onnx": content for name, content in graphs.items()}
    answers: queue.Queue[bytes] = queue.Queue()
    with _server(pages, answers) as address, _chromium(address):
        try:
            answer = json.loads(answers.get(timeout=SECONDS))
        except queue.Empty:
            raise RuntimeError(f"no answer from the browser within {SECONDS} seconds") from None
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return {name: {key: _decode(v) for key, v in found.items()} for name, found in answer["results"].items()}


@contextlib.contextmanager
def _server(pages: Mapping[str, bytes], answers: queue.Queue[bytes]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            files = {"/page.html": HERE / "page.html", "/run.mjs": HERE / "run.mjs", f"/ort/{name}": DIST / name}
            content = pages.get(self.path)
            if content is None and self.path in files and files[self.path].is_file():
                content = files[self.path].read_bytes()
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Type", TYPES.get(Path(name).suffix, "application/octet-stream"))
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()
            answers.put(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/page.html"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def _chromium(address: str) -> Iterator[None]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [str(browser()), *OPTIONS, f"--user-data-dir={profile}", address]
        # Without the pipe the browser ends as soon as it has loaded the page.
        process = subprocess.Popen(
            [*command[:-1], "--remote-debugging-port=0", command[-1]],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()


def _encode(array: npt.NDArray[Any]) -> dict[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"type": array.dtype.name, "dims": list(array.shape), "data": data}


def _decode(value: Mapping[str, Any]) -> npt.NDArray[Any]:
    return np.frombuffer(base64.b64decode(value["data"]), value["type"]).reshape(value["dims"])
