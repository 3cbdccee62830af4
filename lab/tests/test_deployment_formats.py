"""One task as an ordinary ONNX model, and adapters as files of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import onnx_graphs as graphs
import tiny_deployed
import tiny_models
from trunkline.bundle.files import open_bundle
from trunkline.encoder.bundle_files import Loaded, load_any, load_bundle
from trunkline.engine.onnx import open_session
from trunkline.errors import TrunklineError
from trunkline.export.bundle import ExportOptions, export_bundle
from trunkline.export.parity import Adapter, check_parity
from trunkline.export.weights import take_weights
from trunkline_lab.deployment_formats import (
    adapter_inputs,
    export_merged,
    merged,
    merged_encoder,
    merged_graph,
    write_onnx_adapter,
)

Folders = Callable[[str], Path]
TEXTS = tuple(tiny_models.SENTENCES)
FAST = ExportOptions(texts=TEXTS)


@pytest.fixture
def source(tiny: Loaded, tmp_path: Path) -> str:
    return str(tiny_deployed.training_bundle(tiny, tmp_path / "training"))


@pytest.fixture
def inputs(tiny: Loaded) -> dict[str, Any]:
    adapter = tiny_models.random_adapter(tiny.encoder.config, (2, 3), rank=5, targets=("query", "value", "down"))
    return adapter_inputs(adapter, graphs.random_head(tiny.encoder.config))


def outputs(branch: Any, rows: dict[str, Any], hidden: Any, inputs: dict[str, Any], options: Any = None) -> list[Any]:
    given = {"hidden": hidden, "mask": rows["mask"], "pool": graphs.mean_pool(rows["mask"]), **inputs}
    return list(branch.run(None, given, options))


def logits(folder: Path, task: str, rows: dict[str, Any], graph: str = "branch") -> Any:
    """What a bundle's graphs say of whole rows for a task, from its files alone."""
    opened = open_bundle(folder)
    inputs = opened.inputs(task)
    hidden = open_session(opened.graphs["trunk"]).run(["hidden"], rows)[0]
    given = {"hidden": hidden, "mask": rows["mask"], "pool": graphs.mean_pool(rows["mask"]), **inputs}
    return open_session(opened.graphs[graph]).run(["logits"], given)[0]


def test_a_merged_task_is_held_to_its_probabilities(tiny: Loaded) -> None:
    config = tiny.encoder.config
    task = Adapter(tiny_models.random_adapter(config, (3,), rank=2), graphs.random_head(config, 2, seed=1))
    assert task.head is not None
    content = merged_graph(take_weights(merged_encoder(tiny.encoder, task.lora)), task.head)
    case = {"task": task}
    report = check_parity(tiny.encoder, tiny.tokenizer, merged(open_session(content)), TEXTS, case)
    assert report["largest_feature_difference"] is None and report["largest_probability_difference"] is not None
    wrong = merged_graph(take_weights(tiny.encoder), task.head)
    with pytest.raises(TrunklineError, match="probabilities 0"):
        check_parity(tiny.encoder, tiny.tokenizer, merged(open_session(wrong)), TEXTS, case)


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_a_merged_task_gives_the_same_as_its_adapter_and_head_fed(kind: str, tiny_folder: Folders) -> None:
    loaded = load_any(str(tiny_folder(kind)), fork=1, max_length=60)
    config = loaded.encoder.config
    adapter = tiny_models.random_adapter(config, (1, 2), targets=graphs.ALL_LINEARS)
    head = graphs.random_head(config, 3)
    content = merged_graph(take_weights(merged_encoder(loaded.encoder, adapter)), head, ["a", "b", "c"])
    session = open_session(content)
    assert [item.name for item in session.get_inputs()] == ["ids", "mask", "pool"]
    assert [item.name for item in session.get_outputs()] == ["logits"]
    assert session.get_modelmeta().custom_metadata_map["labels"] == '["a", "b", "c"]'
    rows = graphs.sentence_rows(loaded.tokenizer)
    pool = graphs.mean_pool(rows["mask"])
    trunk, branch = graphs.sessions(take_weights(loaded.encoder))
    hidden = trunk.run(["hidden"], rows)[0]
    fed = {"hidden": hidden, "mask": rows["mask"], "pool": pool, **adapter_inputs(adapter, head)}
    assert graphs.largest(session.run(None, {**rows, "pool": pool})[0], branch.run(["logits"], fed)[0]) < 1e-4
    case = {"task": Adapter(adapter, head)}
    check_parity(loaded.encoder, loaded.tokenizer, merged(session), tiny_models.SENTENCES, case)


