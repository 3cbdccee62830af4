"""The average of the weights: its formula, its way in and out of the module, and going on."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import tiny_models
from trunkline.errors import MismatchError, TrunklineError
from trunkline.training.ema import Ema, averaged


def moved(module: nn.Module, times: int, ema: Ema | None = None) -> list[torch.Tensor]:
    """The first weight after each of some random changes."""
    seen = []
    for _ in range(times):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += torch.randn_like(parameter)
        seen.append(module.weight.detach().clone())  # type: ignore[union-attr, operator]
        if ema is not None:
            ema.update()
    return seen


@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_the_average_follows_its_formula_with_a_warm_up(decay: float) -> None:
    module = nn.Linear(3, 2)
    wanted = module.weight.detach().double().clone()
    ema = Ema(module, decay)
    for t, weight in enumerate(moved(module, 12, ema)):
        d = min(decay, (1 + t) / (10 + t))
        wanted = d * wanted + (1 - d) * weight.double()
    assert torch.allclose(ema.state()["average/weight"].double(), wanted, atol=1e-5)
    assert (ema.updates, int(ema.state()["updates"])) == (12, 12)


def test_averages_are_in_the_module_for_a_while_and_the_weights_come_back_bit_for_bit() -> None:
    module = nn.Linear(3, 2)
    ema = Ema(module, 0.9)
    moved(module, 4, ema)
    before, parameters = copy.deepcopy(module.state_dict()), list(module.parameters())
    with ema.applied():
        assert torch.equal(module.weight, ema.state()["average/weight"])
        assert not torch.equal(module.weight, before["weight"])
        assert module.weight is parameters[0], "optimizers hold on to the parameters"
    assert tiny_models.same_bits(module.state_dict(), before)
    with pytest.raises(ZeroDivisionError), averaged(ema):
        raise ZeroDivisionError
    assert tiny_models.same_bits(module.state_dict(), before)
    with averaged(None):
        assert tiny_models.same_bits(module.state_dict(), before)


def test_only_what_is_trained_is_averaged() -> None:
    module = nn.Linear(3, 2)
    module.bias.requires_grad_(False)
    ema = Ema(module, 0.9)
    assert ema.state().keys() == {"average/weight", "updates"}
    moved(module, 3, ema)
    bias = module.bias.clone()
    with ema.applied():
        assert torch.equal(module.bias, bias)


def test_weights_of_half_precision_are_averaged_in_float32() -> None:
    module = nn.Linear(3, 2).bfloat16()
    ema = Ema(module, 0.9)
    moved(module, 3, ema)
    assert ema.state()["average/weight"].dtype == torch.float32
    with ema.applied():
        assert module.weight.dtype == torch.bfloat16


def test_going_on_from_a_state_is_the_same_as_never_having_stopped() -> None:
    module = nn.Linear(3, 2)
    ema = Ema(module, 0.9)
    moved(module, 5, ema)
    again = copy.deepcopy(module)
    other = Ema(again, 0.9)
    other.restore({name: tensor.clone() for name, tensor in ema.state().items()})
    for one, average in ((module, ema), (again, other)):
        torch.manual_seed(1)
        moved(one, 5, average)
    assert tiny_models.same_bits(ema.state(), other.state())


def test_a_state_of_other_weights_is_refused_and_named() -> None:
    ema = Ema(nn.Linear(3, 2), 0.9)
    with pytest.raises(MismatchError, match="the first is weight"):
        ema.restore(Ema(nn.Linear(4, 2), 0.9).state())
    with pytest.raises(MismatchError, match="the first is bias"):
        ema.restore(Ema(nn.Linear(3, 2, bias=False), 0.9).state())


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5, float("nan")])
def test_a_decay_that_is_none_is_refused(decay: float) -> None:
    with pytest.raises(TrunklineError, match="above 0 and below 1"):
        Ema(nn.Linear(1, 1), decay)
