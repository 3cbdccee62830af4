"""What is compared: the options, sections of cases that take turns, what is asked of them, and the rows they run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trunkline.bundle.files import write_atomic
from trunkline_lab.data.cards import load_card
from trunkline_lab.speed.side_by_side import Case, Part, Ratio

RANK = 8
TARGETS = ("query", "value")
EIGHT, TWENTY = 8, 20
FORK = 4
ROWS = "rows.json"


@dataclass(frozen=True)
class Options:
    """What all cases share.

    Attributes:
        bundle: A bundle with weights for torch, or an encoder; all bundles here have its backbone.
        work: Where bundles are made; those that are there already are used as they are.
        length: Tokens of a text, special ones included.
        repeats: How often each case is measured.
        seconds: Processor time of one repeat, at least.
        core: The core that all cases are pinned to; -1 for the last one.
        litert_python: Interpreter of an environment with LiteRT's packages; empty to leave LiteRT out.
    """

    bundle: str = "runs/strategies/task-primary-0/bundle"
    work: str = "runs/deployment"
    length: int = 32
    repeats: int = 5
    seconds: float = 0.3
    core: int = -1
    litert_python: str = ""

    def place(self, name: str) -> Path:
        """A folder or file among what is made."""
        return Path(self.work) / name


Row = tuple[str, str, str, Mapping[str, Any]]
"""What a case is made of."""


def parts(options: Options) -> dict[str, Part]:
    """The sections whose cases take turns, by their short names."""
    return {"one": _one(options), "eight": _eight(options), "mixed": _mixed(options)}


def _one(options: Options) -> Part:
    where = f"rank {RANK} on query and value of all layers"
    low = {"bundle": "low-int8", "task": "task-00"}
    rows: tuple[Row, ...] = (
        ("PyTorch", "torch_plain", "transformers, float32, its own attention", {}),
        ("PyTorch + PEFT", "torch_peft", f"the same with an adapter of PEFT, {where}", {}),
        ("ORT, quantize_dynamic", "standard", "exported by torch, quantize_dynamic at its defaults, no adapter", {}),
        ("ours float32", "passes", f"trunk and branch, {where}", {**low, "bundle": "low-float32"}),
        ("ours int8, no adapter", "passes", "trunk and branch, a head alone", {**low, "lora": 0}),
        ("ours int8", "passes", f"trunk and branch, {where}", low),
        ("ours int8, rank 16", "passes", f"the same with rank {2 * RANK}", {**low, "lora": 2}),
        ("ours int8, merged", "merged", "one task as an ordinary model, its adapter merged in", {}),
        ("LiteRT int8", "litert", f"trunk and branch, {where}, inputs of fixed sizes", {}),
        ("switch, PEFT", "torch_switch", f"set_adapter alone, {EIGHT} adapters in memory", {}),
        ("switch, ours", "switch", "a task's file from disk to what the graph is fed, checks included", {}),
    )
    ratios = (
        _ratio("PyTorch + PEFT / ours int8", "PyTorch + PEFT", "ours int8", at_least=7),
        _ratio("PyTorch + PEFT / LiteRT int8", "PyTorch + PEFT", "LiteRT int8", at_least=10),
        _ratio("PyTorch / ours int8", "PyTorch", "ours int8"),
        _ratio("quantize_dynamic / ours int8 with its adapter", "ORT, quantize_dynamic", "ours int8"),
        _ratio("ours float32 / ours int8", "ours float32", "ours int8"),
        _ratio("adapter of rank 8 / none", "ours int8", "ours int8, no adapter", at_most=1.07),
        _ratio("adapter of rank 16 / none", "ours int8, rank 16", "ours int8, no adapter"),
        _ratio("an adapter as input / merged", "ours int8", "ours int8, merged"),
        _ratio("milliseconds of a switch from disk", "switch, ours", at_most=0.05),
        _ratio("switch, PEFT / ours from disk", "switch, PEFT", "switch, ours"),
    )
    return Part(f"One task with its adapter, {options.length} tokens", _cases(rows, options), ratios)


def _eight(options: Options) -> Part:
    kinds = f"{EIGHT // 2} of entities, {EIGHT // 2} of texts; fork at layer {FORK}"
    head = {"bundle": "forked-int8", "task": "head-0", "lora": 0}
    heads, loras = ([f"{kind}-{n}" for n in range(EIGHT)] for kind in ("head", "lora"))
    rows: tuple[Row, ...] = (
        ("a plain int8 pass", "passes", "trunk and branch, one head", head),
        ("ours, heads", "heads", f"one trunk, one branch a family, {EIGHT} heads ({kinds})", {}),
        ("ours, LoRA", "loras", f"one trunk, {EIGHT} branches one after the other ({kinds})", {"bank": False}),
        ("ours, LoRA in a bank", "loras", f"one trunk, {EIGHT} rows in the bank graph", {"bank": True}),
        ("eight models of quantize_dynamic", "standard", "sessions one after the other", {"count": EIGHT}),
        ("eight merged models of ours", "merged", "sessions one after the other", {"count": EIGHT}),
        (
            "PEFT, switching",
            "torch_peft",
            f"set_adapter and a pass, {EIGHT} times",
            {"folder": "peft-forked", "count": EIGHT},
        ),
        ("predict, one task", "predict", "Model.predict, text to prediction", {"tasks": heads[:1]}),
        ("predict, heads", "predict", f"Model.predict, text to {EIGHT} predictions", {"tasks": heads}),
        ("predict, LoRA", "predict", f"Model.predict, text to {EIGHT} predictions", {"tasks": loras}),
    )
    dynamic, ours = "eight models of quantize_dynamic", "eight merged models of ours"
    ratios = (
        _ratio("heads / a plain pass", "ours, heads", "a plain int8 pass", at_most=1.6),
        _ratio("LoRA / a plain pass", "ours, LoRA", "a plain int8 pass", at_most=3.6),
        _ratio("LoRA in a bank / a plain pass", "ours, LoRA in a bank", "a plain int8 pass", at_most=3.6),
        _ratio(f"{dynamic} / heads", dynamic, "ours, heads", at_least=5),
        _ratio(f"{ours} / heads", ours, "ours, heads", at_least=5),
        _ratio("PEFT, switching / heads", "PEFT, switching", "ours, heads", at_least=40),
        _ratio("PEFT, switching / LoRA", "PEFT, switching", "ours, LoRA"),
        _ratio("text to predictions, eight heads / one", "predict, heads", "predict, one task"),
        _ratio("text to predictions, eight LoRA / one head", "predict, LoRA", "predict, one task"),
    )
    return Part(f"Eight tasks on one text, {options.length} tokens", _cases(rows, options), ratios)


def _mixed(options: Options) -> Part:
    rows: tuple[Row, ...] = (
        ("no adapter", "rows", f"{EIGHT} rows, trunk and branch", {"adapters": 0}),
        ("one adapter", "rows", f"{EIGHT} rows with one adapter", {"adapters": 1}),
        ("eight adapters", "rows", f"{EIGHT} rows in the bank graph, an adapter and a head each", {"adapters": EIGHT}),
        ("PEFT, one adapter", "torch_rows", f"{EIGHT} rows with one adapter", {"adapters": 1}),
        ("PEFT, eight adapters", "torch_rows", f"{EIGHT} rows, adapter_names", {"adapters": EIGHT}),
    )
    ratios = (
        _ratio("eight adapters / one", "eight adapters", "one adapter", at_most=1.10),
        _ratio("PEFT, eight adapters / ours", "PEFT, eight adapters", "eight adapters", at_least=6),
        _ratio("PEFT, eight adapters / one", "PEFT, eight adapters", "PEFT, one adapter"),
    )
    title = f"A batch of eight rows, {options.length} tokens each, adapters in all layers"
    return Part(title, _cases(rows, options), ratios)


def _cases(rows: tuple[Row, ...], options: Options) -> tuple[Case, ...]:
    return tuple(Case(*row, options.repeats) for row in rows)


def _ratio(what: str, over: str, under: str = "", at_least: float | None = None, at_most: float | None = None) -> Ratio:
    return Ratio(what, "milliseconds", over, under, at_least, at_most)


def write_rows(options: Options) -> None:
    """Writes eight texts of exactly the options' length in tokens, with their ids."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(options.place("base") / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    examples: Sequence[Any] = load_card("sample_events").load("test")
    words = [word for example in examples for word in example.text.split()]
    rows = []
    for _ in range(EIGHT):
        text = cut(tokenizer, words, options.length)
        words = words[len(text.split()) :]
        rows.append({"text": text, "ids": tokenizer.encode(text).ids})
    write_atomic(options.place(ROWS), json.dumps({"length": options.length, "rows": rows}))


def read_rows(options: Options, count: int = 1) -> tuple[Any, list[str]]:
    """Token ids [count, length] and the texts."""
    rows = json.loads(options.place(ROWS).read_text(encoding="utf-8"))["rows"][:count]
    return np.asarray([row["ids"] for row in rows], np.int64), [row["text"] for row in rows]


def cut(tokenizer: Any, words: Sequence[str], length: int) -> str:
    """The first words that are so many tokens with the special ones; filled up with a word of one token."""
    count = 1
    while len(tokenizer.encode(" ".join(words[: count + 1])).ids) <= length:
        count += 1
    chosen = list(words[:count])
    while len(tokenizer.encode(" ".join(chosen)).ids) < length:
        chosen.append("and")
    return " ".join(chosen)
