"""The encoder: equal to transformers, and equal to itself however texts are packed, forked or adapted."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_models
from trunkline.bundle.manifest import LINEARS
from trunkline.encoder.architectures import ARCHITECTURES
from trunkline.encoder.bundle_files import Loaded
from trunkline.encoder.encoder import Encoder, FeatureRequest, branch_features, embed_texts
from trunkline.encoder.lora import LoraAdapter, LoraConfig
from trunkline.encoder.storage import backbone_hash, load_encoder, load_tokenizer, read_json
from trunkline.errors import EncoderError, MismatchError

Folders = Callable[[str], Path]
SENTENCES = tiny_models.SENTENCES


def copied(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


def change_json(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


@pytest.mark.parametrize("width", [1, 40, 128], ids=["narrowest rows", "narrow rows", "packed"])
@pytest.mark.parametrize("kind", tiny_models.KINDS)
def test_states_equal_those_of_transformers(kind: str, width: int, tiny_folder: Folders) -> None:
    from transformers import AutoModel

    encoder = load_encoder(tiny_folder(kind))
    tokenizer = load_tokenizer(tiny_folder(kind), encoder.config, 60)
    theirs = tiny_models.hugging_face_states(AutoModel.from_pretrained(str(tiny_folder(kind))).eval(), tokenizer)
    assert tiny_models.difference(tiny_models.states(encoder, tokenizer, width=width), theirs) < 1e-5


def test_every_supported_architecture_is_compared_with_transformers() -> None:
    assert set(tiny_models.KINDS) == set(ARCHITECTURES)


@pytest.mark.parametrize("activation", ["gelu_new", "silu", "gelu_pytorch_tanh"])
def test_activations_equal_those_of_transformers(activation: str, tiny_folder: Folders, tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = copied(tiny_folder("bert"), tmp_path / "encoder")
    change_json(folder / "config.json", hidden_act=activation)
    encoder = load_encoder(folder)
    tokenizer = load_tokenizer(folder, encoder.config, 60)
    theirs = tiny_models.hugging_face_states(AutoModel.from_pretrained(str(folder)).eval(), tokenizer)
    assert tiny_models.difference(tiny_models.states(encoder, tokenizer), theirs) < 1e-5


def test_a_roberta_config_without_pad_token_counts_positions_as_transformers_does(
    tiny_folder: Folders, tmp_path: Path
) -> None:
    from transformers import AutoModel

    folder = copied(tiny_folder("roberta"), tmp_path / "encoder")
    change_json(folder / "config.json", pad_token_id=None)
    encoder = load_encoder(folder)
    tokenizer = load_tokenizer(folder, encoder.config, 60)
    theirs = tiny_models.hugging_face_states(AutoModel.from_pretrained(str(folder)).eval(), tokenizer)
    assert tiny_models.difference(tiny_models.states(encoder, tokenizer), theirs) < 1e-5


@pytest.mark.parametrize("fork", range(5))
def test_trunk_then_branch_is_forward_at_every_fork(fork: int, tiny: Loaded) -> None:
    encoder = Encoder(tiny.encoder.config, fork)
    encoder.load_state_dict(tiny.encoder.state_dict())
    adapter = tiny_models.random_adapter(encoder.config, range(fork, 4))
    batch = tiny_models.token_batch(tiny.tokenizer, SENTENCES)
    with torch.no_grad():
        whole = encoder(batch, adapter)
        forked = encoder.branch(encoder.trunk(batch), batch, adapter)
        bottom = Encoder(tiny.encoder.config, 0)
        bottom.load_state_dict(tiny.encoder.state_dict())
        unforked = bottom(batch, adapter)
    assert torch.equal(whole, forked)
    assert torch.equal(whole, unforked)


@pytest.mark.parametrize("fork", range(5))
def test_heads_read_the_mean_of_what_the_layers_of_the_branch_give(fork: int, tiny: Loaded) -> None:
    encoder = Encoder(tiny.encoder.config, fork)
    encoder.load_state_dict(tiny.encoder.state_dict())
    adapter = tiny_models.random_adapter(encoder.config, range(fork, 4))
    batch = tiny_models.token_batch(tiny.tokenizer, SENTENCES)
    given: list[torch.Tensor] = []
    for layer in encoder.layers[fork:]:
        layer.register_forward_hook(lambda module, inputs, output: given.append(output))
    with torch.no_grad():
        hidden = encoder.trunk(batch)
        read = encoder.read(hidden, batch, adapter)
    assert len(given) == 4 - fork
    assert torch.allclose(read, torch.stack(given or [hidden]).mean(0), atol=1e-6)
    if fork:
        below = tiny_models.random_adapter(encoder.config, range(fork))
        with pytest.raises(MismatchError, match="the fork at"):
            encoder.read(hidden, batch, below)


def test_features_are_what_heads_read_and_embeddings_are_of_the_last_layer(tiny: Loaded) -> None:
    batch = tiny_models.token_batch(tiny.tokenizer, SENTENCES)
    adapter = tiny_models.random_adapter(tiny.encoder.config, (2, 3))
    with torch.no_grad():
        hidden = tiny.encoder.trunk(batch)
        read, last = (batch.pool(call(hidden, batch, adapter)) for call in (tiny.encoder.read, tiny.encoder.branch))
    features = branch_features(tiny.encoder, [FeatureRequest(units(tiny), adapter)])[0]
    assert tiny_models.difference([torch.from_numpy(part[0]) for part in features], list(read)) < 1e-5
    embeddings = embed_texts(tiny.encoder, tiny.tokenizer, SENTENCES, adapter)
    assert tiny_models.difference(list(torch.from_numpy(embeddings)), list(last)) < 1e-5
    assert abs(read - last).max() > 1e-2


def test_the_trunk_is_the_same_for_every_adapter_and_the_branches_differ(tiny: Loaded) -> None:
    adapters = [tiny_models.random_adapter(tiny.encoder.config, (2, 3), seed=seed) for seed in (1, 2)]
    features = branch_features(
        tiny.encoder, [FeatureRequest(units(tiny), deltas) for deltas in (None, *adapters, adapters[0])], budget=40
    )
    alone = [
        branch_features(tiny.encoder, [FeatureRequest(units(tiny), deltas)], budget=40)[0]
        for deltas in (None, *adapters)
    ]
    for together, single in zip(features, [*alone, alone[1]], strict=True):
        assert all((x == y).all() for x, y in zip(together, single, strict=True))
    assert abs(features[1][0] - features[2][0]).max() > 1e-2


def units(loaded: Loaded) -> list:
    from trunkline.text.tokens import text_unit

    return [text_unit(tokens) for tokens in loaded.tokenizer.encode(SENTENCES)]


@pytest.mark.parametrize("deltas", [False, True], ids=["bare", "adapter"])
def test_a_packed_batch_equals_one_by_one(deltas: bool, tiny: Loaded) -> None:
    adapter = tiny_models.random_adapter(tiny.encoder.config, (2, 3)) if deltas else None
    packed = tiny_models.states(tiny.encoder, tiny.tokenizer, deltas=adapter, width=128)
    alone = [tiny_models.states(tiny.encoder, tiny.tokenizer, [text], adapter)[0] for text in SENTENCES]
    assert tiny_models.token_batch(tiny.tokenizer, SENTENCES).input_ids.shape[0] < len(SENTENCES)
    assert tiny_models.difference(packed, alone) < 1e-5


def test_what_shares_a_row_does_not_change_a_text(tiny: Loaded) -> None:
    first = tiny_models.states(tiny.encoder, tiny.tokenizer, [SENTENCES[0], "rain and snow"])[0]
    second = tiny_models.states(tiny.encoder, tiny.tokenizer, [SENTENCES[0], "old music, cheap bread and a big river"])[
        0
    ]
    assert tiny_models.difference([first], [second]) < 1e-5


def test_eager_attention_equals_sdpa(tiny: Loaded) -> None:
    results = []
    for attention in ("sdpa", "eager"):
        tiny.encoder.attention = attention
        results.append(tiny_models.states(tiny.encoder, tiny.tokenizer))
    assert tiny_models.difference(*results) < 1e-5


@pytest.mark.parametrize(("rank", "targets"), [(0, LINEARS), (8, LINEARS), (8, ("query",))])
def test_a_zero_rank_or_new_adapter_is_the_base_exactly(rank: int, targets: tuple[str, ...], tiny: Loaded) -> None:
    adapter = LoraAdapter(LoraConfig(rank, 16.0, targets, (2, 3)), tiny.encoder.config)
    base = tiny_models.states(tiny.encoder, tiny.tokenizer)
    adapted = tiny_models.states(tiny.encoder, tiny.tokenizer, deltas=adapter)
    assert all(torch.equal(x, y) for x, y in zip(base, adapted, strict=True))


def test_a_trained_adapter_adds_its_scaled_product_to_the_weight(tiny: Loaded) -> None:
    adapter = tiny_models.random_adapter(tiny.encoder.config, (2, 3), targets=LINEARS)
    adapted = tiny_models.states(tiny.encoder, tiny.tokenizer, deltas=adapter)
    with torch.no_grad():
        for layer in (2, 3):
            for target in LINEARS:
                part = adapter.part(layer, target)
                getattr(tiny.encoder.layers[layer], target).weight += 8.0 / 4 * part.b @ part.a
    merged = tiny_models.states(tiny.encoder, tiny.tokenizer)
    assert tiny_models.difference(adapted, merged) < 1e-4
    assert tiny_models.difference(adapted, tiny_models.states(tiny.encoder, tiny.tokenizer, deltas=adapter)) > 1e-2


def test_an_unsupported_architecture_is_refused_with_the_supported_ones(tiny_folder: Folders, tmp_path: Path) -> None:
    folder = copied(tiny_folder("bert"), tmp_path / "encoder")
    change_json(folder / "config.json", model_type="gpt2")
    with pytest.raises(EncoderError, match="'gpt2' is not supported") as caught:
        load_encoder(folder)
    assert all(name in str(caught.value) for name in ARCHITECTURES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position_embedding_type": "relative_key"}, "relative positions"),
        ({"is_decoder": True}, "decoder"),
        ({"hidden_size": None}, "hidden_size"),
        ({"hidden_size": "wide"}, "not a number"),
        ({"hidden_act": "mish"}, "activation 'mish'"),
        ({"num_attention_heads": 5}, "5 heads"),
        ({"num_attention_heads": 0}, "0 heads"),
        ({"intermediate_size": 64}, "shape|size"),
    ],
)
def test_a_config_that_cannot_be_right_is_refused(
    changes: dict[str, object], message: str, tiny_folder: Folders, tmp_path: Path
) -> None:
    folder = copied(tiny_folder("bert"), tmp_path / "encoder")
    change_json(folder / "config.json", **changes)
    with pytest.raises(EncoderError, match=message):
        load_encoder(folder)


def test_missing_weights_are_named(tiny_folder: Folders, tmp_path: Path) -> None:
    folder = copied(tiny_folder("bert"), tmp_path / "encoder")
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if "layer.1.attention.self" in name]:
        del tensors[name]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(EncoderError, match=r"6 of \d+ weights are missing.*encoder\.layer\.1\.attention\.self\.query"):
        load_encoder(folder)


def test_a_folder_with_only_pickled_weights_is_refused_and_nothing_is_unpickled(
    tiny_folder: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(tiny_folder("bert"), tmp_path / "encoder")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("unpickled"))
    with pytest.raises(EncoderError, match=r"pytorch_model\.bin.*never loaded.*safe_serialization"):
        load_encoder(folder)


def test_a_truncated_weight_file_is_refused(tiny_folder: Folders, tmp_path: Path) -> None:
    folder = copied(tiny_folder("bert"), tmp_path / "encoder")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EncoderError, match=r"model\.safetensors cannot be read"):
        load_encoder(folder)


def test_sharded_weights_equal_one_file_and_parts_outside_the_folder_are_refused(
    tiny_folder: Folders, tmp_path: Path
) -> None:
    folder = copied(tiny_folder("bert"), tmp_path / "encoder")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for part, chosen in parts.items():
        save_file({name: tensors[name] for name in chosen}, folder / part)
    index = folder / "model.safetensors.index.json"
    weight_map = {name: part for part, chosen in parts.items() for name in chosen}
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert backbone_hash(load_encoder(folder)) == backbone_hash(load_encoder(tiny_folder("bert")))
    index.write_text(json.dumps({"weight_map": {names[0]: "../a.safetensors"}}))
    with pytest.raises(EncoderError, match="outside the folder"):
        load_encoder(folder)


@pytest.mark.parametrize("fork", [-1, 5])
def test_a_fork_outside_the_layers_is_refused(fork: int, tiny_folder: Folders) -> None:
    with pytest.raises(MismatchError, match=f"fork at layer {fork}.*0 to 4"):
        load_encoder(tiny_folder("bert"), fork)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LoraConfig(33, 1.0, ("query",), (2,)), "rank 33.*width 32"),
        (LoraConfig(-1, 1.0, ("query",), (2,)), "rank -1"),
        (LoraConfig(4, 1.0, ("query",), (1, 2)), r"layers \[1\].*fork at 2"),
        (LoraConfig(4, 1.0, ("query",), (4,)), r"layers \[4\]"),
        (LoraConfig(4, 1.0, ("query", "gate"), (2,)), "'gate'.*query, key"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(config: LoraConfig, message: str, tiny: Loaded) -> None:
    with pytest.raises(MismatchError, match=message):
        config.check(tiny.encoder.config, tiny.encoder.fork)


@pytest.mark.parametrize("kind", tiny_models.KINDS)
def test_a_saved_encoder_is_the_same_here_and_in_transformers(kind: str, tiny_folder: Folders, tmp_path: Path) -> None:
    from transformers import AutoModel

    encoder = load_encoder(tiny_folder(kind))
    tiny_models.save_encoder(encoder, tmp_path / "saved", read_json(tiny_folder(kind) / "config.json"))
    again = load_encoder(tmp_path / "saved")
    assert again.config == encoder.config
    assert tiny_models.same_bits(encoder.state_dict(), again.state_dict())
    tokenizer = load_tokenizer(tiny_folder(kind), encoder.config, 60)
    theirs = tiny_models.hugging_face_states(AutoModel.from_pretrained(str(tmp_path / "saved")).eval(), tokenizer)
    assert tiny_models.difference(tiny_models.states(again, tokenizer), theirs) < 1e-5


def test_an_encoder_from_a_half_precision_config_is_saved_in_full_precision_for_transformers(
    tiny_folder: Folders, tmp_path: Path
) -> None:
    from transformers import AutoModel

    encoder = load_encoder(tiny_folder("bert"))
    raw = read_json(tiny_folder("bert") / "config.json") | {"dtype": "float16", "torch_dtype": "float16"}
    tiny_models.save_encoder(encoder, tmp_path / "saved", raw)
    model = AutoModel.from_pretrained(str(tmp_path / "saved"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_hash_is_that_of_the_weights_however_they_are_stored(tiny_folder: Folders, tmp_path: Path) -> None:
    encoder = load_encoder(tiny_folder("bert"))
    before = backbone_hash(encoder)
    tiny_models.save_encoder(encoder, tmp_path / "saved", read_json(tiny_folder("bert") / "config.json"))
    assert backbone_hash(load_encoder(tmp_path / "saved", 1)) == before
    with torch.no_grad():
        encoder.layers[3].down.bias[7] += 1e-6
    assert backbone_hash(encoder) != before


def test_the_hash_depends_on_sizes_that_no_tensor_shows(tiny: Loaded) -> None:
    other = Encoder(dataclasses.replace(tiny.encoder.config, n_heads=2))
    other.load_state_dict(tiny.encoder.state_dict())
    assert backbone_hash(other) != tiny.backbone


def test_features_are_made_without_dropout_and_training_goes_on_afterwards(tiny: Loaded) -> None:
    expected = embed_texts(tiny.encoder, tiny.tokenizer, SENTENCES)
    tiny.encoder.dropout = 0.5
    tiny.encoder.train()
    assert (embed_texts(tiny.encoder, tiny.tokenizer, SENTENCES) == expected).all()
    assert tiny.encoder.training
