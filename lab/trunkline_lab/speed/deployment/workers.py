"""Cases in ONNX Runtime. None imports torch."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import cycle
from typing import Any

import numpy as np

from trunkline.bundle.files import Bundle, open_bundle
from trunkline.bundle.parts import read_task
from trunkline.engine.onnx import bank as banked
from trunkline.engine.onnx import open_session
from trunkline.errors import TrunklineError
from trunkline.model import load
from trunkline_lab.speed.deployment.cases import EIGHT, Options, read_rows
from trunkline_lab.speed.side_by_side import Missing

Call = Callable[[], Any]
FORKED, LOW_BANK = "forked-int8", "low-bank"


def passes(options: Options, *, bundle: str, task: str, lora: int = 1) -> Call:
    """Trunk and branch of one row; `lora` times the task's rank."""
    opened, trunk, branch = _sessions(options, bundle)
    rows = _rows(options)
    feeds = times_rank(opened.inputs(task), lora)
    check_rank(feeds, lora)
    pool = _words(rows)

    def call() -> Any:
        hidden = trunk.run(["hidden"], rows)[0]
        return branch.run(["logits"], {"hidden": hidden, "mask": rows["mask"], "pool": pool, **feeds})[0]

    return call


def heads(options: Options) -> Call:
    """Eight heads on one text: a trunk, and a branch a family with its heads side by side."""
    opened, trunk, branch = _sessions(options, FORKED)
    rows = _rows(options)
    groups: list[dict[str, Any]] = []
    for family, pool in (("ner", _words(rows)), ("classification", _whole(rows))):
        tasks = [opened.tasks[f"head-{n}"] for n in range(EIGHT) if opened.tasks[f"head-{n}"].family == family]
        groups.append({**opened.primaries[family].inputs, **_joined([task.inputs for task in tasks]), "pool": pool})

    def call() -> Any:
        hidden = trunk.run(["hidden"], rows)[0]
        return [branch.run(["logits"], {"hidden": hidden, "mask": rows["mask"], **feeds}) for feeds in groups]

    return call


def loras(options: Options, *, bank: bool) -> Call:
    """Eight tasks with LoRA of their own on one text, a branch each, or as rows of the bank graph."""
    opened, trunk, branch = _sessions(options, FORKED)
    rows = _rows(options)
    tasks = [opened.tasks[f"lora-{n}"] for n in range(EIGHT)]
    pools = [_words(rows) if task.family == "ner" else _whole(rows) for task in tasks]
    if not bank:
        feeds = [{**task.inputs, "pool": pool} for task, pool in zip(tasks, pools, strict=True)]

        def call() -> Any:
            hidden = trunk.run(["hidden"], rows)[0]
            return [branch.run(["logits"], {"hidden": hidden, "mask": rows["mask"], **part}) for part in feeds]

        return call
    most = max(pool.shape[1] for pool in pools)
    pool = np.concatenate([np.pad(part, ((0, 0), (0, most - part.shape[1]), (0, 0))) for part in pools])
    units = [part.shape[1] for part in pools]
    run = _banked(opened, [f"lora-{n}" for n in range(EIGHT)], units)
    mask = np.repeat(rows["mask"], EIGHT, axis=0)
    return lambda: run(np.repeat(trunk.run(["hidden"], rows)[0], EIGHT, axis=0), mask, pool)


def rows(options: Options, *, adapters: int) -> Call:
    """Eight rows with no, one or eight adapters; these through the bank graph, each with its own head."""
    opened, trunk, branch = _sessions(options, LOW_BANK)
    given = _rows(options, EIGHT)
    pool, mask = _words(given), given["mask"]
    if adapters > 1:
        run = _banked(opened, [f"task-{n:02}" for n in range(EIGHT)], [pool.shape[1]] * EIGHT)
        return lambda: run(trunk.run(["hidden"], given)[0], mask, pool)
    feeds = times_rank(opened.inputs("task-00"), adapters)

    def call() -> Any:
        hidden = trunk.run(["hidden"], given)[0]
        return branch.run(["logits"], {"hidden": hidden, "mask": mask, "pool": pool, **feeds})[0]

    return call


def merged(options: Options, *, count: int = 1) -> Call:
    """Our merged export, as often as there are tasks: each a session of its own."""
    sessions = [open_session(options.place("merged-int8") / "model.onnx") for _ in range(count)]
    given = _rows(options)
    feeds = {**given, "pool": _words(given)}
    return lambda: [session.run(["logits"], feeds)[0] for session in sessions]


