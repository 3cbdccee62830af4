"""Requests to a chat endpoint that speaks OpenAI's protocol: paced, repeated when it makes sense, never redirected."""

from __future__ import annotations

import http.client
import json
import random
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from trunkline.errors import TrunklineError
from trunkline.label.weak.config import ChatConfig
from trunkline.label.weak.prompt import InvalidAnswer

MAX_ANSWER = 4 * 2**20
"""Bytes of an answer; more is no list of entities."""

_REPEAT = frozenset((408, 425, 429))
_REFUSED = frozenset((400, 413, 422))
_LONGEST_BACKOFF = 60.0


class RequestRefused(InvalidAnswer):
    """The server does not want this request, but may want others."""


class Stopped(Exception):
    """The run ends; this request was not sent."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's answer and the tokens that the server counted, 0 where it does not say."""

    content: str
    prompt_tokens: int
    completion_tokens: int


class _Lost(Exception):
    """The connection was lost or the answer took too long."""


class Pacer:
    """Spaces requests evenly over all threads.

    Args:
        per_minute: Most requests a minute.
        stop: Ends every wait.
    """

    def __init__(self, per_minute: float, stop: threading.Event) -> None:
        self._gap = 60.0 / per_minute
        self._stop = stop
        self._lock = threading.Lock()
        self._free = time.monotonic()

    def wait(self) -> None:
        """Returns when the next request may be sent; raises `Stopped` if the run ends before."""
        while True:
            with self._lock:
                left = self._free - time.monotonic()
                if left <= 0:
                    self._free = max(self._free, time.monotonic()) + self._gap
                    break
            if self._stop.wait(left):
                break
        if self._stop.is_set():
            raise Stopped

    def hold(self, seconds: float) -> None:
        """Sends nothing for some seconds."""
        with self._lock:
            self._free = max(self._free, time.monotonic() + seconds)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class ChatClient:
    """Asks one model; may be used by several threads.

    Args:
        config: Where and how to ask.
        key: Goes into the Authorization header and nowhere else; none if empty.
        stop: Set to end all waiting.
    """

    def __init__(self, config: ChatConfig, key: str, stop: threading.Event) -> None:
        self._config = config
        self._key = key
        self._stop = stop
        self._pacer = Pacer(config.per_minute, stop)
        # A proxy cannot reach this machine's own servers.
        proxies = [urllib.request.ProxyHandler({})] if is_loopback(config.base_url) else []
        self._opener = urllib.request.build_opener(_NoRedirect, *proxies)
        self._jitter = random.Random()
        self._answered = False

    def ask(self, messages: Sequence[Mapping[str, str]]) -> Reply:
        """Sends one request, again after 429, 5xx and lost connections.

        Raises:
            InvalidAnswer: An answer that is no chat completion, is cut off or too large, or a refused request.
            TrunklineError: The server cannot be used; what was answered before is safe in the cache.
            Stopped: The run ends.
        """
        body = json.dumps(self._body(messages)).encode()
        problem = ""
        for attempt in range(self._config.retries + 1):
            self._pacer.wait()
            pause = self._jitter.uniform(0.5, 1.0) * min(2.0**attempt, _LONGEST_BACKOFF)
            try:
                status, headers, content = self._send(body)
            except _Lost as error:
                problem = str(error)
                if not self._answered:
                    break
            else:
                self._answered = True
                if status == 200:
                    return _parse_reply(content)
                problem = f"status {status}{self._excerpt(content)}"
                if status in _REFUSED:
                    raise RequestRefused(f"request refused with {status}")
                if status not in _REPEAT and status < 500:
                    break
                pause = max(pause, retry_after(headers.get("Retry-After"), time.time()))
            if attempt < self._config.retries:
                self._rest(pause)
        raise TrunklineError(
            f"{self._config.base_url}: {problem}",
            expected="a chat endpoint that answers",
            todo="Check the URL, the model and the key; the same command goes on where this run stopped",
        )

    def _rest(self, seconds: float) -> None:
        if seconds > self._config.max_wait:
            raise TrunklineError(
                f"{self._config.base_url} asks for a pause of {seconds:.0f} s",
                expected=f"at most {self._config.max_wait:g} s",
                todo="Run the same command again later to go on, or raise --max-wait",
            )
        self._pacer.hold(seconds)

    def _body(self, messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        limit = "max_completion_tokens" if self._config.reasoning else "max_tokens"
        body = {"model": self._config.model, "messages": list(messages), limit: self._config.max_tokens}
        return body if self._config.reasoning else {**body, "temperature": 0}

    def _send(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "trunkline"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(f"{self._config.base_url}/chat/completions", body, headers, method="POST")
        try:
            try:
                answer = self._opener.open(request, timeout=self._config.timeout)
            except urllib.error.HTTPError as error:
                answer = error
            with answer:
                return answer.status, dict(answer.headers), self._read(answer)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, ssl.SSLCertVerificationError):
                self._answered = False
            raise _Lost(str(reason) or type(reason).__name__) from None

    def _read(self, answer: Any) -> bytes:
        # The socket's own time limit begins anew with every byte.
        deadline, content = time.monotonic() + self._config.timeout, b""
        while len(content) <= MAX_ANSWER and (piece := answer.read1(2**16)):
            content += piece
            if time.monotonic() > deadline:
                raise _Lost(f"the answer took longer than {self._config.timeout:g} s")
        return content

    def _excerpt(self, content: bytes) -> str:
        text = " ".join(content[:2000].decode("utf-8", "replace").split())
        text = text.replace(self._key, "***") if self._key else text
        return f": {text[:300]}" if text else ""


def retry_after(value: str | None, now: float) -> float:
    """The seconds that a Retry-After header asks for, given in seconds or as a date; 0 where there is none."""
    if not value:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now
        except (ValueError, OverflowError):
            return 0.0
    return seconds if 0 < seconds < 1e9 else 0.0


def is_loopback(url: str) -> bool:
    """Whether a URL is of this machine, as far as its host says so itself."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _parse_reply(content: bytes) -> Reply:
    if len(content) > MAX_ANSWER:
        raise InvalidAnswer("answer is too large")
    try:
        record = json.loads(content)
        choice = record["choices"][0]
        text = choice["message"]["content"]
    except (ValueError, RecursionError, KeyError, IndexError, TypeError):
        raise InvalidAnswer("answer is no chat completion") from None
    if not isinstance(text, str):
        raise InvalidAnswer("answer has no text")
    if choice.get("finish_reason") == "length":
        raise InvalidAnswer("answer is cut off by max_tokens")
    usage = record.get("usage")
    counts = [usage.get(key) if isinstance(usage, dict) else 0 for key in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (count if isinstance(count, int) and count > 0 else 0 for count in counts)
    return Reply(text, prompt, completion)
