"""One training loop: draw losses, step, log, evaluate, save. It knows nothing of families, adapters or files.

Several processes train as one. Each draws the whole batch of a step, encodes its share of the texts, and computes the
loss over the features of all, so that the negatives of a contrastive loss are those of the whole batch. This is done by
hand and not by DistributedDataParallel, whose reduction would run before gradients that are made in several backward
passes (families, gradient surgery) are complete.
"""

from __future__ import annotations

import ctypes
import math
import platform
import signal
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather
from torch.nn import functional as F

from trunkline.errors import TrainingError

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # from malloc.h of glibc


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How long and how fast. `every` counts steps; 0 is never."""

    steps: int
    warmup: float = 0.06
    clip: float = 1.0
    log_every: int = 10
    evaluate_every: int = 0
    save_every: int = 0


@dataclass(frozen=True)
class Hooks:
    """What the caller does at certain steps; each gets the number of steps done.

    `stepped` is called after every step, before anything is logged, measured or saved. `log` receives means over the
    steps since the last call (losses, gradient norm, seconds a step), `save` writes a checkpoint.
    """

    stepped: Callable[[int], None] = lambda step: None
    log: Callable[[int, dict[str, float]], None] = lambda step, values: None
    evaluate: Callable[[int], None] = lambda step: None
    save: Callable[[int], None] = lambda step: None


@cache
def keep_freed_memory() -> bool:
    """Tells the C library not to give freed memory back to the system while this process runs.

    By default glibc maps every block above 32 MB afresh and returns the top of its heap, so that each step pays for the
    same pages again: the system must clear them before their first use. Returns whether it could be told.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))


class Interrupted(Exception):
    """Ctrl-C or SIGTERM arrived; the run was saved after the last full step."""

    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(f"interrupted after step {step}")


def run(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    losses: Callable[[int], Iterator[tuple[str, float, Tensor]]],
    settings: LoopSettings,
    hooks: Hooks,
    *,
    accelerator: Any,
    start: int = 0,
) -> int:
    """Trains from step `start` to `settings.steps` and returns the steps done.

    `losses` yields for a step (name, weight, loss) one after the other; each is back-propagated before the next is
    computed, so only one graph is in memory. The gradients of all of the module's parameters are clipped together. The
    optimizer's groups carry their base rate as `base_rate`; `accelerator` is an `accelerate.Accelerator`. Raises
    Interrupted after saving, and TrainingError where a loss or the gradient is not finite: weights and checkpoints are
    then those before this step.
    """
    keep_freed_memory()
    sums: dict[str, float] = {}
    count, began = 0, time.perf_counter()
    module.train()
    with _stop_signal() as stop:
        for step in range(start, settings.steps):
            for name, value in _step(module, optimizer, losses, settings, accelerator, step).items():
                sums[name] = sums.get(name, 0.0) + value
            count += 1
            done = step + 1
            hooks.stepped(done)
            if done % settings.log_every == 0 or done == settings.steps:
                means = {name: total / count for name, total in sums.items()}
                hooks.log(done, {**means, "seconds_per_step": (time.perf_counter() - began) / count})
                sums, count, began = {}, 0, time.perf_counter()
            if settings.evaluate_every and done % settings.evaluate_every == 0:
                module.eval()
                hooks.evaluate(done)
                module.train()
            # All processes stop after the same step, or the others would wait for one that has stopped.
            asked = torch.tensor([float(stop.is_set())], device=accelerator.device)
            stopped = bool(accelerator.reduce(asked, reduction="sum").item())
            if stopped or (settings.save_every and done % settings.save_every == 0):
                hooks.save(done)
            if stopped:
                raise Interrupted(done)
    return max(start, settings.steps)


def _step(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    losses: Callable[[int], Iterator[tuple[str, float, Tensor]]],
    settings: LoopSettings,
    accelerator: Any,
    step: int,
) -> dict[str, float]:
    values: dict[str, float] = {}
    factor = rate_factor(step, settings.steps, settings.warmup)
    for group in optimizer.param_groups:
        group["lr"] = group["base_rate"] * factor
    optimizer.zero_grad(set_to_none=True)
    for name, weight, loss in losses(step):
        value = float(loss.detach())
        if not math.isfinite(value):
            raise _not_finite(f"loss of {name} is {value}", step)
        values[f"loss/{name}"] = value
        accelerator.backward(loss * weight)
    mean_gradients(module.parameters(), accelerator.num_processes)
    norm = float(accelerator.clip_grad_norm_(module.parameters(), settings.clip))
    if not math.isfinite(norm):
        raise _not_finite(f"gradient norm is {norm}", step)
    optimizer.step()
    return {**values, "gradient_norm": norm, "rate_factor": factor}


