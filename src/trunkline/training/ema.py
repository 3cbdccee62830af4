"""The exponential moving average of the trained weights, to be measured and exported in their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trunkline.errors import MismatchError, TrunklineError

_UPDATES = "updates"
_AVERAGE = "average/"


class Ema:
    """Averages of the weights that were trained when it was made, in float32 on the weights' device.

    After update t (from 0) an average a of a weight w is d a + (1 - d) w with d = min(decay, (1 + t) / (10 + t)), so
    that the start counts little in short runs.

    Args:
        module: Its parameters that need a gradient are averaged.
        decay: Above 0 and below 1; 0.999 averages about the last thousand steps.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise TrunklineError(f"the decay of the average is {decay}", expected="above 0 and below 1")
        self.decay = decay
        self.updates = 0
        self._trained = {name: part for name, part in module.named_parameters() if part.requires_grad}
        self._averages = {name: part.detach().float().clone() for name, part in self._trained.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the weights after a step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in self._trained.items():
            self._averages[name].lerp_(parameter.detach().float(), 1 - decay)
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Puts the averages into the module, and the trained weights back at the end, bit for bit.

        Nothing may be trained and no checkpoint written meanwhile.
        """
        trained = {name: parameter.detach().clone() for name, parameter in self._trained.items()}
        try:
            self._put(self._averages)
            yield
        finally:
            self._put(trained)

    def state(self) -> dict[str, Tensor]:
        """What `restore` goes on from; the averages themselves, not copies."""
        averages = {_AVERAGE + name: tensor for name, tensor in self._averages.items()}
        return {**averages, _UPDATES: torch.tensor(self.updates)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from a `state`.

        Raises:
            MismatchError: The state is of other weights.
        """
        sizes = [{name: tuple(tensor.shape) for name, tensor in part.items()} for part in (state, self.state())]
        if sizes[0] != sizes[1]:
            other = sorted(name for name in {**sizes[0], **sizes[1]} if sizes[0].get(name) != sizes[1].get(name))
            raise MismatchError(
                f"the averages are of other weights, the first is {other[0].removeprefix(_AVERAGE)}",
                expected="those of the weights that are trained",
                todo="Use another run folder",
            )
        self.updates = int(state[_UPDATES])
        for name, average in self._averages.items():
            average.copy_(state[_AVERAGE + name])

    @torch.no_grad()
    def _put(self, tensors: Mapping[str, Tensor]) -> None:
        for name, parameter in self._trained.items():
            parameter.copy_(tensors[name])


@contextmanager
def averaged(ema: Ema | None) -> Iterator[None]:
    """`ema.applied()`, or nothing where no average is kept."""
    if ema is None:
        yield
        return
    with ema.applied():
        yield
