"""Bundles on the Hugging Face hub; needs the extra `[hub]`."""

from __future__ import annotations

from pathlib import Path

from trunkline.bundle.files import file_problems, listed, read_manifest
from trunkline.bundle.manifest import MANIFEST, SIGNATURE
from trunkline.errors import DataError, TrunklineError
from trunkline.extras import needs


def push(folder: Path, repository: str, *, private: bool = True, token: str | None = None) -> str:
    """Uploads a bundle; files that its manifest does not name stay at home, and files of the repository go.

    Args:
        folder: The bundle.
        repository: `owner/name`; it is made if it is missing.
        private: Whether a new repository is private.
        token: Of access; by default the one that `hf auth login` keeps.

    Returns:
        The repository's address.

    Raises:
        DataError: A file is not as the manifest says.
        TrunklineError: The hub refuses or cannot be reached.
    """
    with needs("hub", "push_to_hub"):
        from huggingface_hub import HfApi
    manifest = read_manifest(folder)
    problems = file_problems(folder, manifest)
    if problems:
        raise DataError(listed("a bundle that is not whole is not uploaded", problems), path=folder)
    api = HfApi(token=token)
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=[MANIFEST, SIGNATURE, "README.md", *manifest.files],
            delete_patterns=["tasks/*", "adapters/*", "graphs/*", "encoder/*", "*.onnx", SIGNATURE],
            commit_message=f"trunkline bundle {manifest.name}",
        )
    except _errors() as error:
        raise _refused(repository, error) from error
    return str(address)


def fetch(repository: str, revision: str | None = None) -> Path:
    """The folder of a repository's bundle in the hub's cache; only the files that its manifest names are fetched.

    Raises:
        TrunklineError: There is no such repository or no bundle in it, or the hub cannot be reached.
    """
    with needs("hub", f"{repository!r} is no folder here; fetching it from the hub"):
        from huggingface_hub import hf_hub_download, snapshot_download
    try:
        path = Path(hf_hub_download(repository, MANIFEST, revision=revision))
        names = [MANIFEST, SIGNATURE, *read_manifest(path.parent).files]
        return Path(snapshot_download(repository, revision=revision, allow_patterns=names))
    except _errors() as error:
        raise _refused(repository, error) from error


def _errors() -> tuple[type[Exception], ...]:
    """What the hub's client raises; the bases are those of the library that it sends requests with."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    return (*HfHubHTTPError.__bases__, EntryNotFoundError, HFValidationError, OSError)


def _refused(repository: str, error: Exception) -> TrunklineError:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return TrunklineError(
        f"the hub's repository {repository!r} cannot be used ({reason})",
        expected="a repository OWNER/NAME with a bundle, and access to it",
        todo="Check the name, the connection and `hf auth login`",
    )
