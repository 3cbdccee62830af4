"""Token classification: the Trainer of transformers, and our loop over the same sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trunkline.config import AdapterSection
from trunkline.encoder.encoder import Encoder, TokenBatch
from trunkline.encoder.lora import LoraAdapter, lora_config
from trunkline.encoder.resolve import resolve
from trunkline.text.tokens import UnitText, pack
from trunkline_lab.speed.gate import Gate
from trunkline_lab.speed.side_by_side import imported
from trunkline_lab.speed.training.cases import TRAINER_BATCH, Options
from trunkline_lab.speed.training.common import (
    accelerator_of,
    count_trained,
    cut,
    cut_by_tokens,
    dropout_changes,
    dropout_of,
    run_peer,
    sentences,
    start_of,
    step_flops,
    train,
    trainer_plan,
    waiting,
)

LORA = AdapterSection(rank=8, alpha=16.0, targets=("query", "value"))


class Tagger(nn.Module):
    """A linear head on a frozen encoder with LoRA, or on one that is trained whole."""

    def __init__(self, encoder: Encoder, labels: int, lora: bool) -> None:
        super().__init__()
        self.encoder, self.adapter = encoder, None
        if lora:
            encoder.requires_grad_(False)
            self.adapter = LoraAdapter(lora_config(LORA, encoder.config, encoder.fork), encoder.config)
        self.head = nn.Linear(encoder.config.hidden_size, labels)

    def forward(self, batch: TokenBatch, dropout: float) -> Tensor:
        """[words, labels] logits."""
        if self.adapter is None:
            features = self.encoder(batch)
        else:
            with torch.no_grad():
                states = self.encoder.trunk(batch)
            features = self.encoder.read(states, batch, self.adapter)
        return self.head(F.dropout(batch.pool(features), dropout, self.training))


def tagger(options: Options, channel: IO[str], *, lora: bool, batch: int | None) -> None:
    """Our loop with LoRA on the frozen encoder, or with the whole encoder trained."""
    start = start_of(options)
    texts, targets, labels = sentences(options, start)
    accelerator, precision = accelerator_of()
    encoder = start.encoder.to(accelerator.device)
    rate = dropout_of(options, start)
    encoder.dropout = 0.0 if lora else rate
    model = Tagger(encoder, len(labels), lora).to(accelerator.device)
    plan = trainer_plan(options)
    sizes = [text.size for text in texts]
    parts = cut(plan, len(texts), batch) if batch else cut_by_tokens(plan, sizes, options.tokens)
    gate = Gate(channel, [len(part) for part in parts])
    gate.say(precision=precision, trained=count_trained(model), examples_per_step=plan[1] / len(parts[1]))
    batches = [numbers for part in parts for numbers in part]

    def losses(step: int) -> Iterator[tuple[str, float, Tensor]]:
        with waiting(gate):
            chosen = batches[step]
            packed = pack([texts[i] for i in chosen], encoder.config.pad_id)
            tokens = TokenBatch.from_packed(packed, accelerator.device)
            wanted = torch.from_numpy(np.concatenate([targets[i] for i in chosen])).to(accelerator.device)
        gate.add(tokens=tokens.n_tokens, computed=tokens.input_ids.numel(), examples=len(chosen))
        if not lora:
            flops = step_flops(encoder, None, tokens)
            gate.add(flops=flops.done, real_flops=flops.real)
        with accelerator.autocast():
            logits = model(tokens, rate)
        yield "task", 1.0, F.cross_entropy(logits.float(), wanted, ignore_index=-1)

    train(gate, model, losses, accelerator)


def trainer(options: Options, channel: IO[str], *, bf16: bool, lora: bool) -> None:
    """The Trainer at its defaults but for the order of the texts, over ids that our tokeniser made."""
    with imported("transformers"):
        import transformers
        from transformers import AutoModelForTokenClassification, AutoTokenizer, DataCollatorForTokenClassification
    start = start_of(options)
    texts, targets, labels = sentences(options, start)
    folder = str(resolve(options.encoder).folder)
    model = AutoModelForTokenClassification.from_pretrained(
        folder, num_labels=len(labels), dtype=torch.float32, **dropout_changes(options)
    )
    if lora:
        model = _with_peft(model, start.encoder)
    plan = trainer_plan(options)
    chosen = [i for part in cut(plan, len(texts), TRAINER_BATCH) for numbers in part for i in numbers]
    gate = Gate(channel, [count // TRAINER_BATCH for count in plan])
    gate.say(precision="bf16" if bf16 else "fp32", trained=count_trained(model), examples_per_step=TRAINER_BATCH)
    gate.say(peer=f"transformers {transformers.__version__}", attention=model.config._attn_implementation)

    def count(module: nn.Module, arguments: Any, keywords: dict[str, Any]) -> None:
        mask = keywords["attention_mask"]
        gate.add(tokens=int(mask.sum()), computed=mask.numel(), examples=len(mask))

    model.register_forward_pre_hook(count, with_kwargs=True)

    class InOrder(transformers.Trainer):
        def _get_train_sampler(self, *arguments: Any, **keywords: Any) -> Any:
            return torch.utils.data.SequentialSampler(cast(Any, self.train_dataset))

    data = [_features(texts[i], targets[i]) for i in chosen]
    collator = DataCollatorForTokenClassification(AutoTokenizer.from_pretrained(folder))
    parts = {"model": model, "train_dataset": data, "data_collator": collator}
    run_peer(gate, InOrder, transformers.TrainingArguments, TRAINER_BATCH, bf16, **parts)


def _with_peft(model: Any, encoder: Encoder) -> Any:
    with imported("peft"):
        from peft import LoraConfig, TaskType, get_peft_model
    config = LoraConfig(
        r=LORA.rank,
        lora_alpha=int(LORA.alpha),
        target_modules=["query", "value"],
        layers_to_transform=list(range(encoder.fork, encoder.config.n_layers)),
        task_type=TaskType.TOKEN_CLS,
    )
    return get_peft_model(model, config)


def _features(text: UnitText, targets: Any) -> dict[str, list[int]]:
    """A sentence as the collator takes it; the first token of each word has its label, as in transformers' examples."""
    labels = np.full(text.size, -100)
    first = np.full(text.n_units, -1)
    first[text.unit[::-1]] = text.token[::-1]
    labels[first] = np.where(targets >= 0, targets, -100)
    return {"input_ids": text.ids.tolist(), "attention_mask": [1] * text.size, "labels": labels.tolist()}
