"""The training loop: its schedule, its stops, and what a loss that is not finite leaves behind."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny_models
from trunkline.errors import TrainingError
from trunkline.prefinetune import Report, prefinetune
from trunkline.prefinetune.objectives import TextPairObjective
from trunkline.training.checkpoint import checkpoints
from trunkline.training.loop import Hooks, Interrupted, LoopSettings, make_accelerator, optimizer_for, rate_factor, run

Folders = Callable[[str], Path]


@pytest.fixture
def accelerator() -> Any:
    return make_accelerator(bf16=False)


class Line(nn.Module):
    """A model with one weight matrix and one bias."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def fit(
    module: nn.Module, hooks: Hooks, accelerator: Any, settings: LoopSettings, start: int = 0, bad: int = -1
) -> int:
    def losses(step: int) -> Iterator[tuple[str, float, Tensor]]:
        x = torch.randn(8, 2, generator=torch.Generator().manual_seed(step))
        yield "a", 0.75, ((module(x)[:, 0] - x[:, 0]) ** 2).mean()
        factor = float("nan") if step == bad else 1.0
        yield "b", 0.25, factor * ((module(x)[:, 0] - x[:, 0]) ** 2).mean()

    optimizer = optimizer_for({"all": (list(module.parameters()), 0.1)}, 0.0)
    return run(module, optimizer, losses, settings, hooks, accelerator=accelerator, start=start)


def test_the_rate_rises_linearly_then_falls_linearly_to_zero() -> None:
    factors = [rate_factor(step, 100, 0.1) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert max(factors) == 1.0
    assert factors[10] == 1.0
    falls = [a - b for a, b in itertools.pairwise(factors[10:])]
    assert falls == pytest.approx([1 / 90] * 89)
    assert rate_factor(100, 100, 0.1) == 0


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.0), (1, 0.9), (3, 0.06), (7, 0.99)])
def test_the_rate_is_above_zero_and_at_most_one_in_short_runs(steps: int, warmup: float) -> None:
    factors = [rate_factor(step, steps, warmup) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)


def test_the_rate_reaches_every_parameter_group(accelerator: Any) -> None:
    module = Line()
    optimizer = optimizer_for({"w": ([module.linear.weight], 0.5), "b": ([module.linear.bias], 0.25)}, 0.1)
    seen = []

    def losses(step: int) -> Iterator[tuple[str, float, Tensor]]:
        seen.append([group["lr"] for group in optimizer.param_groups])
        yield "a", 1.0, module(torch.ones(1, 2)).sum()

    run(module, optimizer, losses, LoopSettings(4, warmup=0.5), Hooks(), accelerator=accelerator)
    assert seen == [[0.5 * f, 0.25 * f] for f in (rate_factor(step, 4, 0.5) for step in range(4))]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]


def test_frozen_parameters_are_not_optimised() -> None:
    module = Line()
    module.linear.weight.requires_grad_(False)
    optimizer = optimizer_for({"all": (list(module.parameters()), 0.1)}, 0.1)
    assert [group["params"] for group in optimizer.param_groups] == [[module.linear.bias]]


def test_hooks_are_called_when_due_and_logs_are_means_since_the_last(accelerator: Any) -> None:
    calls: list[tuple[str, int]] = []
    logged: list[dict[str, float]] = []
    single: list[dict[str, float]] = []
    hooks = Hooks(
        log=lambda step, values: (calls.append(("log", step)), logged.append(values))[0],
        evaluate=lambda step: calls.append(("evaluate", step)),
        save=lambda step: calls.append(("save", step)),
    )
    torch.manual_seed(1)
    assert fit(Line(), hooks, accelerator, LoopSettings(5, log_every=2, evaluate_every=3, save_every=4)) == 5
    assert calls == [("log", 2), ("evaluate", 3), ("log", 4), ("save", 4), ("log", 5)]
    torch.manual_seed(1)
    every = Hooks(log=lambda step, values: single.append(values))
    fit(Line(), every, accelerator, LoopSettings(5, log_every=1))
    for number, steps in enumerate([(0, 1), (2, 3), (4,)]):
        for key in ("loss/a", "loss/b", "gradient_norm"):
            assert logged[number][key] == pytest.approx(sum(single[step][key] for step in steps) / len(steps))


