"""The application: routes over models, and every refusal as JSON."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.exceptions import HTTPException

from trunkline import __version__
from trunkline.engine.base import chosen_tasks
from trunkline.errors import TrunklineError
from trunkline.model import Model
from trunkline.serve.batches import Batches
from trunkline.serve.guard import BUSY, Guard, Refused, answer, refusal
from trunkline.serve.schema import FitRequest, Limits, Name, PredictRequest, PredictResponse, Problem, problems

REFUSALS = (400, 401, 403, 404, 405, 408, 409, 413, 422, 429, 500, 503, 504)
SECONDS = (0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.2, 0.5, 1, 5, 30)
"""Buckets of a histogram."""

FILE: dict[str, Any] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


class Service:
    """Models with their queue; made by `make_app`."""

    def __init__(self, models: Mapping[str, Model], limits: Limits, rights: Set[str], threads: int) -> None:
        self.models, self.limits, self.rights, self._threads = models, limits, rights, threads
        self._changes = ThreadPoolExecutor(1)
        self.batches: Batches
        self.registry = one = CollectorRegistry()
        ProcessCollector(registry=one)
        Gauge("trunkline_waiting_texts", "Texts that wait.", registry=one).set_function(lambda: len(self.batches.line))
        self._texts = Histogram("trunkline_batch_texts", "Of a batch.", registry=one, buckets=(1, 2, 4, 8, 16, 32))
        route = ("method", "route", "status")
        self.seconds = Histogram("trunkline_request_seconds", "0: cut.", route, registry=one, buckets=SECONDS)

    @asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncIterator[None]:
        """The threads run as long as the application."""
        self.batches = Batches(self.limits.batch, self._threads, self._texts.observe)
        yield
        await asyncio.to_thread(self.batches.pool.shutdown)

    def model(self, name: str | None) -> tuple[str, Model]:
        """A model by name, or the only one."""
        chosen = next(iter(self.models)) if name is None and len(self.models) == 1 else name or ""
        if chosen not in self.models:
            given = "no model was named" if name is None else f"there is no model {name[:100]!r}"
            raise Refused(422 if name is None else 404, given, expected="one of " + ", ".join(self.models))
        return chosen, self.models[chosen]

    def check(self, texts: list[str], most: int) -> None:
        """Refuses texts that are too many or too long."""
        if len(texts) > most:
            raise Refused(422, f"{len(texts)} texts", expected=f"at most {most}", todo="Send several requests")
        for number, text in enumerate(texts):
            if len(text) > self.limits.characters:
                given = f"texts[{number}] has {len(text)} characters"
                raise Refused(422, given, expected=f"at most {self.limits.characters}", todo="Split it")

    def allow(self, *rights: str) -> None:
        """Refuses what needs one of these rights."""
        if not self.rights & set(rights):
            raise Refused(403, "this service does not do that", todo=f"Start it with --allow-{rights[0]}")

    async def change(self, model: Model, name: str, replace: bool, change: Callable[[], Any]) -> Any:
        """Changes a task in memory and, with the right `save`, in the bundle: both or neither, one change at a time."""

        def work() -> Any:
            before = model._predictor.tasks
            if name in before and not replace:
                todo = "Pass replace=true, or take another name"
                raise Refused(409, f"there is a task {name} already", todo=todo)
            try:
                found = change()
                if "save" in self.rights:
                    model.save(model.folder)
            except BaseException:
                model._predictor.tasks = before
                raise
            return found

        return await asyncio.get_running_loop().run_in_executor(self._changes, work)


def _service(request: Request) -> Any:
    return request.app.state.service


Served = Annotated[Service, Depends(_service)]
router = APIRouter(responses={status: {"model": Problem} for status in REFUSALS})


@router.get("/health/live", tags=["health"])
@router.get("/health/ready", tags=["health"])
@router.get("/health", tags=["health"])
async def health(service: Served, request: Request) -> Any:
    """Status 503 while the queue is full, but for `/health/live`."""
    waiting = len(service.batches.line)
    full = waiting >= service.limits.queue and not request.url.path.endswith("/live")
    shown = {"status": "full" if full else "ok", "models": list(service.models), "waiting": waiting}
    return answer(shown, 503 if full else 200)


@router.get("/metrics", responses={200: {"content": {"text/plain": {}}}})
async def metrics(service: Served) -> Response:
    """Requests, times, batches, the queue and the process, for Prometheus."""
    return Response(generate_latest(service.registry), media_type="text/plain; version=0.0.4")


@router.post("/v1/predict", response_model=PredictResponse)
async def predict(body: PredictRequest, service: Served) -> Any:
    """Run tasks on texts. The tasks of a text share one pass through the trunk, and requests share batches."""
    (name, model), limits = service.model(body.model), service.limits
    texts = [item if isinstance(item, str) else item.text for item in body.texts]
    service.check(texts, limits.texts)
    there = model.tasks
    default = tuple(there if body.tasks is None else body.tasks)
    tasks = [default if isinstance(item, str) else tuple(item.tasks) for item in body.texts]
    for chosen in {default, *tasks}:
        _known(there, chosen)
    if (waiting := len(service.batches.line)) + len(texts) > limits.queue:
        given = f"{waiting} texts wait"
        raise Refused(429, given, expected=f"at most {limits.queue}", todo="Try later", headers=BUSY)
    found = await service.batches.submit(model, zip(texts, tasks, strict=True))
    return answer({"model": name, "predictions": found})


@router.get("/v1/tasks")
async def list_tasks(service: Served, model: str | None = None) -> dict[str, Any]:
    """The tasks of a model, with their labels and the bytes of their files."""
    name, found = service.model(model)
    tasks = found._predictor.tasks.values()
    shown = [{"name": one.name, "family": one.family, "labels": one.types, "bytes": len(one.content)} for one in tasks]
    return {"model": name, "tasks": shown}


@router.get("/v1/tasks/{task}", responses={200: {"content": FILE}}, response_class=Response)
async def fetch_task(task: Name, service: Served, model: str | None = None) -> Response:
    """A task's file, which `trunkline bundle add` takes; needs a right to change tasks."""
    service.allow("changes", "fit")
    tasks = service.model(model)[1]._predictor.tasks
    _known(tasks, [task])
    return Response(tasks[task].content, media_type="application/octet-stream")


