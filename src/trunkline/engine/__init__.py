"""What computes features of texts through adapters: ONNX Runtime by default, or torch; from a name to an open bundle,
and from a bundle to the engine that fits it.
"""

from __future__ import annotations

import re
from pathlib import Path

from trunkline.bundle.files import Bundle, is_bundle, open_bundle
from trunkline.bundle.manifest import MANIFEST
from trunkline.engine.base import Engine
from trunkline.errors import TrunklineError
from trunkline.extras import needs

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


def open_source(source: str | Path | None, *, verify: bool = True, public_key: str | bytes | None = None) -> Bundle:
    """Opens a bundle by folder, repository of the hub, folder of a plain encoder, or None for the default model.

    Raises:
        TrunklineError: There is none, or an extra is missing.
    """
    if source is None or source == "default":
        from trunkline.engine.default import default_bundle

        return open_bundle(default_bundle(), verify=False)
    folder = Path(source).expanduser()
    if is_bundle(folder):
        return open_bundle(folder, verify, public_key)
    try:
        plain, other = (folder / "config.json").is_file(), folder.exists()
    except OSError as error:
        raise TrunklineError(f"{str(folder)[:300]} cannot be looked at ({error.strerror})") from error
    if plain:
        return _encoder_as_bundle(folder)
    if other:
        raise TrunklineError(
            f"{folder} has neither {MANIFEST} nor config.json",
            expected="the folder of a bundle or of an encoder in Hugging Face layout",
            todo="`trunkline fit --out DIR` and `trunkline prefinetune` make bundles",
        )
    name = str(source)
    if not _REPOSITORY.fullmatch(name):
        raise TrunklineError(
            f"there is no folder {name}",
            expected="a bundle's folder, OWNER/NAME of the hub, or nothing for the default",
        )
    from trunkline.hub import fetch

    repository, _, revision = name.partition("@")
    return open_bundle(fetch(repository, revision or None), verify, public_key)


def open_engine(bundle: Bundle, engine: str | None = None, threads: int = 1) -> Engine:
    """The engine of a bundle: onnx where it has graphs, else torch, unless one is asked for.

    Raises:
        TrunklineError: An unknown engine, one that the bundle has no weights for, or a missing extra.
    """
    manifest = bundle.manifest
    if engine not in (None, "onnx", "torch"):
        raise TrunklineError(f"engine {engine!r}", expected="onnx or torch")
    if type(threads) is not int or threads < 1:
        raise TrunklineError(f"threads={threads!r}", expected="a whole number from 1")
    chosen = engine or ("onnx" if manifest.graphs else "torch")
    if chosen == "onnx" and not manifest.graphs:
        raise TrunklineError(
            f"{bundle.folder} has no graphs for ONNX Runtime",
            expected="an exported bundle",
            todo="`trunkline export` makes one, or load it with engine='torch'",
        )
    if chosen == "torch" and not manifest.checkpoint:
        raise TrunklineError(
            f"{bundle.folder} has no weights for torch",
            expected="a bundle as pre-finetuning writes it",
            todo="Load it with engine='onnx'",
        )
    if chosen == "onnx":
        from trunkline.engine.onnx import OnnxEngine

        return OnnxEngine(bundle.graphs, manifest.shapes, manifest.encoder.pad_id, threads)
    with needs("train", "the engine torch" if engine else f"{bundle.folder}, which has weights for torch alone,"):
        from trunkline.encoder.bundle_files import bundle_encoder
        from trunkline.engine.torch import TorchEngine
    return TorchEngine(bundle_encoder(bundle))


def _encoder_as_bundle(folder: Path) -> Bundle:
    """A plain encoder's folder as a bundle without tasks, in the cache."""
    with needs("train", f"{folder} is a plain encoder, and loading it"):
        from trunkline.encoder.bundle_files import cached_bundle
    return open_bundle(cached_bundle(str(folder)), verify=False)