def test_weights_of_losses_add_up_to_one_gradient(accelerator: Any) -> None:
    weighted, plain = Line(), Line()
    plain.load_state_dict(weighted.state_dict())
    fit(weighted, Hooks(), accelerator, LoopSettings(3))

    def losses(step: int) -> Iterator[tuple[str, float, Tensor]]:
        x = torch.randn(8, 2, generator=torch.Generator().manual_seed(step))
        yield "a", 1.0, ((plain(x)[:, 0] - x[:, 0]) ** 2).mean()

    optimizer = optimizer_for({"all": (list(plain.parameters()), 0.1)}, 0.0)
    run(plain, optimizer, losses, LoopSettings(3), Hooks(), accelerator=accelerator)
    assert torch.allclose(weighted.linear.weight, plain.linear.weight, atol=1e-6)


def test_the_gradient_is_clipped_over_all_parameters_together(accelerator: Any) -> None:
    module = Line()
    norms = []
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    optimizer.param_groups[0]["base_rate"] = 1.0
    before = [parameter.detach().clone() for parameter in module.parameters()]

    def losses(step: int) -> Iterator[tuple[str, float, Tensor]]:
        yield "a", 1.0, 100 * module(torch.ones(4, 2)).sum()

    hooks = Hooks(log=lambda step, values: norms.append(values["gradient_norm"]))
    run(module, optimizer, losses, LoopSettings(1, warmup=0.0, clip=0.5), hooks, accelerator=accelerator)
    moved = torch.cat([(a.detach() - b).flatten() for a, b in zip(module.parameters(), before, strict=True)])
    assert norms[0] == pytest.approx(400 * 3**0.5, rel=1e-4)
    assert float(moved.norm()) == pytest.approx(0.5, rel=1e-3)


def test_an_evaluation_is_in_evaluation_mode(accelerator: Any) -> None:
    module, modes = Line(), []
    hooks = Hooks(evaluate=lambda step: modes.append((step, module.training)))
    assert fit(module, hooks, accelerator, LoopSettings(5, evaluate_every=2)) == 5
    assert modes == [(2, False), (4, False)]
    assert module.training


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(accelerator: Any) -> None:
    module, states = Line(), []
    hooks = Hooks(
        stepped=lambda step: states.append(module.linear.weight.detach().clone()),
        save=lambda step: pytest.fail("saved after the loss was not finite") if step > 2 else None,
    )
    with pytest.raises(TrainingError, match=r"step 4: loss of b is nan; the last checkpoint"):
        fit(module, hooks, accelerator, LoopSettings(10, save_every=2), bad=3)
    assert torch.equal(module.linear.weight, states[-1])


def test_a_gradient_that_is_not_finite_stops_too(accelerator: Any) -> None:
    module = Line()
    optimizer = optimizer_for({"all": (list(module.parameters()), 0.1)}, 0.0)

    def losses(step: int) -> Iterator[tuple[str, float, Tensor]]:
        yield "a", 1.0, (module(torch.zeros(1, 2)) * 0 + module.linear.weight.sum() * 0).abs().sqrt().sum()

    with pytest.raises(TrainingError, match="gradient norm is"):
        run(module, optimizer, losses, LoopSettings(2), Hooks(), accelerator=accelerator)
    assert torch.isfinite(module.linear.weight).all()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_saves_and_stops(number: int, accelerator: Any) -> None:
    saved: list[int] = []
    before = signal.getsignal(number)
    hooks = Hooks(stepped=lambda step: os.kill(os.getpid(), number) if step == 3 else None, save=saved.append)
    with pytest.raises(Interrupted, match="after step 3") as caught:
        fit(Line(), hooks, accelerator, LoopSettings(10, save_every=100))
    assert (saved, caught.value.step) == ([3], 3)
    assert signal.getsignal(number) is before


