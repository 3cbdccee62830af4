"""A bundle with ONNX graphs out of one with weights for torch: made, compared with torch, judged, and then written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, get_args

from trunkline import __version__, samples
from trunkline.bundle.edit import write_bundle
from trunkline.bundle.files import Bundle, check_free, open_bundle
from trunkline.bundle.manifest import LORA_TARGETS, MANIFEST, TOKENIZER, Inputs, Licence, Manifest, branch_of, name_of
from trunkline.bundle.parts import complete
from trunkline.data.stream import load_texts
from trunkline.encoder.bundle_files import bundle_encoder, cached_bundle, lora_of
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.storage import load_tokenizer
from trunkline.engine.base import Engine, Predictor
from trunkline.engine.onnx import OnnxEngine, open_session
from trunkline.engine.torch import TorchEngine
from trunkline.errors import TrunklineError
from trunkline.export.graph import DEFAULT_LORA_TARGETS, Attention, Form, branch_graph, trunk_graph
from trunkline.export.parity import Adapter, Tolerance, banked, check_parity, forked, quality_gate
from trunkline.export.vocabulary import prune_encoder, prune_vocabulary
from trunkline.export.weights import (
    PLANS,
    BackboneWeights,
    Calibration,
    Scheme,
    calibrate,
    quantised,
    shorten_positions,
    take_weights,
)
from trunkline.text.tokens import TextTokenizer

Variant = Literal["required", "bank"]

QUANTISED_TOLERANCE = {
    "float32": Tolerance(),
    "int8": Tolerance(float("inf"), float("inf"), 0.95),
    "int4": Tolerance(float("inf"), float("inf"), 0.85),
}
"""Against torch in float32. Rounded weights are judged by a task's score; the cosine finds what is broken."""

COMPARED_TEXTS, COMPARED_TASKS = 12, 16
"""Tasks that are compared with torch; what all have in common, files and heads as inputs, shows in these."""

