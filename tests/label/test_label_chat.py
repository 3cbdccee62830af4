"""Labels from a chat endpoint, against a server of the test's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from chat_server import Asked, ChatServer, Response, completion, entities_of, good, serve

from trunkline.errors import TrunklineError
from trunkline.label import label_text
from trunkline.label.chat import InvalidAnswer, parse_answer

TEXTS = ["Ann went to Oslo.", "Acme hired Ann.", "Nothing here.", "Oslo, Oslo and Osloers.", "Ann left Acme."]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.01)


def ask(server: ChatServer, texts: list[str], out: Path, **options: Any) -> dict[str, Any]:
    """As a user calls it: without consent nothing is sent."""
    settings = {"base_url": server.url, "model": "m", "sentences": 2, "timeout": 60.0}
    return label_text(texts, out, method="chat", **(settings | options))


def run(server: ChatServer, out: Path, texts: list[str] = TEXTS, **options: Any) -> dict[str, Any]:
    return ask(server, texts, out, confirm=lambda question: True, **options)


def rows(out: Path) -> list[tuple[str, list[tuple[str, str]]]]:
    records = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return [(r["text"], [(r["text"][start:end], label) for start, end, label in r["spans"]]) for r in records]


def test_labels_and_what_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "k-123")
    said: list[str] = []
    with serve() as server:
        report = run(server, tmp_path / "w.jsonl", say=said.append, key_variable="SOME_KEY")
        asked = server.asked
    assert rows(tmp_path / "w.jsonl") == [
        ("Ann went to Oslo.", [("Ann", "person"), ("Oslo", "capital city")]),
        ("Acme hired Ann.", [("Acme", "software company"), ("Ann", "person")]),
        ("Oslo, Oslo and Osloers.", [("Oslo", "capital city"), ("Oslo", "capital city")]),
        ("Ann left Acme.", [("Ann", "person"), ("Acme", "software company")]),
    ]
    assert {request.path for request in asked} == {"/v1/chat/completions"}
    assert {request.headers["Authorization"] for request in asked} == {"Bearer k-123"}
    assert {(request.body["model"], request.body["temperature"], request.body["max_tokens"]) for request in asked} == {
        ("m", 0, 1500)
    }
    assert Counter(sentence for request in asked for sentence in request.sentences) == Counter(TEXTS)
    numbers = {key: report[key] for key in ("sentences", "labelled", "spans", "concepts", "requests", "unanswered")}
    assert numbers == {"sentences": 5, "labelled": 4, "spans": 8, "concepts": 3, "requests": 3, "unanswered": 0}
    assert report["invalid"] == {}
    everything = [line.encode() for line in said] + [path.read_bytes() for path in tmp_path.iterdir()]
    assert len(everything) > 5 and not any(b"k-123" in content for content in everything)
    assert server.url in said[0] and "5 of 5 sentences" in said[0] and "in 3 requests" in said[0]


def test_nothing_is_sent_without_consent(tmp_path: Path) -> None:
    questions: list[str] = []

    def refuse(question: str) -> bool:
        questions.append(question)
        return False

    with serve() as server:
        with pytest.raises(TrunklineError, match="not confirmed, nothing was sent"):
            ask(server, TEXTS, tmp_path / "w.jsonl", confirm=refuse)
        with pytest.raises(TrunklineError, match="not confirmed"):
            ask(server, TEXTS, tmp_path / "w.jsonl")
        assert server.asked == []
    assert questions == [f"5 of 5 sentences go to {server.url} (model m) in 3 requests. Go on?"]
    assert not (tmp_path / "w.jsonl").exists()


def test_what_is_cached_is_not_asked_again(tmp_path: Path) -> None:
    out = tmp_path / "w.jsonl"
    with serve() as server:
        run(server, out, TEXTS[:3])
        first = len(server.asked)
        ask(server, TEXTS[:3], out)  # nothing is sent, so nobody is asked for consent
        assert len(server.asked) == first
        report = run(server, out, [*TEXTS, TEXTS[3]])
        assert Counter(server.sentences) == Counter(TEXTS)
        assert (report["cached"], report["requests"], report["sentences"]) == (3, 1, 6)
        run(server, out, model="other")
        assert Counter(server.sentences) == Counter([*TEXTS, *TEXTS])


def test_busy_servers_are_asked_again(tmp_path: Path) -> None:
    def rule(asked: Asked, number: int) -> Response:
        if number in (0, 2):
            return Response({"error": "slow down"}, 429, {"Retry-After": "0"})
        return Response(b"oops", 503) if number == 3 else good(asked)

    with serve(rule) as server:
        report = run(server, tmp_path / "w.jsonl", concurrency=1)
        assert len(server.asked) == 6
    assert (report["labelled"], report["requests"], report["invalid"]) == (4, 3, {})


def test_a_pause_that_is_asked_for_is_kept(tmp_path: Path) -> None:
    times: list[float] = []

    def rule(asked: Asked, number: int) -> Response:
        times.append(time.monotonic())
        return Response({}, 429, {"Retry-After": "0.3"}) if number == 0 else good(asked)

    with serve(rule) as server:
        run(server, tmp_path / "w.jsonl", concurrency=1)
    assert times[1] - times[0] >= 0.3


def test_a_pause_that_is_too_long_ends_the_run(tmp_path: Path) -> None:
    with (
        serve(lambda asked, number: Response({}, 429, {"Retry-After": "3600"})) as server,
        pytest.raises(TrunklineError, match=r"status 429.*goes on where"),
    ):
        run(server, tmp_path / "w.jsonl", concurrency=1)


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (Response(b"not json"), "answer is no chat completion"),
        (Response({"choices": []}), "answer is no chat completion"),
        (Response({"choices": [{"message": {"content": None}}]}), "answer has no text"),
        (completion("Sure! Here it is"), "answer is not JSON of the form that was asked for"),
        (completion("[" * 100_000), "answer is not JSON of the form that was asked for"),
        (completion("[]"), "answer is not JSON of the form that was asked for"),
        (completion('{"sentences": [{"id": 1}, {"id": 2}]}'), "answer is not JSON of the form that was asked for"),
        (completion('{"sentences": []}'), "answer has other sentences"),
        (completion("{}", finish_reason="length"), "answer is cut off by max_tokens"),
        (Response(b"<html></html>", headers={"Content-Type": "text/html"}), "answer is no chat completion"),
        (Response({"error": "filtered"}, 400), "request refused with 400"),
    ],
)
def test_invalid_answers_are_counted_and_asked_for_again(tmp_path: Path, response: Response, kind: str) -> None:
    out = tmp_path / "w.jsonl"
    with serve(lambda asked, number: response if number == 0 else good(asked)) as server:
        said: list[str] = []
        report = run(server, out, concurrency=1, say=said.append)
        assert (report["invalid"], report["unanswered"], report["sentences"]) == ({kind: 1}, 2, 5)
        assert "2 sentences have no valid answer" in said[-1]
        assert "Ann went to Oslo." not in [text for text, _ in rows(out)]
        again = run(server, out, concurrency=1)
    assert (again["invalid"], again["unanswered"], again["requests"]) == ({}, 0, 1)
    assert server.asked[-1].sentences == TEXTS[:2]
    assert len(rows(out)) == 4


def test_invalid_entities_are_counted_and_the_others_kept(tmp_path: Path) -> None:
    extra: list[Any] = [
        {"text": "Bob", "type": "person"}, {"text": "An", "type": "person"}, {"text": "Ann", "type": "?"},
        {"text": 3, "type": "x"}, "Ann", {"text": " ", "type": "x"}, {"text": "Ann", "type": "First Name"},
    ]  # fmt: skip

    def rule(asked: Asked, number: int) -> Response:
        answer = {"sentences": [{"id": 1, "entities": entities_of(asked.sentences[0]) + extra}]}
        return completion(f"```json\n{json.dumps(answer)}\n```")

    with serve(rule) as server:
        report = run(server, tmp_path / "w.jsonl", ["Ann went to Oslo."])
    assert rows(tmp_path / "w.jsonl")[0][1] == [("Ann", "first name"), ("Ann", "person"), ("Oslo", "capital city")]
    wanted = {"entity is not in the sentence": 2, "type is no name": 1, "entity has another form": 3}
    assert report["invalid"] == wanted


@pytest.mark.parametrize("ids", [[2, 1], [1, 1], [1], [1, 2, 3], ["1", "2"], [None, None]])
def test_each_sentence_is_answered_once_and_in_order(ids: list[Any]) -> None:
    content = json.dumps({"sentences": [{"id": number, "entities": []} for number in ids]})
    with pytest.raises(InvalidAnswer, match=r"answer (has other sentences|is not JSON of the form)"):
        parse_answer(content, 2)


@pytest.mark.parametrize(
    ("status", "times", "message"),
    [(401, 1, "status 401: .*bad key"), (404, 1, "status 404"), (302, 1, "status 302"), (500, 3, "status 500")],
)
def test_servers_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, times: int, message: str
) -> None:
    monkeypatch.setenv("SOME_KEY", "k-123")
    response = Response({"error": "bad key k-123"}, status, {"Location": "http://127.0.0.1:9/elsewhere"})
    with serve(lambda asked, number: response) as server, pytest.raises(TrunklineError, match=message) as caught:
        run(server, tmp_path / "w.jsonl", TEXTS[:2], retries=2, key_variable="SOME_KEY")
    assert len(server.asked) == times
    assert "k-123" not in str(caught.value)
    assert "***" in str(caught.value)
    assert not (tmp_path / "w.jsonl").exists()


def test_a_server_that_refuses_everything_ends_the_run(tmp_path: Path) -> None:
    with (
        serve(lambda asked, number: Response({"error": "no such parameter"}, 400)) as server,
        pytest.raises(TrunklineError, match=r"status 400: .*no such parameter"),
    ):
        run(server, tmp_path / "w.jsonl", [f"Ann {number}" for number in range(40)], sentences=1, concurrency=1)
    assert 5 <= len(server.asked) < 40


def test_no_server_and_no_answer_in_time(tmp_path: Path) -> None:
    with serve() as server:
        pass
    with pytest.raises(TrunklineError, match=r"[Rr]efused.*Expected a chat endpoint that answers"):
        run(server, tmp_path / "w.jsonl")

    def rule(asked: Asked, number: int) -> Response:
        time.sleep(0.5)
        return good(asked)

    with serve(rule) as server, pytest.raises(TrunklineError, match="timed out"):
        run(server, tmp_path / "w.jsonl", timeout=0.1, concurrency=1, retries=1)


def test_models_that_think_first_get_another_body(tmp_path: Path) -> None:
    with serve() as server:
        run(server, tmp_path / "w.jsonl", reasoning=True, max_tokens=99)
    assert {"temperature", "max_tokens"}.isdisjoint(server.asked[0].body)
    assert server.asked[0].body["max_completion_tokens"] == 99


def test_nothing_else_of_the_environment_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "a-secret")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: a-secret\nX-Key: a-secret")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with serve() as server:
        run(server, tmp_path / "w.jsonl")
    for request in server.asked:
        assert "Authorization" not in request.headers and "a-secret" not in str(request.headers)
        assert not any("stainless" in name.lower() for name in request.headers)


@pytest.mark.parametrize("value", [None, "", "two words", "tab\tin it", "schlüssel"])
def test_keys_that_cannot_be_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("SOME_KEY", value)
    with (
        serve() as server,
        pytest.raises(TrunklineError, match=r"variable SOME_KEY (is not set|holds no key)") as caught,
    ):
        run(server, tmp_path / "w.jsonl", key_variable="SOME_KEY")
    assert not value or value not in str(caught.value)


def test_an_error_keeps_what_was_answered(tmp_path: Path) -> None:
    out = tmp_path / "w.jsonl"

    def rule(asked: Asked, number: int) -> Response:
        return good(asked) if number < 2 else Response({}, 401)

    with serve(rule) as server, pytest.raises(TrunklineError, match="401"):
        run(server, out, concurrency=1)
    with serve() as server:
        report = run(server, out)
    assert server.sentences == TEXTS[4:]
    assert (report["cached"], len(rows(out))) == (4, 4)


# Shells start background jobs with SIGINT ignored, and a child of such a job would go on.
KILLED = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from trunkline.label import label_text
options = dict(base_url=sys.argv[1], model="m", sentences=1, concurrency=2)
texts = [f"Ann number {n}" for n in range(40)]
label_text(texts, sys.argv[2], method="chat", confirm=lambda question: True, **options)
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_goes_on_and_asks_nothing_twice(tmp_path: Path, sign: int) -> None:
    out, texts = tmp_path / "w.jsonl", [f"Ann number {n}" for n in range(40)]

    def slow(asked: Asked, number: int) -> Response:
        time.sleep(0.05)
        return good(asked)

    with serve(slow) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, server.url, str(out)], env=os.environ, stderr=subprocess.DEVNULL
        )
        while len(server.asked) < 10 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(sign)
        assert process.wait(120) != 0
        assert not out.exists()
    before = server.sentences
    assert 10 <= len(before) < 40
    with serve() as server:
        report = run(server, out, texts)
    # At most the two requests that were under way are lost to SIGKILL; an interrupt waits for them.
    twice = set(before) & set(server.sentences)
    assert len(twice) <= (2 if sign == signal.SIGKILL else 0)
    assert set(before) | set(server.sentences) == set(texts)
    assert (report["sentences"], report["labelled"]) == (40, 40)
    assert report["cached"] == len(before) - len(twice)


def test_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with serve() as server, pytest.raises(TrunklineError, match=r"needs the package openai.*trunkline\[label\]"):
        run(server, tmp_path / "w.jsonl")
    assert not server.asked
