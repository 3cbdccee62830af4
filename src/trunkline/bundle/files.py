"""A bundle's folder, read, checked and described, and Ed25519 signatures (RFC 8032) over its manifest's bytes.

The manifest has the SHA-256 of every other file, so a signature over it covers all of them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trunkline.bundle.lora import Inputs
from trunkline.bundle.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    SIGNATURE,
    TOKENIZER,
    Manifest,
    limit_of,
    listed,
    parse_manifest,
)
from trunkline.bundle.parts import PrimaryAdapter, Task, read_primary, read_task
from trunkline.bundle.tensors import open_plain, read_file
from trunkline.errors import DataError, MismatchError, TrunklineError

ALGORITHM = "ed25519"
_MAX_SIGNATURE_BYTES = 2**16


@dataclass(frozen=True, slots=True)
class Bundle:
    """An open bundle: where it lies, what it holds, primary adapters by family, and tasks by name."""

    folder: Path
    manifest: Manifest
    primaries: Mapping[str, PrimaryAdapter]
    tasks: Mapping[str, Task]

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's file."""
        return self.folder / TOKENIZER

    @property
    def graphs(self) -> dict[str, Path]:
        """The graphs' files: `trunk`, `branch` and the variants."""
        return {name: self.folder / file for name, file in self.manifest.graphs.items()}

    def inputs(self, name: str) -> Inputs:
        """The inputs of the branch graph for a task: its head, and LoRA of its own or of its family."""
        task = self.tasks[name]
        primary = self.primaries.get(task.family)
        return {**({} if task.own_lora or primary is None else primary.inputs), **task.inputs}


def open_bundle(folder: str | Path, verify: bool = True, public_key: str | bytes | None = None) -> Bundle:
    """Opens a bundle.

    Args:
        folder: Its folder.
        verify: Whether the SHA-256 of every file is compared with the manifest's; sizes always are.
        public_key: An Ed25519 key, under which the manifest must be signed.

    Raises:
        DataError: A file is missing, damaged, too large or outside of the folder; lists every such file.
        MismatchError: A part belongs to another bundle or a later version, or the signature is not right.
        TrunklineError: This is no folder of a bundle.
    """
    folder = Path(folder).expanduser()
    tried: list[Manifest] = []
    while True:
        manifest = read_manifest(folder, public_key)
        try:
            return _opened(folder, manifest, verify)
        except TrunklineError:
            # Who replaces a task meanwhile removes its old file after the manifest that named it. A task that is
            # removed and added again makes the same manifest once more, hence two more looks.
            if tried.count(manifest) == 2:
                raise
            tried.append(manifest)


def _opened(folder: Path, manifest: Manifest, verify: bool) -> Bundle:
    problems = file_problems(folder, manifest, verify)
    if problems:
        raise DataError(
            listed(f"{len(problems)} of {len(manifest.files)} files of the bundle cannot be used", problems),
            path=folder,
            expected="the files that its manifest names",
            todo="Fetch or export the bundle again",
        )
    primaries = {family: read_primary(folder / file, manifest, family) for family, file in manifest.adapters.items()}
    tasks = {name: read_task(folder / task.file, manifest, name) for name, task in manifest.tasks.items()}
    return Bundle(folder, manifest, primaries, tasks)


def is_bundle(folder: Path) -> bool:
    """Whether a bundle lies here."""
    try:
        return (folder / MANIFEST).is_file()
    except OSError:
        return False


def read_manifest(folder: Path, public_key: str | bytes | None = None) -> Manifest:
    """The manifest of a bundle's folder; with a key, only if it is signed. Errors as for `open_bundle`."""
    path = folder / MANIFEST
    if not path.exists():
        raise TrunklineError(
            f"{folder} has no {MANIFEST}", expected="a bundle's folder", todo="`trunkline fit --out DIR` makes one"
        )
    content = read_file(path, MAX_MANIFEST_BYTES)
    if public_key is not None:
        check_signature(folder, content, public_key)
    return parse_manifest(content, path)


def file_problems(folder: Path, manifest: Manifest, verify: bool = True) -> list[str]:
    """Every file of a bundle that is missing, outside, no plain file, or not the one that the manifest means."""
    root = Path(os.path.realpath(folder))
    # Snapshots in the hub's cache link to files in `blobs`.
    blobs = root.parent.parent / "blobs"
    roots = [root, blobs] if root.parent.name == "snapshots" and blobs.is_dir() else [root]
    problems = []
    for file, entry in manifest.files.items():
        if not any(Path(os.path.realpath(folder / file)).is_relative_to(root) for root in roots):
            problems.append(f"{file} is a link out of the folder")
            continue
        if entry.bytes > limit_of(file, manifest):
            problems.append(f"{file} has {entry.bytes} bytes, more than {limit_of(file, manifest)}")
            continue
        try:
            with open_plain(folder / file) as stream:
                size = os.fstat(stream.fileno()).st_size
                if size != entry.bytes:
                    problems.append(f"{file} has {size} bytes, not {entry.bytes}")
                elif verify and hashlib.file_digest(stream, "sha256").hexdigest() != entry.sha256:
                    problems.append(f"{file} has another SHA-256 than the manifest says: it was changed")
        except DataError as error:
            problems.append(f"{file}: {error.given.removeprefix(f'{error.path}: ')}")
        except OSError as error:
            problems.append(f"{file} cannot be read ({error.strerror})")
    return problems


