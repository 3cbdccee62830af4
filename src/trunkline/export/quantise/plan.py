"""What each linear layer and the word embedding are stored and computed in."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, get_args

from trunkline.errors import TrunklineError
from trunkline.export.weights import BackboneWeights, Linear

LinearScheme = Literal["float32", "int8", "int4", "int4-blocks"]
"""`int8`: a step for each output, inputs in 8 bits with one step a run. `int4`: stored in 4 bits, unpacked to int8 when
the graph is loaded, and then as fast as int8. `int4-blocks`: 4 bits in memory too, and a third as fast."""

TableScheme = Literal["float32", "int8", "int4"]
"""`int8`: a step for each row. `int4`: a step for each block of a row, unpacked for the rows that are looked up."""

PROJECT = "embeddings.project"
SLOTS = ("qkv", "out", "up", "down")
LEAST_BLOCK = 16
"""The smallest block that the operator for 4-bit weights takes; it takes powers of two alone."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a backbone is quantised.

    Attributes:
        linear: The scheme of linear layers.
        embedding: That of the word embedding.
        layers: Layers with a scheme of their own, such as `{"layers.3.down": "float32"}`.
        alpha: How much of the spread of inputs goes over to weights (Xiao et al. 2023, arXiv 2211.10438, equation 4);
            0 leaves inputs as they are.
        per_token: Slots whose inputs have a step for each token, with one zero for all, in place of one step a run. It
            pays for `down`, whose inputs differ most from token to token, and costs four small nodes.
        block: The most weights that share a step in 4 bits.
        narrow: Whether int8 weights use 7 bits. For x86 processors without VNNI (before about 2019), whose kernel adds
            two products in 16 bits, which 8 bits can overrun.
    """

    linear: LinearScheme = "int8"
    embedding: TableScheme = "int8"
    layers: Mapping[str, LinearScheme] = field(default_factory=lambda: MappingProxyType({}))
    alpha: float = 0.8
    per_token: tuple[str, ...] = ("down",)
    block: int = 32
    narrow: bool = False

    def __post_init__(self) -> None:
        known = set(get_args(LinearScheme))
        unknown = sorted({self.linear, *self.layers.values()} - known)
        if unknown:
            raise TrunklineError(f"scheme {unknown[0]!r} for linear layers", expected="one of " + ", ".join(known))
        if self.embedding not in get_args(TableScheme):
            schemes = ", ".join(get_args(TableScheme))
            raise TrunklineError(f"scheme {self.embedding!r} for the word embedding", expected=f"one of {schemes}")
        if not 0 <= self.alpha < 1:
            raise TrunklineError(f"alpha {self.alpha}", expected="a number from 0 to below 1, such as 0.8")
        if not set(self.per_token) <= set(SLOTS):
            raise TrunklineError(f"slots {self.per_token} with a step a token", expected="some of " + ", ".join(SLOTS))
        if self.block < LEAST_BLOCK or self.block & (self.block - 1):
            raise TrunklineError(f"blocks of {self.block} weights", expected=f"a power of two, at least {LEAST_BLOCK}")

    def scheme(self, name: str) -> LinearScheme:
        """The scheme of a linear layer, by a name of `linear_layers`."""
        return self.layers.get(name, self.linear)

    def steps_per_token(self, name: str) -> bool:
        """Whether the inputs of a linear layer have a step for each token."""
        return name.rpartition(".")[2] in self.per_token

    @property
    def steps(self) -> int:
        """The largest number that an int8 weight can be."""
        return 63 if self.narrow else 127

    def keeping(self, names: Iterable[str], scheme: LinearScheme = "float32") -> Plan:
        """The plan with some linear layers in another scheme."""
        return dataclasses.replace(self, layers={**self.layers, **dict.fromkeys(names, scheme)})

    def check(self, weights: BackboneWeights) -> None:
        """Raises TrunklineError if the plan names a layer that the encoder does not have."""
        known = linear_layers(weights)
        unknown = sorted(self.layers.keys() - known.keys())
        if unknown:
            raise TrunklineError(f"the plan has no layer to apply {unknown} to", expected="some of " + ", ".join(known))

    def facts(self) -> dict[str, str]:
        """What readers of a model find in its metadata."""
        own = {f"weights.{name}": scheme for name, scheme in sorted(self.layers.items())}
        integer = "int" in "".join({self.linear, *self.layers.values()})
        smoothing = {"smoothing": f"{self.alpha:g}", "per_token": ",".join(self.per_token)} if integer else {}
        blocks = {"block": str(self.block)} if "int4" in "".join({self.linear, self.embedding, *own.values()}) else {}
        bits = {"weight_bits": "7"} if self.narrow else {}
        return {"weights": self.linear, "embedding": self.embedding, **own, **smoothing, **blocks, **bits}


PLANS: Mapping[str, Plan] = MappingProxyType(
    {
        "float32": Plan("float32", "float32"),
        "int8": Plan(),
        "int4": Plan("int4", "int4"),
    }
)
"""The plans that have a name."""


def linear_layers(weights: BackboneWeights) -> dict[str, Linear]:
    """The linear layers of a backbone by the names that graphs give them, in the order in which they run."""
    project = weights.embeddings.project
    found = {PROJECT: project} if project is not None else {}
    for number, layer in enumerate(weights.layers):
        found |= {f"layers.{number}.{slot}": getattr(layer, slot) for slot in SLOTS}
    return found


def with_linear_layers(weights: BackboneWeights, layers: Mapping[str, Linear]) -> BackboneWeights:
    """The backbone with other weights in some linear layers."""
    changed = []
    for number, layer in enumerate(weights.layers):
        own = {slot: layers.get(f"layers.{number}.{slot}", getattr(layer, slot)) for slot in SLOTS}
        changed.append(dataclasses.replace(layer, **own))
    embeddings = dataclasses.replace(weights.embeddings, project=layers.get(PROJECT, weights.embeddings.project))
    return dataclasses.replace(weights, embeddings=embeddings, layers=tuple(changed))
