"""The default model without torch: a bundle in the cache, made once from the default encoder's verified weights.

`template/` has the graphs as an export makes them, without weights, and what a calibration saw of the inputs of linear
layers; `trunkline_lab.default_template` makes it. Weights are rounded here as an export rounds them and put into the
graphs, for which nothing but the wire format of a few messages is needed: of two serialised models, one behind the
other, any reader makes one model with the initializers of both (protobuf merges messages and joins repeated fields).
"""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from trunkline import __version__
from trunkline.bundle.edit import write_bundle
from trunkline.bundle.files import file_problems, locked, read_manifest
from trunkline.bundle.manifest import TOKENIZER, VERSION, Licence, Manifest
from trunkline.encoder.architectures import ARCHITECTURES, EncoderConfig, encoder_facts, weights_hash
from trunkline.encoder.resolve import DEFAULT_ENCODER, EMBEDDED_SHA256, INSTALL, TOKENIZER_SHA256, find_embedded
from trunkline.engine.rounding import Arrays, graph_tensors, round_linear_layers, round_table
from trunkline.errors import EncoderError, TrunklineError
from trunkline.text.tokens import TextTokenizer
from trunkline.versions import cache_folder, used

log = logging.getLogger(__name__)

FORMAT = 2
"""Of what is made here; bundles of another one stay in the cache beside it."""

TEMPLATE = Path(__file__).with_name("template")
FACTS, CALIBRATION = "facts.json", "calibration.npz"
GRAPHS = ("trunk", "branch", "branch-bank")

_KINDS = {"float32": 1, "int8": 3}
"""`TensorProto.DataType`."""


def default_bundle() -> Path:
    """The folder of the default model's bundle, made when it is not there yet.

    It lies in the cache. One of several processes makes it while the others wait, and one that is killed leaves nothing
    that could be taken for a bundle. Where the cache cannot be written to, it is made for this process alone.

    Raises EncoderError if the encoder's package is not installed, or its files are not those that they must be.
    """
    try:
        folder = cache_folder() / "default" / _key()
        if not _whole(folder):
            _make(folder)
        return used(folder)
    except EncoderError:
        raise
    except (OSError, RuntimeError, TrunklineError) as error:
        log.warning("the cache cannot be used, the default model is made for this process alone: %s", error)
        return _temporary()


@cache
def _key() -> str:
    """A hash of all that a bundle's files depend on."""
    # The sizes as Python writes them are part of the backbone's hash.
    known = FORMAT, VERSION, EMBEDDED_SHA256, TOKENIZER_SHA256, read_facts()[1]
    digest = hashlib.sha256(repr(known).encode())
    for name in (*(f"{graph}.onnx" for graph in GRAPHS), FACTS, CALIBRATION):
        digest.update(hashlib.sha256((TEMPLATE / name).read_bytes()).digest())
    return digest.hexdigest()[:32]


def _whole(folder: Path) -> bool:
    """Whether there is a bundle, by the sizes of its files."""
    try:
        return not file_problems(folder, read_manifest(folder), verify=False)
    except TrunklineError:
        return False


def _make(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.parent):
        if _whole(folder):
            return
        if folder.exists():
            log.warning("%s is damaged and is made anew", folder)
        # Whoever holds the lock is the only one who writes, so what is half done was left behind.
        for path in (folder, *folder.parent.glob(".*/")):
            shutil.rmtree(path, ignore_errors=True)
        build(folder)


@cache
def _temporary() -> Path:
    folder, owner = Path(tempfile.mkdtemp(prefix="trunkline-")), os.getpid()
    # A process that was forked off ends with the same hooks, and must leave the folder to the others.
    atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == owner else None)
    build(folder)
    return folder


def build(folder: Path) -> None:
    """Writes the bundle into a new or empty folder; raises EncoderError as `default_bundle`."""
    source, reason = find_embedded()
    if source is None:
        expected = f"an installed package with the weights of {DEFAULT_ENCODER}"
        raise EncoderError(f"the default encoder is not here: {reason}", expected=expected, todo=INSTALL)
    if hashlib.sha256((source / TOKENIZER).read_bytes()).hexdigest() != TOKENIZER_SHA256:
        given = f"{source / TOKENIZER} has another SHA-256 and is refused"
        raise EncoderError(given, expected="an unchanged package", todo=INSTALL)
    facts, config = read_facts()
    stored, names = load_file(source / "model.safetensors"), ARCHITECTURES[config.model_type].weight_names(config)
    tensors = {ours: stored[theirs] for ours, theirs in names.items()}
    with np.load(TEMPLATE / CALIBRATION, allow_pickle=False) as seen:
        largest = {name: seen[name].astype(np.float32) for name in seen.files}
    whole = graph_tensors(tensors)
    made = round_linear_layers(whole, facts["fork"], largest, facts["alpha"], facts["per_token"])
    made |= round_table("embeddings.word", whole["embeddings.word.weight"])
    made["embeddings.position.weight"] = whole["embeddings.position.weight"][: facts["max_length"]]
    above = tuple(f"layers.{number}." for number in range(facts["fork"], config.n_layers))
    branch = {name: tensor for name, tensor in made.items() if name.startswith(above)}
    trunk = {name: tensor for name, tensor in made.items() if name not in branch}
    tokenizer = TextTokenizer.from_folder(source, facts["max_length"])
    manifest = Manifest(
        name=DEFAULT_ENCODER.rpartition("/")[2],
        trunkline=__version__,
        encoder=encoder_facts(config, facts["fork"], tokenizer.max_length, tokenizer.overlap),
        backbone=weights_hash(config, tensors),
        weights=facts["weights"],
        lora_targets=tuple(facts["lora_targets"]),
        graphs={name: f"graphs/{name}.onnx" for name in GRAPHS},
        licences=(Licence(DEFAULT_ENCODER, "apache-2.0"),),
    )
    files = {manifest.graphs[name]: _filled(name, trunk if name == "trunk" else branch) for name in GRAPHS}
    write_bundle(folder, manifest, {TOKENIZER: tokenizer.tokenizer.to_str(pretty=False).encode("utf-8"), **files})


def read_facts() -> tuple[dict[str, Any], EncoderConfig]:
    """What the template says of itself, and the sizes of the encoder that it is for."""
    facts = json.loads((TEMPLATE / FACTS).read_text("utf-8"))
    return facts, EncoderConfig(**facts["encoder"])


def _filled(graph: str, tensors: Arrays) -> bytes:
    """A serialised model: a template, and behind it a model that has nothing but initializers."""
    # Tags of fields with bytes: 7 is `ModelProto.graph`, 5 `GraphProto.initializer`, 8 and 9 `TensorProto.name` and
    # `raw_data`; of fields with numbers: 1 and 2 `TensorProto.dims` and `data_type`.
    parts: list[bytes | memoryview] = []
    for name, tensor in tensors.items():
        raw = np.ascontiguousarray(tensor).data.cast("B")
        dims = b"".join(b"\x08" + _varint(size) for size in tensor.shape)
        head = dims + b"\x10" + _varint(_KINDS[tensor.dtype.name])
        head += b"\x42" + _varint(len(name)) + name.encode() + b"\x4a" + _varint(len(raw))
        parts += [b"\x2a" + _varint(len(head) + len(raw)) + head, raw]
    return b"".join([(TEMPLATE / f"{graph}.onnx").read_bytes(), b"\x3a", _varint(sum(map(len, parts))), *parts])


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])
