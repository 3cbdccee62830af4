"""Finding an encoder by name: a local folder, the local hub cache, the hub, the embedded default, in this order."""

from __future__ import annotations

import logging
import os
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trunkline.encoder.embedded import DEFAULT_ENCODER, INSTALL, find_embedded
from trunkline.errors import EncoderError

log = logging.getLogger(__name__)

HUB_TIMEOUT_S = 2.0
FILES = ("config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "vocab*", "merges.txt", "special_*")


@dataclass(frozen=True, slots=True)
class Found:
    """Where an encoder was found. `origin` is folder, cache, hub or embedded."""

    name: str
    origin: str
    folder: Path


def resolve(name: str = DEFAULT_ENCODER) -> Found:
    """Finds an encoder's folder.

    Args:
        name: A folder, a bundle's folder, a hub id, or `default` for the embedded encoder.

    Raises:
        EncoderError: Found nowhere; the message lists what was tried.
    """
    name = DEFAULT_ENCODER if name == "default" else name
    tried = []
    for origin, look in (("folder", _folder), ("cache", _cache), ("hub", _hub), ("embedded", _embedded)):
        found, reason = look(name)
        if found is not None:
            log.info("encoder %s: %s (%s)", name, origin, found)
            return Found(name, origin, found)
        tried.append(f"{origin} ({reason})")
        log.info("encoder %s: not from %s: %s", name, origin, reason)
    raise EncoderError(
        f"encoder {name!r} was found nowhere; tried " + ", ".join(tried),
        expected="a folder with config.json and model.safetensors, a hub id, or `default`",
        todo=f"`trunkline encoders` lists those here; `{INSTALL}` adds the default",
    )


def usable_here() -> list[Found]:
    """Every encoder that needs no network: those in the local hub cache and the verified embedded default."""
    found = []
    embedded, _ = _embedded(DEFAULT_ENCODER)
    if embedded:
        found.append(Found(DEFAULT_ENCODER, "embedded", embedded))
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return found
    for repository in repositories:
        folder, _ = _cache(repository.repo_id) if repository.repo_type == "model" else (None, "")
        if folder:
            found.append(Found(repository.repo_id, "cache", folder))
    return found


def _folder(name: str) -> tuple[Path | None, str]:
    folder = Path(name).expanduser()
    for candidate in (folder, folder / "encoder"):
        if (candidate / "config.json").is_file():
            return candidate, ""
    return None, "has no config.json" if folder.is_dir() else "no such folder"


def _cache(name: str) -> tuple[Path | None, str]:
    return _snapshot(name, local_files_only=True)


def _hub(name: str) -> tuple[Path | None, str]:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return None, "HF_HUB_OFFLINE is set"
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    # Behind a proxy the hub's own name need not resolve here; the proxy is what has to answer.
    target = urlsplit(proxy) if proxy else endpoint
    # The hub client retries for minutes; one look beforehand notices an unreachable hub at once.
    problem = _connection_problem(target.hostname or "", target.port or (80 if target.scheme == "http" else 443))
    if problem:
        return None, f"{endpoint.hostname} is unreachable: {problem}"
    return _snapshot(name, local_files_only=False)


def _connection_problem(host: str, port: int) -> str:
    """Why a host cannot be reached, empty if it can; takes at most `HUB_TIMEOUT_S`."""
    outcome: list[str] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=HUB_TIMEOUT_S).close()
            outcome.append("")
        except (OSError, ValueError) as error:
            outcome.append(str(error) or type(error).__name__)

    # Looking up a name knows no time limit and cannot be broken off, so it is left behind in a thread of its own.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT_S)
    return outcome[0] if outcome else f"no answer within {HUB_TIMEOUT_S:g} s"


def _snapshot(name: str, *, local_files_only: bool) -> tuple[Path | None, str]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    options: dict[str, Any] = {"allow_patterns": list(FILES), "local_files_only": local_files_only, "etag_timeout": 3}
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
