"""What `benchmark.py` measures, a function a section.

What is calibrated on and what is measured on are parts of different data sets; what settings are chosen on and what is
judged by are different halves of a dev part.
"""

from __future__ import annotations

import json
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from trunkline.bundle.manifest import LORA_TARGETS
from trunkline.encoder.bundle_files import Loaded, load_any, save_bundle
from trunkline.engine.onnx import open_session
from trunkline.engine.rounding import round_int8
from trunkline.export.bundle import ExportOptions, export_bundle
from trunkline.export.graph import branch_graph, trunk_graph
from trunkline.export.vocabulary import prune_vocabulary
from trunkline.export.weights import PLANS, BackboneWeights, Calibration, Plan, calibrate, quantised, take_weights
from trunkline.model import Model, load
from trunkline.tasks import FAMILIES
from trunkline.text.tokens import UnitText, text_unit
from trunkline_lab.benchmark.inputs import load_task
from trunkline_lab.data.cards import load_card
from trunkline_lab.data.sample import draw
from trunkline_lab.deployment_formats import adapter_inputs
from trunkline_lab.resampling import counts_of, interval, resample, score_of_counts

Found = dict[str, Any]

CALIBRATION = ("conll2003", "snips_slots", "banking77", "sst2")
CORPUS = (*CALIBRATION, "wnut17", "trec")
NER = ("crossner_ai", "crossner_science", "atis_slots", "hwu64_slots")
CLASSIFICATION = ("subj", "cr", "tweeteval_irony", "tweeteval_hate")
LONG = "state_union"
RUN_STEPS = Plan(per_token=())
FITTED = "{}, fitted on it"
COSINE_PLANS: Mapping[str, Plan] = {
    "float32": PLANS["float32"],
    "int8, no smoothing, one step a run": replace(RUN_STEPS, alpha=0.0),
    "int8, smoothing, one step a run": RUN_STEPS,
    "int8": PLANS["int8"],
    "int8, embedding int4": Plan(embedding="int4"),
    "int4, with moments": PLANS["int4"],
}


@dataclass(frozen=True)
class Amounts:
    """How much is read and judged; less of it in tests."""

    calibration: int = 40
    texts: int = 12
    rounds: int = 60
    train: int = 500
    judged: int = 300
    corpus: int = 4000
    read: int = 500
    pieces: tuple[int, ...] = (16_000, 8_000, 4_000)


@dataclass(frozen=True)
class Setup:
    """The bundle and what plans are made with."""

    start: Loaded
    weights: BackboneWeights
    seen: Calibration
    texts: tuple[str, ...]
    amounts: Amounts

    def graphs(self, plan: Plan) -> tuple[bytes, bytes]:
        """Trunk and branch, serialised."""
        weights = quantised(self.weights, plan, self.seen)
        return trunk_graph(weights), branch_graph(weights, lora_targets=tuple(LORA_TARGETS))


def texts_of(card: str, split: str, count: int, seed: int) -> list[str]:
    """Texts drawn from a part of a data set."""
    examples: Sequence[Any] = load_card(card).load(split)
    return [example.text for example in draw(examples, lambda e: set(), seed=seed, sentences=count)]


def prepare(bundle: str, amounts: Amounts) -> Setup:
    """Loads a bundle and calibrates with training texts of data sets that nothing is judged by."""
    start = load_any(bundle)
    texts = [text for card in CALIBRATION for text in texts_of(card, "train", amounts.calibration, 0)]
    adapters = list(start.primaries.values())
    seen = calibrate(start.encoder, start.tokenizer, texts, adapters, moments=True)
    return Setup(start, take_weights(start.encoder), seen, tuple(texts), amounts)


def cosines(left: Sequence[Any], right: Sequence[Any]) -> Found:
    """Mean and 1st percentile over tokens, of features [tokens, hidden] for each text."""
    x, y = (np.concatenate(list(part)).astype(np.float64) for part in (left, right))
    values = (x * y).sum(axis=1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))
    return {"mean": float(values.mean()), "p1": float(np.quantile(values, 0.01))}


