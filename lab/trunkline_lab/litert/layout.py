"""What the files of a LiteRT export hold: sizes, lengths, room for adapters. Numpy and the standard library only."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from trunkline.errors import MismatchError, TrunklineError

if TYPE_CHECKING:
    from trunkline.export.weights import BackboneWeights

FORMAT = 1
LAYOUT = "litert.json"
FILES = {"trunk": "trunk.tflite", "branch": "branch.tflite"}
LENGTHS = (16, 32, 64, 128)
SLOTS = ("qkv", "out", "up", "down")
"""As in `runtime.inputs`, which the converter's environment cannot be sure to import."""

FloatArray = npt.NDArray[np.float32]
Weights = Literal["int8", "float32"]


@dataclass(frozen=True, slots=True)
class LiteRtOptions:
    """What to make.

    Attributes:
        lengths: Tokens of each signature, special ones included; a text takes the shortest that holds it.
        ranks: Slot -> columns of its LoRA inputs; smaller adapters are filled with zeros. `qkv` has one pair of inputs
            for query, key and value, whose rank is the sum of theirs: 16 fits rank 8 on query and value.
        labels: Columns of the head's input; smaller heads are filled with zeros.
        weights: `int8`: one scale for each output of a linear layer and each row of an embedding, inputs of linear
            layers quantised token by token when the model runs. `float32`: as they are.
    """

    lengths: tuple[int, ...] = LENGTHS
    ranks: Mapping[str, int] = field(default_factory=lambda: {"qkv": 16})
    labels: int = 32
    weights: Weights = "int8"

    def problems(self, longest: int) -> list[str]:
        """What is wrong with them for an encoder of this greatest length."""
        found = []
        if not self.lengths or list(self.lengths) != sorted(set(self.lengths)):
            found.append(f"lengths {list(self.lengths)}: must rise, and there must be one")
        found += [f"length {n}: must be 2 to {longest}" for n in self.lengths if not 2 <= n <= longest]
        found += [f"slot {slot!r}: must be one of {', '.join(SLOTS)}" for slot in self.ranks if slot not in SLOTS]
        found += [f"rank {rank} of {slot}: must be at least 1" for slot, rank in self.ranks.items() if rank < 1]
        if self.labels < 1:
            found.append(f"labels {self.labels}: must be at least 1")
        if self.weights not in ("int8", "float32"):
            found.append(f"weights {self.weights!r}: must be int8 or float32")
        return found