def standard(options: Options, *, count: int = 1) -> Call:
    """Models of `quantize_dynamic` in sessions of ONNX Runtime's defaults, but for one thread."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    path = str(options.place("standard") / "int8.onnx")
    sessions = [onnxruntime.InferenceSession(path, settings, ["CPUExecutionProvider"]) for _ in range(count)]
    ids, _ = read_rows(options)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return lambda: [session.run(["logits"], feeds)[0] for session in sessions]


def switch(options: Options) -> Call:
    """Reading a task's file, of eight in turn, up to what the branch is fed."""
    opened = open_bundle(options.place("low-int8"), verify=False)
    manifest = opened.manifest
    places = cycle((opened.folder / entry.file, name) for name, entry in sorted(manifest.tasks.items())[:EIGHT])

    def call() -> Any:
        path, name = next(places)
        return read_task(path, manifest, name)

    return call


def predict(options: Options, *, tasks: Sequence[str]) -> Call:
    """The model from text to predictions."""
    model = load(options.place(FORKED))
    _, texts = read_rows(options)
    return lambda: model.predict(texts, tasks)


def litert(options: Options) -> Callable[[], float]:
    """Milliseconds of trunk and branch: as `best_round`, measured in the process that has LiteRT."""
    if not options.place("litert").is_dir():
        raise Missing("no LiteRT files were made (--litert-python)")
    from trunkline_lab.litert.export import open_litert

    stack = ExitStack()
    atexit.register(stack.close)
    try:
        process = stack.enter_context(open_litert(options.place("litert"), python=options.litert_python or None))
    except TrunklineError as error:
        raise Missing(str(error)) from error
    process.seconds(options.length, 20)
    return lambda: 1000 * sum(process.seconds(options.length, 50).values())


def times_rank(feeds: dict[str, Any], lora: int) -> dict[str, Any]:
    """The feeds with a rank so many times as high; 0 leaves the adapter out."""
    found = {}
    for name, value in feeds.items():
        if not name.startswith("lora."):
            found[name] = value
        elif lora:
            found[name] = np.ascontiguousarray(np.concatenate([value] * lora, axis=1 if name.endswith(".a") else 0))
    return found


def check_rank(feeds: dict[str, Any], lora: int) -> None:
    """Raises SystemExit where a case with LoRA has none, or the other way round."""
    if bool(lora) != any(name.startswith("lora.") for name in feeds):
        raise SystemExit("the task has no LoRA, so that this would measure nothing")


def _sessions(options: Options, bundle: str) -> tuple[Bundle, Any, Any]:
    opened = open_bundle(options.place(bundle), verify=False)
    return opened, open_session(opened.graphs["trunk"]), open_session(opened.graphs["branch"])


def _rows(options: Options, count: int = 1) -> dict[str, Any]:
    ids, _ = read_rows(options, count)
    return {"ids": ids, "mask": np.ones(ids.shape, np.float32)}


def _words(rows: dict[str, Any]) -> Any:
    """Each token but the special ones as a unit, the most that a text can have."""
    count, width = rows["ids"].shape
    return np.ascontiguousarray(np.broadcast_to(np.eye(width, dtype=np.float32)[1:-1], (count, width - 2, width)))


def _whole(rows: dict[str, Any]) -> Any:
    """The text as a unit."""
    count, width = rows["ids"].shape
    return np.full((count, 1, width), 1 / width, np.float32)


def _joined(feeds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "head.weight": np.concatenate([part["head.weight"] for part in feeds], axis=1),
        "head.bias": np.concatenate([part["head.bias"] for part in feeds]),
    }


def _banked(opened: Bundle, names: Sequence[str], units: Sequence[int]) -> Callable[[Any, Any, Any], Any]:
    """The bank graph, a row an adapter, and each row's head behind it."""
    session = open_session(opened.graphs["branch-bank"])
    tasks = [opened.tasks[name] for name in names]
    hidden = opened.manifest.encoder.hidden_size
    adapters = [{key: value for key, value in task.inputs.items() if key.startswith("lora.")} for task in tasks]
    feeds: dict[str, Any] = banked(adapters, opened.manifest.shapes)
    feeds |= {"head.weight": np.zeros((hidden, 0), np.float32), "head.bias": np.zeros(0, np.float32)}
    feeds["adapter_ids"] = np.arange(len(tasks))

    def run(states: Any, mask: Any, pool: Any) -> Any:
        features = session.run(["features"], {"hidden": states, "mask": mask, "pool": pool, **feeds})[0]
        return [
            part[:count] @ task.inputs["head.weight"] + task.inputs["head.bias"]
            for part, count, task in zip(features, units, tasks, strict=True)
        ]

    return run
