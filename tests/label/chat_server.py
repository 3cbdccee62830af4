"""A chat endpoint of the tests' own on the loopback interface, which answers by a rule and keeps what it was asked."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NAMES = {"Ann": "person", "Oslo": "capital city", "Acme": "software company"}


@dataclass
class Response:
    """One HTTP answer; `body` is sent as it is if it is bytes, else as JSON."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Asked:
    """What a server was asked: the sentences, the headers, the body."""

    path: str
    sentences: list[str]
    headers: dict[str, str]
    body: dict[str, Any]


Rule = Callable[[Asked, int], Response]
"""From a request and its number, counted from 0, to the answer."""


@dataclass
class ChatServer:
    """A running server."""

    url: str
    asked: list[Asked]

    @property
    def sentences(self) -> list[str]:
        return [sentence for request in self.asked for sentence in request.sentences]


def entities_of(sentence: str) -> list[dict[str, str]]:
    return [{"text": word, "type": kind} for word, kind in NAMES.items() if word in sentence]


def completion(content: str, **choice: Any) -> Response:
    message = {"role": "assistant", "content": content}
    return Response({"choices": [{"message": message, "finish_reason": "stop", **choice}]})


def good(asked: Asked, number: int = 0) -> Response:
    """What a good model answers."""
    rows = [{"id": n, "entities": entities_of(sentence)} for n, sentence in enumerate(asked.sentences, 1)]
    return completion(json.dumps({"sentences": rows}))


@contextmanager
def serve(rule: Rule = good) -> Iterator[ChatServer]:
    asked: list[Asked] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            lines = body["messages"][-1]["content"].split("\n")
            sentences = [re.sub(r"^\d+\. ", "", line) for line in lines]
            request = Asked(self.path, sentences, dict(self.headers), body)
            with lock:
                asked.append(request)
                number = len(asked) - 1
            response = rule(request, number)
            content = response.body if isinstance(response.body, bytes) else json.dumps(response.body).encode()
            self.send_response(response.status)
            headers = {"Content-Type": "application/json", "Content-Length": str(len(content)), **response.headers}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield ChatServer(f"http://127.0.0.1:{server.server_address[1]}/v1", asked)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
