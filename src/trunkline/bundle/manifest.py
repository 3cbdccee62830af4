"""The manifest of a bundle: what belongs together, with the size and the SHA-256 of every file.

Reading reports every problem of a manifest at once; `schema.py` says what each key holds.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from trunkline.bundle.lora import LORA_TARGETS, Shapes, lora_shapes
from trunkline.bundle.schema import FORMAT, NAME, SCHEMA, VERSION, problems_of
from trunkline.errors import DataError, MismatchError, TrunklineError

MANIFEST = "manifest.json"
SIGNATURE = "signature.json"
TOKENIZER = "tokenizer.json"
MAX_MANIFEST_BYTES = 8 * 2**20
MAX_ADAPTER_BYTES = 256 * 2**20
MAX_TOKENIZER_BYTES = 64 * 2**20
MAX_WEIGHTS_BYTES = 2**31
MAX_SHOWN = 20
"""Problems that a message lists."""


@dataclass(frozen=True, slots=True)
class EncoderFacts:
    """What prediction must know of the encoder; `max_length` and `overlap` are those of windows, in tokens."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    n_layers: int
    n_heads: int
    fork: int
    max_length: int
    overlap: int
    pad_id: int
    activation: str
    vocabulary_size: int


@dataclass(frozen=True, slots=True)
class TaskEntry:
    """A task's family and its file."""

    family: str
    file: str


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What a file must be."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Licence:
    """The licence of a part, such as the encoder or a data set; `unverified` or empty if nobody looked."""

    part: str
    licence: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A bundle's contents; paths are relative to its folder, with `/`.

    Attributes:
        name: Of the bundle.
        trunkline: The version that wrote it.
        encoder: Sizes and windows.
        backbone: `backbone_hash` of the encoder in float32; every adapter names it.
        weights: `kind` of the graphs' weights, or float32 without graphs, and facts of the quantisation.
        lora_targets: Where LoRA may sit: the branch graphs' LoRA inputs.
        graphs: `trunk`, `branch` and variants -> file; empty if the bundle has none.
        checkpoint: `config` and `weights` of the encoder for torch -> file; empty if the bundle has none.
        adapters: Family -> file of its primary adapter, which tasks without LoRA of their own sit on.
        tasks: By name.
        files: Every file but the manifest and its signature.
        licences: Of the parts.
        info: How it was made; nothing depends on it.
    """

    name: str
    trunkline: str
    encoder: EncoderFacts
    backbone: str
    weights: Mapping[str, Any]
    lora_targets: tuple[str, ...]
    graphs: Mapping[str, str] = field(default_factory=dict)
    checkpoint: Mapping[str, str] = field(default_factory=dict)
    adapters: Mapping[str, str] = field(default_factory=dict)
    tasks: Mapping[str, TaskEntry] = field(default_factory=dict)
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    licences: tuple[Licence, ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shapes(self) -> Shapes:
        """The LoRA inputs of the branch graphs, `LAYER.TARGET` -> (inputs, outputs)."""
        return _shapes(self.encoder, self.lora_targets)

    def to_json(self) -> bytes:
        """The manifest's bytes; equal manifests give equal bytes."""
        record = {
            "format": FORMAT,
            "version": VERSION,
            "trunkline": self.trunkline,
            "name": self.name,
            "encoder": {key: getattr(self.encoder, key) for key in EncoderFacts.__slots__},
            "backbone": self.backbone,
            "weights": dict(self.weights),
            "lora_targets": list(self.lora_targets),
            "graphs": dict(self.graphs),
            "checkpoint": dict(self.checkpoint),
            "adapters": dict(self.adapters),
            "tasks": {name: {"family": task.family, "file": task.file} for name, task in self.tasks.items()},
            "files": {path: {"sha256": file.sha256, "bytes": file.bytes} for path, file in self.files.items()},
            "licences": [{"part": item.part, "licence": item.licence} for item in self.licences],
            "info": dict(self.info),
        }
        return (json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8")


@lru_cache(maxsize=64)
def _shapes(facts: EncoderFacts, lora_targets: tuple[str, ...]) -> Shapes:
    layers = range(facts.fork, facts.n_layers)
    return lora_shapes(layers, facts.hidden_size, facts.intermediate_size, lora_targets)


def parse_manifest(content: bytes, path: str | Path = MANIFEST) -> Manifest:
    """Reads a manifest from its bytes.

    Args:
        content: The bytes.
        path: For messages.

    Raises:
        DataError: It is no JSON or no manifest; lists every problem.
        MismatchError: It is of a later version.
    """
    raw = _json(content, path)
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        old = isinstance(raw, dict) and raw.get("format") == 1 and "backbone" in raw
        raise DataError(
            "this is a training bundle of an earlier format" if old else "this is not the manifest of a bundle",
            path=path,
            expected=f'a manifest with "format": "{FORMAT}"',
            todo="`trunkline bundle convert` makes a bundle of this version of it" if old else "",
        )
    version = raw.get("version")
    if version == 1 and type(version) is int:
        raise MismatchError(
            f"{path} has version 1, whose graphs read the last layer alone",
            expected=f"version {VERSION}",
            todo="Convert the bundle that it was exported from by `trunkline bundle convert`, and export that again",
        )
    if isinstance(version, int) and not isinstance(version, bool) and version > VERSION:
        raise MismatchError(
            f"{path} has version {str(version)[:20]}", expected=f"version {VERSION} at most", todo="Update trunkline"
        )
    problems = list(problems_of(raw, SCHEMA))
    if not problems:
        problems = list(_contradictions(raw))
    if problems:
        listed = "".join(f"\n  - {problem}" for problem in problems[:MAX_SHOWN])
        more = f"\n  - and {len(problems) - MAX_SHOWN} more" if len(problems) > MAX_SHOWN else ""
        noun = "problem" if len(problems) == 1 else "problems"
        raise DataError(
            f"the manifest has {len(problems)} {noun}:{listed}{more}\n",
            path=path,
            expected=f"a manifest of version {VERSION}",
            todo="Export the bundle again, or fetch it again",
        )
    return Manifest(
        name=raw["name"],
        trunkline=raw["trunkline"],
        encoder=EncoderFacts(**raw["encoder"]),
        backbone=raw["backbone"],
        weights=raw["weights"],
        lora_targets=tuple(raw["lora_targets"]),
        graphs=raw["graphs"],
        checkpoint=raw["checkpoint"],
        adapters=raw["adapters"],
        tasks={name: TaskEntry(**task) for name, task in raw["tasks"].items()},
        files={name: FileEntry(**file) for name, file in raw["files"].items()},
        licences=tuple(Licence(**item) for item in raw["licences"]),
        info=raw["info"],
    )


def check_name(name: object) -> str:
    """A name of a task, a family or a bundle; raises TrunklineError for anything else."""
    problem = next(problems_of(name, {"type": "string", "pattern": NAME}, "the name"), None)
    if problem is not None:
        raise TrunklineError(problem, todo="Take letters, digits, '.', '_' and '-'")
    return str(name)


def name_of(folder: Path, default: str) -> str:
    """The name of a bundle that is written here: the folder's, where that is a name."""
    try:
        return check_name(folder.name)
    except TrunklineError:
        return default


def limit_of(file: str, manifest: Manifest) -> int:
    """The most bytes that a file of a bundle may have."""
    if file == TOKENIZER:
        return MAX_TOKENIZER_BYTES
    if file in manifest.graphs.values() or file == manifest.checkpoint.get("weights"):
        return MAX_WEIGHTS_BYTES
    return MAX_ADAPTER_BYTES


def _json(content: bytes, path: str | Path) -> Any:
    if len(content) > MAX_MANIFEST_BYTES:
        raise DataError(f"more than {MAX_MANIFEST_BYTES} bytes", path=path, expected="a manifest")
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"this is no JSON ({' '.join(str(error).split())[:200]})",
            path=path,
            expected="the manifest as it was exported",
            todo="Fetch or export the bundle again",
        ) from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; two readers could take different ones of two values of one key."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice[:60]!r} stands there twice")
    return found


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def _contradictions(raw: dict[str, Any]) -> Iterator[str]:
    """What the schema cannot say: how keys hang together."""
    encoder, files = raw["encoder"], raw["files"]
    if encoder["fork"] > encoder["n_layers"]:
        yield f"encoder.fork is {encoder['fork']}, expected at most encoder.n_layers, {encoder['n_layers']}"
    if encoder["hidden_size"] % encoder["n_heads"]:
        yield f"encoder.hidden_size {encoder['hidden_size']} is no multiple of encoder.n_heads {encoder['n_heads']}"
    if encoder["overlap"] > (encoder["max_length"] - 2) // 2:
        yield f"encoder.overlap is {encoder['overlap']}, expected at most half of encoder.max_length - 2"
    if encoder["pad_id"] >= encoder["vocabulary_size"]:
        yield f"encoder.pad_id is {encoder['pad_id']}, expected less than encoder.vocabulary_size"
    for part, needed in (("graphs", {"trunk", "branch"}), ("checkpoint", {"config", "weights"})):
        if raw[part] and not needed <= raw[part].keys():
            yield f"{part} has {', '.join(raw[part])}, expected {' and '.join(sorted(needed))}"
    if not raw["graphs"] and not raw["checkpoint"]:
        yield "there are neither graphs nor a checkpoint, expected at least one of them"
    if raw["lora_targets"] != [name for name in LORA_TARGETS if name in raw["lora_targets"]]:
        yield f"lora_targets are {', '.join(raw['lora_targets'])}, expected the order {', '.join(LORA_TARGETS)}"
    named = {f"graphs.{key}": file for key, file in raw["graphs"].items()}
    named |= {f"checkpoint.{key}": file for key, file in raw["checkpoint"].items()}
    named |= {f"adapters.{key}": file for key, file in raw["adapters"].items()}
    named |= {f"tasks.{key}": task["file"] for key, task in raw["tasks"].items()}
    named["the tokenizer"] = TOKENIZER
    yield from (f"{key}: {file} is not among files" for key, file in named.items() if file not in files)
    uses = Counter(named.values())
    yield from (f"{file} stands for {count} parts, expected one" for file, count in uses.items() if count > 1)
    yield from (f"files.{file} belongs to no part" for file in files if file not in uses)
    folded = Counter(file.lower() for file in files)
    yield from (f"{file} stands there in several spellings" for file, count in folded.items() if count > 1)
    reserved = {MANIFEST, SIGNATURE}
    for file in files:
        if file in reserved or PurePosixPath(file).parts[0] in reserved:
            yield f"files.{file} has a reserved name"
