"""What several cases need: the precision, the texts in one order for all, and our loop behind a gate."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from trunkline.bundle.manifest import LINEARS
from trunkline.encoder.bundle_files import Loaded, load_any
from trunkline.encoder.encoder import Encoder, TokenBatch
from trunkline.encoder.lora import LoraAdapter, linear_shape
from trunkline.prefinetune.objectives import OBJECTIVES
from trunkline.tasks import FAMILIES
from trunkline.text.words import split_words
from trunkline.training.loop import Hooks, LoopSettings, make_accelerator, optimizer_for, resolve_precision, run
from trunkline_lab import fitting
from trunkline_lab.data.cards import load_card
from trunkline_lab.speed.gate import Gate
from trunkline_lab.speed.training.cases import TRAINER_BATCH, Options

Batches = list[list[int]]


def start_of(options: Options) -> Loaded:
    """The encoder that all cases train."""
    return load_any(options.encoder, max_length=options.max_length)


def dropout_of(options: Options, start: Loaded) -> float:
    """The rate of all sides."""
    found = options.dropout if options.dropout is not None else start.config.get("hidden_dropout_prob", 0.1)
    return float(found)


def accelerator_of() -> tuple[Any, str]:
    """An accelerator in the precision that `auto` is, and that."""
    precision = resolve_precision("auto")
    return make_accelerator(precision == "bf16"), precision


def sentences(options: Options, start: Loaded) -> tuple[list[Any], list[Any], list[str]]:
    """Tokenised sentences of one window, the indices of their words' tags, and the tags; always in the same order."""
    family = FAMILIES["ner"]
    examples = load_card(options.sentences).load("train")
    labels = list(family.labels(examples))
    # Some are too long; they are left out.
    chosen = _order(len(examples), options)[: 2 * sum(trainer_plan(options))]
    units = fitting.example_units(family, [examples[i] for i in chosen], start.tokenizer)
    kept = [number for number, text in enumerate(units) if len(text.sizes) == 1]
    kept_examples: list[Any] = [examples[chosen[number]] for number in kept]
    targets: list[Any] = [np.asarray(family.unit_targets(e, tuple(labels), split_words(e.text))) for e in kept_examples]
    return [units[number] for number in kept], targets, labels


