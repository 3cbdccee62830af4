"""What is installed here: versions, the state of the code, the machine, the place for what can be made again."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

PACKAGES = ("trunkline", "torch", "accelerate", "tokenizers", "safetensors", "numpy", "scikit-learn", "seqeval")
_GIT_TIMEOUT_S = 5.0
CACHE_VARIABLE = "TRUNKLINE_CACHE"
UNUSED_DAYS = 60
_PLACES = {"win32": ("LOCALAPPDATA", "AppData/Local"), "darwin": ("", "Library/Caches")}


def versions() -> dict[str, str]:
    """Python's version and those of the packages that results depend on, as far as they are installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_state(folder: Path | None = None) -> dict[str, Any] | None:
    """The commit of the repository of a folder, the working directory by default, and whether files were changed.

    Returns:
        `commit` (none before the first one) and `dirty`; none where there is no repository, no git, or no answer.
    """
    import subprocess

    command = ["git", "-C", str(folder or Path.cwd()), "status", "--porcelain=v2", "--branch"]
    # It takes no lock, so that it disturbs nobody who works there.
    options: dict[str, Any] = {"env": {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}, "timeout": _GIT_TIMEOUT_S}
    try:
        done = subprocess.run(command, capture_output=True, check=True, stdin=subprocess.DEVNULL, **options)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    commit = lines[0].removeprefix("# branch.oid ")
    return {"commit": None if commit == "(initial)" else commit, "dirty": any(line[0] != "#" for line in lines)}


def hardware() -> dict[str, Any]:
    """The machine: `processor`, `cores` that may be used, `memory_bytes` and `accelerators`; none if unknown."""
    import torch

    cuda = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    known = hasattr(os, "sysconf") and {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= os.sysconf_names.keys()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor() or platform.processor() or None,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if known else None,
        "accelerators": [torch.cuda.get_device_name(n) for n in cuda]
        or ["Apple GPU"] * torch.backends.mps.is_available(),
    }


def _processor() -> str | None:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else ()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def cache_folder() -> Path:
    """The environment variable TRUNKLINE_CACHE, or `trunkline` in the place that the platform has for caches.

    Raises:
        RuntimeError: There is no variable and the user has no home.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    variable, place = _PLACES.get(sys.platform, ("XDG_CACHE_HOME", ".cache"))
    return Path(os.environ.get(variable) or Path.home() / place) / "trunkline"


def used(folder: Path) -> Path:
    """A folder in the cache, from now on used; those beside it that nobody used for `UNUSED_DAYS` are removed."""
    import shutil
    from contextlib import suppress

    with suppress(OSError):  # a cache that cannot be written to
        os.utime(folder)
        for other in folder.parent.iterdir():
            if other.is_dir() and time.time() - other.stat().st_mtime > UNUSED_DAYS * 86400:
                shutil.rmtree(other, ignore_errors=True)
    return folder
