"""Makes what the cases run: bundles with tasks, their exports, and the models of the peers.

Speed does not depend on what an adapter has learnt: LoRA updates are drawn at random, of about the size that training
gives them, and heads are fitted through them on the shipped sample data.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from trunkline.bundle.parts import Task, read_task
from trunkline.encoder.bundle_files import Loaded, load_any, load_bundle, lora_of, manifest_of, save_bundle
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.lora import LoraAdapter, LoraConfig
from trunkline.encoder.peft_format import export_peft
from trunkline.errors import TrunklineError
from trunkline.export.bundle import ExportOptions, export_bundle, sample_texts
from trunkline_lab import fitting
from trunkline_lab.data.cards import load_card
from trunkline_lab.deployment_formats import export_merged
from trunkline_lab.litert.export import PYTHON
from trunkline_lab.litert.record import litert_record
from trunkline_lab.speed.deployment.cases import EIGHT, FORK, RANK, TARGETS, TWENTY, Options, write_rows

SAMPLES = {"ner": ("sample_events", "sample_orders"), "classification": ("sample_intents", "sample_triage")}
_TRAIN = 48
"""Examples that a head is fitted on: what it has learnt is of no matter here."""

Say = Callable[[str], None]


def make_all(options: Options, say: Say) -> dict[str, str]:
    """Makes what is not there yet; returns what could not be made, name -> why."""
    start = load_any(options.bundle)
    _once(options.place("base"), lambda out: save_bundle(start, out), say)
    _bundles(options, start, say)
    _exports(options, say)
    _peers(options, start, say)
    write_rows(options)
    if not options.litert_python:
        return {"litert": "no interpreter with LiteRT's packages was given (--litert-python)"}
    os.environ[PYTHON] = options.litert_python
    few = ExportOptions(weights="int8", tasks=("task-00",), gate=False)
    try:
        _once(options.place("litert"), lambda out: litert_record(str(options.place("torch-low")), out, few), say)
    except TrunklineError as error:
        return {"litert": str(error)}
    return {}


def _bundles(options: Options, start: Loaded, say: Say) -> None:
    """`low`: 20 tasks with LoRA in all layers; `forked`: eight head and eight LoRA tasks above a fork."""

    def low(out: Path) -> None:
        bare = _forked(start, 0)
        tasks = {f"task-{n:02}": _task(bare, f"task-{n:02}", n, own=True) for n in range(TWENTY)}
        save_bundle(dataclasses.replace(bare, tasks=tasks), out)

    def forked(out: Path) -> None:
        bare = _forked(start, FORK)
        primaries = {family: _lora(bare, 100 + n) for n, family in enumerate(SAMPLES)}
        both = dataclasses.replace(bare, primaries=primaries)
        tasks = {f"head-{n}": _task(both, f"head-{n}", n, own=False) for n in range(EIGHT)}
        tasks |= {f"lora-{n}": _task(bare, f"lora-{n}", n, own=True) for n in range(EIGHT)}
        save_bundle(dataclasses.replace(both, tasks=tasks), out)

    for name, make in (("low", low), ("forked", forked)):
        _once(options.place(f"torch-{name}"), make, say)


def _exports(options: Options, say: Say) -> None:
    low, forked = (options.place(f"torch-{name}") for name in ("low", "forked"))
    int8 = ExportOptions(weights="int8", gate=False)
    made = {
        "low-int8": (low, int8),
        "low-float32": (low, ExportOptions()),
        "low-bank": (low, dataclasses.replace(int8, variants=("bank",))),
        "forked-int8": (forked, dataclasses.replace(int8, variants=("bank",))),
        "low-int8-8000": (low, dataclasses.replace(int8, vocabulary=8000, texts=tuple(sample_texts()))),
        "low-int4": (low, dataclasses.replace(int8, weights="int4")),
    }
    for name, (source, export) in made.items():
        _once(options.place(name), partial(_export, source, export), say)
    _once(options.place("merged-int8"), lambda out: export_merged(low, "task-00", out, int8), say)


def _peers(options: Options, start: Loaded, say: Say) -> None:
    _once(options.place("standard"), lambda out: _standard(options.place("base") / "encoder", out), say)

    def peft(source: str, out: Path) -> None:
        tasks = load_bundle(options.place(f"torch-{source}")).tasks
        for name in sorted(name for name, task in tasks.items() if task.own_lora)[:EIGHT]:
            export_peft(lora_of(tasks[name], start.encoder.config), start.encoder.config, out / name)

    _once(options.place("peft"), lambda out: peft("low", out), say)
    _once(options.place("peft-forked"), lambda out: peft("forked", out), say)


def _once(place: Path, make: Callable[[Path], Any], say: Say) -> None:
    if place.exists():
        return
    say(f"making {place}")
    part = place.with_name(f".{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    make(part)
    part.rename(place)


def _export(source: Path, options: ExportOptions, out: Path) -> None:
    export_bundle(source, out, options)


def _forked(start: Loaded, fork: int) -> Loaded:
    encoder = Encoder(start.encoder.config, fork)
    encoder.load_state_dict(start.encoder.state_dict())
    return dataclasses.replace(start, encoder=encoder.eval().requires_grad_(False), primaries={}, tasks={})


def _lora(start: Loaded, seed: int) -> LoraAdapter:
    config = start.encoder.config
    layers = tuple(range(start.encoder.fork, config.n_layers))
    torch.manual_seed(seed)
    lora = LoraAdapter(LoraConfig(RANK, 2.0 * RANK, TARGETS, layers), config)
    for name, value in lora.named_parameters():
        if name.endswith(".b"):
            torch.nn.init.normal_(value, std=0.01)
    return lora.eval().requires_grad_(False)


def _task(start: Loaded, name: str, number: int, *, own: bool) -> Task:
    """A task of every other family, on LoRA of its own or on its family's adapter."""
    family = ("ner", "classification")[number % 2]
    card = load_card(SAMPLES[family][number // 2 % 2])
    data = fitting.TaskData(card.name, family, card.load("train")[number * 5 : number * 5 + _TRAIN])
    lora = _lora(start, number) if own else None
    seen = start if lora is None else dataclasses.replace(start, primaries={family: lora})
    fitted, manifest = dataclasses.replace(fitting.fit(data, seen), lora=lora), manifest_of(start)
    return read_task(fitting.file_of(fitted, manifest), manifest, name)


def _standard(encoder: Path, out: Path) -> None:
    """The usual way: export by torch, then `quantize_dynamic` at its defaults."""
    from onnxruntime.quantization import quantize_dynamic
    from transformers import AutoModelForTokenClassification

    model = AutoModelForTokenClassification.from_pretrained(
        encoder, num_labels=9, dtype=torch.float32, attn_implementation="eager"
    )

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, mask: Any, types: Any) -> Any:
            return self.model(ids, attention_mask=mask, token_type_ids=types).logits

    ones = torch.ones(1, 32, dtype=torch.long)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    plain = out / "float32.onnx"
    torch.onnx.export(
        Logits().eval(),
        (ones, ones.clone(), torch.zeros_like(ones)),
        str(plain),
        input_names=names,
        output_names=["logits"],
        dynamic_axes={name: {0: "rows", 1: "width"} for name in (*names, "logits")},
        opset_version=17,
        dynamo=False,
    )
    quantize_dynamic(plain, out / "int8.onnx")