def measure_cosine(setup: Setup, say: Callable[[str], None]) -> Found:
    """Cosines by kind of text and adapter, sizes, and times of all plans in turn."""
    start, amounts = setup.start, setup.amounts
    short = [text for card in NER + CLASSIFICATION for text in texts_of(card, "test", amounts.texts, 1)]
    long = texts_of(LONG, "train", 10 * amounts.texts, 1)
    kinds = {name: [text_unit(t) for t in start.tokenizer.encode(texts)] for name, texts in (("s", short), ("l", long))}
    units = {"short": kinds["s"], "long": [unit for unit in kinds["l"] if len(unit.sizes) > 1][: amounts.texts]}
    inputs: dict[str, Mapping[str, Any]] = {"no adapter": {}} | {
        name: adapter_inputs(lora) for name, lora in start.primaries.items()
    }
    cases = [(kind, adapter) for kind in units for adapter in inputs]
    exact: dict[tuple[str, str], Any] = {}
    opened, rows = {}, []
    for name, plan in COSINE_PLANS.items():
        graphs = setup.graphs(plan)
        opened[name] = trunk, branch = open_session(graphs[0]), open_session(graphs[1])
        row: Found = {"plan": name, "facts": plan.facts(), "bytes": sum(map(len, graphs)), "cosine": {}}
        for case in cases:
            features = [token_features(trunk, branch, text, inputs[case[1]]) for text in units[case[0]]]
            row["cosine"][" / ".join(case)] = cosines(exact.setdefault(case, features), features)
        rows.append(row)
        say(f"{name}: {row['bytes'] / 1e6:.2f} MB, {row['cosine']}")
    ids = np.resize(np.concatenate([unit.ids for unit in kinds["s"]]), 32)
    times = run_times(opened, ids, amounts.rounds)
    return {
        "plans": [{**row, "ms": times[row["plan"]]} for row in rows],
        "calibration": {"cards": CALIBRATION, "texts_each": amounts.calibration, "tokens": setup.seen.tokens},
        "texts": {kind: {"texts": len(part), "tokens": sum(u.size for u in part)} for kind, part in units.items()},
        "cards": {"short": NER + CLASSIFICATION, "long": LONG},
        "rounds": amounts.rounds,
    }


def run_times(opened: Mapping[str, tuple[Any, Any]], ids: Any, rounds: int) -> dict[str, Found]:
    """Processor time in ms of a trunk and branch run of `ids` without an adapter, the plans taking turns."""
    mask = np.ones((1, len(ids)), np.float32)
    taken: dict[str, list[float]] = {name: [] for name in opened}
    for number in range(rounds + 3):
        for name, (trunk, branch) in opened.items():
            began = time.process_time()
            states = trunk.run(["hidden"], {"ids": ids[None], "mask": mask})[0]
            branch.run(["features"], {"hidden": states, "mask": mask, "pool": mask[:, None] / len(ids)})
            if number >= 3:
                taken[name].append(1e3 * (time.process_time() - began))
    quartiles = {name: np.quantile(values, (0.25, 0.5, 0.75)) for name, values in taken.items()}
    return {name: dict(zip(("q1", "median", "q3"), map(float, q), strict=True)) for name, q in quartiles.items()}


def token_features(trunk: Any, branch: Any, text: UnitText, inputs: Mapping[str, Any]) -> Any:
    """Features [tokens, hidden] of every token by graphs, a window at a time."""
    found, begin = [], 0
    for size in text.sizes:
        mask = np.ones((1, size), np.float32)
        states = trunk.run(["hidden"], {"ids": text.ids[None, begin : begin + size], "mask": mask})[0]
        given = {"hidden": states, "mask": mask, "pool": np.eye(size, dtype=np.float32)[None], **inputs}
        found.append(branch.run(["features"], given)[0][0])
        begin += size
    return np.concatenate(found)


def compare_scores(
    task: str, counts: Sequence[Sequence[Any]], score: Callable[[Any], float]
) -> tuple[list[float], Any]:
    """Scores of systems and their draws, from counts [systems, seeds, examples, counts], all in points."""
    seeds = len(counts[0])
    exact = [float(np.mean([100 * score(np.sum(own, axis=0)) for own in system])) for system in counts]
    return exact, 100 * resample(counts, score, drawn_seeds=max(1, seeds - 1), entropy=zlib.crc32(task.encode()))


def against(exact: Sequence[float], draws: Any, new: int, old: int) -> Found:
    """A system's score, what it gains over another, and the interval of that."""
    found = interval(draws[:, new] - draws[:, old])
    return {"score": exact[new], "gain": exact[new] - exact[old], "interval": found}


def measure_gate(setup: Setup, say: Callable[[str], None]) -> Found:
    """Heads scored by exports in int8 and int4, fitted by torch in float32 and on what these exports compute.

    Gains are over the heads fitted in float32, scored by torch in float32; all scores are those of what is predicted.
    """
    with tempfile.TemporaryDirectory() as folder:
        save_bundle(replace(setup.start, tasks={}), Path(folder) / "float32")
        exact = load(Path(folder) / "float32", engine="torch")
        models = {}
        for kind in ("int8", "int4"):
            options = ExportOptions(weights=kind, texts=setup.texts)
            export_bundle(Path(folder) / "float32", Path(folder) / kind, options)
            models[kind] = load(Path(folder) / kind)
        return _scored(exact, models, setup.amounts, say)