def test_a_second_sigterm_lets_the_run_save_all_the_same(accelerator: Any) -> None:
    def progress(step: int) -> None:
        for _ in range(2 * (step == 2)):
            os.kill(os.getpid(), signal.SIGTERM)

    saved: list[int] = []
    with pytest.raises(Interrupted, match="after step 2"):
        fit(Line(), Hooks(stepped=progress, save=saved.append), accelerator, LoopSettings(10))
    assert saved == [2]


@pytest.mark.parametrize("asked", [0.0, 1.0])
def test_all_processes_stop_when_any_one_was_asked_to(
    asked: float, accelerator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # There is no other process to average gradients with.
    monkeypatch.setattr("trunkline.training.loop.mean_gradients", lambda parameters, processes: None)

    class OneOfTwo:
        """Stands for the second of two processes; the first one's answer is `asked`."""

        num_processes, device = 2, torch.device("cpu")
        backward, clip_grad_norm_ = accelerator.backward, accelerator.clip_grad_norm_

        def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
            assert reduction == "sum"
            return tensor + asked

    saved: list[int] = []
    hooks = Hooks(save=saved.append)
    if not asked:
        assert fit(Line(), hooks, OneOfTwo(), LoopSettings(3)) == 3
        return
    with pytest.raises(Interrupted, match="after step 1"):
        fit(Line(), hooks, OneOfTwo(), LoopSettings(3))
    assert saved == [1]


def test_what_follows_a_step_is_done_before_it_is_logged_measured_or_saved(accelerator: Any) -> None:
    calls: list[str] = []
    hooks = Hooks(
        stepped=lambda step: calls.append(f"stepped {step}"),
        log=lambda step, values: calls.append("log"),
        evaluate=lambda step: calls.append("evaluate"),
        save=lambda step: calls.append("save"),
    )
    fit(Line(), hooks, accelerator, LoopSettings(2, log_every=1, evaluate_every=1, save_every=1))
    after = ["log", "evaluate", "save"]
    assert calls == ["stepped 1", *after, "stepped 2", *after]


def test_a_second_interrupt_aborts_at_once(accelerator: Any) -> None:
    def progress(step: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    saved: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        fit(Line(), Hooks(stepped=progress, save=saved.append), accelerator, LoopSettings(10))
    assert saved == []


def test_the_loop_runs_in_a_thread_where_signals_cannot_be_set(accelerator: Any) -> None:
    done: list[int] = []
    thread = threading.Thread(target=lambda: done.append(fit(Line(), Hooks(), accelerator, LoopSettings(2))))
    thread.start()
    thread.join(30)
    assert done == [2]


def test_a_run_that_is_already_done_does_nothing(accelerator: Any) -> None:
    hooks = Hooks(stepped=lambda step: pytest.fail("a step was made"))
    assert fit(Line(), hooks, accelerator, LoopSettings(5), start=5) == 5


def test_a_run_that_diverges_keeps_its_checkpoint_and_can_go_on(
    tiny_folder: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_models.recipe_of(tiny_folder("bert"), tmp_path / "data", checkpoint={"every": 2})
    original, calls = TextPairObjective.forward, {"count": 0, "bad": 5}

    def forward(self: TextPairObjective, features: Tensor, targets: Any) -> Tensor:
        calls["count"] += features.requires_grad
        factor = float("nan") if features.requires_grad and calls["count"] == calls["bad"] else 1.0
        return original(self, features, targets) * factor

    monkeypatch.setattr(TextPairObjective, "forward", forward)
    with pytest.raises(TrainingError, match=r"step 5: loss of classification is nan; the last checkpoint is kept"):
        prefinetune(recipe, tmp_path / "run")
    saved = [path.stem for path in checkpoints(tmp_path / "run" / "checkpoints")]
    assert saved == ["step-00000002", "step-00000004"]
    assert not (tmp_path / "run" / "bundle").exists()
    calls["bad"] = -1
    said: list[str] = []
    prefinetune(recipe, tmp_path / "run", Report(say=said.append))
    assert "going on after step 4" in said
