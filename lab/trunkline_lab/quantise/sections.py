"""What `benchmark.py` measures, a function a section.

What is calibrated on and what is measured on are parts of different data sets; what settings are chosen on and what is
judged by are different halves of a dev part.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from trunkline.export.quantise.plan import PLANS, Plan

from trunkline.bundle.lora import SLOTS
from trunkline.config import AdapterSection, AdaptSection
from trunkline.encoder.adapter_file import AdapterFile
from trunkline.encoder.bundle_files import Loaded, load_any
from trunkline.engine.rounding import round_table_int8
from trunkline.engine.session import open_session
from trunkline.export.adapters import adapter_feeds
from trunkline.export.graph import branch_graph, trunk_graph
from trunkline.export.quantise.kernels import quantised_kernels
from trunkline.export.quantise.smooth import Calibration, calibrate
from trunkline.export.vocabulary import prune_vocabulary, prune_weights
from trunkline.export.weights import BackboneWeights, take_weights
from trunkline.text.packing import UnitText, text_unit
from trunkline_lab import fitting
from trunkline_lab.benchmark.inputs import load_task
from trunkline_lab.data.cards import load_card
from trunkline_lab.data.sample import draw
from trunkline_lab.quantise.measure import Check, Reference, deployed_feeds, graph_features, plain, reference
from trunkline_lab.quantise.simulate import quantised_encoder
from trunkline_lab.resampling import interval, resample

Found = dict[str, Any]

CALIBRATION = ("conll2003", "snips_slots", "banking77", "sst2")
CORPUS = (*CALIBRATION, "wnut17", "trec")
NER = ("crossner_ai", "crossner_science", "atis_slots", "hwu64_slots")
CLASSIFICATION = ("subj", "cr", "tweeteval_irony", "tweeteval_hate")
LONG = "state_union"
LORA = ("crossner_science", "cr")
RUN_STEPS = Plan(per_token=())
FITTED = "{}, fitted on it"
COSINE_PLANS: Mapping[str, Plan] = {
    "float32": PLANS["float32"],
    "int8, no smoothing, one step a run": replace(RUN_STEPS, alpha=0.0),
    "int8, smoothing, one step a run": RUN_STEPS,
    "int8": PLANS["int8"],
    "int8, embedding int4": Plan(embedding="int4"),
    "int4, with moments": PLANS["int4"],
    "int4-blocks, embedding int8": Plan("int4-blocks", "int8"),
}


@dataclass(frozen=True)
class Amounts:
    """How much is read and judged; less of it in tests."""

    calibration: int = 40
    texts: int = 12
    rounds: int = 60
    train: int = 500
    dev: int = 600
    lora_train: int = 100
    lora_chosen: int = 60
    lora_dev: int = 300
    seeds: tuple[int, ...] = (0, 1)
    epochs: int = 4
    corpus: int = 4000
    read: int = 500
    pieces: tuple[int, ...] = (16_000, 8_000, 4_000)


@dataclass(frozen=True)
class Setup:
    """The bundle and what plans are made with."""

    start: Loaded
    weights: BackboneWeights
    seen: Calibration
    amounts: Amounts

    def graphs(self, plan: Plan) -> tuple[bytes, bytes]:
        """Trunk and branch, serialised."""
        weights, kernels = quantised_kernels(self.weights, plan, self.seen)
        return trunk_graph(weights, kernels), branch_graph(weights, slots=tuple(SLOTS), kernels=kernels)

    def sessions(self, plan: Plan) -> tuple[Any, Any]:
        """Trunk and branch to run, in one thread."""
        trunk, branch = self.graphs(plan)
        return open_session(trunk), open_session(branch)


def texts_of(card: str, split: str, count: int, seed: int) -> list[str]:
    """Texts drawn from a part of a data set."""
    return [e.text for e in draw(load_card(card).load(split), lambda e: set(), seed=seed, sentences=count)]


def prepare(bundle: str, amounts: Amounts) -> Setup:
    """Loads a bundle and calibrates with training texts of data sets that nothing is judged by."""
    start = load_any(bundle)
    texts = [text for card in CALIBRATION for text in texts_of(card, "train", amounts.calibration, 0)]
    adapters = [file.lora for file in start.primaries.values() if file.lora is not None]
    seen = calibrate(start.encoder, start.tokenizer, texts, adapters, moments=True)
    return Setup(start, take_weights(start.encoder), seen, amounts)


def each_token(text: UnitText) -> UnitText:
    """The text with every token of every window as a unit of its own."""
    every = np.arange(text.size)
    return replace(text, token=every, unit=every, n_units=text.size)


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
    units = {
        "short": [each_token(unit) for unit in kinds["s"]],
        "long": [each_token(unit) for unit in kinds["l"] if len(unit.sizes) > 1][: amounts.texts],
    }
    feeds = {"no adapter": {}} | {name: adapter_feeds(file.lora) for name, file in start.primaries.items()}
    cases = [(kind, adapter) for kind in units for adapter in feeds]
    exact: dict[tuple[str, str], Any] = {}
    opened, rows = {}, []
    for name, plan in COSINE_PLANS.items():
        graphs = setup.graphs(plan)
        opened[name] = trunk, branch = open_session(graphs[0]), open_session(graphs[1])
        row: Found = {"plan": name, "facts": plan.facts(), "bytes": sum(map(len, graphs)), "cosine": {}}
        for case in cases:
            features = graph_features(trunk, branch, units[case[0]], feeds[case[1]])
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


def halves(name: str, train: int, dev: int, seed: int = 0) -> tuple[TaskData, list[Any]]:
    """A task with one half of its dev part to choose on, and the other half to judge by."""
    task, _ = load_task(name)
    drawn = draw(task.dev, lambda e: set(), seed=0, sentences=dev)
    few = draw(task.train, lambda e: set(), seed=seed, sentences=train)
    return TaskData(name, task.family, few, drawn[0::2]), drawn[1::2]


def graph_predictions(sessions: tuple[Any, Any], start: Loaded, adapter: AdapterFile, known: Reference, on: Any) -> Any:
    """Predictions by graphs, one text at a time, LoRA and head rounded to float16."""
    feeds, head = deployed_feeds(start, adapter)
    features = graph_features(*sessions, fitting.example_units(known.family, on, start.tokenizer), feeds)
    return fitting.predict(known.family, head, features, on, adapter.labels)


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
    """Heads scored by the graphs of int8 and int4, fitted in float32 and on what these graphs compute.

    Gains are over the heads fitted in float32, scored by torch in float32.
    """
    plans = {name: setup.sessions(PLANS[name]) for name in ("int8", "int4")}
    rounded = {name: quantised_encoder(setup.start, PLANS[name], setup.seen) for name in plans}
    rows, gains = [], {name: [] for plan in plans for name in (plan, FITTED.format(plan))}
    for name in NER + CLASSIFICATION:
        task, judged = halves(name, setup.amounts.train, setup.amounts.dev)
        adapter = adapt(task, setup.start, AdaptSection()).adapter
        known = reference(setup.start, Check(name, adapter, judged))
        found = {}
        for plan, sessions in plans.items():
            own = adapt(task, rounded[plan], AdaptSection()).adapter
            found[plan] = graph_predictions(sessions, setup.start, adapter, known, judged)
            found[FITTED.format(plan)] = graph_predictions(sessions, setup.start, own, known, judged)
        counts = [[known.family.counts(judged, part)] for part in (known.predictions, *found.values())]
        exact, draws = compare_scores(name, counts, known.family.score_of_counts)
        row: Found = {"task": name, "family": task.family, "metric": known.family.main_score, "float32": exact[0]}
        row |= {"train": len(task.train), "chosen_on": len(task.dev), "judged_on": len(judged)}
        for place, (plan, predictions) in enumerate(found.items(), 1):
            same = [plain(x) == plain(y) for x, y in zip(known.predictions, predictions, strict=True)]
            row[plan] = {**against(exact, draws, place, 0), "same": float(np.mean(same))}
            gains[plan].append(draws[:, place] - draws[:, 0])
        rows.append(row)
        say(json.dumps(row))
    means = {
        plan: {"gain": float(np.mean([row[plan]["gain"] for row in rows])), "interval": interval(np.mean(own, axis=0))}
        for plan, own in gains.items()
    }
    return {"tasks": rows, "mean": means}


def measure_lora(setup: Setup, say: Callable[[str], None]) -> Found:
    """LoRA of rank 8 on query and value, trained in float32 and on the int4 backbone, deployed in int4.

    The primary adapters are left out, as LoRA that starts from one has its shape, whatever rank is asked for.
    """
    amounts, rows = setup.amounts, []
    start = replace(setup.start, primaries={})
    rounded, sessions = quantised_encoder(start, PLANS["int4"], setup.seen), setup.sessions(PLANS["int4"])
    shape = AdapterSection(rank=8, alpha=16.0, targets=("query", "value"))
    section = AdaptSection(mode="lora", penalties=(0.001, 0.01, 0.1), tokens=256, adapter=shape)
    section = section.model_copy(update={"precision": "fp32", "epochs": amounts.epochs, "patience": amounts.epochs})
    for name in LORA:
        counts: list[list[Any]] = [[], [], []]
        for seed in amounts.seeds:
            task, judged = halves(name, amounts.lora_train, amounts.lora_dev, seed)
            task = replace(task, dev=task.dev[: amounts.lora_chosen])
            full, own = (adapt(task, on, section, seed=seed).adapter for on in (start, rounded))
            say(f"{name}, seed {seed}: trained")
            known = reference(start, Check(name, full, judged))
            found = [graph_predictions(sessions, start, adapter, known, judged) for adapter in (full, own)]
            for system, part in zip(counts, (known.predictions, *found), strict=True):
                system.append(known.family.counts(judged, part))
        exact, draws = compare_scores(name, counts, known.family.score_of_counts)
        sizes = {"train": len(task.train), "chosen_on": len(task.dev), "judged_on": len(judged)}
        trained = {"trained in float32": against(exact, draws, 1, 0), "trained on int4": against(exact, draws, 2, 0)}
        row = {"task": name, "metric": known.family.main_score, **sizes, "float32": exact[0], **trained}
        by_seed = [[100 * known.family.score_of_counts(np.sum(c, axis=0)) for c in system] for system in counts]
        rows.append({**row, "training on int4 gains": against(exact, draws, 2, 1), "by_seed": by_seed})
        say(json.dumps(rows[-1]))
    return {"tasks": rows, "seeds": amounts.seeds, "section": section.model_dump(mode="json")}


def measure_vocabulary(setup: Setup, say: Callable[[str], None]) -> Found:
    """Bytes, and tokens after over tokens before: of the corpus, of the test parts of its cards, and of others."""
    amounts, tokenizer = setup.amounts, setup.start.tokenizer
    corpus = [text for card in CORPUS for text in texts_of(card, "train", amounts.corpus, 0)]
    same = [text for card in CORPUS for text in texts_of(card, "test", amounts.read, 1)]
    other = [text for card in NER + CLASSIFICATION for text in texts_of(card, "test", amounts.read, 1)]
    word = setup.weights.embeddings.word
    rows = [{"pieces": len(word), **_stored(word, tokenizer)}]
    for size in amounts.pieces:
        made = prune_vocabulary(tokenizer, corpus, size, [setup.start.encoder.config.pad_id])
        row = {"pieces": size, **_stored(prune_weights(setup.weights, made).embeddings.word, made.tokenizer)}
        row |= {"corpus": made.longer, "characters_added": len(made.added), "unknown": {"corpus": made.unknown}}
        for kind, texts in (("same kind", same), ("other kinds", other)):
            before, after = (list(chain(*_tokens(own, texts))) for own in (tokenizer, made.tokenizer))
            row[kind] = len(after) / len(before)
            row["unknown"][kind] = [part.count("[UNK]") for part in (before, after)]
        rows.append(row)
        say(json.dumps(row))
    counts = {"corpus": len(corpus), "same kind": len(same), "other kinds": len(other)}
    return {"sizes": rows, "texts": counts, "cards": {"corpus": CORPUS, "other kinds": NER + CLASSIFICATION}}


def _stored(word: Any, tokenizer: Any) -> Found:
    table = round_table_int8(word)
    text = tokenizer.tokenizer.to_str(pretty=False)
    return {"embedding_bytes": table.values.nbytes + table.scale.nbytes, "tokenizer_bytes": len(text.encode())}


def _tokens(tokenizer: Any, texts: Sequence[str]) -> list[list[str]]:
    return [part.tokens for part in tokenizer.tokenizer.encode_batch(list(texts), add_special_tokens=False)]


SECTIONS: Mapping[str, Callable[[Setup, Callable[[str], None]], Found]] = {
    "cosine": measure_cosine,
    "gate": measure_gate,
    "lora": measure_lora,
    "vocabulary": measure_vocabulary,
}
