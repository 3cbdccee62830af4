"""GLiNER (Zaratiana et al., arXiv 2311.08526) as a teacher, through the package `gliner`, which is an extra."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from trunkline.data.files import read_bytes
from trunkline.errors import EncoderError, TrunklineError
from trunkline.label.weak.config import TeacherConfig
from trunkline.text.examples import Span

_CONFIG_LIMIT = 16 * 2**20
_PARTS = {
    "model_name": "encoder_config",
    "labels_encoder": "labels_encoder_config",
    "labels_decoder": "labels_decoder_config",
}
"""Keys that name another model -> key of its configuration, without which that model's own is used."""


def load_gliner(
    config: TeacherConfig, folder: Path, fetch: Callable[..., Path], module: Any = None
) -> Callable[[Sequence[str]], list[list[Span]]]:
    """A function that finds the entities of sentences for the labels of the options.

    Args:
        config: Gives labels, threshold, batch and device.
        folder: The model's, with `model.safetensors`.
        fetch: Finds the folder of a model that this one is built on.
        module: The module `gliner`; imported if it is not given.

    Raises:
        TrunklineError: No labels, or the package is missing.
        EncoderError: The model would run code of its own.
    """
    if not config.labels:
        raise TrunklineError(
            "a GLiNER model was given without labels", expected="what it is to look for", todo="Pass --label, repeated"
        )
    refuse_code(folder, fetch)
    module = module or _import()
    device = config.device
    if device == "auto":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = module.GLiNER.from_pretrained(str(folder), local_files_only=True, map_location=device)

    def find(sentences: Sequence[str]) -> list[list[Span]]:
        rows = model.inference(
            list(sentences), list(config.labels), threshold=config.threshold, batch_size=config.batch, multi_label=True
        )
        return [
            [
                Span(row["start"], row["end"], row["label"])
                for row in found
                if 0 <= row["start"] < row["end"] <= len(text)
            ]
            for text, found in zip(sentences, rows, strict=True)
        ]

    return find


def refuse_code(folder: Path, fetch: Callable[..., Path]) -> None:
    """Refuses a model whose configuration, or that of a model it is built on, names code of its own (`auto_map`).

    The package itself trusts such code, so that it must not come that far.

    Raises:
        EncoderError: There is such code.
    """
    config = _read(folder / "gliner_config.json")
    suspects = {folder / "gliner_config.json": config}
    for key, inner in _PARTS.items():
        name = config.get(key)
        if isinstance(name, str) and name and not config.get(inner):
            path = fetch(name, None, ("*.json", "*.txt", "*.model")) / "config.json"
            suspects[path] = _read(path)
    if (folder / "config.json").is_file():
        suspects[folder / "config.json"] = _read(folder / "config.json")
    for path, content in suspects.items():
        if "auto_map" in _keys(content):
            raise EncoderError(
                f"{path} names code of the model's own (auto_map)", expected="a model that runs without remote code"
            )


def _import() -> Any:
    try:
        return importlib.import_module("gliner")
    except ImportError as error:
        raise TrunklineError(
            f"the package gliner cannot be imported ({error})",
            expected="it for a GLiNER model",
            todo="pip install 'trunkline[teacher]'",
        ) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_bytes(path, limit=_CONFIG_LIMIT))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise EncoderError(f"{path} is no JSON object", expected="a model's configuration")
    return content


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)
