"""A bundle with ONNX graphs out of one with weights for torch: made, compared with torch, judged, and then written."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

from trunkline import __version__, samples
from trunkline.atomic import check_free
from trunkline.bundle.edit import Parts, write_bundle
from trunkline.bundle.files import Bundle, open_bundle
from trunkline.bundle.lora import LORA_TARGETS, Inputs, complete
from trunkline.bundle.manifest import MANIFEST, Licence, Manifest
from trunkline.encoder.bundle_files import bundle_encoder, cached_bundle, primary_in_torch, task_in_torch
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.storage import load_tokenizer
from trunkline.engine.base import Engine, Predictor, TextReader
from trunkline.engine.onnx import OnnxEngine, open_session
from trunkline.engine.torch import TorchEngine
from trunkline.errors import TrunklineError
from trunkline.export.gate import quality_gate
from trunkline.export.graph import DEFAULT_LORA_TARGETS, Form, branch_graph, trunk_graph
from trunkline.export.options import ExportOptions, ExportReport
from trunkline.export.parity import Adapter, ParityReport, banked, check_parity, forked
from trunkline.export.quantise import PLANS, Calibration, calibrate, quantised
from trunkline.export.vocabulary import prune_encoder, prune_vocabulary
from trunkline.export.weights import BackboneWeights, shorten_positions, take_weights
from trunkline.text.tokens import TextTokenizer

COMPARED_TEXTS = 12
COMPARED_TASKS = 16
"""Tasks that are compared with torch; what all have in common, files and heads as inputs, shows in these."""

_FORMS: dict[str, Form] = {"branch": "optional", "branch-required": "required", "branch-bank": "bank"}


@dataclass(frozen=True)
class Source:
    """A bundle that was checked and is ready to be exported.

    Attributes:
        bundle: With the tasks that are exported.
        manifest: Of the export, but for weights and files.
        encoder: Its encoder in float32, with the vocabulary that is exported.
        tokenizer: The tokenizer that is exported.
        whole: Encoder and tokenizer with the whole vocabulary.
        texts: For comparison and calibration.
        longer: Tokens of the texts with the smaller vocabulary over tokens with the whole one.
    """

    bundle: Bundle
    manifest: Manifest
    encoder: Encoder
    tokenizer: TextTokenizer
    whole: tuple[Encoder, TextTokenizer]
    texts: tuple[str, ...]
    longer: float = 1.0

    @cached_property
    def adapters(self) -> dict[str, Adapter]:
        """Primary adapters, as `FAMILY adapter`, and tasks in torch, with the float16 values of their files."""
        manifest, config = self.bundle.manifest, self.encoder.config
        found = {
            f"{family} adapter": Adapter(primary_in_torch(primary, manifest, config).lora)
            for family, primary in self.bundle.primaries.items()
        }
        for name, task in sorted(self.bundle.tasks.items()):
            own, shared = task_in_torch(task, manifest, config), found.get(f"{task.family} adapter", Adapter())
            found[name] = Adapter(own.lora if task.own_lora else shared.lora, own.head)
        return found

    def predictor(self, engine: Engine | None = None) -> Predictor:
        """The tasks on an engine of what is exported; by default on torch, with the whole vocabulary."""
        encoder, tokenizer = self.whole if engine is None else (self.encoder, self.tokenizer)
        reader = TextReader(tokenizer, self.bundle.tokenizer)
        primaries = {family: primary.inputs for family, primary in self.bundle.primaries.items()}
        return Predictor(reader, engine or TorchEngine(encoder), primaries, self.bundle.tasks.values())


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
    weights, tokens = prepare_weights(found, options)
    graphs = make_graphs(found, options, weights)
    parity, gate = compare(found, graphs, options), None
    if options.judged:
        after = found.predictor(OnnxEngine(graphs, found.manifest.shapes, found.encoder.config.pad_id))
        gate = quality_gate(found.predictor(), after, options.examples, options.max_drop)
        for task in gate.tasks:
            say(str(task))
    facts: dict[str, Any] = dict(weights.facts)
    facts = {"kind": facts.pop("weights"), **facts} | ({} if gate is None else {"gate": gate.record()})
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


def load_source(source: str | Path, options: ExportOptions) -> Source:
    """Loads what is exported, and refuses at once what could not be finished.

    Raises:
        EncoderError: The encoder is damaged or cannot be found.
        TrunklineError: The bundle has no weights for torch; a task that there is not; tasks, rounded weights and no
            examples to judge them by.
    """
    bundle = _opened(source, options)
    encoder = bundle_encoder(bundle)
    tokenizer = load_tokenizer(bundle.folder, encoder.config, bundle.manifest.encoder.max_length)
    texts = tuple(text for text in options.texts if text.strip())
    small, read, longer = encoder, tokenizer, 1.0
    if options.vocabulary is not None:
        vocabulary = prune_vocabulary(tokenizer, texts, options.vocabulary, (encoder.config.pad_id,))
        small, read, longer = prune_encoder(encoder, vocabulary), vocabulary.tokenizer, vocabulary.longer
    manifest = _manifest(bundle, small, options)
    return Source(bundle, manifest, small, read, (encoder, tokenizer), texts or sample_texts(), longer)


def _opened(source: str | Path, options: ExportOptions) -> Bundle:
    """The bundle with the chosen tasks."""
    folder = Path(source).expanduser()
    bundle = open_bundle(folder if (folder / MANIFEST).is_file() else cached_bundle(str(source)))
    names = set(bundle.tasks if options.tasks is None else options.tasks)
    for asked, there, what in (
        (names, bundle.tasks.keys(), "to export"),
        (set(options.examples), names, "to judge weights by"),
    ):
        unknown = sorted(asked - there)
        if unknown:
            known = ", ".join(sorted(there)) or "(none)"
            raise TrunklineError(f"{source} has no task {', '.join(unknown)} {what}", expected=f"some of {known}")
    if names and options.gate and not options.exact and not options.examples:
        what = "a smaller vocabulary" if options.weights == "float32" else f"{options.weights} weights"
        raise TrunklineError(
            f"{what} and {len(names)} tasks without examples to judge them by",
            expected="labelled examples of at least one task",
            todo="Give `--dev NAME=FILE`, or `--no-gate` to go without",
        )
    return dataclasses.replace(bundle, tasks={name: bundle.tasks[name] for name in sorted(names)})


def _manifest(bundle: Bundle, encoder: Encoder, options: ExportOptions) -> Manifest:
    """The bundle's, with LoRA inputs where its adapters have updates, or by default on query, key and value."""
    adapters = [part.inputs for part in bundle.primaries.values()] + [task.inputs for task in bundle.tasks.values()]
    used = {name.split(".")[2] for inputs in adapters for name in inputs if name.startswith("lora.")}
    targets = tuple(
        target for target in LORA_TARGETS if target in (used | set(options.lora_targets) or DEFAULT_LORA_TARGETS)
    )
    manifest, config = bundle.manifest, encoder.config
    return dataclasses.replace(
        manifest,
        trunkline=__version__,
        encoder=dataclasses.replace(manifest.encoder, vocabulary_size=config.vocab_size, pad_id=config.pad_id),
        lora_targets=targets,
        licences=manifest.licences or (Licence(str(manifest.info.get("encoder", "encoder"))[:1000], "unknown"),),
    )