def _scored(exact: Model, models: Mapping[str, Model], amounts: Amounts, say: Callable[[str], None]) -> Found:
    rows: list[Found] = []
    gains: dict[str, list[Any]] = {name: [] for kind in models for name in (kind, FITTED.format(kind))}
    for name in NER + CLASSIFICATION:
        task, _ = load_task(name)
        family = FAMILIES[task.family]
        train = draw(task.train, lambda e: set(), seed=0, sentences=amounts.train)
        judged = draw(task.dev, lambda e: set(), seed=0, sentences=amounts.judged)

        def predicted(model: Model, name: str = name, judged: Sequence[Any] = judged) -> list[Any]:
            return [row[name] for row in model.predict([example.text for example in judged], [name])]

        exact.fit(name, train, family=task.family)
        exact.save(exact.folder)
        before = predicted(exact)
        found = {}
        for kind, model in models.items():
            model.add(name, exact.bundle.tasks[name].content, replace=True)
            found[kind] = predicted(model)
            model.fit(name, train, family=task.family, replace=True)
            found[FITTED.format(kind)] = predicted(model)
        counts = [[counts_of(task.family, judged, part)] for part in (before, *found.values())]
        scores, draws = compare_scores(name, counts, score_of_counts(task.family))
        row: Found = {"task": name, "family": task.family, "metric": family.main_score, "float32": scores[0]}
        row |= {"train": len(train), "judged_on": len(judged)}
        for place, (kind, part) in enumerate(found.items(), 1):
            same = [
                family.compare(e, x)[1] == family.compare(e, y)[1] for e, x, y in zip(judged, before, part, strict=True)
            ]
            row[kind] = {**against(scores, draws, place, 0), "same": float(np.mean(same))}
            gains[kind].append(draws[:, place] - draws[:, 0])
        rows.append(row)
        say(json.dumps(row))
    means = {
        kind: {"gain": float(np.mean([row[kind]["gain"] for row in rows])), "interval": interval(np.mean(own, axis=0))}
        for kind, own in gains.items()
    }
    return {"tasks": rows, "mean": means}


def measure_vocabulary(setup: Setup, say: Callable[[str], None]) -> Found:
    """Bytes, and tokens after over tokens before: of the corpus, of the test parts of its cards, and of others."""
    amounts, tokenizer = setup.amounts, setup.start.tokenizer
    corpus = [text for card in CORPUS for text in texts_of(card, "train", amounts.corpus, 0)]
    same = [text for card in CORPUS for text in texts_of(card, "test", amounts.read, 1)]
    other = [text for card in NER + CLASSIFICATION for text in texts_of(card, "test", amounts.read, 1)]
    word = setup.weights.tensors["embeddings.word.weight"]
    rows = [{"pieces": len(word), **_stored(word, tokenizer)}]
    for size in amounts.pieces:
        made = prune_vocabulary(tokenizer, corpus, size, [setup.start.encoder.config.pad_id])
        row = {"pieces": size, **_stored(word[made.rows], made.tokenizer)}
        row |= {"characters_added": len(made.added), "unknown": {}}
        for kind, texts in (("corpus", corpus), ("same kind", same), ("other kinds", other)):
            before, after = (list(chain(*_tokens(own, texts))) for own in (tokenizer, made.tokenizer))
            row[kind] = len(after) / len(before)
            row["unknown"][kind] = [part.count("[UNK]") for part in (before, after)]
        rows.append(row)
        say(json.dumps(row))
    counts = {"corpus": len(corpus), "same kind": len(same), "other kinds": len(other)}
    return {"sizes": rows, "texts": counts, "cards": {"corpus": CORPUS, "other kinds": NER + CLASSIFICATION}}


def _stored(word: Any, tokenizer: Any) -> Found:
    values, scale = round_int8(word)
    text = tokenizer.tokenizer.to_str(pretty=False)
    return {"embedding_bytes": values.nbytes + scale.nbytes, "tokenizer_bytes": len(text.encode())}


def _tokens(tokenizer: Any, texts: Sequence[str]) -> list[list[str]]:
    return [part.tokens for part in tokenizer.tokenizer.encode_batch(list(texts), add_special_tokens=False)]


SECTIONS: Mapping[str, Callable[[Setup, Callable[[str], None]], Found]] = {
    "cosine": measure_cosine,
    "gate": measure_gate,
    "vocabulary": measure_vocabulary,
}
