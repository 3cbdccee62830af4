"""Ed25519 signatures (RFC 8032) over the bytes of a bundle's manifest, which has the SHA-256 of every other file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from trunkline.bundle.manifest import SIGNATURE
from trunkline.bundle.tensors import read_file
from trunkline.errors import DataError, MismatchError, TrunklineError

ALGORITHM = "ed25519"
_KEY = re.compile(r"[0-9a-fA-F]{64}")
_SIGNED = re.compile(r"[0-9a-fA-F]{128}")
_LIMIT = 2**16


def sign(content: bytes, private_key: str | bytes) -> bytes:
    """The content of `signature.json` for a manifest's bytes.

    Args:
        content: The manifest.
        private_key: 32 bytes, as they are or as 64 hexadecimal digits, or an unencrypted PEM.

    Raises:
        TrunklineError: It is no Ed25519 key, or `cryptography` is not installed.
    """
    key = _private(private_key)
    public = key.public_key().public_bytes_raw().hex()
    record = {"algorithm": ALGORITHM, "public_key": public, "signature": key.sign(content).hex()}
    return (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()


def check_signature(folder: Path, content: bytes, public_key: str | bytes) -> None:
    """Checks that a manifest was signed with the private half of a key.

    Args:
        folder: The bundle, with `signature.json`.
        content: The manifest's bytes.
        public_key: 32 bytes, as they are or as 64 hexadecimal digits, or a PEM.

    Raises:
        MismatchError: It was not signed, or with another key, or was changed afterwards.
        TrunklineError: The key is none, or `cryptography` is not installed.
    """
    key = _public(public_key)
    path = folder / SIGNATURE
    if not path.exists():
        raise MismatchError(f"{folder} is not signed", expected=f"{SIGNATURE} beside the manifest")
    try:
        record = json.loads(read_file(path, _LIMIT).decode("utf-8"))
        signature = record["signature"] if record["algorithm"] == ALGORITHM else ""
        if not _SIGNED.fullmatch(signature):
            raise ValueError(f"the signature is {str(signature)[:40]!r}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"this is no signature ({' '.join(str(error).split())[:200]})", path=path, expected=f"{ALGORITHM}"
        ) from error
    if not _verifies(key, bytes.fromhex(signature), content):
        raise MismatchError(
            f"{folder}: the signature is not that of this manifest under the key given",
            expected="a bundle signed by the owner of the key, and not changed since",
            todo="Fetch the bundle again, from somewhere you trust",
        )


def new_private_key() -> str:
    """A new private key, as 64 hexadecimal digits."""
    return str(_ed25519().Ed25519PrivateKey.generate().private_bytes_raw().hex())


def public_half(private_key: str | bytes) -> str:
    """The public key that belongs to a private one, as 64 hexadecimal digits."""
    return str(_private(private_key).public_key().public_bytes_raw().hex())


def _verifies(key: Any, signature: bytes, content: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise TrunklineError("signatures need cryptography", todo="pip install 'trunkline[sign]'") from error
    return ed25519


def _raw(key: str | bytes) -> bytes | None:
    """The 32 bytes of a key that is no PEM."""
    if isinstance(key, bytes) and len(key) == 32:
        return key
    text = key if isinstance(key, str) else key.decode("latin-1")
    return bytes.fromhex(text.strip()) if _KEY.fullmatch(text.strip()) else None


def _private(key: str | bytes) -> Any:
    module, raw = _ed25519(), _raw(key)
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        found = (
            module.Ed25519PrivateKey.from_private_bytes(raw)
            if raw
            else load_pem_private_key(_bytes(key), password=None)
        )
    except (ValueError, TypeError) as error:
        raise _no_key("private") from error
    if not isinstance(found, module.Ed25519PrivateKey):
        raise _no_key("private")
    return found


def _public(key: str | bytes) -> Any:
    module, raw = _ed25519(), _raw(key)
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        found = module.Ed25519PublicKey.from_public_bytes(raw) if raw else load_pem_public_key(_bytes(key))
    except (ValueError, TypeError) as error:
        raise _no_key("public") from error
    if not isinstance(found, module.Ed25519PublicKey):
        raise _no_key("public")
    return found


def _bytes(key: str | bytes) -> bytes:
    return key.encode() if isinstance(key, str) else key


def _no_key(half: str) -> TrunklineError:
    # The key itself stays out of the message.
    return TrunklineError(
        f"the {half} key cannot be used", expected=f"an Ed25519 {half} key: 32 bytes, 64 hexadecimal digits or a PEM"
    )