@router.put("/v1/tasks/{task}", openapi_extra={"requestBody": {"required": True, "content": FILE}})
async def put_task(
    task: Name, service: Served, request: Request, model: str | None = None, replace: bool = False
) -> Any:
    """Add or replace a task by its file. Requests that run go on with what was there."""
    service.allow("changes")
    (name, found), content = service.model(model), await request.body()
    await service.change(found, task, replace, lambda: found.add(task, content, replace=replace))
    return await list_tasks(service, name)


@router.delete("/v1/tasks/{task}")
async def delete_task(task: Name, service: Served, model: str | None = None) -> Any:
    """Remove a task. Requests that run go on with what was there."""
    service.allow("changes")
    name, found = service.model(model)
    _known(found.tasks, [task])
    await service.change(found, task, True, lambda: found.remove(task))
    return await list_tasks(service, name)


@router.post("/v1/fit")
async def fit(body: FitRequest, service: Served) -> dict[str, Any]:
    """Learn a task from labelled texts: a head, cross-validated. The answer is that of `trunkline fit --json`."""
    service.allow("fit")
    found, asked = service.model(body.model)[1], body.model_dump(exclude={"model"})
    service.check(body.texts, service.limits.examples)
    report = await service.change(found, body.name, body.replace, lambda: found.fit(**asked))
    return dict(report.to_dict())


def _known(there: Mapping[str, Any], tasks: Any) -> None:
    try:
        chosen_tasks(tasks, there)
    except TrunklineError as error:
        raise Refused(404, error.given, expected=error.expected) from error


async def _refuse(request: Request, error: Exception) -> Response:
    if isinstance(error, RequestValidationError):
        todo = "See /openapi.json"
        if request.method == "POST" and "json" not in request.headers.get("content-type", ""):
            todo = f"Send it with the header 'Content-Type: application/json'. {todo}"
        error = Refused(422, "; ".join(problems(error.errors())), todo=todo)
    elif isinstance(error, HTTPException):
        headers, routes = error.headers, [route for route in router.routes if isinstance(route, APIRoute)]
        if error.status_code == 405:
            # Starlette names the methods of the first route of a path alone.
            methods = (route.methods or () for route in routes if route.path_regex.match(request.url.path))
            headers = {"Allow": ", ".join(sorted(set[str]().union(*methods)))}
        error = Refused(error.status_code, str(error.detail), headers=headers)
    elif not isinstance(error, TrunklineError):
        error = Refused(500, "this is a bug of trunkline", todo="The service's log says more")
    return refusal(error)


def make_app(
    models: Mapping[str, Model], limits: Limits, *, token: str = "", rights: Set[str] = frozenset(), threads: int = 2
) -> FastAPI:
    """The application, for any ASGI server, and for tests.

    `models` are by the names that requests use, `rights` are some of `changes`, `fit` and `save`. Without a token only
    names of this machine are answered to.
    """
    service, quiet = Service(models, limits, rights, threads), {"tracing": False, "metrics": False, "logs": False}
    # Pages with forms would load scripts from elsewhere.
    off: Any = {"docs_url": None, "redoc_url": None, "telemetry": quiet}
    app = FastAPI(title="trunkline", version=__version__, lifespan=service.running, **off)
    app.state.service = service
    app.include_router(router)
    app.add_middleware(Guard, limits=limits, token=token, observe=service.seconds)
    for kind in (TrunklineError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _refuse)
    document = app.openapi()
    of: Any = {name: schema.get("properties") for name, schema in document["components"]["schemas"].items()}
    of["PredictRequest"]["texts"]["maxItems"], of["FitRequest"]["texts"]["maxItems"] = limits.texts, limits.examples
    plain, labelled = of["PredictRequest"]["texts"]["items"]["anyOf"][0], of["FitRequest"]["texts"]["items"]
    for text in (plain, labelled, of["TextForTasks"]["text"]):
        text["maxLength"] = limits.characters
    if token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return app
