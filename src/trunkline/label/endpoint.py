"""Requests to a chat endpoint that speaks OpenAI's protocol: paced, repeated when it makes sense, never redirected."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

from trunkline.errors import TrunklineError
from trunkline.extras import needs
from trunkline.label.options import ChatOptions

MAX_ANSWER, REFUSALS = 4 * 2**20, 5
"""Bytes of an answer, as more is no list of entities; refused requests before any success that end a run."""

_REPEAT, _REFUSED = frozenset((408, 425, 429)), frozenset((400, 413, 422))
_LONGEST_BACKOFF = 60.0


class InvalidAnswer(Exception):
    """An answer that cannot be used; its text is the kind of problem."""


class _Busy(Exception):
    """What happened, and the seconds after which the request may succeed."""


class Endpoint:
    """Asks one model; may be used by several threads.

    The `key` goes into the Authorization header and nowhere else; none if it is empty. `stop` ends all waiting when it
    is set; `tokens` are those of prompts and answers so far, as far as the server says.
    """

    def __init__(self, options: ChatOptions, key: str) -> None:
        with needs("label", "a chat endpoint"):
            import httpx
            import tenacity
        self.stop, self.tokens = threading.Event(), [0, 0]
        self._options, self._key = options, key
        self._lock, self._next_start = threading.Lock(), time.monotonic()
        self._contacted, self._succeeded, self._refusals = False, False, 0
        # A redirect would carry the key to another host; a proxy cannot reach this machine's own servers.
        self._client = httpx.Client(
            headers={"User-Agent": "trunkline", **({"Authorization": f"Bearer {key}"} if key else {})},
            timeout=options.timeout,
            follow_redirects=False,
            trust_env=options.base_url.startswith("https:"),
        )
        self._failures = (httpx.TransportError, httpx.DecodingError, httpx.InvalidURL)
        backoff = tenacity.wait_exponential_jitter(initial=1.0, max=_LONGEST_BACKOFF)
        self._retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(options.retries + 1),
            wait=lambda state: max(backoff(state), state.outcome.exception().args[1]),  # type: ignore[union-attr]
            retry=tenacity.retry_if_exception_type(_Busy),
            sleep=tenacity.sleep_using_event(self.stop),
            reraise=True,
        )
        self.close = self._client.close

    def ask(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Sends one request, again after 429, 5xx and lost connections, and returns what the model wrote.

        Raises:
            InvalidAnswer: No chat completion, one that is cut off or too large, or a refused request.
            TrunklineError: The server cannot be used.
        """
        options = self._options
        limits = {"max_completion_tokens": options.max_tokens}
        if not options.reasoning:
            limits = {"max_tokens": options.max_tokens, "temperature": 0}
        body = {"model": options.model, "messages": list(messages), **limits}
        try:
            content = self._retrying.copy()(self._send, body)
        except _Busy as error:
            raise self._unusable(error.args[0]) from None
        if len(content) > MAX_ANSWER:
            raise InvalidAnswer("answer is too large")
        try:
            record = json.loads(content)
            choice, usage = record["choices"][0], record.get("usage") or {}
            text, cut_off = choice["message"]["content"], choice.get("finish_reason") == "length"
            used = [usage.get(name) or 0 for name in ("prompt_tokens", "completion_tokens")]
            with self._lock:
                self.tokens = [one + other for one, other in zip(self.tokens, used, strict=True)]
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
            raise InvalidAnswer("answer is no chat completion") from None
        if cut_off or not isinstance(text, str):
            raise InvalidAnswer("answer is cut off by max_tokens" if cut_off else "answer has no text")
        return text

    def _send(self, body: Mapping[str, Any]) -> bytes:
        with self._lock:  # requests are spaced evenly over all threads
            start = max(self._next_start, time.monotonic())
            self._next_start = start + 60.0 / self._options.per_minute
        if self.stop.wait(max(start - time.monotonic(), 0.0)):
            raise InvalidAnswer("not sent, as the run ends")
        try:
            status, headers, content = self._post(body)
        except self._failures as error:
            problem = str(error) or type(error).__name__
            # A server that has never answered is more likely a wrong URL than a lost connection.
            raise (_Busy(problem, 0.0) if self._contacted else self._unusable(problem)) from None
        self._contacted = True
        if status == 200:
            self._succeeded = True
            return content
        text = " ".join(content[:2000].decode("utf-8", "replace").split())
        problem = f"status {status}: {text.replace(self._key, '***') if self._key else text}"[:300]
        if status in _REFUSED and (self._succeeded or self._refusals < REFUSALS):
            self._refusals += 1
            raise InvalidAnswer(f"request refused with {status}")
        if status not in _REPEAT and status < 500:
            raise self._unusable(problem)
        pause = retry_after(headers.get("Retry-After"), time.time())
        if pause > self._options.max_wait:
            raise self._unusable(f"a pause of {pause:.0f} s is asked for, more than max_wait")
        raise _Busy(problem, pause)

    def _post(self, body: Mapping[str, Any]) -> tuple[int, Mapping[str, str], bytes]:
        # The time limit of httpx begins anew with every byte.
        deadline, content = time.monotonic() + self._options.timeout, b""
        with self._client.stream("POST", f"{self._options.base_url}/chat/completions", json=body) as answer:
            for piece in answer.iter_bytes(2**16):
                content += piece
                if len(content) > MAX_ANSWER:
                    break
                if time.monotonic() > deadline:
                    raise _Busy(f"the answer took longer than {self._options.timeout:g} s", 0.0)
            return answer.status_code, answer.headers, content

    def _unusable(self, problem: str) -> TrunklineError:
        self.stop.set()  # the other requests would fare no better
        return TrunklineError(
            f"{self._options.base_url}: {problem}",
            expected="a chat endpoint that answers",
            todo="Check URL, key, model and whether it wants reasoning=true; the same command goes on where it stopped",
        )


def retry_after(value: str | None, now: float) -> float:
    """The seconds that a Retry-After header asks for, given in seconds or as a date; 0 where there is none."""
    try:
        plain = (value or "0").strip().replace(".", "", 1).isdecimal()
        seconds = float(value or 0) if plain else parsedate_to_datetime(str(value)).timestamp() - now
    except (ValueError, OverflowError):
        return 0.0
    return seconds if 0 < seconds < 1e9 else 0.0
