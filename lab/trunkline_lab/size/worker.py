"""Memory and times of a deployed bundle, in the process that `size.py` starts for it. No torch.

Started as `python -m trunkline_lab.size.worker REQUEST`, with a JSON object; prints a JSON object.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trunkline.bundle.files import Bundle, open_bundle
from trunkline.bundle.parts import Task
from trunkline.engine.base import Branch, open_tokenizer
from trunkline.engine.onnx import open_session
from trunkline.errors import TrunklineError
from trunkline.model import load
from trunkline.tasks import FAMILIES
from trunkline.tasks.classification import Scored, softmax
from trunkline.text.tokens import TextTokenizer
from trunkline_lab.speed.gate import memory

TEXT = "Please send the second invoice for our order from Lisbon to Maria Alvarez before Friday, the 3rd of May. "
ROUNDS = 5


def used_memory(make: Callable[[], Callable[[], Any]]) -> tuple[dict[str, int], Any]:
    """Memory over that of the bare runtime, and what was made, which is called once.

    The bare runtime is Python with numpy, ONNX Runtime and the tokenizer's library loaded, and nothing else.
    """
    import onnxruntime  # noqa: F401
    import tokenizers  # noqa: F401

    gc.collect()
    before = memory()
    call = make()
    call()
    gc.collect()
    return {name: value - before["resident"] for name, value in memory().items()} | {"bare": before["resident"]}, call


def bundle(folder: Path, tasks: Sequence[str], lengths: Sequence[int], repeats: int) -> dict[str, Any]:
    """Memory of the runtime with all tasks used, then times of its parts."""

    def make() -> Callable[[], Any]:
        runtime = load(folder)
        return lambda: [runtime.predict([text], list(tasks)) for text in (TEXT, "Yes.")]

    used, _ = used_memory(make)
    return {"memory": used, "times": times(open_bundle(folder, verify=False), tasks, lengths, repeats)}


def separate(paths: Sequence[Sequence[str]], length: int) -> dict[str, Any]:
    """Memory of models that are each opened and run once on a text of so many tokens.

    Args:
        paths: For each model its graphs, one that computes `hidden` or `logits` after the other.
        length: Tokens.
    """

    def make() -> Callable[[], Any]:
        models = [[open_session(Path(path)) for path in graphs] for graphs in paths]

        def call() -> None:
            for model in models:
                _run_all(model, length)

        return call

    return {"memory": used_memory(make)[0]}


def times(opened: Bundle, tasks: Sequence[str], lengths: Sequence[int], repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds of processor time by length, for one text.

    `tokenizer`; `trunk`; `branch`, one pass without an adapter; `branches`, those of all tasks with their adapters and
    heads; `head`, all heads alone with decoding; `total` of tokenizer, trunk, branches and decoding.
    """
    tokenizer = open_tokenizer(opened.tokenizer, opened.manifest.encoder)
    trunk, branch = (open_session(opened.graphs[name]) for name in ("trunk", "branch"))
    groups = branches(opened, tasks)
    found = {}
    for length in lengths:
        best = {
            name: best_round(call, repeats) for name, call in _calls(tokenizer, (trunk, branch), groups, length).items()
        }
        found[str(length)] = {
            **{name: best[name] for name in ("tokenizer", "trunk", "branch", "branches")},
            "head": best["heads"] + best["decoding"],
            "total": best["tokenizer"] + best["trunk"] + best["branches"] + best["decoding"],
        }
    return found


def _calls(
    tokenizer: TextTokenizer, sessions: tuple[Any, Any], groups: Sequence[Branch], length: int
) -> dict[str, Callable[[], Any]]:
    """What is timed for a text of so many tokens, by its name."""
    trunk, branch = sessions
    text = sized(tokenizer, length)
    read = tokenizer.encode([text])[0]
    rows = _rows(length)
    states = {"hidden": trunk.run(["hidden"], rows)[0], "mask": rows["mask"]}
    given = [{**states, "pool": _pool(group, length), **group.lora, **group.heads} for group in groups]
    plain = {**states, "pool": _mean(length)}
    outputs = [branch.run(["features", "logits"], inputs) for inputs in given]
    pairs = list(zip(groups, outputs, strict=True))
    return {
        "tokenizer": lambda: tokenizer.encode([text]),
        "trunk": lambda: trunk.run(["hidden"], rows),
        "branch": lambda: branch.run(["features"], plain),
        "branches": lambda: [branch.run(["logits"], inputs) for inputs in given],
        "heads": lambda: [features[0] @ group.heads["head.weight"] for group, (features, _) in pairs],
        "decoding": lambda: [_decode(group, logits[0], read) for group, (_, logits) in pairs],
    }


