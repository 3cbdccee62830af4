"""Precision and attention of training, by what the device computes fast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def resolve_precision(asked: str) -> str:
    """`bf16` or `fp32` for what a recipe asks; `auto` is bf16 where the processor has instructions for it."""
    if asked != "auto":
        return asked
    fast = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else cpu_has_bf16()
    return "bf16" if fast else "fp32"


def attention_setting(asked: str, precision: str, device: torch.device | str) -> str:
    """What `Encoder.attention` is to be in a run.

    The usual one is sdpa, but eager in bf16 on CPUs, where the fused kernel's backward pass is slow. It stays `auto`
    where this means the same: passes in another precision, such as that which embeds the concepts, then attend as is
    best in theirs.
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
