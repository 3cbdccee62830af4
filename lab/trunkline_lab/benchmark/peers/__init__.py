"""Peers: what others would do with the same encoder, splits and few labels, each behind one function.

Importing this needs none of the peers' packages; `get_peer` says which one is missing.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from trunkline.errors import TrunklineError

if TYPE_CHECKING:
    from trunkline_lab.fitting import TaskData

BOTH = ("ner", "classification")


@dataclass(frozen=True)
class PeerOutput:
    """What a peer gave for a task.

    Attributes:
        predictions: For each test example a prediction in the family's decoded form, for `Family.score` and `counts`.
        dev_predictions: The same for dev.
        n_bytes: Bytes that this task adds to what is deployed: a whole model, or an adapter where the rest is shared.
        ms_per_text: Milliseconds to predict a test text, tokenisation included, in batches; 0 without test examples.
    """

    predictions: Sequence[Any]
    dev_predictions: Sequence[Any]
    n_bytes: int
    ms_per_text: float


class Peer(Protocol):
    """One way to solve a task that is not ours. Implementations hold no state."""

    def fit_predict(self, task: TaskData, encoder: Path, *, seed: int) -> PeerOutput:
        """Learns a task and predicts its dev and test parts.

        Args:
            task: Its examples; test labels are not looked at.
            encoder: A folder in Hugging Face layout with safetensors; peers without an encoder ignore it.
            seed: Decides everything that is drawn.

        Raises:
            TrunklineError: A family that the peer does not serve, or nothing to learn or choose on.
            EncoderError: A folder that cannot be loaded.
        """
        ...


@dataclass(frozen=True)
class PeerEntry:
    """Where a peer is and what it needs.

    Attributes:
        module: A module of this package with `fit_predict` and the frozen dataclass `Settings`.
        families: The families that it serves.
        package: The name it is imported by; empty where the core is enough.
        distribution: What `pip install` calls it.
    """

    module: str
    families: tuple[str, ...] = BOTH
    package: str = ""
    distribution: str = ""


PEERS: Mapping[str, PeerEntry] = types.MappingProxyType(
    {
        "hf_full": PeerEntry("hf_full"),
        "peft_lora": PeerEntry("peft_lora", package="peft", distribution="peft"),
        "linear_probe": PeerEntry("linear_probe"),
        "setfit": PeerEntry("setfit", ("classification",), "setfit", "setfit"),
        "spacy": PeerEntry("spacy", package="spacy", distribution="spacy"),
    }
)


@dataclass(frozen=True)
class _Checked:
    """A peer whose task is checked and whose random generators are seeded before it runs."""

    name: str

    def fit_predict(self, task: TaskData, encoder: Path, *, seed: int) -> PeerOutput:
        """See `Peer.fit_predict`."""
        from accelerate.utils import set_seed

        from trunkline_lab.benchmark.peers.common import check_task

        check_task(self.name, PEERS[self.name].families, task)
        set_seed(seed)
        output: PeerOutput = _module(self.name).fit_predict(task, encoder, seed=seed)
        return output


def get_peer(name: str) -> Peer:
    """A peer by its name; a TrunklineError if there is none, or its package is not installed."""
    entry = _entry(name)
    if entry.package and importlib.util.find_spec(entry.package) is None:
        raise TrunklineError(
            f"the peer {name} needs the package {entry.package}, which is not installed",
            expected="it beside trunkline",
            todo=f"`pip install {entry.distribution}`, see docs/peers.md",
        )
    return _Checked(name)


def describe(name: str) -> dict[str, Any]:
    """All that a peer's results depend on besides task, encoder and seed: its settings, the versions it runs on."""
    distributions = sorted({"torch", "transformers", "scikit-learn", _entry(name).distribution} - {""})
    versions = {}
    for distribution in distributions:
        try:
            versions[distribution] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            versions[distribution] = "not installed"
    return {"settings": asdict(_module(name).Settings()), "versions": versions}


def _entry(name: str) -> PeerEntry:
    if name not in PEERS:
        raise TrunklineError(f"the peer {name!r} is not known", expected=f"one of {', '.join(PEERS)}")
    return PEERS[name]


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{PEERS[name].module}")
