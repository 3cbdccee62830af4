"""The demo page, and the server on this computer that gives it to a browser, which computes everything.

The folder `page` is made of `web/` by `make page`, with the runtime for WebAssembly; wheels carry it, git does not.
"""

from __future__ import annotations

import re
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from trunkline import __version__
from trunkline.bundle.files import Bundle, is_bundle, read_manifest, unless_bundle
from trunkline.bundle.manifest import MANIFEST, SIGNATURE
from trunkline.data.load import load_examples
from trunkline.engine.base import open_source
from trunkline.engine.default import default_bundle
from trunkline.errors import TrunklineError
from trunkline.model import load
from trunkline.quickstart import SAMPLES, TASKS

PAGE, HOST = Path(__file__).with_name("page"), "127.0.0.1"
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; script-src 'self' 'wasm-unsafe-eval'; "
    "style-src 'self'; worker-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
"""Browsers then let the page ask nobody but this server, whatever is typed or dropped there."""


def demo_bundle(source: str | None = None) -> Bundle:
    """The bundle that the page shows; by default the default model with the four tasks of the samples.

    That one is made at the first call and kept with the default model. Raises TrunklineError as `open_source`.
    """
    if source is not None:
        return open_source(source)
    folder = default_bundle() / f"demo-{__version__}" / "samples"
    if not is_bundle(folder):
        model = load()
        for name, ending in TASKS.items():
            family, examples = load_examples(SAMPLES / "tasks" / f"{name}-train.{ending}")
            model.fit(name, examples, family=family)
        with unless_bundle(folder):
            model.save(folder)
    return open_source(folder)


def demo_server(folder: Path, port: int = 0, page: Path = PAGE) -> ThreadingHTTPServer:
    """A server of the page on the loopback address, with a bundle's files below `/bundle/`; port 0 takes a free one.

    Raises TrunklineError if the page was not built or the port is taken.
    """
    if not (page / "index.html").is_file():
        todo = "In a checkout, `make page` builds it with npm; wheels made by `make wheel` carry it"
        raise TrunklineError(f"{page} has no index.html", expected="the demo page, built", todo=todo)

    class Handler(SimpleHTTPRequestHandler):
        protocol_version, extensions_map = "HTTP/1.1", SimpleHTTPRequestHandler.extensions_map | TYPES

        def translate_path(self, path: str) -> str:
            # Under any other name this address would serve somebody else's page.
            own = self.headers.get("Host", "").rpartition(":")[0] in (HOST, "localhost")
            found = _file(path.partition("?")[0], folder, page) if own else None
            return str(found or page / "nothing")

        def end_headers(self) -> None:
            for name, value in HEADERS.items():
                self.send_header(name, value)
            super().end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except OSError as error:
        todo = "Take another one with --port, or 0 for one that is free"
        raise TrunklineError(f"port {port} cannot be used ({error.strerror})", todo=todo) from error


def _file(address: str, folder: Path, page: Path) -> Path | None:
    """The file of the page, or of the bundle as its manifest is now, that an address means."""
    root, place = page, "index.html" if address == "/" else address[1:]
    if place.startswith("bundle/"):
        root, place = folder, place.removeprefix("bundle/")
        if place not in (MANIFEST, SIGNATURE) and not (is_bundle(folder) and place in read_manifest(folder).files):
            return None
    # No name leads up.
    return root / place if re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)*", place) and (root / place).is_file() else None