_FORMS: dict[str, Form] = {"branch": "optional", "branch-required": "required", "branch-bank": "bank"}


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How a bundle is exported.

    Attributes:
        name: The bundle's; by default that of its folder.
        weights: What linear layers and the word embedding are stored and computed in.
        variants: Branch graphs beside the plain one: `required` for onnxruntime-web and OpenVINO, `bank` for batches
            whose rows have different adapters.
        lora_targets: LoRA inputs of the branch beside those that the bundle's adapters need: `qkv`, `out`, `up` or
            `down`. Each costs time even if nothing is fed to it.
        tasks: Names; all by default.
        texts: For the comparison with torch, for calibration and to choose a vocabulary by; by default the samples'.
        vocabulary: Pieces that remain of the vocabulary, chosen by `texts`; all by default.
        examples: Task -> labelled examples that it was not trained on, by which rounded weights are judged.
        gate: Whether rounded weights need that judgement.
        max_drop: Points of a hundred that a task's main score may drop.
    """

    name: str = ""
    weights: Scheme = "float32"
    variants: tuple[Variant, ...] = ()
    lora_targets: tuple[str, ...] = ()
    tasks: tuple[str, ...] | None = None
    texts: tuple[str, ...] = ()
    vocabulary: int | None = None
    examples: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    gate: bool = True
    max_drop: float = 0.5

    def __post_init__(self) -> None:
        for name, given, known in (
            ("weights", {self.weights}, get_args(Scheme)),
            ("variants", set(self.variants), get_args(Variant)),
            ("lora_targets", set(self.lora_targets), tuple(LORA_TARGETS)),
        ):
            if not given <= set(known):
                raise TrunklineError(f"{name} {', '.join(sorted(given - set(known)))}", expected=", ".join(known))
        if not self.max_drop >= 0:
            raise TrunklineError(f"max_drop {self.max_drop}", expected="points of a hundred, at least 0")

    @property
    def judged(self) -> bool:
        """Whether the gate has something to judge; else tasks predict as before but for the last digits."""
        return self.gate and not (self.weights == "float32" and self.vocabulary is None)


@dataclass(frozen=True)
class Source:
    """A bundle with the tasks that are exported, the manifest of the export, but for weights and files, and its texts.

    Encoder, in float32, and tokenizer have the vocabulary that is exported; `whole` are those with all of it.
    """

    bundle: Bundle
    manifest: Manifest
    encoder: Encoder
    tokenizer: TextTokenizer
    whole: tuple[Encoder, TextTokenizer]
    texts: tuple[str, ...]

    @cached_property
    def adapters(self) -> dict[str, Adapter]:
        """Primary adapters, as `FAMILY adapter`, and tasks in torch, with the float16 values of their files."""
        bundle, config = self.bundle, self.encoder.config
        loras = {family: lora_of(primary, config) for family, primary in bundle.primaries.items()}
        found = {f"{family} adapter": Adapter(lora) for family, lora in loras.items()}
        for name, task in sorted(bundle.tasks.items()):
            lora = lora_of(task, config) if task.own_lora else loras.get(branch_of(task.family))
            found[name] = Adapter(lora, task.head, task.family)
        return found

    def predictor(self, engine: Engine | None = None) -> Predictor:
        """The tasks on an engine of what is exported; by default on torch, with the whole vocabulary."""
        encoder, tokenizer = self.whole if engine is None else (self.encoder, self.tokenizer)
        primaries = {family: primary.inputs for family, primary in self.bundle.primaries.items()}
        return Predictor(tokenizer, engine or TorchEngine(encoder), primaries, self.bundle.tasks.values())


def export_bundle(source: str | Path, out: str | Path, options: ExportOptions | None = None) -> dict[str, Any]:
    """Writes a bundle with graphs. Its adapter and task files are those of the source, byte for byte.

    The source is the folder of a bundle with weights for torch, or an encoder by folder or name; `out` is new or empty.

    Returns, as JSON, `folder`, `bytes` in all and of each of `files`, `weights` as in the manifest,
    `calibration_tokens`, `parity` of each graph and what the `gate` found. Raises QualityError where rounded weights
    cost a task too much, and TrunklineError where `out` is taken, the graphs differ from torch, or as `load_source`.
    """
    options, out, place = options or ExportOptions(), Path(out).expanduser(), Path(source).resolve()
    check_free(out)
    found = load_source(source, options)
    weights, tokens = prepare_weights(found, options)
    graphs = make_graphs(found, options, weights)
    parity = compare(found, graphs, options)
    gate, facts = None, dict[str, Any](weights.facts)
    if options.judged and options.examples:
        after = found.predictor(OnnxEngine(graphs, found.manifest.shapes, found.encoder.config.pad_id))
        gate = quality_gate(found.predictor(), after, options.examples, options.max_drop)
    facts = {"kind": facts.pop("weights"), **facts} | ({} if gate is None else {"gate": gate})
    written = write_bundle(
        out,
        dataclasses.replace(
            found.manifest,
            # A run has its bundle in a folder of this name.
            name=options.name or name_of(place.parent if place.name == "bundle" else place, found.manifest.name),
            weights=facts,
            graphs={name: f"graphs/{name}.onnx" for name in graphs},
            checkpoint={},
        ),
        {
            TOKENIZER: found.tokenizer.tokenizer.to_str(pretty=False).encode("utf-8"),
            **{f"graphs/{name}.onnx": graph for name, graph in graphs.items()},
            **{file: found.bundle.primaries[family].content for family, file in found.manifest.adapters.items()},
        },
        {name: task.content for name, task in found.bundle.tasks.items()},
    )
    sizes = {file: entry.bytes for file, entry in written.files.items()} | {MANIFEST: len(written.to_json())}
    about = {"folder": out.name, "bytes": sum(sizes.values()), "files": dict(sorted(sizes.items()))}
    return {**about, "weights": facts, "calibration_tokens": tokens, "parity": parity, "gate": gate}


def load_source(source: str | Path, options: ExportOptions) -> Source:
    """Loads what is exported, and refuses at once what could not be finished.

    That is a bundle without weights for torch, a task that there is not, and rounded weights for tasks without examples
    to judge them by.
    """
    bundle = _opened(source, options)
    encoder = bundle_encoder(bundle)
    tokenizer = load_tokenizer(bundle.folder, encoder.config, bundle.manifest.encoder.max_length)
    texts = tuple(text for text in options.texts if text.strip())
    small, read = encoder, tokenizer
    if options.vocabulary is not None:
        vocabulary = prune_vocabulary(tokenizer, texts, options.vocabulary, (encoder.config.pad_id,))
        small, read = prune_encoder(encoder, vocabulary), vocabulary.tokenizer
    manifest = _manifest(bundle, small, options)
    return Source(bundle, manifest, small, read, (encoder, tokenizer), texts or sample_texts())


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
    if names and options.judged and not options.examples:
        what = "a smaller vocabulary" if options.weights == "float32" else f"{options.weights} weights"
        given, todo = f"{what} and {len(names)} tasks without examples to judge them by", "`--no-gate` to go without"
        expected = "labelled examples of at least one task"
        raise TrunklineError(given, expected=expected, todo=f"Give `--dev NAME=FILE`, or {todo}")
    return dataclasses.replace(bundle, tasks={name: bundle.tasks[name] for name in sorted(names)})


def _manifest(bundle: Bundle, encoder: Encoder, options: ExportOptions) -> Manifest:
    """The bundle's, with LoRA inputs where its adapters have updates, or by default on query, key and value."""
    inputs = [part.inputs for part in bundle.primaries.values()] + [task.inputs for task in bundle.tasks.values()]
    used = {name.split(".")[2] for names in inputs for name in names if name.startswith("lora.")}
    chosen = used | set(options.lora_targets) or DEFAULT_LORA_TARGETS
    manifest, config = bundle.manifest, encoder.config
    return dataclasses.replace(
        manifest,
        trunkline=__version__,
        encoder=dataclasses.replace(manifest.encoder, vocabulary_size=config.vocab_size, pad_id=config.pad_id),
        lora_targets=tuple(target for target in LORA_TARGETS if target in chosen),
        licences=manifest.licences or (Licence(str(manifest.info.get("encoder", "encoder"))[:1000], "unknown"),),
    )