def test_a_head_that_does_not_fit_is_refused(tiny: Loaded) -> None:
    weights = take_weights(tiny.encoder)
    head = graphs.random_head(tiny.encoder.config, 3)
    with pytest.raises(TrunklineError, match="2 labels"):
        merged_graph(weights, head, ["a", "b"])
    with pytest.raises(TrunklineError, match=r"a head of \(3, 32\)"):
        merged_graph(weights, type(head)(head.weight.T, head.bias))


def test_a_file_of_onnx_runtime_gives_the_same_as_feeds_bit_for_bit(
    tiny: Loaded, inputs: dict[str, Any], tmp_path: Path
) -> None:
    trunk, branch = graphs.sessions(take_weights(tiny.encoder))
    rows = graphs.sentence_rows(tiny.tokenizer)
    hidden = trunk.run(None, rows)[0]
    write_onnx_adapter(tmp_path / "task.onnx_adapter", inputs, model_version=3)
    adapter = onnxruntime.LoraAdapter()
    adapter.Load(str(tmp_path / "task.onnx_adapter"))
    options = onnxruntime.RunOptions()
    options.add_active_adapter(adapter)
    by_file = outputs(branch, rows, hidden, {}, options)
    by_feeds = outputs(branch, rows, hidden, inputs)
    assert all(graphs.same_bits(left, right) for left, right in zip(by_file, by_feeds, strict=True))
    assert by_file[1].shape == (5, 1, 5)
    assert not graphs.same_bits(by_file[0], outputs(branch, rows, hidden, {})[0])
    assert onnxruntime.AdapterFormat.read_adapter(str(tmp_path / "task.onnx_adapter")).get_model_version() == 3


def test_the_same_adapter_gives_the_same_file(inputs: dict[str, Any], tmp_path: Path) -> None:
    write_onnx_adapter(tmp_path / "a", inputs)
    write_onnx_adapter(tmp_path / "b", dict(reversed(inputs.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_file_of_rank_zero_has_only_the_head_and_one_of_nothing_is_refused(tiny: Loaded, tmp_path: Path) -> None:
    empty = tiny_models.random_adapter(tiny.encoder.config, (2, 3), rank=0)
    head = graphs.random_head(tiny.encoder.config)
    write_onnx_adapter(tmp_path / "a", adapter_inputs(empty, head))
    held = onnxruntime.AdapterFormat.read_adapter(str(tmp_path / "a")).get_parameters()
    assert held.keys() == {"head.weight", "head.bias"}
    with pytest.raises(TrunklineError, match="without any update and without a head"):
        write_onnx_adapter(tmp_path / "b", adapter_inputs(empty))


def test_a_merged_model_is_one_task_and_says_what_was_compared(source: str, tmp_path: Path) -> None:
    report = export_merged(source, "people", tmp_path / "out", FAST)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.onnx", "tokenizer.json"}
    assert report["largest_feature_difference"] is None and report["largest_probability_difference"] is not None
    loaded = load_bundle(Path(source))
    rows = graphs.sentence_rows(loaded.tokenizer, loaded.encoder.config.pad_id)
    export_bundle(source, tmp_path / "bundle", FAST)
    given = {**rows, "pool": graphs.mean_pool(rows["mask"])}
    found = open_session(tmp_path / "out" / "model.onnx").run(["logits"], given)[0]
    assert np.abs(found - logits(tmp_path / "bundle", "people", rows)).max() < 1e-4
    for place, task in ((tmp_path / "bundle", "people"), (tmp_path / "new", "nothing")):
        with pytest.raises(TrunklineError):
            export_merged(source, task, place, FAST)
