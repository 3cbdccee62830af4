"""Where a run computes: device, precision, and several processes as one.

Features are gathered with their gradients, parameters' gradients are averaged.
Every process draws the whole batch of a step, encodes its share of the texts, and computes the loss over the features
of all. So the negatives of a contrastive loss are those of the whole batch, and the result is that of one process. This
is done by hand and not by DistributedDataParallel, whose reduction would run before gradients that are made in several
backward passes (chunks, gradient surgery) are complete.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trunkline.errors import TrainingError


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
    fast = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else cpu_has_bf16()
    return "bf16" if fast else "fp32"


def attention_setting(asked: str, precision: str, device: torch.device | str) -> str:
    """What `Encoder.attention` is to be in a run: `auto` where that means the same.

    That is sdpa, but eager in bf16 on CPUs, where the fused kernel's backward pass is slow. Passes in another
    precision, such as that which embeds the concepts, then attend as is best in theirs.
    """
    usual = "eager" if precision == "bf16" and torch.device(device).type == "cpu" else "sdpa"
    return "auto" if asked == usual else asked


def make_accelerator(bf16: bool, **options: Any) -> Any:
    """An `accelerate.Accelerator` for the device at hand; runs of one process may differ in precision."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # The state belongs to the process and would refuse another precision than that of its first run.
    AcceleratorState._reset_state()
    return Accelerator(mixed_precision="bf16" if bf16 else "no", cpu=not torch.cuda.is_available(), **options)


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 matrices in hardware (AVX512-BF16 or AMX on x86, BF16 on Arm)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags.split())


def shares(sizes: Sequence[int], processes: int) -> list[slice]:
    """Contiguous parts of texts of these sizes, about equal in tokens, at least one text for each process."""
    if len(sizes) < processes:
        raise TrainingError(
            f"a step has {len(sizes)} texts for {processes} processes",
            expected="at least one for each",
            todo="Raise `tokens`, or use fewer processes",
        )
    ends = list(accumulate(sizes))
    bounds = [0]
    for rank in range(1, processes):
        wanted = bisect_left(ends, ends[-1] * rank / processes) + 1
        bounds.append(min(max(wanted, bounds[-1] + 1), len(sizes) - (processes - rank)))
    return [slice(first, last) for first, last in pairwise([*bounds, len(sizes)])]


def is_main_process() -> bool:
    """Whether this process writes files and reports; the only one does."""
    return bool(_state().is_main_process)


@contextmanager
def main_process_first() -> Iterator[None]:
    """The main process goes through the block before the others, so that they find what it has made."""
    with _state().main_process_first():
        yield


def _state() -> Any:
    """What accelerate knows of the processes; joins them when it is asked for the first time."""
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())


def gather_states(state: Mapping[str, Tensor], processes: int) -> list[Mapping[str, Tensor]]:
    """The random states of all processes, in the order of their ranks; tensors of the same shapes everywhere."""
    found: list[dict[str, Tensor]] = [{} for _ in range(processes)]
    for name, tensor in state.items():
        parts = [torch.empty_like(tensor) for _ in range(processes)] if processes > 1 else [tensor]
        if processes > 1:
            dist.all_gather(parts, tensor)
        for own, part in zip(found, parts, strict=True):
            own[name] = part
    return list(found)


def gather_units(local: Tensor, counts: Sequence[int]) -> Tensor:
    """[units, width] features of all processes by rank; their gradients reach the process that they came from.

    `local` is [own units, width], `counts` has the units of each process.
    """
    if len(counts) < 2:
        return local
    gathered: Tensor = _Gather.apply(local, tuple(counts))
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor, counts: tuple[int, ...]) -> Tensor:
        ctx.begin = sum(counts[: dist.get_rank()])
        ctx.count = len(local)
        # Gathering wants equal shapes.
        padded = local.new_zeros(max(counts), *local.shape[1:])
        padded[: len(local)] = local
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        # Every process has the whole loss, so the sum is `processes` times the gradient, which the mean undoes.
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.begin : ctx.begin + ctx.count], None


@torch.no_grad()
def mean_gradients(parameters: Iterable[nn.Parameter], processes: int) -> None:
    """Averages the gradients over the processes; a parameter without one anywhere keeps none."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if processes < 2 or not trained:
        return
    present = torch.tensor([float(p.grad is not None) for p in trained], device=trained[0].device)
    dist.all_reduce(present)
    for parameter, count in zip(trained, present.tolist(), strict=True):
        if count:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            dist.all_reduce(gradient)
            parameter.grad = gradient / processes