def sample_texts() -> tuple[str, ...]:
    """Training texts of the shipped samples, of all their tasks in turn."""
    files = sorted((samples.FOLDER / "tasks").glob("*-train.*"))
    columns = [[text for text, _ in load_texts(path)] for path in files]
    return tuple(text for row in zip_longest(*columns) for text in row if text)


def prepare_weights(source: Source, options: ExportOptions) -> tuple[BackboneWeights, int]:
    """The weights that graphs are made of, and how many tokens calibration read.

    Rounded weights are calibrated on the texts, without and through every adapter.
    """
    encoder, tokenizer, scheme = source.encoder, source.tokenizer, options.weights
    loras = {id(adapter.lora): adapter.lora for adapter in source.adapters.values() if adapter.lora is not None}
    seen = Calibration({}, {}, 0)
    if scheme != "float32":
        seen = calibrate(encoder, tokenizer, source.texts, list(loras.values()), moments=scheme == "int4")
    whole = dataclasses.replace(take_weights(encoder), hash=source.manifest.backbone)
    return quantised(shorten_positions(whole, tokenizer.max_length), PLANS[scheme], seen), seen.tokens


def make_graphs(source: Source, options: ExportOptions, weights: BackboneWeights) -> dict[str, bytes]:
    """`trunk`, `branch` and the variants of it that are asked for, serialised."""
    # The runtimes that want all inputs compute the If of fast attention wrongly.
    attention: Attention = "portable" if "required" in options.variants else "fast"
    names = ("branch", *sorted(f"branch-{variant}" for variant in options.variants))
    targets = source.manifest.lora_targets
    graphs = {name: branch_graph(weights, _FORMS[name], targets, attention) for name in names}
    return {"trunk": trunk_graph(weights, attention), **graphs}


def compare(source: Source, graphs: Mapping[str, bytes], options: ExportOptions) -> dict[str, Any]:
    """Compares graphs with torch, with what the bundle's files hold as inputs; errors as for `check_parity`."""
    bundle, shapes, hidden = source.bundle, source.manifest.shapes, source.encoder.config.hidden_size
    primaries: dict[str, Inputs] = {"(none)": {}}
    primaries |= {f"{family} adapter": primary.inputs for family, primary in bundle.primaries.items()}
    inputs = primaries | {name: bundle.inputs(name) for name in spread(sorted(bundle.tasks), COMPARED_TASKS)}
    trunk, reports, tolerance = open_session(graphs["trunk"]), {}, QUANTISED_TOLERANCE[options.weights]
    for name in sorted(graphs.keys() - {"trunk"}):
        branch, mixed = open_session(graphs[name]), name == "branch-bank"
        given = primaries if mixed else inputs
        if name == "branch-required":
            given = {key: complete(part, shapes, hidden) for key, part in inputs.items()}
        run = banked(trunk, branch, given, shapes) if mixed else forked(trunk, branch, given)
        # Variants have the same layers; what is theirs, their inputs, shows in fewer texts.
        texts = spread(source.texts, COMPARED_TEXTS if name == "branch" else 1)
        adapters = {key: source.adapters.get(key, Adapter()) for key in given}
        own = source.encoder, source.tokenizer
        reports[name] = check_parity(*own, run, texts, adapters, mixed=mixed, tolerance=tolerance)
    return reports


def spread(texts: Sequence[str], count: int) -> list[str]:
    """At most so many texts, evenly out of all."""
    return [texts[place * len(texts) // count] for place in range(count)] if len(texts) > count else list(texts)
