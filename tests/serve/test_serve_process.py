"""The command as a process: drained on SIGTERM, and not held up by clients that are slow, cut or mad."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import deployed
from trunkline.encoder.bundle_files import load_any

BODY = json.dumps({"texts": ["ann lives in berlin"]}).encode()
HEAD = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(BODY)}\r\n"
HEAD += "Content-Type: application/json\r\n\r\n"

Service = tuple[subprocess.Popen[str], int]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Callable[[str], Path]) -> Iterator[Service]:
    loaded = deployed.whole(load_any(str(tiny_folder("bert")), fork=2, max_length=40))
    folder = deployed.deploy(loaded, tmp_path_factory.mktemp("serve") / "bot")
    limits = ("head_seconds=0.5", "seconds=3", "connections=30")
    options = [word for limit in limits for word in ("--set", limit)]
    command = [sys.executable, "-m", "trunkline.cli", "serve", str(folder), "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline().rpartition(":")[2])
        process.kill()


def connect(service: Service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service[1]), timeout=10)


def answer(connection: socket.socket) -> bytes:
    """What comes until the other side ends it, or an answer is whole."""
    found = b""
    while b"}\r\n" not in found and not found.endswith((b"}", b"]}")):
        part = connection.recv(65536)
        if not part:
            break
        found += part
    return found


def test_slow_cut_and_mad_clients_hold_nothing_up(service: Service) -> None:
    began = time.monotonic()
    silent, halting, endless, full = (connect(service) for _ in range(4))
    halting.sendall(HEAD.encode()[:20])
    endless.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000)
    for _ in range(5):
        with connect(service) as cut:
            cut.sendall(HEAD.encode() + BODY[:5])
    with connect(service) as mad:
        mad.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
        assert mad.recv(1000).startswith(b"HTTP/1.1 400")
    full.sendall(HEAD.encode() + BODY)
    assert b"HTTP/1.1 200" in answer(full)
    for connection in (silent, halting, endless):
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1000) == b""
    assert time.monotonic() - began < 4
    with connect(service) as late:
        late.sendall(HEAD.encode() + BODY[:5])
        said = answer(late)
    assert said.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in said
    crowd = [connect(service) for _ in range(40)]
    crowd[-1].sendall(HEAD.encode() + BODY)
    assert crowd[-1].recv(1000).startswith(b"HTTP/1.1 503")
    for connection in (*crowd, full):
        connection.close()


def test_sigterm_ends_it_when_what_runs_is_answered(service: Service) -> None:
    process, _ = service
    with connect(service) as running, connect(service) as idle:
        running.sendall(HEAD.encode() + BODY[:5])
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert idle.recv(1000) == b""
        with pytest.raises(OSError):
            connect(service)
        running.sendall(BODY[5:])
        assert answer(running).startswith(b"HTTP/1.1 200")
    assert process.wait(5) in (-signal.SIGTERM, 0)
