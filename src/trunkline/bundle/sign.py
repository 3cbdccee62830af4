"""Ed25519 signatures (RFC 8032) over a manifest's bytes, which cover every other file by its SHA-256; extra `[sign]`.

Keys are 32 bytes, as they are or as 64 hexadecimal digits.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from trunkline.bundle.files import file_problems, locked, read_manifest, write_atomic
from trunkline.bundle.manifest import MANIFEST, MAX_MANIFEST_BYTES, SIGNATURE, listed, read_file
from trunkline.errors import DataError, MismatchError, TrunklineError, needs

ALGORITHM = "ed25519"
_MAX_SIGNATURE_BYTES = 2**16


def sign_bundle(folder: str | Path, key: str | bytes) -> Path:
    """Signs a bundle's manifest with a private key, after comparing every file with it.

    Raises:
        DataError: A file is not as the manifest says.
        TrunklineError: The key is none, or `cryptography` is not installed.
    """
    folder, private = Path(folder).expanduser(), _key(key, "private")
    read_manifest(folder)
    with locked(folder):
        problems = file_problems(folder, read_manifest(folder))
        if problems:
            raise DataError(listed("a bundle that is not whole is not signed", problems), path=folder)
        public = private.public_key().public_bytes_raw().hex()
        signature = private.sign(read_file(folder / MANIFEST, MAX_MANIFEST_BYTES)).hex()
        record = {"algorithm": ALGORITHM, "public_key": public, "signature": signature}
        write_atomic(folder / SIGNATURE, json.dumps(record, indent=1, sort_keys=True) + "\n")
    return folder / SIGNATURE


def check_signature(folder: Path, content: bytes, public_key: str | bytes) -> None:
    """Checks that a manifest's bytes were signed with the private half of a key.

    Raises:
        MismatchError: They were not signed, or with another key, or were changed afterwards.
        TrunklineError: The key is none, or `cryptography` is not installed.
    """
    key = _key(public_key, "public")
    from cryptography.exceptions import InvalidSignature

    path = folder / SIGNATURE
    if not path.exists():
        raise MismatchError(f"{folder} is not signed", expected=f"{SIGNATURE} beside the manifest")
    try:
        record = json.loads(read_file(path, _MAX_SIGNATURE_BYTES))
        if record["algorithm"] != ALGORITHM:
            raise ValueError(f"the algorithm is {str(record['algorithm'])[:40]!r}")
        key.verify(bytes.fromhex(record["signature"]), content)
    except InvalidSignature as error:
        raise MismatchError(
            f"{folder}: the signature is not that of this manifest under the key given",
            expected="a bundle signed by the owner of the key, and not changed since",
            todo="Fetch the bundle again, from somewhere you trust",
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"this is no signature ({reason})", path=path, expected=ALGORITHM) from error


def new_private_key() -> str:
    """A new private key, as 64 hexadecimal digits."""
    return str(_ed25519().Ed25519PrivateKey.generate().private_bytes_raw().hex())


def public_half(private_key: str | bytes) -> str:
    """The public key that belongs to a private one, as 64 hexadecimal digits."""
    return str(_key(private_key, "private").public_key().public_bytes_raw().hex())


def _ed25519() -> Any:
    with needs("sign", "a signature"):
        from cryptography.hazmat.primitives.asymmetric import ed25519
    return ed25519


def _key(given: str | bytes, half: str) -> Any:
    """The `private` or `public` key."""
    kind = getattr(_ed25519(), f"Ed25519{half.title()}Key")
    text = given.decode("latin-1") if isinstance(given, bytes) else given
    raw = bytes.fromhex(text) if re.fullmatch(r"\s*[0-9a-fA-F]{64}\s*", text) else given
    try:
        return getattr(kind, f"from_{half}_bytes")(raw)
    except (ValueError, TypeError) as error:
        # The key itself stays out of the message.
        raise TrunklineError(
            f"the {half} key cannot be used", expected=f"an Ed25519 {half} key: 32 bytes or 64 hexadecimal digits"
        ) from error