def best_round(call: Callable[[], Any], repeats: int, rounds: int = ROUNDS) -> float:
    """The least of several rounds' medians, in milliseconds of processor time; other work on the machine only adds."""
    best = float("inf")
    for _ in range(rounds):
        taken = []
        for _ in range(repeats):
            began = time.process_time()
            call()
            taken.append(time.process_time() - began)
        best = min(best, statistics.median(taken))
    return 1000 * best


def branches(opened: Bundle, tasks: Sequence[str]) -> list[Branch]:
    """The passes that tasks need: one for a family's head tasks, one for each task with LoRA of its own."""
    groups: dict[tuple[str, str, str], list[Task]] = {}
    for name in tasks:
        task = opened.tasks[name]
        adapter = f"task/{name}" if task.own_lora else task.family
        groups.setdefault((adapter, task.family, task.units), []).append(task)
    return [Branch(*key, _lora(opened.inputs(members[0].name)), tuple(members)) for key, members in groups.items()]


def sized(tokenizer: TextTokenizer, length: int) -> str:
    """A text that has so many tokens, or one or two fewer where a word is of several."""
    words = (TEXT * (1 + length // 8)).split()
    count = 1
    while count < len(words) and _tokens(tokenizer, words[: count + 1]) <= length:
        count += 1
    return " ".join(words[:count])


def main(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answers a request: `bundle` or `separate`, with the arguments of these functions."""
    if request["kind"] == "separate":
        return separate(request["paths"], request["length"])
    return bundle(Path(request["folder"]), request["tasks"], request["lengths"], request["repeats"])


def _tokens(tokenizer: TextTokenizer, words: Sequence[str]) -> int:
    return len(tokenizer.encode([" ".join(words)])[0].offsets) + 2


def _lora(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if name.startswith("lora.")}


def _decode(group: Branch, logits: Any, read: Any) -> Any:
    scored, end = [], 0
    for task in group.tasks:
        begin, end = end, end + len(task.labels)
        borders = read.borders(task.units)
        units = max(1, len(borders)) if group.family == "ner" else 1
        part = softmax(logits[:units, begin:end] + task.inputs["head.bias"])
        scored.append(Scored([part], [(read.text, borders[: len(part)])], task.labels, task.transitions))
    return FAMILIES[group.family].decode(scored)


def _rows(length: int) -> dict[str, Any]:
    # Token ids have no influence on times, but those of a bundle with a small vocabulary must exist.
    return {"ids": np.ones((1, length), np.int64), "mask": np.ones((1, length), np.float32)}


def _mean(length: int) -> Any:
    return np.full((1, 1, length), 1 / length, np.float32)


def _pool(group: Branch, length: int) -> Any:
    """Each token but the special ones as a unit for entities, which is the most that there can be."""
    return _mean(length) if group.family == "classification" else np.eye(length, dtype=np.float32)[None, 1:-1]


def _run_all(sessions: Sequence[Any], length: int) -> None:
    given: dict[str, Any] = {**_rows(length), "pool": _mean(length)}
    # What models that come from transformers call the same.
    ids = given["ids"]
    given |= {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    for session in sessions:
        names = {value.name for value in session.get_inputs()}
        outputs = [value.name for value in session.get_outputs()]
        given |= dict(zip(outputs, session.run(outputs, {k: v for k, v in given.items() if k in names}), strict=True))


if __name__ == "__main__":
    try:
        answer = main(json.loads(sys.argv[1]))
    except TrunklineError as error:
        answer = {"error": [error.given, error.expected, error.todo]}
    sys.stdout.write(json.dumps(answer) + "\n")