def _not_finite(what: str, step: int) -> TrainingError:
    todo = "Lower the rates or set precision: fp32, then run the same command again"
    return TrainingError(f"step {step + 1}: {what}; the last checkpoint is kept", todo=todo)


def rate_factor(step: int, steps: int, warmup: float) -> float:
    """The factor on every rate: linear from 0 over `warmup` of the steps, then linear down to 0."""
    rise = max(1, round(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    return (steps - step) / max(1, steps - rise)


def optimizer_for(groups: dict[str, tuple[list[nn.Parameter], float]], weight_decay: float) -> torch.optim.AdamW:
    """AdamW over named groups of (parameters, rate); vectors (biases, norms) are not decayed."""
    rows: list[dict[str, Any]] = []
    for name, (parameters, rate) in groups.items():
        for decay, vectors in ((weight_decay, False), (0.0, True)):
            chosen = [p for p in parameters if p.requires_grad and (p.ndim <= 1) == vectors]
            if chosen:
                rows.append({"params": chosen, "lr": rate, "base_rate": rate, "weight_decay": decay, "name": name})
    return torch.optim.AdamW(rows, fused=True)


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that a step is never left half done; a Ctrl-C after either aborts."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(number: int, frame: Any) -> None:
        # Launchers send several SIGTERM, and follow with SIGKILL when they mean it.
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process computes: its device, its rank, and how many processes there are."""

    device: torch.device | str = "cpu"
    rank: int = 0
    processes: int = 1


def resolve_precision(asked: str) -> str:
    """`bf16` or `fp32` for what a recipe asks; `auto` is bf16 where the processor has instructions for it."""
    if asked != "auto":
        return asked
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8", errors="replace").split() if info.is_file() else []
    # AVX512-BF16 or AMX on x86, BF16 on Arm.
    return "fp32" if {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags) else "bf16"


def make_accelerator(bf16: bool) -> Any:
    """An `accelerate.Accelerator` for the device at hand; runs of one process may differ in precision."""
    # The state belongs to the process and would refuse another precision than that of its first run.
    AcceleratorState._reset_state()
    return Accelerator(mixed_precision="bf16" if bf16 else "no", cpu=not torch.cuda.is_available())


def process_state() -> Any:
    """What accelerate knows of the processes, as a `PartialState`; joins them when it is asked for the first time."""
    return PartialState(cpu=not torch.cuda.is_available())


def shares(sizes: Sequence[int], processes: int) -> list[slice]:
    """Contiguous parts of texts of these sizes, about equal in tokens, at least one text for each process."""
    if len(sizes) < processes:
        given = f"a step has {len(sizes)} texts for {processes} processes"
        raise TrainingError(given, expected="at least one for each", todo="Raise `tokens`, or use fewer processes")
    ends = list(accumulate(sizes))
    bounds = [0]
    for rank in range(1, processes):
        wanted = bisect_left(ends, ends[-1] * rank / processes) + 1
        bounds.append(min(max(wanted, bounds[-1] + 1), len(sizes) - (processes - rank)))
    return [slice(first, last) for first, last in pairwise([*bounds, len(sizes)])]


def gather_units(local: Tensor, counts: Sequence[int]) -> Tensor:
    """[units, width] features of all processes by rank; gradients reach this process's own, [own units, width] `local`.

    `counts` has the units of each process.
    """
    if len(counts) < 2:
        return local
    # Gathering wants equal shapes. Each process has the whole loss, so gradients are those of all processes' losses
    # together; the mean over the processes divides them.
    parts = all_gather(F.pad(local, (0, 0, 0, max(counts) - len(local))))
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


@torch.no_grad()
def mean_gradients(parameters: Iterable[nn.Parameter], processes: int) -> None:
    """Averages the gradients over the processes, in which the same parameters have one."""
    for parameter in parameters if processes > 1 else ():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= processes
