"""Tiny models and data made on the spot, so that tests need no network and no download."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trunkline.config import PrefinetuneRecipe, parse_recipe
from trunkline.encoder.architectures import EncoderConfig
from trunkline.encoder.encoder import Encoder, TokenBatch
from trunkline.encoder.lora import Deltas, LoraAdapter, LoraConfig
from trunkline.encoder.storage import checkpoint_files
from trunkline.text.tokens import ROW_WIDTH, TextTokenizer, pack, text_unit

KINDS = ("bert", "distilbert", "roberta", "xlm-roberta", "electra")
WIDTH = 32
_NAMES = "ann bob carla dan eve frank gina hugo iris jon kate leo mia nina otto paul"
NAMES = _NAMES.split()
_PLACES = "berlin paris rome oslo madrid vienna prague dublin lisbon athens cairo lima"
PLACES = _PLACES.split()
_ORGS = "acme globex initech umbrella hooli stark wayne cyberdyne tyrell wonka"
ORGS = _ORGS.split()
_WORDS = """
the a an of in at to from and or with for on by is was are were has had will would can could not no yes this
that these those it he she they we you i my your his her our their new old big small red green blue hot cold
good bad fast slow early late near far up down left right one two three four five six seven eight nine ten first
last next today tomorrow yesterday monday tuesday friday morning evening night hour day week month year book
table chair house car train plane ship street city river mountain sea sun moon star rain snow wind fire water
food bread milk fruit apple orange music song film game play work run walk go come see hear read write speak
sing make take give send call meet visit lives lived works worked flew drove bought sold reads wrote met saw
left joined opened closed question answer title body how what where when why who which price order table weather
forecast ticket flight hotel room song alarm light turn set please book cheap best many much some any all every
each other same such own too very just also only even still again always never often
"""
WORDS = _WORDS.split()
SENTENCES = (
    "ann works at acme in berlin",
    "the train",
    "yesterday bob flew from paris to rome and met carla near the old river, not far from the sea.",
    "xyzzy qwertz 42!",
    "what is the weather forecast for oslo tomorrow morning?",
)


def vocabulary() -> dict[str, int]:
    """Special tokens in RoBERTa's order (padding is 1), single characters with and without ##, pieces, words."""
    characters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = ["##ing", "##ed", "##s", "##er", "##ly", "##tion", "un", "re"]
    tokens = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]", *characters, *(f"##{c}" for c in characters), *pieces]
    return {token: number for number, token in enumerate(dict.fromkeys([*tokens, *WORDS, *NAMES, *PLACES, *ORGS]))}


def write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordPiece(vocabulary(), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 2)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))


def hugging_face_model(kind: str, layers: int = 4, seed: int = 0) -> Any:
    """A random model of transformers; every parameter differs from its usual start, norms and biases included."""
    import transformers as hf

    torch.manual_seed(seed)
    common: dict[str, Any] = {"vocab_size": len(vocabulary()), "pad_token_id": 1, "max_position_embeddings": 64}
    bert = common | {
        "hidden_size": WIDTH,
        "num_attention_heads": 4,
        "num_hidden_layers": layers,
        "intermediate_size": 48,
    }
    model = {
        "bert": lambda: hf.BertModel(hf.BertConfig(**bert)),
        "distilbert": lambda: hf.DistilBertModel(
            hf.DistilBertConfig(**common, dim=WIDTH, n_heads=4, n_layers=layers, hidden_dim=48)
        ),
        "roberta": lambda: hf.RobertaModel(hf.RobertaConfig(**bert, layer_norm_eps=1e-5)),
        "xlm-roberta": lambda: hf.XLMRobertaModel(hf.XLMRobertaConfig(**bert, hidden_act="relu")),
        "electra": lambda: hf.ElectraModel(hf.ElectraConfig(**bert, embedding_size=24)),
    }[kind]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def save_model(kind: str, folder: Path, layers: int = 4, seed: int = 0) -> Path:
    """Writes a model of transformers with its tokenizer, in Hugging Face layout."""
    hugging_face_model(kind, layers, seed).save_pretrained(str(folder))
    write_tokenizer(folder)
    return folder


def random_adapter(
    config: EncoderConfig, layers: Sequence[int], rank: int = 4, seed: int = 0, **options: Any
) -> LoraAdapter:
    """An adapter whose B is not zero, as after training."""
    torch.manual_seed(seed)
    alpha, targets = options.get("alpha", 8.0), options.get("targets", ("query", "value"))
    adapter = LoraAdapter(LoraConfig(rank, alpha, targets, tuple(layers)), config)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(std=0.3)
    return adapter.eval()


def token_batch(tokenizer: TextTokenizer, texts: Sequence[str], pad_id: int = 1, width: int = ROW_WIDTH) -> TokenBatch:
    """The texts as units of a packed batch."""
    return TokenBatch.from_packed(pack([text_unit(tokens) for tokens in tokenizer.encode(texts)], pad_id, width))


