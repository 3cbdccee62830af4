"""Text pairs: the trainer of sentence-transformers, and our pre-finetuning step, whole or by GradCache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import IO, Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from trunkline.config import AdapterSection
from trunkline.encoder.encoder import TokenBatch
from trunkline.encoder.lora import LoraAdapter, lora_config
from trunkline.encoder.resolve import resolve
from trunkline.prefinetune.model import PrefinetuneModel, StepBatch, chunk_slices
from trunkline.prefinetune.objectives import TextPairObjective
from trunkline.text.tokens import pack
from trunkline_lab.speed.gate import Gate
from trunkline_lab.speed.side_by_side import imported
from trunkline_lab.speed.training.cases import TRAINER_BATCH, Options
from trunkline_lab.speed.training.common import (
    accelerator_of,
    count_trained,
    cut,
    dropout_changes,
    dropout_of,
    pairs,
    run_peer,
    start_of,
    train,
    waiting,
)

FAMILY = "classification"


def _plan(options: Options, batch: int, repeats: int) -> list[int]:
    """Pairs of the warm-up and of each repeat, whole batches."""
    return [2 * batch] + [max(1, TRAINER_BATCH * options.steps // batch) * batch] * repeats


def text_pairs(
    options: Options,
    channel: IO[str],
    *,
    batch: int,
    repeats: int,
    plan: Sequence[int] = (),
    chunk_tokens: int | None = None,
) -> None:
    """Our step of the classification family with task-primary LoRA, each batch of as many pairs.

    Without a `plan`, the pairs of the warm-up and of each repeat, these are those of the other trainer.
    """
    start = start_of(options)
    plan = list(plan) or _plan(options, batch, repeats)
    examples, texts = pairs(options, start, sum(plan))
    accelerator, precision = accelerator_of()
    encoder = start.encoder
    encoder.dropout = dropout_of(options, start)
    adapter = LoraAdapter(lora_config(AdapterSection(), encoder.config, encoder.fork), encoder.config)
    objective = TextPairObjective(0.05)
    model = PrefinetuneModel(encoder, {FAMILY: adapter}, {FAMILY: objective}).to(accelerator.device)
    parts = cut(plan, len(examples), batch)
    gate = Gate(channel, [len(part) for part in parts])
    gate.say(precision=precision, trained=count_trained(model))
    batches = [numbers for part in parts for numbers in part]

    def draw(step: int) -> StepBatch:
        chosen = batches[step]
        units = [text for i in chosen for text in texts[i]]
        sizes = [text.size for text in units]
        slices = chunk_slices(sizes, chunk_tokens or sum(sizes))
        packed = [pack(units[part], encoder.config.pad_id) for part in slices]
        chunks = tuple(TokenBatch.from_packed(part, accelerator.device) for part in packed)
        targets = objective.targets([(0, examples[i]) for i in chosen], step)
        return StepBatch(chunks, send_to_device(targets, accelerator.device), [(0, i) for i in chosen])

    def losses(step: int) -> Iterator[tuple[str, float, Tensor]]:
        with waiting(gate):
            drawn = draw(step)
        computed = sum(chunk.input_ids.numel() for chunk in drawn.chunks)
        gate.add(tokens=drawn.n_tokens, computed=computed, pairs=len(drawn.drawn))
        with accelerator.autocast():
            loss = model(FAMILY, drawn)
        yield FAMILY, 1.0, loss

    train(gate, model, losses, accelerator)


def sentence_transformers(options: Options, channel: IO[str], *, bf16: bool, batch: int) -> None:
    """The trainer of sentence-transformers at its defaults but for the order of the pairs and the size of a batch."""
    with imported("sentence-transformers"):
        import sentence_transformers as peer
        from datasets import Dataset
        from sentence_transformers.losses import MultipleNegativesRankingLoss
        from sentence_transformers.models import Pooling, Transformer
    start = start_of(options)
    plan = _plan(options, batch, options.repeats)
    examples, _ = pairs(options, start, sum(plan))
    folder, changes = str(resolve(options.encoder).folder), dropout_changes(options)
    transformer = Transformer(folder, max_seq_length=options.max_length, config_kwargs=changes)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    width = start.encoder.config.hidden_size
    model = peer.SentenceTransformer(modules=[transformer, Pooling(width)], device=device)
    gate = Gate(channel, [-(-count // batch) for count in plan])
    gate.say(precision="bf16" if bf16 else "fp32", trained=count_trained(model))
    gate.say(peer=f"sentence-transformers {peer.__version__}")

    def count(module: nn.Module, arguments: Any, keywords: dict[str, Any]) -> None:
        mask = (arguments[0] if arguments else keywords["features"])["attention_mask"]
        gate.add(tokens=int(mask.sum()), computed=mask.numel(), pairs=len(mask) / 2)

    model[0].register_forward_pre_hook(count, with_kwargs=True)
    texts = {side: [getattr(example, side) for example in examples] for side in ("left", "right")}
    arguments = partial(peer.SentenceTransformerTrainingArguments, batch_sampler=_in_order)
    parts = {"model": model, "train_dataset": Dataset.from_dict(texts), "loss": MultipleNegativesRankingLoss(model)}
    run_peer(gate, peer.SentenceTransformerTrainer, arguments, batch, bf16, **parts)


def _in_order(dataset: Any, batch_size: int, drop_last: bool, **_: Any) -> Any:
    from sentence_transformers.sampler import DefaultBatchSampler
    from torch.utils.data import SequentialSampler

    return DefaultBatchSampler(SequentialSampler(dataset), batch_size=batch_size, drop_last=drop_last)
