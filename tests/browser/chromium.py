"""Runs pages in headless Chromium: a page served on localhost posts what it computed."""

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

ROOT = Path(__file__).parents[2]
WEB = ROOT / "web"
SERVED = ("tests/browser/", "web/dist/", "web/node_modules/onnxruntime-web/dist/")
"""Folders whose files pages may read, by the same paths."""

TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
    ".json": "application/json",
}
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
    "--enable-logging=stderr",
)
SECONDS = 180

Arrays = Mapping[str, npt.NDArray[Any]]
Run = tuple[str, str, Arrays]
"""Name of the run, name of the graph, inputs."""


def missing() -> str:
    """Why graphs cannot be run here; empty where they can."""
    if not (WEB / "node_modules" / "onnxruntime-web").is_dir() or not (WEB / "dist").is_dir():
        return "`npm ci && npm run build` was not run in web/, as `make test-browser` does where npm is"
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
    pages: dict[str, bytes | Path] = {"/work.json": json.dumps({"graphs": list(graphs), "runs": work}).encode()}
    pages |= {f"/graphs/{name}.onnx": content for name, content in graphs.items()}
    results = run_page("tests/browser/page.html", pages)["results"]
    return {name: {key: _decode(v) for key, v in found.items()} for name, found in results.items()}


def run_page(page: str, pages: Mapping[str, bytes | Path]) -> dict[str, Any]:
    """What a page of the repository posts to `/result`, with what was written to the `console` meanwhile.

    `pages` are served beside what is `SERVED`.

    Raises:
        RuntimeError: An error inside the page, or no answer in time.
    """
    answers: queue.Queue[bytes] = queue.Queue()
    with serve(pages, answers) as address, _chromium(f"{address}/{page}") as log:
        try:
            answer: dict[str, Any] = json.loads(answers.get(timeout=SECONDS))
        except queue.Empty:
            raise RuntimeError(f"no answer from the browser within {SECONDS} seconds") from None
        console = [line for line in log.read_text(errors="replace").splitlines() if "CONSOLE" in line]
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer | {"console": console}


def served(bundles: Path) -> dict[str, Path]:
    """The files of bundles as pages below `/bundles/`."""
    files = (path for path in bundles.rglob("*") if path.is_file())
    return {f"/bundles/{path.relative_to(bundles).as_posix()}": path for path in files}


@contextlib.contextmanager
def serve(pages: Mapping[str, bytes | Path], answers: queue.Queue[bytes]) -> Iterator[str]:
    """The address of a server; what is posted there goes into `answers`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.partition("?")[0]
            found = pages.get(name)
            if found is None and name[1:].startswith(SERVED) and ".." not in name:
                found = ROOT / name[1:]
            content = found.read_bytes() if isinstance(found, Path) and found.is_file() else found
            content = content if isinstance(content, bytes) else None
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
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def _chromium(address: str) -> Iterator[Path]:
    """A browser that shows a page; gives the file that it logs into."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        Path(profile, "log.txt").open("wb") as log,
    ):
        command = [str(browser()), *OPTIONS, f"--user-data-dir={profile}", address]
        # Without the pipe the browser ends as soon as it has loaded the page.
        process = subprocess.Popen(
            [*command[:-1], "--remote-debugging-port=0", command[-1]],
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        try:
            yield Path(log.name)
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