def pairs(options: Options, start: Loaded, count: int) -> tuple[list[Any], list[list[Any]]]:
    """So many pairs of texts of one window each, and their tokens; always in the same order."""
    examples = load_card(options.pairs).load("train")
    chosen = [examples[i] for i in _order(len(examples), options)[: count + count // 4 + 64]]
    texts = OBJECTIVES["classification"].unit_texts(chosen, start.tokenizer)
    both = [texts[2 * i : 2 * i + 2] for i in range(len(chosen))]
    kept = [i for i, (left, right) in enumerate(both) if len(left.sizes) == len(right.sizes) == 1]
    kept = [kept[i % len(kept)] for i in range(count)]
    return [chosen[i] for i in kept], [both[i] for i in kept]


def trainer_plan(options: Options) -> list[int]:
    """Examples of the warm-up and of each repeat."""
    return [TRAINER_BATCH * min(4, options.steps)] + [TRAINER_BATCH * options.steps] * options.repeats


def cut(plan: Sequence[int], available: int, batch: int) -> list[Batches]:
    """Batches of `batch` consecutive examples, over and over if there are too few, for each part of a plan."""
    result: list[Batches] = []
    first = 0
    for count in plan:
        numbers = [number % available for number in range(first, first + count)]
        result.append([numbers[at : at + batch] for at in range(0, count, batch)])
        first += count
    return result


def cut_by_tokens(plan: Sequence[int], sizes: Sequence[int], budget: int) -> list[Batches]:
    """Batches of consecutive examples with about `budget` tokens each, the batches of a part of about equal size."""
    result: list[Batches] = []
    for part in cut(plan, len(sizes), max(plan)):
        (numbers,) = part
        ends = np.cumsum([sizes[number] for number in numbers])
        count = max(1, round(float(ends[-1]) / budget))
        bounds = [int(np.searchsorted(ends, ends[-1] * k / count)) for k in range(1, count)]
        result.append([list(batch) for batch in np.split(np.asarray(numbers), bounds) if len(batch)])
    return result


def train(
    gate: Gate,
    module: nn.Module,
    losses: Callable[[int], Iterator[tuple[str, float, Tensor]]],
    accelerator: Any,
    optimizer: Any = None,
    more: int = 0,
) -> None:
    """Our loop, with AdamW over all that can be trained; `more` steps after those of the gate."""
    if optimizer is None:
        optimizer = accelerator.prepare(optimizer_for({"all": (list(module.parameters()), 5e-5)}, 0.01))
    start, steps = (gate.total, gate.total + more) if more else (0, gate.total)
    settings = LoopSettings(steps=steps, log_every=steps + 1)
    hooks = Hooks() if more else Hooks(stepped=gate.step)
    run(module, optimizer, losses, settings, hooks, accelerator=accelerator, start=start)


@contextmanager
def waiting(gate: Gate) -> Iterator[None]:
    """Adds the seconds of a block to the gate's `waited`."""
    began = time.perf_counter()
    yield
    gate.add(waited=time.perf_counter() - began)


def dropout_changes(options: Options) -> dict[str, float]:
    """What the options change in a config of transformers."""
    names = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    return {} if options.dropout is None else dict.fromkeys(names, options.dropout)


def run_peer(gate: Gate, trainer: Any, arguments: Any, batch: int, bf16: bool, **more: Any) -> None:
    """Runs a trainer like that of transformers at its defaults for the gate's steps, each of `batch` examples.

    `trainer` and `arguments` are its classes, `more` is for the first. Nothing is saved.
    """
    from transformers import TrainerCallback

    class Callback(TrainerCallback):
        def on_step_end(self, *arguments: Any, **keywords: Any) -> None:
            gate.step()

    with tempfile.TemporaryDirectory() as output:
        made = arguments(
            output_dir=output,
            max_steps=gate.total,
            per_device_train_batch_size=batch,
            bf16=bf16,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
        )
        trainer(args=made, callbacks=[Callback()], **more).train()


def count_trained(model: nn.Module) -> int:
    """Parameters that are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def top_operations(step: Callable[[], None], count: int = 15) -> list[dict[str, Any]]:
    """The operations that take most of the time of a call, by their own time without what they call."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as profile:
        step()
    key = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    rows = sorted(profile.key_averages(), key=lambda row: -getattr(row, key))
    total = sum(getattr(row, key) for row in rows)
    return [{"operation": row.key, "calls": row.count, "share": getattr(row, key) / total} for row in rows[:count]]


def _order(count: int, options: Options) -> list[int]:
    return [int(i) for i in np.random.default_rng(options.seed).permutation(count)]


class Flops(NamedTuple):
    """Operations, a multiplication and an addition being two: all that are `done`, and those for `real` tokens.

    What is computed for padding, and for attention between texts that share a row, is only in `done`.
    """

    done: int
    real: int


def step_flops(encoder: Encoder, adapter: LoraAdapter | None, batch: TokenBatch) -> Flops:
    """Operations of a forward and backward pass in which the whole encoder and the adapter are trained.

    Each product of the forward pass has two in the backward pass, one by each factor. Products of the objective are
    not counted.
    """
    rows, width = batch.input_ids.shape
    lengths = batch.segments[batch.segments >= 0].unique(return_counts=True)[1]
    done = _passes(encoder, adapter, rows * width, rows * width * width)
    real = _passes(encoder, adapter, int(lengths.sum()), int((lengths**2).sum()))
    return Flops(3 * done, 3 * real)


def _passes(encoder: Encoder, adapter: LoraAdapter | None, tokens: int, pairs: int) -> int:
    """Operations of a forward pass with so many tokens and pairs of tokens that attend to each other."""
    config = encoder.config
    weights = sum(outputs * inputs for outputs, inputs in (linear_shape(config, name) for name in LINEARS))
    products = config.n_layers * weights
    if adapter is not None:
        products += sum(parameter.numel() for parameter in adapter.parameters())
    if encoder.embeddings.project is not None:
        products += encoder.embeddings.project.weight.numel()
    # Scores and context: each one product of `hidden_size` numbers for every pair.
    return 2 * tokens * products + 2 * config.n_layers * 2 * pairs * config.hidden_size