@dataclass(frozen=True, slots=True)
class Layout:
    """The content of `litert.json`, which says how the files beside it are fed.

    Attributes:
        backbone: Hash of the backbone; adapters of another one do not fit.
        ranks: Slot -> columns of its LoRA inputs.
        position_offset: Row of the position table that the first token has.
        versions: Packages that made the files.
    """

    backbone: str
    fork: int
    n_layers: int
    n_heads: int
    hidden_size: int
    intermediate_size: int
    activation: str
    norm_eps: float
    pad_id: int
    position_offset: int
    lengths: tuple[int, ...]
    ranks: Mapping[str, int]
    labels: int
    weights: str
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def lora_inputs(self) -> dict[str, tuple[int, int]]:
        """Name -> shape of every LoRA input of the branch, in their order."""
        hidden, inner = self.hidden_size, self.intermediate_size
        sizes = {"qkv": (hidden, 3 * hidden), "out": (hidden, hidden), "up": (hidden, inner), "down": (inner, hidden)}
        found: dict[str, tuple[int, int]] = {}
        for layer in range(self.fork, self.n_layers):
            for slot in (slot for slot in SLOTS if slot in self.ranks):
                (inputs, outputs), rank = sizes[slot], self.ranks[slot]
                found[f"lora.{layer}.{slot}.a"], found[f"lora.{layer}.{slot}.b"] = (inputs, rank), (rank, outputs)
        return found

    def inputs(self, part: str, length: int) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every input of a signature, by the names that ONNX graphs use; see `tensor_name`."""
        mask, hidden = {"mask": (1, length)}, self.hidden_size
        if part == "trunk":
            return {"ids": (1, length), **mask}
        head = {"head.weight": (hidden, self.labels), "head.bias": (self.labels,)}
        return {"hidden": (1, length, hidden), **mask, "pool": (1, length, length), **self.lora_inputs, **head}

    def outputs(self, part: str) -> tuple[str, ...]:
        """Names of the outputs of a signature, in their order."""
        return ("hidden",) if part == "trunk" else ("features", "logits")

    def fill(self, feeds: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """An adapter's feeds with zeros up to the sizes of the inputs; what it does not have is all zeros.

        Args:
            feeds: LoRA and head tensors as `runtime.inputs.fuse` gives them, of any rank up to that of the files.

        Raises:
            MismatchError: A tensor that has no input, or is larger than its input.
        """
        wanted = {n: s for n, s in self.inputs("branch", self.lengths[0]).items() if n.startswith(("lora.", "head."))}
        unknown = sorted(set(feeds) - wanted.keys())
        if unknown:
            raise MismatchError(
                f"the adapter has {unknown[0]}, for which the files have no input",
                expected=f"updates of layers {self.fork} to {self.n_layers - 1} in " + ", ".join(self.ranks),
                todo="Export with a rank for this slot",
            )
        filled = {}
        for name, shape in wanted.items():
            filled[name] = np.zeros(shape, np.float32)
            given = feeds.get(name)
            if given is None:
                continue
            if given.ndim != len(shape) or any(n > most for n, most in zip(given.shape, shape, strict=True)):
                raise MismatchError(
                    f"{name} has shape {given.shape}",
                    expected=f"at most {shape}",
                    todo="Export with a higher rank, or with more labels",
                )
            filled[name][tuple(slice(n) for n in given.shape)] = given
        return filled

    def length_for(self, tokens: int) -> int:
        """The shortest length that holds so many tokens; a TrunklineError if there is none."""
        for length in self.lengths:
            if tokens <= length:
                return length
        raise TrunklineError(
            f"a row of {tokens} tokens",
            expected=f"at most {self.lengths[-1]}, the longest length of the files",
            todo="Cut the text into windows, or export with a longer length",
        )


def tensor_name(name: str) -> str:
    """The name of an input in the files: with underscores, as the converter makes parameters of functions of them."""
    return name.replace(".", "_")


def signature(length: int) -> str:
    """The name of the signature for rows of this length."""
    return f"length_{length}"


def layout_of(weights: BackboneWeights, options: LiteRtOptions) -> Layout:
    """The layout of the files to be made; a TrunklineError with all options that do not fit the encoder."""
    config = weights.config
    problems = options.problems(config.max_length)
    if problems:
        raise TrunklineError("the LiteRT options have problems: " + "; ".join(problems))
    return Layout(
        backbone=weights.hash,
        fork=weights.fork,
        n_layers=config.n_layers,
        n_heads=config.n_heads,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        activation=config.activation,
        norm_eps=config.norm_eps,
        pad_id=config.pad_id,
        position_offset=config.position_offset,
        lengths=options.lengths,
        ranks={slot: options.ranks[slot] for slot in SLOTS if slot in options.ranks},
        labels=options.labels,
        weights=options.weights,
    )


def write_layout(layout: Layout, folder: Path) -> bytes:
    """Writes `litert.json` and returns its bytes."""
    content = dataclasses.asdict(layout) | {"format": FORMAT, "files": FILES}
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    (folder / LAYOUT).write_text(text, encoding="utf-8")
    return text.encode()


def read_layout(folder: Path) -> Layout:
    """Reads `litert.json`; a TrunklineError if it is missing, damaged or of a later version."""
    path = folder / LAYOUT
    known = {item.name for item in dataclasses.fields(Layout)}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise MismatchError(f"{path} has format {content['format']}", expected=str(FORMAT), todo="Update trunkline")
        values = {name: content[name] for name in known}
        return Layout(**(values | {"lengths": tuple(values["lengths"])}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrunklineError(
            f"{path} cannot be read ({error})", expected="what a LiteRT export writes", todo="Export again"
        ) from error
