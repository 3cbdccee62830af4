"""Where a run computes: device, precision, and several processes as one.

Every process draws the whole batch of a step, encodes its share of the texts, and computes the loss over the features
of all. So the negatives of a contrastive loss are those of the whole batch, and the result is that of one process. This
is done by hand and not by DistributedDataParallel, whose reduction would run before gradients that are made in several
backward passes (chunks, gradient surgery) are complete.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

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


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 matrices in hardware (AVX512-BF16 or AMX on x86, BF16 on Arm)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags.split())


def make_accelerator(bf16: bool) -> Any:
    """An `accelerate.Accelerator` for the device at hand; runs of one process may differ in precision."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # The state belongs to the process and would refuse another precision than that of its first run.
    AcceleratorState._reset_state()
    return Accelerator(mixed_precision="bf16" if bf16 else "no", cpu=not torch.cuda.is_available())


def process_state() -> Any:
    """What accelerate knows of the processes, as a `PartialState`; joins them when it is asked for the first time."""
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())


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


def gather_units(local: Tensor, counts: Sequence[int]) -> Tensor:
    """[units, width] features of all processes by rank; gradients reach this process's own, [own units, width] `local`.

    `counts` has the units of each process.
    """
    if len(counts) < 2:
        return local
    # Gathering wants equal shapes.
    padded = F.pad(local.detach(), (0, 0, 0, max(counts) - len(local)))
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    features = [part[:count] for part, count in zip(parts, counts, strict=True)]
    own = local.view_as(local)
    if own.requires_grad:
        # Each process has the whole loss, so this is the whole gradient; the mean over the processes divides it.
        own.register_hook(lambda gradient: gradient * len(counts))
    features[dist.get_rank()] = own
    return torch.cat(features)


@torch.no_grad()
def mean_gradients(parameters: Iterable[nn.Parameter], processes: int) -> None:
    """Averages the gradients over the processes, in which the same parameters have one."""
    for parameter in parameters if processes > 1 else ():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= processes
