"""LiteRT files compute what torch does. Conversion needs packages of its own: slow, and skipped where they are not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny_models
from trunkline.bundle.parts import Head
from trunkline.encoder.bundle_files import Loaded, load_any
from trunkline.errors import MismatchError, TrunklineError
from trunkline.export.parity import Adapter, Tolerance, check_parity
from trunkline.export.weights import take_weights
from trunkline_lab.deployment_formats import adapter_inputs
from trunkline_lab.litert import export as litert
from trunkline_lab.litert.export import LiteRtProcess, export_litert, find_python, open_litert
from trunkline_lab.litert.layout import (
    LAYOUT,
    Layout,
    LiteRtOptions,
    layout_of,
    read_layout,
    tensor_name,
    write_layout,
)
from trunkline_lab.litert.module import Branch, Trunk
from trunkline_lab.litert.record import litert_run

Folders = Callable[[str], Path]
ALL = ("query", "key", "value", "out", "up", "down")
RANKS = {"qkv": 12, "out": 4, "up": 4, "down": 4}
FLOAT32 = Tolerance(features=1e-4)
INT8 = Tolerance(features=0.5, probabilities=0.5, cosine=0.99)
TINY = LiteRtOptions(lengths=(8, 64), ranks=RANKS, labels=6)


def random_head(loaded: Loaded, labels: int, seed: int = 0) -> Head:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(labels, loaded.encoder.config.hidden_size)).astype(np.float32)
    return Head(np.ascontiguousarray(weight.T), rng.normal(size=labels).astype(np.float32))


def adapters_of(loaded: Loaded) -> dict[str, Adapter]:
    config, layers = loaded.encoder.config, tuple(range(loaded.encoder.fork, loaded.encoder.config.n_layers))
    return {
        "none": Adapter(head=random_head(loaded, 6)),
        "small": Adapter(tiny_models.random_adapter(config, layers[-1:], rank=2), random_head(loaded, 2, 1)),
        "all": Adapter(tiny_models.random_adapter(config, layers, rank=4, targets=ALL), random_head(loaded, 3, 2)),
    }


@torch.no_grad()
def read_states(loaded: Loaded, deltas: Any = None) -> list[np.ndarray]:
    """[tokens, hidden] of each sentence by torch, as heads read them."""
    batch = tiny_models.token_batch(loaded.tokenizer, tiny_models.SENTENCES, loaded.encoder.config.pad_id)
    read = loaded.encoder.read(loaded.encoder.trunk(batch), batch, deltas)
    return [part.numpy() for part in tiny_models.states_of(read, batch)]


def tiny_layout(tiny: Loaded, **options: Any) -> Layout:
    return layout_of(take_weights(tiny.encoder), LiteRtOptions(**{"lengths": (8, 64), "ranks": RANKS, **options}))


def test_options_that_do_not_fit_are_named_together(tiny: Loaded) -> None:
    wrong = {"lengths": (64, 8, 9999), "ranks": {"qkv": 0, "gate": 4}, "labels": 0}
    with pytest.raises(TrunklineError) as raised:
        tiny_layout(tiny, **wrong)
    for part in ("must rise", "length 9999", "'gate'", "rank 0 of qkv", "labels 0"):
        assert part in str(raised.value)


def test_the_inputs_are_those_of_the_onnx_graph(tiny: Loaded) -> None:
    import onnx

    from trunkline.export.graph import branch_graph

    weights = take_weights(tiny.encoder)
    graph = onnx.load_from_string(branch_graph(weights, "required", tuple(RANKS))).graph
    layout = layout_of(weights, TINY)
    assert list(layout.inputs("branch", 8)) == [item.name for item in graph.input]
    assert list(layout.outputs("branch")) == [item.name for item in graph.output]


@pytest.mark.parametrize("fork", [0, 2, 4])
def test_the_modules_that_are_converted_compute_what_torch_does(fork: int, tiny: Loaded) -> None:
    weights = dataclasses.replace(take_weights(tiny.encoder), fork=fork)
    layout, arrays = layout_of(weights, TINY), weights.tensors
    tiny.encoder.fork = fork
    lora = tiny_models.random_adapter(tiny.encoder.config, range(fork, 4), targets=ALL) if fork < 4 else None
    filled = {tensor_name(n): torch.from_numpy(v) for n, v in layout.fill(adapter_inputs(lora)).items()}
    for text, wanted in zip(tiny_models.SENTENCES, read_states(tiny, lora), strict=True):
        ids = tiny.tokenizer.encode([text])[0].windows[0]
        row, mask = torch.full((1, 64), layout.pad_id), torch.zeros(1, 64)
        row[0, : len(ids)], mask[0, : len(ids)] = torch.from_numpy(ids), 1
        with torch.no_grad():
            hidden = Trunk(arrays, layout)(row, mask)["hidden"]
            given = {"hidden": hidden, "mask": mask, "pool": torch.eye(64)[None], **filled}
            found = Branch(arrays, layout)(**given)["features"][0, : len(ids)].numpy()
        np.testing.assert_allclose(found, wanted, atol=2e-4)


def test_an_adapter_is_filled_with_zeros_and_one_without_room_is_refused(tiny: Loaded) -> None:
    layout = tiny_layout(tiny, labels=4)
    config = tiny.encoder.config
    inputs = adapter_inputs(tiny_models.random_adapter(config, (3,), rank=2), random_head(tiny, 3))
    filled = layout.fill(inputs)
    assert {name: value.shape for name, value in filled.items()} == {
        name: shape for name, shape in layout.inputs("branch", 8).items() if name.startswith(("lora.", "head."))
    }
    np.testing.assert_array_equal(filled["lora.3.qkv.a"][:, :4], inputs["lora.3.qkv.a"])
    assert not filled["lora.3.qkv.a"][:, 4:].any()
    assert not filled["lora.2.out.b"].any()
    with pytest.raises(MismatchError, match=r"head\.weight has shape .* Export with a higher rank, or with more"):
        layout.fill(adapter_inputs(None, random_head(tiny, 5)))
    with pytest.raises(MismatchError, match=r"lora\.3\.up\.a, for which the files have no input"):
        tiny_layout(tiny, ranks={"qkv": 4}).fill(
            adapter_inputs(tiny_models.random_adapter(config, (3,), targets=("up",)))
        )
    with pytest.raises(TrunklineError, match="a row of 65 tokens"):
        layout.length_for(65)


def test_a_layout_is_read_as_it_was_written_and_a_damaged_one_is_refused(tiny: Loaded, tmp_path: Path) -> None:
    layout = tiny_layout(tiny)
    write_layout(layout, tmp_path)
    assert read_layout(tmp_path) == layout
    content = json.loads((tmp_path / LAYOUT).read_text("utf-8"))
    (tmp_path / LAYOUT).write_text(json.dumps(content | {"format": 2}), encoding="utf-8")
    with pytest.raises(MismatchError, match="has format 2"):
        read_layout(tmp_path)
    (tmp_path / LAYOUT).write_text('{"format": 1', encoding="utf-8")
    with pytest.raises(TrunklineError, match="cannot be read"):
        read_layout(tmp_path)


@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_every_tensor_of_the_backbone_is_handed_over(kind: str, tiny_folder: Folders) -> None:
    encoder = load_any(str(tiny_folder(kind)), fork=1, max_length=60).encoder
    arrays = take_weights(encoder).tensors
    parameters = sum(p.numel() for p in encoder.parameters())
    kinds = 0 if encoder.embeddings.kind is None else encoder.embeddings.kind.weight.numel()
    assert sum(array.size for array in arrays.values()) == parameters - kinds
    assert "layers.0.qkv.weight" in arrays
    assert ("embeddings.project.bias" in arrays) == (kind == "electra")


def test_without_the_packages_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(litert, "MODULES", ("no_such_module",))
    monkeypatch.delenv(litert.PYTHON, raising=False)
    with pytest.raises(TrunklineError, match=rf"not installed here.*lab/docs/litert\.md.*{litert.PYTHON}"):
        find_python()
    monkeypatch.setenv(litert.PYTHON, str(tmp_path / "python"))
    with pytest.raises(TrunklineError, match="is no file"):
        find_python()


def test_a_process_that_fails_is_told_with_its_last_words(tiny: Loaded, tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'no litert for you' >&2\nexit 1\n", encoding="utf-8")
    broken.chmod(0o755)
    with pytest.raises(TrunklineError, match=r"ended without a result .*no litert for you"):
        export_litert(take_weights(tiny.encoder), tmp_path / "out", TINY, str(broken))
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="session")
def python() -> str:
    """An interpreter with LiteRT's packages."""
    try:
        return find_python()
    except TrunklineError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def base(tiny_folder: Folders) -> Loaded:
    return load_any(str(tiny_folder("roberta")), fork=2, max_length=60)


