"""What rounding costs: cosine of tokens, and scores of real tasks, beside float32."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trunkline.bundle.lora import SLOTS, fuse
from trunkline.config import AdaptSection
from trunkline.encoder.bundle_files import Loaded, load_bundle
from trunkline.engine.session import open_session
from trunkline.export.graph import Kernels, branch_graph, trunk_graph
from trunkline.export.quantise import PLANS, calibrate, quantised_kernels
from trunkline.export.weights import take_weights
from trunkline.text.examples import Example
from trunkline_lab.data.cards import load_card
from trunkline_lab.deployment_formats import adapter_tensors, to_half
from trunkline_lab.fitting import TaskData
from trunkline_lab.quantise.measure import Check, compare, mean_cosine, reference
from trunkline_lab.quantise.simulate import quantised_encoder
from trunkline_lab.speed.deployment.options import Options

SPARE = (
    "wnut17",
    "conll2003",
    "mit_restaurant",
    "snips_slots",
    "trec",
    "sst2",
    "banking77",
    "tweeteval_emotion",
)
SAMPLE = ("sample_events", "sample_orders", "sample_intents", "sample_triage")
CALIBRATION, COMPARED = 160, 60
"""Texts that factors are taken from, and other texts that tokens are compared on."""
WANTED = {"cosine": 0.997, "points": 0.3}

Say = Callable[[str], None]


def measure_fidelity(options: Options, say: Say) -> dict[str, Any]:
    """Cosine of tokens by plan and adapter; scores of tasks by torch in float32 and by the rounded graphs."""
    start = load_bundle(Path(options.bundle).expanduser())
    spare = [name for name in SPARE if {"train", "dev"} <= set(load_card(name).splits_here())]
    cards = spare or list(SAMPLE)
    data, judged = zip(*(_task(name, options) for name in cards), strict=True)
    seen_texts = _texts([task.train for task in data], CALIBRATION)
    other = _texts(judged, COMPARED)
    loras = [adapter.lora for adapter in start.primaries.values() if adapter.lora is not None]
    seen = calibrate(start.encoder, start.tokenizer, seen_texts, loras, moments=True)
    say(f"calibrated on {seen.tokens} tokens of {', '.join(cards)}")
    weights = take_weights(start.encoder)
    graphs = {"float32": _open(weights, Kernels())}
    for name in ("int8", "int4"):
        graphs[name] = _open(*quantised_kernels(weights, PLANS[name], seen))
    cosines = {
        name: {adapter: _cosine(graphs["float32"], pair, start, other, adapter) for adapter in ("", *start.primaries)}
        for name, pair in graphs.items()
        if name != "float32"
    }
    cosines["quantize_dynamic"] = {"": _standard_cosine(options, start, other)}
    say(f"cosines {cosines}")
    rows = _scores(start, list(zip(data, judged, strict=True)), graphs, seen, say)
    return {
        "data": cards,
        "real": bool(spare),
        "calibration_texts": len(seen_texts),
        "compared_texts": len(other),
        "cosine": cosines,
        "tasks": rows,
        "ratios": _asked(cosines, rows),
    }


def _scores(
    start: Loaded, data: Sequence[tuple[TaskData, Sequence[Example]]], graphs: Any, seen: Any, say: Say
) -> list[dict[str, Any]]:
    section = AdaptSection()
    rounded = quantised_encoder(start, PLANS["int4"], seen)
    rows = []
    for task, judged in data:
        adapter = adapt(task, start, section).adapter
        own = adapt(task, rounded, section).adapter
        checks = {
            "int8": Check(task.name, adapter, judged),
            "int4": Check(task.name, adapter, judged),
            "int4, adapted on it": Check(task.name, adapter, judged, own),
        }
        known = reference(start, checks["int8"])
        for name, check in checks.items():
            found = compare(*graphs[name.partition(",")[0]], start, check, known)
            rows.append(
                {
                    "task": task.name,
                    "family": task.family,
                    "weights": name,
                    "metric": found.metric,
                    "examples": found.examples,
                    "float32": found.before,
                    "rounded": found.after,
                    "points": -found.drop,
                    "agreement": found.agreement,
                }
            )
        say(f"{task.name}: {rows[-3]['float32']:.4f}, int8 {rows[-3]['points']:+.2f}, int4 {rows[-1]['points']:+.2f}")
    return rows


def _asked(cosines: Any, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    least = min(cosines["int8"].values())
    asked = [{"what": "least cosine of tokens, int8", "median": least, "at_least": WANTED["cosine"]}]
    for name in ("int8", "int4, adapted on it"):
        drops = [-row["points"] for row in rows if row["weights"] == name]
        limit = WANTED["points"] if name == "int8" else 0.5
        asked += [
            {
                "what": f"mean loss in points over {len(drops)} tasks, {name}",
                "median": float(np.mean(drops)),
                "at_most": limit,
            },
            {"what": f"largest loss of a task in points, {name}", "median": max(drops), "at_most": limit},
        ]
    for row in asked:
        row["met"] = row["median"] >= row["at_least"] if "at_least" in row else row["median"] <= row["at_most"]
    return asked


def _open(weights: Any, kernels: Any) -> tuple[Any, Any]:
    return (
        open_session(trunk_graph(weights, kernels)),
        open_session(branch_graph(weights, "optional", tuple(SLOTS), kernels)),
    )


def _cosine(left: Any, right: Any, start: Loaded, texts: Sequence[str], adapter: str) -> float:
    lora = start.primary(adapter) if adapter else None
    feeds = fuse(to_half(adapter_tensors(lora))) if lora is not None else {}
    return mean_cosine(*([_tokens(pair, ids, feeds) for ids in _ids(start, texts)] for pair in (left, right)))


def _tokens(pair: Any, ids: Any, feeds: Any) -> Any:
    trunk, branch = pair
    mask = np.ones(ids.shape, np.float32)
    hidden = trunk.run(["hidden"], {"ids": ids, "mask": mask})[0]
    pool = np.eye(ids.shape[1], dtype=np.float32)[None]
    return branch.run(["features"], {"hidden": hidden, "mask": mask, "pool": pool, **feeds})[0][0]


def _standard_cosine(options: Options, start: Loaded, texts: Sequence[str]) -> float:
    import onnxruntime

    folder = options.place("standard")
    found = []
    for name in ("float32", "int8"):
        session = onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), providers=["CPUExecutionProvider"])
        found.append(
            [
                session.run(
                    ["states"],
                    {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)},
                )[0][0]
                for ids in _ids(start, texts)
            ]
        )
    return mean_cosine(*found)


def _ids(start: Loaded, texts: Sequence[str]) -> list[Any]:
    return [tokens.windows[0].ids[None].astype(np.int64) for tokens in start.tokenizer.encode(list(texts))]


def _task(name: str, options: Options) -> tuple[TaskData, Sequence[Example]]:
    """What a task is adapted from, and the examples of its dev part that it is judged on, the former's among them."""
    card = load_card(name)
    chosen = random.Random(0)

    def some(split: str, count: int) -> list[Any]:
        examples = list(card.load(split))
        return chosen.sample(examples, min(count, len(examples)))

    train, judged = some("train", options.limit), some("dev", max(options.judged, options.limit // 2))
    return TaskData(name, card.family, train, judged[: options.limit // 2]), judged


def _texts(parts: Sequence[Sequence[Any]], count: int) -> list[str]:
    each = -(-count // len(parts))
    return [example.text for part in parts for example in part[:each]][:count]
