"""The manifest of a bundle: what belongs together, with the size and the SHA-256 of every file; and files read safely.

Reading reports every problem of a manifest at once.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import numpy as np
import numpy.typing as npt

from trunkline.errors import DataError, MismatchError, TrunklineError

FloatArray = npt.NDArray[np.float32]
Inputs = dict[str, FloatArray]
Shapes = Mapping[str, tuple[int, int]]

LORA_TARGETS = {"qkv": ("query", "key", "value"), "out": ("out",), "up": ("up",), "down": ("down",)}
"""LoRA target of a graph -> the linear layers whose updates go in there."""

LINEARS = tuple(target for targets in LORA_TARGETS.values() for target in targets)
"""The linear layers of a transformer layer; LoRA can sit on each of them."""

HEAD = ("head.weight", "head.bias")
"""Inputs of the head. What else a file says of a head is for decoding, and no graph has an input for it."""

SHAPES = 60
"""Numbers that say the shape of a unit and of its neighbours, see `trunkline.text.words.unit_shapes`."""

BRANCHES = {"multilabel": "classification"}
"""Families without a primary adapter of their own -> the one whose branch they share."""

FORMAT, VERSION = "trunkline-bundle", 2
MANIFEST, SIGNATURE, TOKENIZER = "manifest.json", "signature.json", "tokenizer.json"
MAX_MANIFEST_BYTES = 8 * 2**20
MAX_ADAPTER_BYTES = 256 * 2**20
MAX_TOKENIZER_BYTES = 64 * 2**20
MAX_SHOWN = 20
"""Problems that a message lists."""
MOST = 10_000
"""Tasks, adapters or files of a bundle."""
AGAIN = "Fetch or export the bundle again"

NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
FILE = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,119}(/[A-Za-z0-9][A-Za-z0-9._-]{0,119}){0,1}")
SHA256 = re.compile("[0-9a-f]{64}")
TEXT = re.compile("(?s:.{0,1000})")
ANYTHING = re.compile("(?s:.*)")


class Optional(dict[Any, Any]):
    """A form of objects whose keys may be missing."""


def _form(record: type) -> dict[Any, Any]:
    """The form of a record: those that its fields are annotated with."""
    return {name: hint.__metadata__[0] for name, hint in get_type_hints(record, include_extras=True).items()}


def problems_of(value: Any, form: Any, where: str = "the manifest") -> Iterator[str]:
    """Every way in which JSON differs from a form, each with its place.

    The values that are allowed stand in tuples; numbers have ranges, or are `float`; texts have patterns; lists have
    the form of their items; objects have those of their keys, or one for all names of a pattern; None allows all.
    """
    if isinstance(form, tuple):
        # A bool is an int to Python, but not to JSON.
        fits = any(value == item and type(value) is type(item) for item in form)
        expected = ", ".join(map(str, form))
    elif isinstance(form, re.Pattern):
        fits = type(value) is str and form.fullmatch(value) is not None
        expected = "text of at most 1000 characters" if form is TEXT else f"the form {form.pattern}"
    elif isinstance(form, range):
        fits, expected = type(value) is int and value in form, f"a whole number from {form.start} to {form.stop - 1}"
    elif form is float:
        fits, expected = type(value) in (int, float) and 0 <= value <= 1e6, "a number from 0 to 1,000,000"
    else:
        kind, called = (list, "a list") if isinstance(form, list) else (dict, "an object")
        fits = form is None or (type(value) is kind and len(value) <= MOST)
        expected = f"{called} of at most {MOST} entries"
    if not fits:
        yield f"{where} is {_short(value)}, expected {expected}"
    elif isinstance(form, dict):
        yield from _object_problems(value, form, "" if where == "the manifest" else f"{where}.")
    elif isinstance(form, list):
        texts = isinstance(form[0], re.Pattern)
        for number, item in enumerate(value):
            # A task may have thousands of labels.
            if not (texts and type(item) is str and form[0].fullmatch(item)):
                yield from problems_of(item, form[0], f"{where}[{number}]")


def _object_problems(value: dict[str, Any], form: Mapping[Any, Any], where: str) -> Iterator[str]:
    known = [key for key in form if isinstance(key, str)]
    names = next((key for key in form if isinstance(key, re.Pattern)), None)
    if not isinstance(form, Optional):
        yield from (f"{where}{key} is missing" for key in known if key not in value)
    for key, item in value.items():
        place = where + (key if len(key) <= 60 else key[:57] + "...")
        if names is None and key not in form:
            yield f"{place} is an unknown key, expected {', '.join(known)}"
        elif key not in form:
            yield from problems_of(key, names, f"a name in {where[:-1]}")
        yield from problems_of(item, form.get(key, form.get(names)), place)


def _short(value: object) -> str:
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)} entries"
    text = repr(value) if not isinstance(value, int) or abs(value) < 2**63 else "a huge number"
    return text if len(text) <= 60 else text[:57] + "..."


def listed(what: str, problems: Sequence[str]) -> str:
    """A sentence with its problems below it."""
    more = [f"and {len(problems) - MAX_SHOWN} more"] if len(problems) > MAX_SHOWN else []
    return f"{what}:" + "".join(f"\n  - {problem}" for problem in [*problems[:MAX_SHOWN], *more]) + "\n"


Size = Annotated[int, range(1, 2**20 + 1)]


@dataclass(frozen=True, slots=True)
class EncoderFacts:
    """What prediction must know of the encoder; `max_length` and `overlap` are those of windows, in tokens."""

    model_type: Annotated[str, TEXT]
    hidden_size: Size
    intermediate_size: Size
    n_layers: Annotated[int, range(1, 1001)]
    n_heads: Size
    fork: Annotated[int, range(1001)]
    max_length: Annotated[int, range(3, 2**20 + 1)]
    overlap: Annotated[int, range(2**20 + 1)]
    pad_id: Annotated[int, range(2**31 + 1)]
    activation: Annotated[str, TEXT]
    vocabulary_size: Annotated[int, range(1, 2**31 + 1)]


@dataclass(frozen=True, slots=True)
class TaskEntry:
    """A task's family and its file."""

    family: Annotated[str, NAME]
    file: Annotated[str, FILE]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What a file must be."""

    sha256: Annotated[str, SHA256]
    bytes: Annotated[int, range(1, 2**31 + 1)]


@dataclass(frozen=True, slots=True)
class Licence:
    """The licence of a part, such as the encoder or a data set; `unverified` or empty if nobody looked."""

    part: Annotated[str, TEXT]
    licence: Annotated[str, TEXT]


_GRAPHS = Optional(dict.fromkeys(("trunk", "branch", "branch-required", "branch-bank"), FILE))
_CHECKPOINT = Optional({"config": FILE, "weights": FILE})
_WEIGHTS = {"kind": ("float32", "int8", "int4"), ANYTHING: None}

DECISIONS = Optional(
    {
        "min_score": float,
        "thresholds": {TEXT: float},
        "other": TEXT,
        "held_out": {TEXT: Optional({"right": [float], "wrong": [float], "true": [float], "count": range(2**31)})},
        "chosen": {ANYTHING: None},
    }
)
"""What a task's file may say of decisions.