@pytest.fixture(scope="module", params=["float32", "int8"])
def opened(
    request: pytest.FixtureRequest, base: Loaded, python: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiteRtProcess]:
    folder = tmp_path_factory.mktemp("litert")
    options = LiteRtOptions(lengths=(8, 60), ranks=RANKS, labels=6, weights=request.param)
    export_litert(take_weights(base.encoder), folder, options, python)
    with open_litert(folder, python=python) as process:
        yield process


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_files_compute_what_torch_does(opened: LiteRtProcess, base: Loaded) -> None:
    adapters = adapters_of(base)
    tolerance = {"float32": FLOAT32, "int8": INT8}[opened.layout.weights]
    run = litert_run(opened, adapters)
    report = check_parity(base.encoder, base.tokenizer, run, tiny_models.SENTENCES, adapters, tolerance=tolerance)
    assert report["adapters"] == list(adapters)
    assert report["least_cosine"] > (0.99999 if tolerance is FLOAT32 else 0.995)
    assert (report["largest_feature_difference"] > FLOAT32.features) == (tolerance is INT8)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_lengths_agree_and_an_adapter_of_zeros_is_none(opened: LiteRtProcess, base: Loaded) -> None:
    ids = base.tokenizer.encode(["the train"])[0].windows[0]
    pool = np.eye(len(ids), dtype=np.float32)
    short, long = (opened.run(ids, pool, {}, length)["features"] for length in (8, 60))
    np.testing.assert_allclose(short, long, atol=1e-5)
    adapter = adapter_inputs(adapters_of(base)["all"].lora)
    zeros = {name: np.zeros_like(value) for name, value in adapter.items()}
    np.testing.assert_array_equal(opened.run(ids, pool, zeros, 8)["features"], short)
    assert np.abs(opened.run(ids, pool, adapter, 8)["features"] - short).max() > 0.01


def token_cosines(loaded: Loaded, opened: LiteRtProcess, inputs: Mapping[str, Any]) -> np.ndarray:
    expected = read_states(loaded)
    found = []
    for text, wanted in zip(loaded.tokenizer.encode(tiny_models.SENTENCES), expected, strict=True):
        ids = text.windows[0]
        own, states = opened.run(ids, np.eye(len(ids), dtype=np.float32), inputs)["features"], wanted
        found.append((own * states).sum(-1) / np.linalg.norm(own, axis=-1) / np.linalg.norm(states, axis=-1))
    return np.concatenate(found)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_int8_of_the_default_encoder_keeps_its_directions(python: str, tmp_path: Path) -> None:
    try:
        loaded = load_any("default", fork=3)
    except TrunklineError as error:
        pytest.skip(str(error))
    export_litert(take_weights(loaded.encoder), tmp_path, LiteRtOptions(lengths=(32,)), python)
    with open_litert(tmp_path, python=python) as opened:
        assert token_cosines(loaded, opened, {}).mean() >= 0.997
    assert sum(file.stat().st_size for file in tmp_path.glob("*.tflite")) < 27e6
