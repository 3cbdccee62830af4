"""Precision and attention of training, by what the device computes fast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def resolve_precision(asked: str) -> str:
    """`bf16` or `fp32` for what a recipe asks; `auto` is bf16 where the processor has instructions for it."""
    if asked != "auto":
        return asked
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if cpu_has_bf16() else "fp32"


def usual_attention(precision: str, device: torch.device | str) -> str:
    """What attention `auto` is in a precision: in bf16 on CPUs the fused kernel's backward pass is slow."""
    return "eager" if precision == "bf16" and torch.device(device).type == "cpu" else "sdpa"


def attention_setting(asked: str, precision: str, device: torch.device | str) -> str:
    """What `Encoder.attention` is to be in a run.

    It stays `auto` where this means the same in the run's precision: passes in another one, such as that which embeds
    the concepts, then attend as is best in theirs.
    """
    return "auto" if asked in ("auto", usual_attention(precision, device)) else asked


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
    words = set(flags.split())
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})
