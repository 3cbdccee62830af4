"""What a result depends on beside its recipe and data: versions, the state of the code, the machine."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("trunkline", "torch", "accelerate", "tokenizers", "safetensors", "numpy", "scikit-learn", "seqeval")
_GIT_TIMEOUT_S = 5.0


def versions() -> dict[str, str]:
    """Python's version and those of the packages that results depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_state(folder: Path | None = None) -> dict[str, Any] | None:
    """The commit of the repository that a folder is in, and whether files were changed since or are not in it.

    Args:
        folder: The working directory by default.

    Returns:
        `commit` (none before the first one) and `dirty` (none if git took too long to say), or none where there is no
        repository or no git.
    """
    where = folder or Path.cwd()
    if _git(where, ["rev-parse", "--git-dir"]) is None:
        return None
    changes = _git(where, ["status", "--porcelain"])
    return {
        "commit": _git(where, ["rev-parse", "--verify", "HEAD"]),
        "dirty": None if changes is None else changes != "",
    }


def hardware() -> dict[str, Any]:
    """The machine: `processor`, `cores` that may be used, `memory_bytes` and `accelerators`; none if unknown."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _memory(),
        "accelerators": _accelerators(),
    }


def _git(folder: Path, arguments: Sequence[str]) -> str | None:
    """What git prints, or none if it fails; it takes no lock, so that it disturbs nobody who works there."""
    return _output(["git", "-C", str(folder), *arguments], {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"})


def _output(command: Sequence[str], environment: dict[str, str]) -> str | None:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            check=True,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            timeout=_GIT_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace").strip()


def _processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    if not named and platform.system() == "Darwin":
        named = [_output(["sysctl", "-n", "machdep.cpu.brand_string"], {}) or ""]
    return (named[0] if named else "") or platform.processor() or None


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on this system
        return None


def _accelerators() -> list[str]:
    import torch

    if torch.cuda.is_available():
        return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return ["Apple GPU"] if torch.backends.mps.is_available() else []
