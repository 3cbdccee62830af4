"""Text pairs: the trainer of sentence-transformers, and our pre-finetuning step, whole or by GradCache."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, Any

import torch
from torch import Tensor, nn

from trunkline.config import AdapterSection
from trunkline.encoder.encoder import TokenBatch
from trunkline.encoder.lora import LoraAdapter, lora_config
from trunkline.encoder.resolve import resolve
from trunkline.prefinetune.model import PrefinetuneModel, StepBatch, chunk_slices, to_device
from trunkline.prefinetune.objectives.classification import TextPairObjective
from trunkline.text.tokens import pack
from trunkline_lab.speed.gate import Gate
from trunkline_lab.speed.side_by_side import Missing
from trunkline_lab.speed.training.cases import TRAINER_BATCH, Options
from trunkline_lab.speed.training.common import Stopwatch, accelerator_of, cut, dropout_of, pairs, start_of, train

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
    gate.say(precision=precision, trained=sum(parameter.numel() for parameter in model.parameters()))
    batches = [numbers for part in parts for numbers in part]

    def draw(step: int) -> StepBatch:
        chosen = batches[step]
        units = [text for i in chosen for text in texts[i]]
        sizes = [text.size for text in units]
        slices = chunk_slices(sizes, chunk_tokens or sum(sizes))
        packed = [pack(units[part], encoder.config.pad_id) for part in slices]
        chunks = tuple(TokenBatch.from_packed(part, accelerator.device) for part in packed)
        targets = objective.targets([(0, examples[i]) for i in chosen], step)
        return StepBatch(chunks, to_device(targets, accelerator.device), [(0, i) for i in chosen])

    def losses(step: int) -> Iterator[tuple[str, float, Tensor]]:
        with Stopwatch(gate):
            drawn = draw(step)
        computed = sum(chunk.input_ids.numel() for chunk in drawn.chunks)
        gate.add(tokens=drawn.n_tokens, computed=computed, pairs=len(drawn.drawn))
        with accelerator.autocast():
            loss = model(FAMILY, drawn)
        yield FAMILY, 1.0, loss

    train(gate, model, losses, accelerator)


def sentence_transformers(options: Options, channel: IO[str], *, bf16: bool, batch: int) -> None:
    """The trainer of sentence-transformers at its defaults but for the order of the pairs and the size of a batch."""
    try:
        import sentence_transformers as peer
        from datasets import Dataset
        from sentence_transformers.losses import MultipleNegativesRankingLoss
        from sentence_transformers.models import Pooling, Transformer
    except ImportError as error:
        raise Missing(
            f"sentence-transformers is not installed ({error}); `pip install 'trunkline-lab[peers]'`"
        ) from error
    start = start_of(options)
    plan = _plan(options, batch, options.repeats)
    examples, _ = pairs(options, start, sum(plan))
    changes: dict[str, Any] = {}
    if options.dropout is not None:
        changes = {"hidden_dropout_prob": options.dropout, "attention_probs_dropout_prob": options.dropout}
    transformer = Transformer(
        str(resolve(options.encoder).folder), max_seq_length=options.max_length, config_kwargs=changes
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    width = start.encoder.config.hidden_size
    model = peer.SentenceTransformer(modules=[transformer, Pooling(width)], device=device)
    gate = Gate(channel, [-(-count // batch) for count in plan])
    gate.say(precision="bf16" if bf16 else "fp32", trained=sum(parameter.numel() for parameter in model.parameters()))
    gate.say(peer=f"sentence-transformers {peer.__version__}")

    def count(module: nn.Module, arguments: Any, keywords: dict[str, Any]) -> None:
        mask = (arguments[0] if arguments else keywords["features"])["attention_mask"]
        gate.add(tokens=int(mask.sum()), computed=mask.numel(), pairs=len(mask) / 2)

    model[0].register_forward_pre_hook(count, with_kwargs=True)
    callback = _callback(gate)
    texts = {side: [getattr(example, side) for example in examples] for side in ("left", "right")}
    with tempfile.TemporaryDirectory() as output:
        arguments = peer.SentenceTransformerTrainingArguments(
            output_dir=output,
            max_steps=gate.total,
            per_device_train_batch_size=batch,
            bf16=bf16,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=device == "cpu",
            batch_sampler=_in_order,
        )
        peer.SentenceTransformerTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict(texts),
            loss=MultipleNegativesRankingLoss(model),
            callbacks=[callback],
        ).train()


def _callback(gate: Gate) -> Any:
    from transformers import TrainerCallback

    class Callback(TrainerCallback):
        def on_step_end(self, *arguments: Any, **keywords: Any) -> None:
            gate.step()

    return Callback()


def _in_order(dataset: Any, batch_size: int, drop_last: bool, **_: Any) -> Any:
    from sentence_transformers.sampler import DefaultBatchSampler
    from torch.utils.data import SequentialSampler

    return DefaultBatchSampler(SequentialSampler(dataset), batch_size=batch_size, drop_last=drop_last)
