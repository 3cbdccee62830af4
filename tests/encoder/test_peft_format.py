"""Adapters in PEFT's format: what PEFT computes with them is what we compute, and what we cannot hold is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_models
from trunkline.bundle.manifest import LINEARS
from trunkline.encoder.bundle_files import Loaded, load_any, save_bundle
from trunkline.encoder.lora import LoraAdapter, LoraConfig
from trunkline.encoder.peft_format import export_peft, import_peft, with_peft
from trunkline.errors import EncoderError, MismatchError

Folders = Callable[[str], Path]
LAYER_2, LAYER_3 = "encoder.layer.2.attention.self", "encoder.layer.3.attention.self"
NAMES = {
    "bert": ["query", "value", "intermediate.dense"],
    "roberta": ["query", "key", "attention.output.dense"],
    "distilbert": ["q_lin", "v_lin", "lin2"],
}


def auto_model(folder: Path) -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(str(folder)).eval()


def load(folder: Path) -> Loaded:
    return load_any(str(folder), fork=0, max_length=60)


def randomise(model: Any) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)


def peft_adapter(base: Path, folder: Path, model: Any = None, **options: Any) -> Any:
    """An adapter that PEFT made, with a B that is not zero, saved into a folder."""
    from peft import LoraConfig, get_peft_model

    settings: dict[str, Any] = {"r": 4, "lora_alpha": 6, "target_modules": ["query", "value"]} | options
    adapted = get_peft_model(model or auto_model(base), LoraConfig(**settings)).eval()
    randomise(adapted)
    adapted.save_pretrained(str(folder))
    return adapted


def changed_config(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "electra", "xlm-roberta"])
def test_an_exported_adapter_gives_the_same_states_in_peft(kind: str, tiny_folder: Folders, tmp_path: Path) -> None:
    from peft import PeftModel

    loaded = load(tiny_folder(kind))
    adapter = tiny_models.random_adapter(loaded.encoder.config, (1, 2), rank=3, targets=LINEARS, alpha=5.0)
    export_peft(adapter, loaded.encoder.config, tmp_path / "peft", str(tiny_folder(kind)))
    theirs = PeftModel.from_pretrained(auto_model(tiny_folder(kind)), str(tmp_path / "peft")).eval()
    ours = tiny_models.states(loaded.encoder, loaded.tokenizer, deltas=adapter)
    assert tiny_models.difference(ours, tiny_models.hugging_face_states(theirs, loaded.tokenizer)) < 1e-5
    assert tiny_models.difference(ours, tiny_models.states(loaded.encoder, loaded.tokenizer)) > 1e-2


def test_export_then_import_is_the_same_adapter(tiny: Loaded, tmp_path: Path) -> None:
    adapter = tiny_models.random_adapter(tiny.encoder.config, (2, 3), rank=5, targets=("key", "down"), alpha=7.0)
    export_peft(adapter, tiny.encoder.config, tmp_path)
    again = import_peft(tmp_path, tiny.encoder.config)
    assert again.config == adapter.config
    assert tiny_models.same_bits(again.state_dict(), adapter.state_dict())


@pytest.mark.parametrize(
    ("options", "rank"),
    [
        ({"rank_pattern": {r"layer\.[01]\..*": 2, f"^{LAYER_3}.(query|value)": 7}}, 7),
        ({"rank_pattern": {".*": 5}}, 5),
        ({"rank_pattern": {"query": 2}}, 4),
        ({"rank_pattern": {"layer.0.attention.self.(query|value)": 1}, "use_rslora": True}, 4),
        ({"alpha_pattern": {f"{LAYER_2}.query": 9, "value": 3, f"^{LAYER_3}.query$": 1}}, 4),
        ({"alpha_pattern": {"alue": 20, r"layer\.1\.attention\.self\.value": 0, "^self.query": 50}}, 4),
        (
            {"rank_pattern": {f"{LAYER_3}.(query|value)": 8}, "alpha_pattern": {"query": 2}, "use_rslora": True},
            8,
        ),
    ],
    ids=[
        "ranks",
        "one rank",
        "ranks within a layer",
        "rank-stabilised",
        "alphas",
        "keys that name nothing",
        "all of it",
    ],
)
@pytest.mark.parametrize("task_model", [False, True], ids=["encoder", "task model"])
def test_patterns_of_peft_give_the_same_states_here(
    options: dict[str, Any], rank: int, task_model: bool, tiny_folder: Folders, tmp_path: Path
) -> None:
    from transformers import AutoModelForTokenClassification

    model = AutoModelForTokenClassification.from_pretrained(str(tiny_folder("bert"))).eval() if task_model else None
    theirs = peft_adapter(tiny_folder("bert"), tmp_path, model, **options)
    loaded = load(tiny_folder("bert"))
    adapter = import_peft(tmp_path, loaded.encoder.config)
    ours = tiny_models.states(loaded.encoder, loaded.tokenizer, deltas=adapter)
    under = theirs.base_model.model.bert if task_model else theirs
    assert tiny_models.difference(ours, tiny_models.hugging_face_states(under, loaded.tokenizer)) < 1e-5
    # An anchored path begins at the model that PEFT wrapped, so under a task model it names nothing.
    anchored = any(key.startswith("^") for key in options.get("rank_pattern", {}))
    assert adapter.config.rank == (4 if task_model and anchored else rank)


@pytest.mark.parametrize("rslora", [False, True], ids=["alpha / r", "alpha / sqrt(r)"])
@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_an_adapter_of_peft_gives_the_same_states_here(
    kind: str, rslora: bool, tiny_folder: Folders, tmp_path: Path
) -> None:
    theirs = peft_adapter(tiny_folder(kind), tmp_path, target_modules=NAMES[kind], use_rslora=rslora)
    loaded = load(tiny_folder(kind))
    adapter = import_peft(tmp_path, loaded.encoder.config)
    ours = tiny_models.states(loaded.encoder, loaded.tokenizer, deltas=adapter)
    assert tiny_models.difference(ours, tiny_models.hugging_face_states(theirs, loaded.tokenizer)) < 1e-5
    assert adapter.config.rank == 4


def test_an_adapter_of_some_layers_only_is_read(tiny_folder: Folders, tmp_path: Path, tiny: Loaded) -> None:
    theirs = peft_adapter(tiny_folder("bert"), tmp_path, layers_to_transform=[3])
    adapter = import_peft(tmp_path, tiny.encoder.config)
    assert adapter.config.layers == (3,)
    ours = tiny_models.states(tiny.encoder, tiny.tokenizer, deltas=adapter)
    assert tiny_models.difference(ours, tiny_models.hugging_face_states(theirs, tiny.tokenizer)) < 1e-5


def test_an_adapter_trained_under_a_task_model_is_read(tiny_folder: Folders, tmp_path: Path) -> None:
    from transformers import AutoModelForTokenClassification

    model = AutoModelForTokenClassification.from_pretrained(str(tiny_folder("bert"))).eval()
    theirs = peft_adapter(tiny_folder("bert"), tmp_path, model)
    loaded = load(tiny_folder("bert"))
    ours = tiny_models.states(loaded.encoder, loaded.tokenizer, deltas=import_peft(tmp_path, loaded.encoder.config))
    under = tiny_models.hugging_face_states(theirs.base_model.model.bert, loaded.tokenizer)
    assert tiny_models.difference(ours, under) < 1e-5


@pytest.mark.parametrize("task_type", ["SEQ_CLS", "TOKEN_CLS"])
def test_a_trained_classifier_in_the_file_is_left_out_with_a_message(
    task_type: str, tiny_folder: Folders, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    kinds = {"SEQ_CLS": AutoModelForSequenceClassification, "TOKEN_CLS": AutoModelForTokenClassification}
    model = kinds[task_type].from_pretrained(str(tiny_folder("bert"))).eval()
    theirs = peft_adapter(tiny_folder("bert"), tmp_path, model, task_type=task_type)
    loaded = load(tiny_folder("bert"))
    ours = tiny_models.states(loaded.encoder, loaded.tokenizer, deltas=import_peft(tmp_path, loaded.encoder.config))
    under = tiny_models.hugging_face_states(theirs.base_model.model.bert, loaded.tokenizer)
    assert tiny_models.difference(ours, under) < 1e-5
    assert "the classifier (base_model.model.classifier.bias" in caplog.text and "trunkline fit" in caplog.text


def test_other_tensors_are_refused_not_dropped(tiny: Loaded, tmp_path: Path) -> None:
    export_peft(tiny_models.random_adapter(tiny.encoder.config, (2, 3)), tiny.encoder.config, tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    save_file({**load_file(path), "base_model.model.pooler.dense.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(MismatchError, match=r"1 tensors are no LoRA.*pooler.*without modules_to_save"):
        import_peft(tmp_path, tiny.encoder.config)


def test_a_family_that_there_is_not_is_refused_with_those_that_there_are(tiny: Loaded, tmp_path: Path) -> None:
    base = tmp_path / "base"
    save_bundle(tiny, base)
    export_peft(tiny_models.random_adapter(tiny.encoder.config, (2, 3)), tiny.encoder.config, tmp_path / "peft")
    with pytest.raises(MismatchError, match=r"'foo'.*ner, classification, qa"):
        with_peft(base, "foo", tmp_path / "peft", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert list(load_any(str(with_peft(base, "ner", tmp_path / "peft", tmp_path / "out"))).primaries) == ["ner"]


def test_an_activated_lora_is_refused_by_name(tiny: Loaded, tmp_path: Path) -> None:
    export_peft(tiny_models.random_adapter(tiny.encoder.config, (2, 3)), tiny.encoder.config, tmp_path)
    changed_config(tmp_path, alora_invocation_tokens=[7, 8])
    with pytest.raises(MismatchError, match=r"uses aLoRA.*plain LoRA"):
        import_peft(tmp_path, tiny.encoder.config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_dora": True}, "uses DoRA"),
        ({"bias": "all"}, "uses trained biases"),
        ({"bias": "lora_only"}, "uses trained biases"),
        ({"lora_bias": True}, "uses biases in LoRA"),
        ({"init_lora_weights": "pissa"}, "uses .*pissa"),
        ({"init_lora_weights": "olora"}, "uses .*olora"),
    ],
)
def test_what_is_no_plain_lora_is_refused_by_name(
    options: dict[str, Any], message: str, tiny_folder: Folders, tmp_path: Path, tiny: Loaded
) -> None:
    peft_adapter(tiny_folder("bert"), tmp_path, **options)
    with pytest.raises(MismatchError, match=message + ".*plain LoRA"):
        import_peft(tmp_path, tiny.encoder.config)


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({}, {"alpha_pattern": {"(a+)+$": 2}}, "regular expression.*names of modules.*Write the names"),
        ({}, {"alpha_pattern": {"query": "2"}}, "has query '2'.*a number"),
        ({}, {"alpha_pattern": [2]}, r"alpha_pattern \[2\].*an alpha for each"),
        ({}, {"lora_alpha": float("nan")}, "has lora_alpha nan"),
    ],
)
def test_patterns_that_cannot_be_held_are_refused(
    options: dict[str, Any],
    changes: dict[str, Any],
    message: str,
    tiny_folder: Folders,
    tmp_path: Path,
    tiny: Loaded,
) -> None:
    peft_adapter(tiny_folder("bert"), tmp_path, **options)
    changed_config(tmp_path, **changes)
    with pytest.raises(MismatchError, match=message):
        import_peft(tmp_path, tiny.encoder.config)


def test_an_adapter_with_updates_below_the_fork_is_refused_not_cut_off(
    tiny_folder: Folders, tmp_path: Path, tiny: Loaded
) -> None:
    peft_adapter(tiny_folder("bert"), tmp_path)
    with pytest.raises(MismatchError, match=r"layers \[0, 1\].*fork at 2"):
        tiny_models.states(tiny.encoder, tiny.tokenizer, deltas=import_peft(tmp_path, tiny.encoder.config))


def test_another_kind_of_adapter_is_refused(tiny_folder: Folders, tmp_path: Path, tiny: Loaded) -> None:
    from peft import IA3Config, get_peft_model

    options = {"target_modules": ["query", "output.dense"], "feedforward_modules": ["output.dense"]}
    get_peft_model(auto_model(tiny_folder("bert")), IA3Config(**options)).save_pretrained(str(tmp_path))
    with pytest.raises(MismatchError, match=r"of type 'IA3'.*LORA"):
        import_peft(tmp_path, tiny.encoder.config)


def test_tensors_of_other_sizes_missing_halves_and_other_encoders_are_refused(
    tiny_folder: Folders, tmp_path: Path, tiny: Loaded
) -> None:
    export_peft(tiny_models.random_adapter(tiny.encoder.config, (2, 3)), tiny.encoder.config, tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    whole = load_file(path)
    save_file({name: tensor[:, :20].contiguous() for name, tensor in whole.items()}, path)
    with pytest.raises(MismatchError, match=r"\[32, rank\]"):
        import_peft(tmp_path, tiny.encoder.config)
    save_file({name: tensor for name, tensor in whole.items() if "lora_A" in name}, path)
    with pytest.raises(MismatchError, match="is alone"):
        import_peft(tmp_path, tiny.encoder.config)
    save_file(whole, path)
    with pytest.raises(MismatchError, match="no LoRA of a distilbert encoder"):
        import_peft(tmp_path, load(tiny_folder("distilbert")).encoder.config)
    save_file({name: tensor.flatten() for name, tensor in whole.items()}, path)
    with pytest.raises(MismatchError, match="no LoRA of a bert encoder"):
        import_peft(tmp_path, tiny.encoder.config)
    changed_config(tmp_path, lora_alpha=None)
    with pytest.raises(MismatchError, match="lora_alpha"):
        import_peft(tmp_path, tiny.encoder.config)


def test_a_pickled_or_missing_adapter_is_refused(tiny: Loaded, tmp_path: Path) -> None:
    export_peft(tiny_models.random_adapter(tiny.encoder.config, (2, 3)), tiny.encoder.config, tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(EncoderError, match=r"adapter_model\.safetensors cannot be read"):
        import_peft(tmp_path, tiny.encoder.config)
    with pytest.raises(EncoderError, match=r"adapter_config\.json cannot be read"):
        import_peft(tmp_path / "none", tiny.encoder.config)


def test_an_adapter_of_rank_zero_is_not_exported(tiny: Loaded, tmp_path: Path) -> None:
    empty = LoraAdapter(LoraConfig(0, 1.0, ("query",), (2, 3)), tiny.encoder.config)
    with pytest.raises(MismatchError, match="rank 0"):
        export_peft(empty, tiny.encoder.config, tmp_path / "peft")
    assert not (tmp_path / "peft").exists()
