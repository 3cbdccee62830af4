"""Bundles on the Hugging Face hub; needs the extra `[hub]`."""

from __future__ import annotations

from pathlib import Path

from trunkline.bundle.files import file_problems, listed, read_manifest
from trunkline.bundle.manifest import MANIFEST
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
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
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
            allow_patterns=[MANIFEST, "signature.json", "README.md", *manifest.files],
            delete_patterns=["tasks/*", "adapters/*", "graphs/*", "encoder/*", "signature.json"],
            commit_message=f"trunkline bundle {manifest.name}",
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise _refused(repository, error) from error
    return str(address)


def fetch(repository: str, revision: str | None = None) -> Path:
    """The folder of a repository's bundle in the hub's cache; only the files that its manifest names are fetched.

    Raises:
        TrunklineError: There is no such repository or no bundle in it, or the hub cannot be reached.
    """
    with needs("hub", f"{repository!r} is no folder here; fetching it from the hub"):
        from huggingface_hub import hf_hub_download, snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    errors = (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError)
    try:
        path = Path(hf_hub_download(repository, MANIFEST, revision=revision))
        manifest = read_manifest(path.parent)
        names = [MANIFEST, "signature.json", *manifest.files]
        return Path(snapshot_download(repository, revision=revision, allow_patterns=names))
    except errors as error:
        raise _refused(repository, error) from error


def _refused(repository: str, error: Exception) -> TrunklineError:
    return TrunklineError(
        f"the hub's repository {repository!r} cannot be used ({str(error).splitlines()[0][:300]})",
        expected="a repository OWNER/NAME with a bundle, and access to it",
        todo="Check the name, the connection and `hf auth login`",
    )
