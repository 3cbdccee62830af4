"""The service's routes: answers as Python gives them, limits, rights, and refusals as JSON."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

import deployed
import trunkline
from trunkline.cli import app as commands
from trunkline.encoder.bundle_files import load_any
from trunkline.errors import TrunklineError
from trunkline.model import Model
from trunkline.serve.app import make_app
from trunkline.serve.run import TOKEN, read_token
from trunkline.serve.schema import Limits

TEXTS = ["ann lives in berlin", "the old river", "", "北京 \u0301", "bob \ud800 met ann"]
FEW: dict[str, Any] = {"texts": ["ann met bob", "carla and dan", "paris", "oslo"], "labels": ["a", "a", "b", "b"]}
ALL = frozenset({"changes", "fit"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Callable[[str], Path]) -> Path:
    """A bundle with tasks; treat it as read-only."""
    loaded = deployed.whole(load_any(str(tiny_folder("bert")), fork=2, max_length=40))
    return deployed.deploy(loaded, tmp_path_factory.mktemp("serve") / "bot")


@pytest.fixture
def model(folder: Path) -> Model:
    return trunkline.load(folder)


@contextmanager
def client(model: Model, limits: dict[str, Any] | None = None, **options: Any) -> Iterator[TestClient]:
    app = make_app({model.name: model}, Limits.of(limits or {}), **options)
    with TestClient(app, "http://localhost", raise_server_exceptions=False) as found:
        yield found


def predict(service: TestClient, texts: list[Any], tasks: list[str] | None = None, **more: Any) -> Any:
    content = json.dumps({"texts": texts, "tasks": tasks, **more})
    return service.post("/v1/predict", content=content, headers={"Content-Type": "application/json"})


def refused(answer: Any, status: int, *words: str) -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "given", "expected", "todo"}
    assert all(word in error["message"] for word in words), error


def test_answers_are_those_of_python_and_a_text_may_have_its_own_tasks(model: Model) -> None:
    whole = model.predict(TEXTS)
    with client(model) as service:
        answer = predict(service, TEXTS)
        assert answer.json() == {"model": model.name, "predictions": whole}
        mixed = predict(service, [TEXTS[0], {"text": TEXTS[1], "tasks": ["tone", "tuned"]}], ["topic"]).json()
        assert [sorted(row) for row in mixed["predictions"]] == [["topic"], ["tone", "tuned"]]
        assert mixed["predictions"][0]["topic"]["label"] == whole[0]["topic"]["label"]
        assert mixed["predictions"][1]["tone"]["label"] == whole[1]["tone"]["label"]
        assert predict(service, []).json()["predictions"] == []
        assert predict(service, ["a"], []).json()["predictions"] == [{}]
        with ThreadPoolExecutor(8) as pool:
            rows = list(pool.map(lambda text: predict(service, [text]).json()["predictions"], TEXTS * 8))
        assert [row["topic"]["label"] for (row,) in rows] == [row["topic"]["label"] for row in whole] * 8
        metrics = service.get("/metrics").text
    assert 'trunkline_request_seconds_count{method="POST",route="/v1/predict",status="200"} 44.0' in metrics
    assert "trunkline_batch_texts_count" in metrics


def test_limits_and_mistakes_are_refused_as_json(model: Model) -> None:
    limits = {"texts": 2, "characters": 5, "body_bytes": 200}
    with client(model, limits) as service:
        refused(predict(service, ["a"] * 3), 422, "3 texts", "at most 2")
        refused(predict(service, ["ok", "a" * 6]), 422, "texts[1] has 6 characters", "at most 5")
        refused(predict(service, ["a"], ["topc"]), 404, "topc", "topic")
        refused(predict(service, ["a"], model="bit"), 404, "bit", "tiny")
        refused(predict(service, ["a"], task=["topic"]), 422, "task")
        refused(predict(service, [7]), 422, "texts.0")
        refused(service.post("/v1/predict", content=b'{"texts": ["', headers={"Content-Type": "application/json"}), 422)
        refused(service.post("/v1/predict", content=b'{"texts": ["a"]}'), 422, "'Content-Type: application/json'")
        refused(service.post("/v1/predict", content=b"x" * 201), 413, "201", "200")
        refused(service.post("/v1/predict", content=(b"x" * 50 for _ in range(9))), 413, "200")
        refused(service.get("/v1/predict"), 405)
        assert service.post("/v1/tasks/topic").headers["Allow"] == "DELETE, GET, PUT"
        refused(service.get("/nothing"), 404)
        refused(service.post("/v1/fit", json={"name": "new", **FEW}), 403, "--allow-fit")
        refused(service.delete("/v1/tasks/topic"), 403, "--allow-changes")
        refused(service.get("/v1/tasks/topic"), 403, "--allow-changes")
        schemas = service.get("/openapi.json").json()["components"]["schemas"]
    texts = schemas["PredictRequest"]["properties"]["texts"]
    assert texts["maxItems"] == 2
    assert texts["items"]["anyOf"][0]["maxLength"] == 5
    assert texts["examples"]


def test_only_this_machine_or_a_token_is_answered(model: Model) -> None:
    with client(model) as service:
        refused(service.get("/v1/tasks", headers={"Host": "evil.example:80"}), 403, "evil.example", "localhost")
        assert service.get("/v1/tasks", headers={"Host": "[::1]:8000"}).status_code == 200
    with client(model, token="a" * 20) as service:
        refused(service.get("/v1/tasks"), 401, "Authorization: Bearer")
        assert service.get("/v1/tasks", headers={"Authorization": "Bearer " + "a" * 19}).status_code == 401
        right = {"Authorization": "Bearer " + "a" * 20, "Host": "other.example"}
        assert service.get("/v1/tasks", headers=right).status_code == 200
        assert [service.get(f"/health{end}").json()["status"] for end in ("", "/live", "/ready")] == ["ok"] * 3


def test_tasks_are_learnt_fetched_removed_and_added(model: Model, tmp_path: Path) -> None:
    with client(model, {"examples": 4}, rights=ALL) as service:
        report = service.post("/v1/fit", json={"name": "new", **FEW}).json()
        assert (report["family"], report["labels"], report["seconds"] < 5) == ("classification", ["a", "b"], True)
        spans = [[{"start": 0, "end": 3, "label": "who"}], [], [], []]
        assert service.post("/v1/fit", json={"name": "who", **FEW, "labels": spans}).json()["family"] == "ner"
        refused(service.post("/v1/fit", json={"name": "new", **FEW}), 409, "new")
        refused(service.post("/v1/fit", json={"name": "x", "texts": ["a"], "labels": []}), 422, "1 texts and 0 labels")
        refused(service.post("/v1/fit", json={"name": "x", "texts": ["a"] * 5, "labels": []}), 422, "at most 4")
        content = service.get("/v1/tasks/new").content
        left = service.delete("/v1/tasks/new").json()["tasks"]
        assert "new" not in [task["name"] for task in left]
        refused(service.delete("/v1/tasks/new"), 404, "new")
        refused(predict(service, ["a"], ["new"]), 404)
        shown = service.put("/v1/tasks/again", content=content).json()["tasks"]
        assert next(task["labels"] for task in shown if task["name"] == "again") == ["a", "b"]
        refused(service.put("/v1/tasks/again", content=content), 409, "replace")
        assert service.put("/v1/tasks/again?replace=true", content=content).status_code == 200
        refused(service.put("/v1/tasks/bad", content=b"no file"), 422, "safetensors")
        refused(service.put("/v1/tasks/-", content=content), 422, "path.task")
        assert predict(service, ["ann met bob"], ["again"]).json()["predictions"][0]["again"]["label"] == "a"
    assert "again" not in trunkline.load(model.folder).tasks


def test_saved_changes_are_in_the_bundle_or_nowhere(model: Model, tmp_path: Path, monkeypatch: Any) -> None:
    model.save(tmp_path / "own")
    with client(model, rights=ALL | {"save"}) as service:
        assert service.post("/v1/fit", json={"name": "new", **FEW}).status_code == 200
        assert "new" in trunkline.load(tmp_path / "own").tasks

        def full(*_: Any) -> None:
            raise TrunklineError("the disk is full")

        monkeypatch.setattr(Model, "save", full)
        refused(service.delete("/v1/tasks/new"), 422, "the disk is full")
        assert "new" in model.tasks


def test_tasks_change_while_requests_run(model: Model) -> None:
    first, second = (model._predictor.tasks[name].content for name in ("topic", "tone"))
    stop = threading.Event()
    with client(model, rights=ALL) as service, ThreadPoolExecutor(4) as pool:

        def ask() -> set[tuple[str, ...]]:
            seen = set()
            while not stop.is_set():
                answer = predict(service, ["ann lives in berlin"])
                assert answer.status_code == 200, answer.text
                (row,) = answer.json()["predictions"]
                seen.add(tuple(sorted(row["swap"]["probabilities"])) if "swap" in row else ())
            return seen

        runs = [pool.submit(ask) for _ in range(3)]
        for number in range(30):
            content = (first, second)[number % 2]
            assert service.put("/v1/tasks/swap?replace=true", content=content).status_code == 200
        stop.set()
        seen = set().union(*(run.result() for run in runs))
    assert seen <= {(), ("a", "b", "ü"), ("bad", "good")}
    assert len(seen) > 1


def test_too_much_that_waits_is_429_and_too_late_is_504(model: Model, monkeypatch: Any) -> None:
    began, go, whole = threading.Event(), threading.Event(), model.predict

    def slow(texts: list[str], tasks: Any) -> Any:
        began.set()
        go.wait(20)
        return whole(texts, tasks)

    monkeypatch.setattr(model, "predict", slow)
    with client(model, {"queue": 2, "texts": 2, "seconds": 1}, threads=1) as service, ThreadPoolExecutor(2) as pool:
        first = pool.submit(predict, service, ["a"])
        assert began.wait(5)
        second = pool.submit(predict, service, ["b", "c"])
        while service.get("/health").json()["status"] != "full":
            pass
        answer = predict(service, ["d"])
        refused(answer, 429, "2 texts wait")
        assert answer.headers["Retry-After"] == "1"
        assert service.get("/health/live").status_code == 200
        assert service.get("/health/ready").status_code == 503
        refused(first.result(), 504, "1 seconds")
        refused(second.result(), 504, "1 seconds")
        go.set()
        while service.get("/health").json()["waiting"]:
            pass
        assert predict(service, ["ann"]).json()["predictions"] == whole(["ann"])


def test_the_fault_of_a_text_is_its_own(model: Model, monkeypatch: Any) -> None:
    began, go, whole = threading.Event(), threading.Event(), model.predict

    def picky(texts: list[str], tasks: Any) -> Any:
        began.set()
        go.wait(20)
        if "bad" in texts:
            raise TrunklineError("a bad text")
        if "bug" in texts:
            raise ZeroDivisionError
        return whole(texts, tasks)

    monkeypatch.setattr(model, "predict", picky)
    with client(model, threads=1) as service, ThreadPoolExecutor(5) as pool:
        texts = ["first", "bad", "ann", "bug", "bob"]
        answers = [pool.submit(predict, service, texts[:1])]
        assert began.wait(5)
        answers += [pool.submit(predict, service, [text]) for text in texts[1:]]
        while service.get("/health").json()["waiting"] < len(texts) - 1:
            pass
        go.set()
        assert [one.result().status_code for one in answers] == [200, 422, 200, 500, 200]
        refused(answers[1].result(), 422, "a bad text")
        refused(answers[3].result(), 500, "a bug of trunkline")
        assert answers[2].result().json()["predictions"] == whole(["ann"])


def test_what_cannot_be_started_is_refused(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    for options, words in {
        ("--host", "0.0.0.0"): "there is no token for the address 0.0.0.0",
        ("--set", "texts=0"): "texts: Input should be greater than 0",
        ("--set", "queue=1"): "at most queue=1",
        ("--set", "text=1"): "did you mean 'texts'",
        (str(folder),): "both called tiny",
    }.items():
        result = CliRunner().invoke(commands, ["serve", str(folder), *options])
        assert isinstance(result.exception, TrunklineError), result.output
        assert words in str(result.exception)
    short, right = tmp_path / "short", tmp_path / "right"
    short.write_text("abc\n")
    right.write_text("a" * 32 + "\n")
    assert read_token(right, "0.0.0.0") == "a" * 32
    assert [read_token(None, host) for host in ("127.0.0.2", "::1", "localhost")] == [""] * 3
    for file in (short, tmp_path / "none"):
        with pytest.raises(TrunklineError, match="token"):
            read_token(file, "127.0.0.1")
    os.environ[TOKEN] = "b" * 16
    assert read_token(None, "10.0.0.1") == "b" * 16
    del os.environ[TOKEN]
