"""From arrays to .tflite files; runs in the converter's environment, which has litert-torch and ai-edge-quantizer."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from trunkline.errors import TrunklineError
from trunkline_lab.litert.layout import FILES, FloatArray, Layout, signature, tensor_name, write_layout
from trunkline_lab.litert.module import Branch, Trunk

PACKAGES = ("litert-torch", "ai-edge-litert", "ai-edge-quantizer", "torch")


def convert(arrays: Mapping[str, FloatArray], layout: Layout, folder: Path) -> Layout:
    """Writes trunk.tflite, branch.tflite and litert.json.

    Args:
        arrays: `tensors` of `trunkline.export.weights.BackboneWeights`.
        layout: What to make of them.
        folder: Exists already.

    Returns:
        The layout with the versions of the packages that made the files.

    Raises:
        TrunklineError: The converter gave a file whose inputs or outputs are other than the layout's.
    """
    made = {"trunk": Trunk(arrays, layout), "branch": Branch(arrays, layout)}
    for part, module in made.items():
        content = _tflite(module.eval(), part, layout)
        if layout.weights == "int8":
            content = _int8(content)
        _check(content, part, layout)
        (folder / FILES[part]).write_bytes(content)
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    layout = dataclasses.replace(layout, versions=versions)
    write_layout(layout, folder)
    return layout


def _tflite(module: nn.Module, part: str, layout: Layout) -> bytes:
    from litert_torch import Converter

    converter = Converter()
    for length in layout.lengths:
        converter.signature(signature(length), module, sample_kwargs=_samples(part, layout, length))
    return bytes(converter.convert().model_content())


def _samples(part: str, layout: Layout, length: int) -> dict[str, Tensor]:
    kinds = {"ids": torch.int32}
    sizes = layout.inputs(part, length)
    return {tensor_name(n): torch.zeros(shape, dtype=kinds.get(n, torch.float32)) for n, shape in sizes.items()}


def _int8(content: bytes) -> bytes:
    from ai_edge_quantizer import quantizer, recipe

    made = quantizer.Quantizer(content, recipe.dynamic_wi8_afp32())
    return bytes(made.quantize(enable_progress_report=False).quantized_model)


def _check(content: bytes, part: str, layout: Layout) -> None:
    from ai_edge_litert.interpreter import Interpreter

    found = Interpreter(model_content=content).get_signature_list()
    for length in layout.lengths:
        names = found.get(signature(length), {"inputs": [], "outputs": []})
        wanted = sorted(map(tensor_name, layout.inputs(part, length))), sorted(layout.outputs(part))
        if (sorted(names["inputs"]), sorted(names["outputs"])) != wanted:
            raise TrunklineError(
                f"the converter made the {part} of {length} tokens with {names}",
                expected=f"inputs and outputs {wanted}",
                todo="Use the versions of the packages that lab/docs/litert.md names",
            )