def describe_bundle(folder: Path) -> dict[str, Any]:
    """What a bundle holds, as plain data; errors as for `open_bundle`.

    Returns:
        `name`, `folder`, `encoder` (sizes), `engines` (what it can run on), `precision` of the graphs, `bytes` in all,
        `adapters` (families), `tasks` (name -> family, labels, bytes, mode, examples, cross-validated scores),
        `licences` and `info`.
    """
    bundle = open_bundle(folder, verify=False)
    manifest = bundle.manifest
    tasks = {
        name: {
            "family": task.family,
            "labels": task.types,
            "units": task.units,
            "lora": task.own_lora,
            "bytes": len(task.content),
            "mode": task.info.get("mode"),
            "examples": task.info.get("examples"),
            "scores": task.info.get("cross_validation", {}).get("scores"),
        }
        for name, task in sorted(bundle.tasks.items())
    }
    return {
        "name": manifest.name,
        "folder": str(folder),
        "trunkline": manifest.trunkline,
        "encoder": dataclasses.asdict(manifest.encoder),
        "backbone": manifest.backbone,
        "engines": [name for name, there in (("onnx", manifest.graphs), ("torch", manifest.checkpoint)) if there],
        "precision": manifest.weights["kind"],
        "bytes": sum(file.bytes for file in manifest.files.values()),
        "adapters": sorted(manifest.adapters),
        "tasks": tasks,
        "licences": [dataclasses.asdict(item) for item in manifest.licences],
        "info": dict(manifest.info),
    }


def sign(content: bytes, private_key: str | bytes) -> bytes:
    """The content of `signature.json` for a manifest's bytes.

    Args:
        content: The manifest.
        private_key: 32 bytes, as they are or as 64 hexadecimal digits, or an unencrypted PEM.

    Raises:
        TrunklineError: It is no Ed25519 key, or `cryptography` is not installed.
    """
    key = _key(private_key, "private")
    public = key.public_key().public_bytes_raw().hex()
    record = {"algorithm": ALGORITHM, "public_key": public, "signature": key.sign(content).hex()}
    return (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()


def check_signature(folder: Path, content: bytes, public_key: str | bytes) -> None:
    """Checks that a manifest's bytes were signed with the private half of a key; keys are given as for `sign`.

    Raises:
        MismatchError: They were not signed, or with another key, or were changed afterwards.
        TrunklineError: The key is none, or `cryptography` is not installed.
    """
    key = _key(public_key, "public")
    path = folder / SIGNATURE
    if not path.exists():
        raise MismatchError(f"{folder} is not signed", expected=f"{SIGNATURE} beside the manifest")
    try:
        record = json.loads(read_file(path, _MAX_SIGNATURE_BYTES).decode("utf-8"))
        signature = record["signature"] if record["algorithm"] == ALGORITHM else ""
        if not re.fullmatch("[0-9a-fA-F]{128}", signature):
            raise ValueError(f"the signature is {str(signature)[:40]!r}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"this is no signature ({' '.join(str(error).split())[:200]})", path=path, expected=ALGORITHM
        ) from error
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(bytes.fromhex(signature), content)
    except InvalidSignature as error:
        raise MismatchError(
            f"{folder}: the signature is not that of this manifest under the key given",
            expected="a bundle signed by the owner of the key, and not changed since",
            todo="Fetch the bundle again, from somewhere you trust",
        ) from error


def new_private_key() -> str:
    """A new private key, as 64 hexadecimal digits."""
    return str(_ed25519().Ed25519PrivateKey.generate().private_bytes_raw().hex())


def public_half(private_key: str | bytes) -> str:
    """The public key that belongs to a private one, as 64 hexadecimal digits."""
    return str(_key(private_key, "private").public_key().public_bytes_raw().hex())


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise TrunklineError("signatures need cryptography", todo="pip install 'trunkline[sign]'") from error
    return ed25519


def _key(given: str | bytes, half: str) -> Any:
    """The `private` or `public` key of 32 bytes, 64 hexadecimal digits or a PEM."""
    module = _ed25519()
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

    kind, content = getattr(module, f"Ed25519{half.title()}Key"), given.encode() if isinstance(given, str) else given
    digits = content.decode("latin-1").strip()
    hexadecimal = re.fullmatch("[0-9a-fA-F]{64}", digits) is not None
    try:
        if hexadecimal or (isinstance(given, bytes) and len(given) == 32):
            found = getattr(kind, f"from_{half}_bytes")(bytes.fromhex(digits) if hexadecimal else content)
        else:
            found = load_pem_public_key(content) if half == "public" else load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise _no_key(half) from error
    if not isinstance(found, kind):
        raise _no_key(half)
    return found


def _no_key(half: str) -> TrunklineError:
    # The key itself stays out of the message.
    return TrunklineError(
        f"the {half} key cannot be used", expected=f"an Ed25519 {half} key: 32 bytes, 64 hexadecimal digits or a PEM"
    )