def states_of(hidden: Tensor, batch: TokenBatch) -> list[Tensor]:
    """[tokens, width] states of each text of a batch made by `token_batch`, special tokens included."""
    flat = hidden.reshape(-1, hidden.shape[-1])[batch.unit_tokens]
    return [flat[batch.unit_ids == unit] for unit in range(batch.n_units)]


@torch.no_grad()
def states(
    encoder: Encoder,
    tokenizer: TextTokenizer,
    texts: Sequence[str] = SENTENCES,
    deltas: Deltas | None = None,
    width: int = ROW_WIDTH,
) -> list[Tensor]:
    """[tokens, width] states of the last layer for each text."""
    batch = token_batch(tokenizer, texts, encoder.config.pad_id, width)
    return states_of(encoder(batch, deltas), batch)


@torch.no_grad()
def hugging_face_states(model: Any, tokenizer: TextTokenizer, texts: Sequence[str] = SENTENCES) -> list[Tensor]:
    """The same by transformers, one text at a time."""
    ids = [torch.from_numpy(tokens.windows[0])[None] for tokens in tokenizer.encode(texts)]
    return [model(input_ids=row, attention_mask=torch.ones_like(row)).last_hidden_state[0] for row in ids]


def difference(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    """The largest difference of two lists of tensors of equal shapes, as a share of their largest value if above 1."""
    assert [x.shape for x in left] == [x.shape for x in right]
    # Processors sum in other orders, so that the last bits differ, which weigh more in larger values.
    largest = max(1.0, *(float(x.abs().max()) for x in (*left, *right)))
    return max(float((x - y).abs().max()) for x, y in zip(left, right, strict=True)) / largest


def write_jsonl(path: Path, rows: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def ner_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Sentences with a person, an organisation and a place, by name lists."""
    rng = random.Random(seed)
    templates = (
        "{0} works at {1} in {2}",
        "yesterday {0} flew to {2}",
        "{1} opened in {2}",
        "{0} met {0} near the river",
    )
    rows = []
    for _ in range(count):
        words, entities, position = [], [], 0
        for word in rng.choice(templates).split():
            label, names = {"{0}": ("person", NAMES), "{1}": ("company", ORGS), "{2}": ("place", PLACES)}.get(
                word, ("", [])
            )
            chosen = rng.choice(names) if names else word
            if label:
                entities.append([position, position + len(chosen), label])
            words.append(chosen)
            position += len(chosen) + 1
        rows.append({"text": " ".join(words), "entities": entities})
    return rows


def pair_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Two texts that share a name and a place."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        name, place, word = rng.choice(NAMES), rng.choice(PLACES), rng.choice(WORDS)
        rows.append({"left": f"where is {name} of {place} {word}", "right": f"{name} lives in {place}, {word}"})
    return rows


def recipe_of(encoder: Path, data: Path, **changes: Any) -> PrefinetuneRecipe:
    """A recipe over `ner.jsonl` and `pairs.jsonl`, written where they are missing; 10 steps, saved at 5."""
    if not (data / "ner.jsonl").is_file():
        write_jsonl(data / "ner.jsonl", ner_rows(60))
        write_jsonl(data / "pairs.jsonl", pair_rows(60))
    raw: dict[str, Any] = {
        "name": "tiny",
        "encoder": str(encoder),
        "max_length": 32,
        "adapter": {"rank": 4, "alpha": 8},
        "families": {
            "ner": {"sources": {str(data / "ner.jsonl"): {}}, "tokens": 64, "negatives": 4},
            "classification": {"sources": {str(data / "pairs.jsonl"): {}}, "tokens": 96},
        },
        "optimizer": {"steps": 10, "backbone_rate": 1e-3, "dropout": 0.1},
        "precision": "fp32",
        "monitor": {"every": 5, "log_every": 1},
        "checkpoint": {"every": 5, "keep": 2},
        "seed": 3,
    }
    return parse_recipe(_merged(raw, changes), PrefinetuneRecipe, "tiny recipe")


def _merged(raw: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return raw | {
        key: _merged(raw[key], value)
        if isinstance(value, dict) and isinstance(raw.get(key), dict) and key != "families"
        else value
        for key, value in changes.items()
    }


def bundle_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a bundle by file and name."""
    from safetensors.torch import load_file

    return {
        f"{path.relative_to(folder)}:{name}": tensor
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def same_bits(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Whether two sets of tensors are equal bit for bit."""
    return left.keys() == right.keys() and bool(left) and all(torch.equal(left[key], right[key]) for key in left)


def save_encoder(encoder: Encoder, folder: Path, raw_config: Mapping[str, Any]) -> None:
    """An encoder's folder in Hugging Face layout, without a tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    files = checkpoint_files(encoder, raw_config)
    for name, file in (("config", "config.json"), ("weights", "model.safetensors")):
        (folder / file).write_bytes(files[name])
