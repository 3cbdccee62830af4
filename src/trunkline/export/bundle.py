"""A bundle with ONNX graphs out of one with weights for torch: made, compared with torch, judged, and then written."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trunkline import __version__
from trunkline.atomic import check_free
from trunkline.bundle.edit import Parts, write_bundle
from trunkline.bundle.lora import Feeds, complete
from trunkline.bundle.manifest import MANIFEST, Licence, Manifest
from trunkline.engine.onnx import OnnxEngine
from trunkline.engine.session import open_session
from trunkline.export.graph import branch_graph, trunk_graph
from trunkline.export.layers import Form, Kernels
from trunkline.export.options import ExportOptions, ExportReport
from trunkline.export.parity import Adapter, ParityReport, banked, check_parity, forked
from trunkline.export.quantise.gate import GateReport, quality_gate
from trunkline.export.quantise.kernels import PLANS, Plan, quantised_kernels
from trunkline.export.quantise.smooth import Calibration, calibrate
from trunkline.export.source import Source, load_source
from trunkline.export.weights import BackboneWeights

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
    weights = prepare_weights(found, options)
    graphs = make_graphs(found, options, weights)
    parity = compare(found, graphs, options)
    gate = None
    if options.judged:
        after = found.predictor(OnnxEngine(graphs, found.shapes, found.encoder.config.pad_id))
        gate = quality_gate(found.predictor(), after, options.examples, options.max_drop)
        for task in gate.tasks:
            say(str(task))
    manifest = dataclasses.replace(_manifest(found, options, source), weights=weights.facts(gate))
    bundle = found.bundle
    written = write_bundle(
        out,
        manifest,
        Parts(
            tokenizer=found.tokenizer.tokenizer.to_str(pretty=False).encode("utf-8"),
            graphs=graphs,
            adapters={family: adapter.content for family, adapter in bundle.primaries.items()},
            tasks={name: task.content for name, task in bundle.tasks.items()},
        ),
        key=key,
    )
    sizes = {file: entry.bytes for file, entry in written.files.items()} | {MANIFEST: len(written.to_json())}
    sizes = dict(sorted(sizes.items()))
    return ExportReport(out, sizes, written.weights, parity, weights.tokens, gate, found.longer)


def export_model(source: Path, out: Path, **options: Any) -> ExportReport:
    """`export_bundle` with the fields of `ExportOptions` as arguments."""
    return export_bundle(source, out, ExportOptions(**options))


@dataclass(frozen=True, slots=True)
class PreparedWeights:
    """How the weights of an export are stored: the plan, and for rounded weights the calibration."""

    plan: Plan
    calibration: Calibration | None = None

    @property
    def tokens(self) -> int:
        """Tokens that calibration read."""
        return self.calibration.tokens if self.calibration is not None else 0

    def kernels(self, weights: BackboneWeights, adapted: range | None = None) -> tuple[BackboneWeights, Kernels]:
        """Weights and kernels that belong together; arguments as for `quantised_kernels`."""
        if self.plan.linear == "float32":
            return weights, Kernels()
        return quantised_kernels(weights, self.plan, self.calibration, adapted)

    def facts(self, gate: GateReport | None) -> dict[str, Any]:
        """What the manifest says of the weights."""
        facts: dict[str, Any] = self.plan.facts()
        return {"kind": facts.pop("weights"), **facts} | ({} if gate is None else {"gate": gate.record()})


def prepare_weights(source: Source, options: ExportOptions) -> PreparedWeights:
    """The plan, and for rounded weights a calibration on the texts, without and through every adapter.

    Raises:
        TrunklineError: There is no token in the texts.
    """
    plan = PLANS[options.weights]
    if options.weights == "float32":
        return PreparedWeights(plan)
    moments = options.weights == "int4"
    return PreparedWeights(
        plan, calibrate(source.encoder, source.tokenizer, source.texts, source.loras, moments=moments)
    )


def make_graphs(source: Source, options: ExportOptions, prepared: PreparedWeights) -> dict[str, bytes]:
    """`trunk`, `branch` and the variants of it that are asked for, serialised."""
    weights, kernels = prepared.kernels(source.weights())
    kernels = dataclasses.replace(kernels, attention=options.attention)
    # The runtimes that want all inputs compute the If of fast attention wrongly.
    plain = dataclasses.replace(kernels, attention="portable")
    graphs = {"trunk": trunk_graph(weights, kernels)}
    for name in ("branch", *sorted(f"branch-{variant}" for variant in options.variants)):
        own = plain if name == "branch-required" else kernels
        graphs[name] = branch_graph(weights, _FORMS[name], source.lora_targets, own)
    return graphs


def compare(source: Source, graphs: Mapping[str, bytes], options: ExportOptions) -> dict[str, ParityReport]:
    """Compares graphs with torch, fed with what the bundle's files hold; errors as for `check_parity`."""
    adapters, feeds = _adapters(source)
    trunk = open_session(graphs["trunk"])
    hidden, reports = source.encoder.config.hidden_size, {}
    for name, content in graphs.items():
        if name == "trunk":
            continue
        branch, bank, chosen = open_session(content), name == "branch-bank", adapters
        if bank:
            chosen = {key: Adapter(part.lora) for key, part in adapters.items() if key not in source.bundle.tasks}
            run = banked(trunk, branch, {key: feeds[key] for key in chosen}, source.shapes)
        elif name == "branch-required":
            run = forked(trunk, branch, {key: complete(part, source.shapes, hidden) for key, part in feeds.items()})
        else:
            run = forked(trunk, branch, feeds)
        # Variants have the same layers; what is theirs, their inputs, shows in fewer texts.
        texts = spread(source.texts, COMPARED_TEXTS if name == "branch" else 1)
        reports[name] = check_parity(
            source.encoder, source.tokenizer, run, texts, chosen, mixed=bank, tolerance=options.allowed
        )
    return reports


def spread(texts: Sequence[str], count: int) -> list[str]:
    """At most so many texts, evenly out of all."""
    return [texts[place * len(texts) // count] for place in range(count)] if len(texts) > count else list(texts)


def _adapters(source: Source) -> tuple[dict[str, Adapter], dict[str, Feeds]]:
    """What is put on the backbone in the comparison: for torch, and as the files give it to the graphs."""
    bundle = source.bundle
    feeds: dict[str, Feeds] = {"(none)": {}}
    feeds |= {f"{family} adapter": primary.feeds for family, primary in bundle.primaries.items()}
    feeds |= {name: bundle.feeds(name) for name in spread(sorted(bundle.tasks), COMPARED_TASKS)}
    return {name: source.adapters.get(name, Adapter()) for name in feeds}, feeds


def _manifest(source: Source, options: ExportOptions, given: str | Path) -> Manifest:
    manifest, config = source.bundle.manifest, source.encoder.config
    encoder = dataclasses.replace(manifest.encoder, vocabulary_size=config.vocab_size, pad_id=config.pad_id)
    return dataclasses.replace(
        manifest,
        name=options.name or _name_of(Path(given)) or manifest.name,
        trunkline=__version__,
        encoder=encoder,
        slots=source.lora_targets,
        licences=manifest.licences or (Licence(str(manifest.info.get("encoder", "encoder"))[:1000], "unknown"),),
    )


def _name_of(path: Path) -> str:
    """That of the source's folder, or of the run that a folder `bundle` lies in."""
    chosen = path.resolve().parent.name if path.name == "bundle" else path.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", chosen).strip("-._")[:100]
