"""Bundles on the Hugging Face hub; needs the extra `[hub]`."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from trunkline.bundle.files import file_problems, read_manifest
from trunkline.bundle.manifest import MANIFEST, SIGNATURE, listed
from trunkline.errors import DataError, TrunklineError, needs

TIMEOUT_S = 2.0


def hub_problem() -> str:
    """Why the hub cannot be asked, empty if it can; takes at most `TIMEOUT_S`.

    The hub's client retries for minutes; one look beforehand notices an unreachable hub at once.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return "HF_HUB_OFFLINE is set"
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    # Behind a proxy the hub's own name need not resolve here; the proxy is what has to answer.
    target = urlsplit(proxy) if proxy else endpoint
    outcome = [f"no answer within {TIMEOUT_S:g} s"]

    def connect() -> None:
        try:
            port = target.port or (80 if target.scheme == "http" else 443)
            socket.create_connection((target.hostname or "", port), timeout=TIMEOUT_S).close()
            outcome[0] = ""
        except (OSError, ValueError) as error:
            outcome[0] = str(error) or type(error).__name__

    # Looking up a name knows no time limit and cannot be broken off, so it is left behind in a thread of its own.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    return outcome[0] and f"{endpoint.hostname} is unreachable: {outcome[0]}"


def push(folder: Path, repository: str, *, private: bool = True, token: str | None = None) -> str:
    """Uploads a bundle as `Model.push_to_hub` says; files of the repository that its manifest does not name go.

    Raises TrunklineError if a file is not as the manifest says, or the hub refuses or cannot be reached.
    """
    with needs("hub", "push_to_hub"):
        from huggingface_hub import HfApi
    manifest = read_manifest(folder)
    if problems := file_problems(folder, manifest):
        raise DataError(listed("a bundle that is not whole is not uploaded", problems), path=folder)
    if problem := hub_problem():
        raise TrunklineError(problem, expected="a connection to the hub", todo="Connect, and try again")
    api = HfApi(token=token)
    with _asking(repository):
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=[MANIFEST, SIGNATURE, "README.md", *manifest.files],
            delete_patterns=["tasks/*", "adapters/*", "graphs/*", "encoder/*", "*.onnx", SIGNATURE],
            commit_message=f"trunkline bundle {manifest.name}",
        )
    return str(address)


def fetch(repository: str, revision: str | None = None) -> Path:
    """The folder of a repository's bundle in the hub's cache; only the files that its manifest names are fetched.

    Raises TrunklineError if there is no such repository or no bundle in it, or the hub cannot be reached.
    """
    with needs("hub", f"{repository!r} is no folder here; fetching it from the hub"):
        from huggingface_hub import hf_hub_download, snapshot_download
    local = bool(hub_problem())
    with _asking(repository):
        path = Path(hf_hub_download(repository, MANIFEST, revision=revision, local_files_only=local))
        names = [MANIFEST, SIGNATURE, *read_manifest(path.parent).files]
        folder = snapshot_download(repository, revision=revision, allow_patterns=names, local_files_only=local)
        return Path(str(folder))


@contextmanager
def _asking(repository: str) -> Iterator[None]:
    """Makes what the hub's client raises into an error of ours."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    # The bases are those of the library that the client sends requests with.
    theirs: tuple[type[Exception], ...] = (*HfHubHTTPError.__bases__, EntryNotFoundError, HFValidationError, OSError)
    try:
        yield
    except theirs as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise TrunklineError(
            f"the hub's repository {repository!r} cannot be used ({reason})",
            expected="a repository OWNER/NAME with a bundle, and access to it",
            todo="Check the name, the connection and `hf auth login`",
        ) from error
