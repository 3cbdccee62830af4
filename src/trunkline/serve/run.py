"""Bundles are loaded, an address is taken, and uvicorn runs until SIGTERM or SIGINT, when what runs is finished."""

from __future__ import annotations

import contextlib
import math
import os
import re
import socket
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import typer
import uvicorn

from trunkline.errors import TrunklineError
from trunkline.model import Model, load
from trunkline.serve.app import make_app
from trunkline.serve.guard import Protocol
from trunkline.serve.schema import Limits

TOKEN, SHORTEST = "TRUNKLINE_TOKEN", 16
"""The environment variable with the token, and how many characters it has at least."""


def serve(
    bundles: Sequence[str], address: tuple[str, int], file: Path | None, limits: Limits, rights: Set[str], threads: int
) -> None:
    """Serves bundles; parameters are the options of `trunkline serve`, `file` that of the token.

    Raises TrunklineError where a token is needed, an address is taken, or a bundle cannot be opened.
    """
    host, port = address
    token, models = read_token(file, host), dict[str, Model]()
    for bundle in bundles:
        model = load(bundle)
        if model.name in models:
            given = f"{bundle} and {models[model.name].folder} are both called {model.name}"
            raise TrunklineError(given, todo="Save one of them under another name")
        models[model.name] = model
    app = make_app(models, limits, token=token, rights=rights, threads=threads or os.cpu_count() or 1)
    # As many connections as may be need as many files.
    with contextlib.suppress(ImportError):
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        given = f"{host}:{port} cannot be listened on ({error.strerror or error})"
        raise TrunklineError(given, todo="Choose others by --host and --port") from error
    place = f"[{host}]" if ":" in host else host
    typer.echo(f"serving {', '.join(models)} on http://{place}:{listening.getsockname()[1]}")
    Protocol.head_seconds = limits.head_seconds
    quiet: Any = {"log_config": None, "log_level": "error", "access_log": False, "server_header": False}
    bounds: Any = {"limit_concurrency": limits.connections, "timeout_keep_alive": limits.idle_seconds}
    bounds["timeout_graceful_shutdown"] = math.ceil(limits.seconds)
    config = uvicorn.Config(app, http=Protocol, ws="none", proxy_headers=False, **quiet, **bounds)
    uvicorn.Server(config).run(sockets=[listening])


def read_token(file: Path | None, host: str) -> str:
    """The token from a file, or else the environment; empty on loopback where there is none.

    Raises TrunklineError if there is none and others than this machine reach the address, or if it is too short.
    """
    try:
        token = (file.expanduser().read_text(encoding="ascii") if file else os.environ.get(TOKEN, "")).strip()
    except (OSError, UnicodeError) as error:
        raise TrunklineError(f"the token's file {file} cannot be read ({error})", expected="a line of ASCII") from error
    if not (token or file) and (host == "localhost" or re.fullmatch(r"127(\.\d+){3}|::1", host)):
        return ""
    if len(token) < SHORTEST or not token.isascii() or len(token.split()) > 1:
        given = f"a token of {len(token)} characters" if token else f"there is no token for the address {host}"
        todo = f"Put one into {TOKEN}, or into a file for --token-file: `openssl rand -hex 32` makes one"
        raise TrunklineError(given, expected=f"at least {SHORTEST} characters without blanks", todo=todo)
    return token
