"""Makes what the cases run: training bundles with tasks, deployed bundles, and the models of the peers.

Speed does not depend on what an adapter has learnt: LoRA updates are drawn at random, of about the size that training
gives them, and heads are fitted through them on the shipped sample data.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from trunkline.export.adapter_bytes import converted_task
from trunkline.export.phone import litert_record

from trunkline.bundle.edit import add_task
from trunkline.bundle.files import read_manifest
from trunkline.config import AdaptSection
from trunkline.encoder.adapter_file import AdapterFile, lora_hash
from trunkline.encoder.bundle_files import Loaded, load_bundle, save_bundle
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.lora import LoraAdapter, LoraConfig
from trunkline.encoder.peft_format import export_peft
from trunkline.errors import TrunklineError
from trunkline.export.bundle import export_bundle, sample_texts
from trunkline.export.options import ExportOptions
from trunkline_lab.data.cards import load_card
from trunkline_lab.deployment_formats import export_merged, export_onnx_adapters
from trunkline_lab.fitting import TaskData
from trunkline_lab.litert.export import PYTHON
from trunkline_lab.speed.deployment.options import EIGHT, FORK, RANK, TARGETS, TWENTY, WIDE, Options

SAMPLES = {"ner": ("sample_events", "sample_orders"), "classification": ("sample_intents", "sample_triage")}
_TRAIN, _DEV = 48, 24
"""Examples that a head is fitted on: what it has learnt is of no matter here."""

Say = Callable[[str], None]


def make_all(options: Options, say: Say) -> dict[str, str]:
    """Makes what is not there yet.

    Returns:
        What could not be made, name -> why.
    """
    start = load_bundle(Path(options.bundle).expanduser())
    _training(options, start, say)
    _deployed(options, say)
    _peers(options, start, say)
    if not options.litert_python:
        return {"litert": "no interpreter with LiteRT's packages was given (--litert-python)"}
    try:
        _once(options.place("litert"), lambda out: _litert(options, out), say)
    except TrunklineError as error:
        return {"litert": str(error)}
    return {}


def _training(options: Options, start: Loaded, say: Say) -> None:
    """`low`: 20 tasks with LoRA in all layers; `wide`: one on all linear layers; `forked`: head and LoRA tasks."""

    def low(out: Path) -> None:
        bare = _forked(start, 0)
        tasks = {f"task-{n:02}": _task(bare, n, TARGETS) for n in range(TWENTY)}
        save_bundle(dataclasses.replace(bare, tasks=tasks), out)

    def wide(out: Path) -> None:
        bare = _forked(start, 0)
        save_bundle(dataclasses.replace(bare, tasks={"wide": _task(bare, 0, WIDE)}), out)

    def forked(out: Path) -> None:
        bare = _forked(start, FORK)
        primaries = {
            family: AdapterFile(family, bare.backbone, FORK, _lora(bare, TARGETS, 100 + n))
            for n, family in enumerate(SAMPLES)
        }
        both = dataclasses.replace(bare, primaries=primaries)
        tasks = {f"head-{n}": _task(both, n, None) for n in range(EIGHT)}
        tasks |= {f"lora-{n}": _task(bare, n, TARGETS) for n in range(EIGHT)}
        save_bundle(dataclasses.replace(both, tasks=tasks), out)

    for name, make in (("low", low), ("wide", wide), ("forked", forked)):
        _once(options.place(f"training-{name}"), make, say)


def _deployed(options: Options, say: Say) -> None:
    low, wide, forked = (str(options.place(f"training-{name}")) for name in ("low", "wide", "forked"))
    first = ExportOptions(tasks=("task-00", "task-01"), gate=False)
    few = dataclasses.replace(first, tasks=("head-0", "head-1", "lora-0", "lora-1"))

    def bundle(source: str, export: ExportOptions, **changes: Any) -> Callable[[Path], None]:
        return lambda out: _export(source, out, dataclasses.replace(export, **changes))

    made = {
        "low-int8": bundle(low, first, weights="int8"),
        "low-float32": bundle(low, first),
        "low-bank": bundle(low, first, weights="int8", variants=("bank",)),
        "low-fast": bundle(low, first, weights="int8", attention="fast"),
        "wide-int8": bundle(wide, first, weights="int8", tasks=None),
        "forked-int8": bundle(forked, few, weights="int8", variants=("bank",)),
        "low-int8-8000": bundle(low, first, weights="int8", vocabulary=8000, texts=sample_texts()),
        "low-int4": bundle(low, first, weights="int4"),
        "merged-int8": lambda out: _merged(low, out),
    }
    for name, make in made.items():
        _once(options.place(name), make, say)
    eight = ExportOptions(tasks=tuple(f"task-{n:02}" for n in range(EIGHT)))
    _once(options.place("onnx-adapters"), lambda out: _adapters(str(options.place("low-int8")), out, eight), say)


def _peers(options: Options, start: Loaded, say: Say) -> None:
    bundle = Path(options.bundle).expanduser()
    _once(options.place("standard"), lambda out: _standard(bundle / "backbone", out), say)

    def peft(source: str, out: Path) -> None:
        tasks = load_bundle(options.place(f"training-{source}")).tasks
        own = {name: task.lora for name, task in sorted(tasks.items()) if task.lora is not None}
        for name in list(own)[:EIGHT]:
            export_peft(own[name], start.encoder.config, out / name)

    _once(options.place("peft"), lambda out: peft("low", out), say)
    _once(options.place("peft-forked"), lambda out: peft("forked", out), say)


def _once(place: Path, make: Callable[[Path], None], say: Say) -> None:
    if place.exists():
        return
    say(f"making {place}")
    part = place.with_name(f".{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    make(part)
    part.rename(place)


def _forked(start: Loaded, fork: int) -> Loaded:
    encoder = Encoder(start.encoder.config, fork)
    encoder.load_state_dict(start.encoder.state_dict())
    return dataclasses.replace(start, encoder=encoder.eval().requires_grad_(False), primaries={}, tasks={})


def _lora(start: Loaded, targets: Sequence[str], seed: int) -> LoraAdapter:
    config = start.encoder.config
    layers = tuple(range(start.encoder.fork, config.n_layers))
    torch.manual_seed(seed)
    lora = LoraAdapter(LoraConfig(RANK, 2.0 * RANK, tuple(targets), layers), config)
    for name, value in lora.named_parameters():
        if name.endswith(".b"):
            torch.nn.init.normal_(value, std=0.01)
    return lora.eval().requires_grad_(False)


def _task(start: Loaded, number: int, targets: Sequence[str] | None) -> AdapterFile:
    """A task of every other family; with `targets` on LoRA of its own, otherwise on its family's adapter."""
    family = ("ner", "classification")[number % 2]
    card = load_card(SAMPLES[family][number // 2 % 2])
    skip = number * 5
    data = TaskData(card.name, family, card.load("train")[skip : skip + _TRAIN], card.load("dev")[:_DEV])
    lora = _lora(start, targets, number) if targets is not None else None
    seen = start
    if lora is not None:
        own = AdapterFile(family, start.backbone, start.encoder.fork, lora)
        seen = dataclasses.replace(start, primaries={family: own})
    found = adapt(data, seen, AdaptSection(penalties=(0.01,))).adapter
    if lora is None:
        return found
    assert found.primary == lora_hash(lora)
    return dataclasses.replace(found, lora=lora, primary="")


def _export(source: str, out: Path, options: ExportOptions) -> None:
    """Exports some tasks, compared with torch, and adds the others as files, as `trunkline bundle add` does."""
    export_bundle(source, out, options)
    manifest = read_manifest(out)
    for path in sorted((Path(source) / "tasks").iterdir()):
        if path.stem not in manifest.tasks:
            manifest = add_task(out, path.stem, converted_task(path, out, manifest))


def _merged(source: str, out: Path) -> None:
    export_merged(source, "task-00", out, ExportOptions(weights="int8", gate=False))


def _adapters(source: str, out: Path, options: ExportOptions) -> None:
    export_onnx_adapters(source, out, options)


def _standard(backbone: Path, out: Path) -> None:
    """The usual way: export by torch, then `quantize_dynamic` at its defaults."""
    from onnxruntime.quantization import quantize_dynamic
    from transformers import AutoModelForTokenClassification

    model = AutoModelForTokenClassification.from_pretrained(
        backbone, num_labels=9, dtype=torch.float32, attn_implementation="eager", output_hidden_states=True
    )

    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, mask: Any, types: Any) -> Any:
            found = self.model(ids, attention_mask=mask, token_type_ids=types)
            return found.logits, found.hidden_states[-1]

    ones = torch.ones(1, 32, dtype=torch.long)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    plain = out / "float32.onnx"
    torch.onnx.export(
        Both().eval(),
        (ones, ones.clone(), torch.zeros_like(ones)),
        str(plain),
        input_names=names,
        output_names=["logits", "states"],
        dynamic_axes={name: {0: "rows", 1: "width"} for name in (*names, "logits", "states")},
        opset_version=17,
        dynamo=False,
    )
    quantize_dynamic(plain, out / "int8.onnx")


def _litert(options: Options, out: Path) -> None:
    os.environ[PYTHON] = options.litert_python
    litert_record(
        str(options.place("training-low")), out, ExportOptions(weights="int8", tasks=("task-00",), gate=False)
    )
