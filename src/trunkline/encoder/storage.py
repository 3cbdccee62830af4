"""Encoders on disk: Hugging Face checkpoints in, Hugging Face checkpoints out, safetensors only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from trunkline.bundle.files import write_atomic
from trunkline.bundle.manifest import FloatArray, read_file
from trunkline.encoder.architectures import ARCHITECTURES, EncoderConfig, read_config, weights_hash
from trunkline.encoder.encoder import Encoder
from trunkline.errors import DataError, EncoderError, MismatchError
from trunkline.text.tokens import TextTokenizer

MAX_JSON_BYTES = 16 * 2**20
"""Configurations and manifests from outside are not read beyond this size."""


def read_json(path: Path) -> Any:
    """Reads a JSON file of bounded size; raises EncoderError if it is missing, too large or not JSON."""
    try:
        return json.loads(read_file(path, MAX_JSON_BYTES))
    except (DataError, ValueError, RecursionError) as error:
        raise EncoderError(f"{path} cannot be read as JSON ({error})") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file; raises EncoderError if it is missing or damaged."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise EncoderError(f"{path} cannot be read as safetensors ({error})") from error


def load_encoder(folder: Path, fork: int | None = None, backbone: str = "") -> Encoder:
    """Loads an encoder from a folder in Hugging Face layout; it forks in the middle by default.

    Raises:
        EncoderError: Not supported, incomplete, or weights that are not safetensors.
        MismatchError: The hash of its weights is not `backbone`, if one is given.
    """
    config = read_config(read_json(folder / "config.json"), str(folder / "config.json"))
    encoder = Encoder(config, config.n_layers // 2 if fork is None else fork)
    try:
        encoder.load_state_dict(_canonical(_checkpoint(folder), config, folder))
    except RuntimeError as error:
        raise EncoderError(
            f"{folder}: the weights do not have the sizes of config.json ({' '.join(str(error).split())[:300]})",
            expected="a configuration and weights that belong together",
        ) from error
    if backbone and (found := backbone_hash(encoder)) != backbone:
        raise MismatchError(
            f"{folder}: these are other weights, the backbone's hash is {found[:12]}",
            expected=f"{backbone[:12]}, as the manifest says",
            todo="The file was changed or belongs to another bundle; make or fetch the bundle again",
        )
    return encoder.eval()


def _checkpoint(folder: Path) -> dict[str, Tensor]:
    file, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if file.is_file():
        return read_tensors(file)
    if index.is_file():
        parts = sorted(set(read_json(index)["weight_map"].values()))
        if any(Path(part).name != part for part in parts):
            raise EncoderError(f"{index}: a part lies outside the folder", expected="plain file names")
        return {name: tensor for part in parts for name, tensor in read_tensors(folder / part).items()}
    others = sorted(item.name for pattern in ("*.bin", "*.safetensors") for item in folder.glob(pattern))
    raise EncoderError(
        f"{folder} has no model.safetensors" + (f", only {others}" if others else ""),
        expected="weights as safetensors, in parts with their index; pickled weights are never loaded",
        todo="Convert them with transformers' save_pretrained(safe_serialization=True)" if others else "",
    )


def _canonical(tensors: Mapping[str, Tensor], config: EncoderConfig, folder: Path) -> dict[str, Tensor]:
    architecture = ARCHITECTURES[config.model_type]
    # Checkpoints from before 2019 call the norms gamma and beta; task models put a prefix before every name.
    cleaned = {
        name.removeprefix(architecture.prefix + ".")
        .replace("LayerNorm.gamma", "LayerNorm.weight")
        .replace("LayerNorm.beta", "LayerNorm.bias"): tensor
        for name, tensor in tensors.items()
    }
    names = architecture.weight_names(config)
    missing = [theirs for theirs in names.values() if theirs not in cleaned]
    if missing:
        raise EncoderError(
            f"{folder}: {len(missing)} of {len(names)} weights are missing, the first is {missing[0]}",
            expected=f"a complete {config.model_type} encoder",
        )
    return {ours: cleaned[theirs].float() for ours, theirs in names.items()}


def checkpoint_files(encoder: Encoder, raw_config: Mapping[str, Any]) -> dict[str, bytes]:
    """`config.json` and `model.safetensors`, as `load_encoder` and `transformers.AutoModel` read them.

    Args:
        encoder: The encoder; adapters are not part of it.
        raw_config: The Hugging Face configuration that it came with.
    """
    names, state = ARCHITECTURES[encoder.config.model_type].weight_names(encoder.config), encoder.state_dict()
    tensors = {theirs: state[ours].detach().contiguous().cpu() for ours, theirs in names.items()}
    # The weights are float32 whatever they came as; transformers would round them to a type named here.
    config = {key: value for key, value in raw_config.items() if key not in ("dtype", "torch_dtype")}
    content = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    return {"config": content.encode(), "weights": save(tensors, {"format": "pt"})}


def write_json(content: Any, path: Path) -> None:
    """Writes JSON, complete or not at all."""
    write_atomic(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def load_tokenizer(folder: Path, config: EncoderConfig, max_length: int = 256) -> TextTokenizer:
    """The tokenizer of an encoder's folder with windows that fit the encoder."""
    return TextTokenizer.from_folder(folder, min(max_length, config.max_length))


def encoder_arrays(encoder: Encoder) -> dict[str, FloatArray]:
    """The encoder's tensors by our names, in float32."""
    return {name: tensor.detach().to("cpu", torch.float32).numpy() for name, tensor in encoder.state_dict().items()}


def backbone_hash(encoder: Encoder) -> str:
    """The hash that names an encoder's weights; see `weights_hash`."""
    return weights_hash(encoder.config, encoder_arrays(encoder))
