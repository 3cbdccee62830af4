"""A bundle with ONNX graphs out of one with weights for torch: made, compared with torch, judged, and then written."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trunkline.atomic import check_free
from trunkline.bundle.edit import Parts, write_bundle
from trunkline.bundle.lora import Feeds, complete
from trunkline.bundle.manifest import MANIFEST
from trunkline.encoder.lora import LoraAdapter
from trunkline.engine.onnx import OnnxEngine
from trunkline.engine.session import open_session
from trunkline.export.graph import branch_graph, trunk_graph
from trunkline.export.layers import Form, Kernels
from trunkline.export.options import ExportOptions, ExportReport
from trunkline.export.parity import Adapter, ParityReport, banked, check_parity, forked
from trunkline.export.quantise.gate import GateReport, quality_gate
from trunkline.export.quantise.kernels import PLANS, quantised_kernels
from trunkline.export.quantise.smooth import calibrate
from trunkline.export.source import Source, load_source
from trunkline.export.vocabulary import shorten_positions
from trunkline.export.weights import BackboneWeights, take_weights

COMPARED_TEXTS = 12
COMPARED_TASKS = 16
"""Tasks that are compared with torch; what all have in common, files and heads as inputs, shows in these."""

_FORMS: dict[str, Form] = {"branch": "optional", "branch-required": "required", "branch-bank": "bank"}


def export_bundle(
    source: str | Path,
    out: str | Path,
    options: ExportOptions | None = None,
    *,
    key: str | bytes | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> ExportReport:
    """Writes a bundle with graphs. Its adapter and task files are those of the source, byte for byte.

    Args:
        source: The folder of a bundle with weights for torch, or an encoder by folder or name.
        out: A new or empty folder.
        options: What is asked for.
        key: An Ed25519 private key that signs it.
        say: Receives lines of progress.

    Raises:
        QualityError: Rounded weights cost a task too much.
        TrunklineError: `out` is taken, the graphs differ from torch, or as for `load_source`.
    """
    options, out = options or ExportOptions(), Path(out).expanduser()
    check_free(out)
    found = load_source(source, options)
    weights, kernels, tokens = prepare_weights(found, options)
    graphs = make_graphs(found, options, weights, kernels)
    parity, gate = compare(found, graphs, options), None
    if options.judged:
        after = found.predictor(OnnxEngine(graphs, found.manifest.shapes, found.encoder.config.pad_id))
        gate = quality_gate(found.predictor(), after, options.examples, options.max_drop)
        for task in gate.tasks:
            say(str(task))
    facts = weight_facts(kernels, gate)
    written = write_bundle(
        out,
        dataclasses.replace(found.manifest, name=options.name or _name_of(Path(source)), weights=facts),
        Parts(
            tokenizer=found.tokenizer.tokenizer.to_str(pretty=False).encode("utf-8"),
            graphs=graphs,
            adapters={family: adapter.content for family, adapter in found.bundle.primaries.items()},
            tasks={name: task.content for name, task in found.bundle.tasks.items()},
        ),
        key=key,
    )
    sizes = {file: entry.bytes for file, entry in written.files.items()} | {MANIFEST: len(written.to_json())}
    return ExportReport(out, dict(sorted(sizes.items())), facts, parity, tokens, gate, found.longer)


def export_model(source: Path, out: Path, **options: Any) -> ExportReport:
    """`export_bundle` with the fields of `ExportOptions` as arguments."""
    return export_bundle(source, out, ExportOptions(**options))


def prepare_weights(
    source: Source, options: ExportOptions, lora: LoraAdapter | None = None, merged: bool = False
) -> tuple[BackboneWeights, Kernels, int]:
    """Weights and kernels for graphs that belong together, and how many tokens calibration read.

    Rounded weights are calibrated on the texts, without and through every adapter.

    Args:
        source: What is exported.
        options: What is asked for.
        lora: Is merged into the weights.
        merged: Whether the graph has no LoRA inputs.

    Raises:
        TrunklineError: There is no token in the texts.
    """
    plan, seen = PLANS[options.weights], None
    if options.weights != "float32":
        moments = options.weights == "int4"
        seen = calibrate(source.encoder, source.tokenizer, source.texts, source.loras, moments=moments)
    taken = dataclasses.replace(take_weights(source.encoder, lora), hash=source.manifest.backbone)
    short = shorten_positions(taken, source.tokenizer.max_length)
    weights, kernels = quantised_kernels(short, plan, seen, range(0) if merged else None)
    return weights, dataclasses.replace(kernels, attention=options.attention), 0 if seen is None else seen.tokens


def make_graphs(source: Source, options: ExportOptions, weights: BackboneWeights, kernels: Kernels) -> dict[str, bytes]:
    """`trunk`, `branch` and the variants of it that are asked for, serialised."""
    graphs = {"trunk": trunk_graph(weights, kernels)}
    for name in ("branch", *sorted(f"branch-{variant}" for variant in options.variants)):
        # The runtimes that want all inputs compute the If of fast attention wrongly.
        own = dataclasses.replace(kernels, attention="portable") if name == "branch-required" else kernels
        graphs[name] = branch_graph(weights, _FORMS[name], source.manifest.slots, own)
    return graphs


def weight_facts(kernels: Kernels, gate: GateReport | None) -> dict[str, Any]:
    """What the manifest says of the weights."""
    facts: dict[str, Any] = dict(kernels.facts)
    return {"kind": facts.pop("weights"), **facts} | ({} if gate is None else {"gate": gate.record()})


def compare(source: Source, graphs: Mapping[str, bytes], options: ExportOptions) -> dict[str, ParityReport]:
    """Compares graphs with torch, fed with what the bundle's files hold; errors as for `check_parity`."""
    bundle, shapes, hidden = source.bundle, source.manifest.shapes, source.encoder.config.hidden_size
    feeds: dict[str, Feeds] = {"(none)": {}}
    feeds |= {f"{family} adapter": primary.feeds for family, primary in bundle.primaries.items()}
    without = list(feeds)
    feeds |= {name: bundle.feeds(name) for name in spread(sorted(bundle.tasks), COMPARED_TASKS)}
    trunk, reports = open_session(graphs["trunk"]), {}
    for name in graphs.keys() - {"trunk"}:
        branch, chosen = open_session(graphs[name]), without if name == "branch-bank" else list(feeds)
        if name == "branch-bank":
            run = banked(trunk, branch, {key: feeds[key] for key in chosen}, shapes)
        else:
            whole = {key: complete(part, shapes, hidden) for key, part in feeds.items()}
            run = forked(trunk, branch, whole if name == "branch-required" else feeds)
        reports[name] = check_parity(
            source.encoder,
            source.tokenizer,
            run,
            # Variants have the same layers; what is theirs, their inputs, shows in fewer texts.
            spread(source.texts, COMPARED_TEXTS if name == "branch" else 1),
            {key: source.adapters.get(key, Adapter()) for key in chosen},
            mixed=name == "branch-bank",
            tolerance=options.allowed,
        )
    return dict(sorted(reports.items()))


def spread(texts: Sequence[str], count: int) -> list[str]:
    """At most so many texts, evenly out of all."""
    return [texts[place * len(texts) // count] for place in range(count)] if len(texts) > count else list(texts)


def _name_of(path: Path) -> str:
    """That of the source's folder, or of the run that a folder `bundle` lies in."""
    chosen = path.resolve().parent.name if path.name == "bundle" else path.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", chosen).strip("-._")[:100] or "bundle"