def sample_texts() -> tuple[str, ...]:
    """Training texts of the shipped samples, of all their tasks in turn."""
    columns: list[list[str]] = []
    for path in sorted((samples.FOLDER / "tasks").glob("*-train.*")):
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = csv.DictReader(lines) if path.suffix == ".csv" else map(json.loads, lines)
        columns.append([row["text"] for row in rows])
    return tuple(text for row in zip_longest(*columns) for text in row if text)


def prepare_weights(source: Source, options: ExportOptions) -> tuple[BackboneWeights, int]:
    """The weights that graphs are made of, and how many tokens calibration read.

    Rounded weights are calibrated on the texts, without and through every adapter; raises TrunklineError where these
    have no token.
    """
    seen = Calibration({}, {}, 0)
    if options.weights != "float32":
        loras = {id(adapter.lora): adapter.lora for adapter in source.adapters.values() if adapter.lora is not None}
        moments = options.weights == "int4"
        seen = calibrate(source.encoder, source.tokenizer, source.texts, list(loras.values()), moments=moments)
    taken = dataclasses.replace(take_weights(source.encoder), hash=source.manifest.backbone)
    return quantised(shorten_positions(taken, source.tokenizer.max_length), PLANS[options.weights], seen), seen.tokens


def make_graphs(source: Source, options: ExportOptions, weights: BackboneWeights) -> dict[str, bytes]:
    """`trunk`, `branch` and the variants of it that are asked for, serialised."""
    graphs = {"trunk": trunk_graph(weights, options.attention)}
    for name in ("branch", *sorted(f"branch-{variant}" for variant in options.variants)):
        # The runtimes that want all inputs compute the If of fast attention wrongly.
        attention = "portable" if name == "branch-required" else options.attention
        graphs[name] = branch_graph(weights, _FORMS[name], source.manifest.lora_targets, attention)
    return graphs


def compare(source: Source, graphs: Mapping[str, bytes], options: ExportOptions) -> dict[str, ParityReport]:
    """Compares graphs with torch, with what the bundle's files hold as inputs; errors as for `check_parity`."""
    bundle, shapes, hidden = source.bundle, source.manifest.shapes, source.encoder.config.hidden_size
    primaries: dict[str, Inputs] = {"(none)": {}}
    primaries |= {f"{family} adapter": primary.inputs for family, primary in bundle.primaries.items()}
    inputs = primaries | {name: bundle.inputs(name) for name in spread(sorted(bundle.tasks), COMPARED_TASKS)}
    trunk, reports = open_session(graphs["trunk"]), {}
    for name in sorted(graphs.keys() - {"trunk"}):
        branch, chosen = open_session(graphs[name]), inputs
        if name == "branch-bank":
            chosen = primaries
            run = banked(trunk, branch, primaries, shapes)
        elif name == "branch-required":
            run = forked(trunk, branch, {key: complete(part, shapes, hidden) for key, part in inputs.items()})
        else:
            run = forked(trunk, branch, inputs)
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
    return reports


def spread(texts: Sequence[str], count: int) -> list[str]:
    """At most so many texts, evenly out of all."""
    return [texts[place * len(texts) // count] for place in range(count)] if len(texts) > count else list(texts)


def _name_of(path: Path) -> str:
    """That of the source's folder, or of the run that a folder `bundle` lies in."""
    chosen = path.resolve().parent.name if path.name == "bundle" else path.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", chosen).strip("-._")[:100] or "bundle"