- `min_score`: the least score of what is said; of a text below it no label, of an entity below it nothing is said.
- `thresholds`: the same by label, where labels differ; in multi-label tasks a label is said from its threshold on.
- `other`: the label that stands for none of the others, and is said as None.
- `held_out`: by label, what cross-validation said of examples that were held out: scores of predictions that were
  `right` and `wrong`, the chance of the label where it was `true`, and the `count` of true ones.
- `chosen`: how, for people; nothing depends on it.
"""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A bundle's contents; paths are relative to its folder, with `/`. Fields are annotated with their forms.

    Attributes:
        trunkline: The version that wrote it.
        name: Of the bundle.
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

    trunkline: Annotated[str, TEXT]
    name: Annotated[str, NAME]
    encoder: Annotated[EncoderFacts, _form(EncoderFacts)]
    backbone: Annotated[str, SHA256]
    weights: Annotated[Mapping[str, Any], _WEIGHTS]
    lora_targets: Annotated[tuple[str, ...], [tuple(LORA_TARGETS)]]
    graphs: Annotated[Mapping[str, str], _GRAPHS] = field(default_factory=dict)
    checkpoint: Annotated[Mapping[str, str], _CHECKPOINT] = field(default_factory=dict)
    adapters: Annotated[Mapping[str, str], {NAME: FILE}] = field(default_factory=dict)
    tasks: Annotated[Mapping[str, TaskEntry], {NAME: _form(TaskEntry)}] = field(default_factory=dict)
    files: Annotated[Mapping[str, FileEntry], {FILE: _form(FileEntry)}] = field(default_factory=dict)
    licences: Annotated[tuple[Licence, ...], [_form(Licence)]] = ()
    info: Annotated[Mapping[str, Any], {ANYTHING: None}] = field(default_factory=dict)

    @property
    def shapes(self) -> Shapes:
        """The LoRA inputs of the branch graphs, `LAYER.TARGET` -> (inputs, outputs)."""
        sizes = self.encoder
        layers = range(sizes.fork, sizes.n_layers)
        return lora_shapes(layers, sizes.hidden_size, sizes.intermediate_size, self.lora_targets)

    def to_json(self) -> bytes:
        """The manifest's bytes; equal manifests give equal bytes."""
        record = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}
        return (json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8")


FORM = {"format": (FORMAT,), "version": (VERSION,), **_form(Manifest)}
"""The form of a manifest; a test holds it equal to `docs/bundle.schema.json`."""


@lru_cache(maxsize=64)
def lora_shapes(layers: range, hidden: int, inner: int, chosen: tuple[str, ...]) -> Shapes:
    """`LAYER.TARGET` -> (inputs, outputs) of every pair of LoRA inputs; raises MismatchError for an unknown target."""
    unknown = sorted(set(chosen) - LORA_TARGETS.keys())
    if unknown:
        raise MismatchError(f"LoRA targets {unknown}", expected="some of " + ", ".join(LORA_TARGETS))
    sizes = {"qkv": (hidden, 3 * hidden), "out": (hidden, hidden), "up": (hidden, inner), "down": (inner, hidden)}
    return {f"{layer}.{name}": sizes[name] for layer in layers for name in LORA_TARGETS if name in chosen}


def parse_manifest(content: bytes, path: str | Path = MANIFEST) -> Manifest:
    """Reads a manifest from its bytes; `path` is for messages.

    Raises:
        DataError: It is no JSON or no manifest; lists every problem.
        MismatchError: It is of another version.
    """
    try:
        raw = json.loads(content.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        given = f"this is no JSON ({' '.join(str(error).split())[:200]})"
        raise DataError(given, path=path, expected="the manifest as it was exported", todo=AGAIN) from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        given, expected = "this is not the manifest of a bundle", f'a manifest with "format": "{FORMAT}"'
        raise DataError(given, path=path, expected=expected, todo="Make the bundle with this version")
    version = raw.get("version")
    if type(version) is int and version != VERSION and version > 0:
        todo = "Make the bundle again with this version" if version < VERSION else "Update trunkline"
        raise MismatchError(f"{path} has version {str(version)[:20]}", expected=f"version {VERSION}", todo=todo)
    problems = list(problems_of(raw, FORM)) or list(_contradictions(raw))
    if problems:
        given = listed(f"the manifest has {len(problems)} problem" + "s" * (len(problems) > 1), problems)
        raise DataError(given, path=path, expected=f"a manifest of version {VERSION}", todo=AGAIN)
    made = {
        "encoder": EncoderFacts(**raw["encoder"]),
        "lora_targets": tuple(raw["lora_targets"]),
        "tasks": {name: TaskEntry(**task) for name, task in raw["tasks"].items()},
        "files": {name: FileEntry(**file) for name, file in raw["files"].items()},
        "licences": tuple(Licence(**item) for item in raw["licences"]),
    }
    return Manifest(**{name: raw[name] for name in Manifest.__slots__} | made)


def branch_of(family: str) -> str:
    """The family whose branch a family's tasks sit on: mostly its own."""
    return BRANCHES.get(family, family)


def check_name(name: object) -> str:
    """A name of a task, a family or a bundle; raises TrunklineError for anything else."""
    for problem in problems_of(name, NAME, "the name"):
        raise TrunklineError(problem, todo="Take letters, digits, '.', '_' and '-'")
    return str(name)


def name_of(folder: Path, default: str) -> str:
    """The name of a bundle that is written here: the folder's, where that is a name."""
    return default if any(problems_of(folder.name, NAME)) else folder.name


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; two readers could take different ones of two values of one key."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands there twice")
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
        order = f"the order {', '.join(LORA_TARGETS)}, none twice"
        yield f"lora_targets are {', '.join(raw['lora_targets'])}, expected {order}"
    parts = {part: raw[part] for part in ("graphs", "checkpoint", "adapters")}
    parts["tasks"] = {key: task["file"] for key, task in raw["tasks"].items()}
    named = {f"{part}.{key}": file for part, entries in parts.items() for key, file in entries.items()}
    named["the tokenizer"] = TOKENIZER
    yield from (f"{key}: {file} is not among files" for key, file in named.items() if file not in files)
    uses, folded = Counter(named.values()), Counter(file.lower() for file in files)
    yield from (f"{file} stands for {count} parts, expected one" for file, count in uses.items() if count > 1)
    yield from (f"{file} stands there in several spellings" for file, count in folded.items() if count > 1)
    yield from (f"files.{file} belongs to no part" for file in files if file not in uses)
    if files.get(TOKENIZER, {"bytes": 0})["bytes"] > MAX_TOKENIZER_BYTES:
        yield f"files.{TOKENIZER} has {files[TOKENIZER]['bytes']} bytes, expected at most {MAX_TOKENIZER_BYTES}"


def read_file(path: Path, limit: int = MAX_ADAPTER_BYTES) -> bytes:
    """A plain file's bytes; raises DataError as `open_plain`, or if there are more than `limit`."""
    with open_plain(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > limit:
            raise DataError(f"{size} bytes", path=path, expected=f"at most {limit}")
        return stream.read(size)


@contextmanager
def open_plain(path: Path) -> Iterator[FileIO]:
    """A plain file to read from, unbuffered.

    Raises DataError if it is missing, cannot be read, or is no plain file (a pipe would be waited for).
    """
    try:
        # Without waiting, as opening a pipe would.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise DataError("this is no plain file", path=path, expected="a file")
        with FileIO(handle) as stream:
            yield stream
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"the file cannot be read ({reason})", path=path, expected="a file") from error
