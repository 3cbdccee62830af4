"""Joint pre-finetuning steps of both families, and the matrix products that they are measured against."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from trunkline.config import PrefinetuneRecipe, parse_recipe
from trunkline.prefinetune import run
from trunkline.prefinetune.sources import recipe_sources
from trunkline.training import Report
from trunkline_lab.data.finder import CardFinder
from trunkline_lab.speed.gate import Gate
from trunkline_lab.speed.training.cases import Options
from trunkline_lab.speed.training.common import start_of, step_flops, top_operations, train, waiting

_MATMUL_FLOPS = 3e11  # of a repeat


def joint(
    options: Options, channel: IO[str], *, strategy: str, repeats: int, targets: Sequence[str] = ("query", "value")
) -> None:
    """Steps of `trunkline prefinetune` over a source of each family, one a repeat."""
    raw = {
        "name": "training-speed",
        "encoder": options.encoder,
        "max_length": options.max_length,
        "strategy": strategy,
        "adapter": {"targets": list(targets)},
        "families": {
            "ner": {"sources": {options.sentences: {}}, "tokens": options.tokens},
            "classification": {"sources": {options.pairs: {}}, "tokens": options.tokens},
        },
        "monitor": {"every": 0},
        "seed": options.seed,
    }
    recipe = parse_recipe(raw, PrefinetuneRecipe, "benchmark")
    start = start_of(options)
    sources = recipe_sources(recipe, start.tokenizer, finder=CardFinder())
    gate = Gate(channel, [2] + [1] * repeats)
    drawn = run.draw_batch

    def timed(*arguments: Any, **keywords: Any) -> Any:
        with waiting(gate):
            return drawn(*arguments, **keywords)

    run.draw_batch = timed
    with tempfile.TemporaryDirectory() as folder:
        session = run.Session(recipe, start, sources, Path(folder), Report())
        gate.say(precision="bf16" if session.bf16 else "fp32")

        def losses(step: int) -> Iterator[tuple[str, float, Tensor]]:
            yield from session.losses(step)
            for family, batch in session.batches.items():
                for chunk in batch.chunks:
                    flops = step_flops(session.model.encoder, session.model.adapter(family), chunk)
                    gate.add(flops=flops.done, real_flops=flops.real)
                    gate.add(tokens=chunk.n_tokens, computed=chunk.input_ids.numel())

        train(gate, session.model, losses, session.accelerator, session.optimizer)
        gate.say(
            operations=top_operations(
                lambda: train(gate, session.model, losses, session.accelerator, session.optimizer, more=2)
            )
        )


def matmul(options: Options, channel: IO[str], *, size: int, repeats: int) -> None:
    """Products of square bf16 matrices: what this machine reaches in the best case."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = (torch.randn(size, size, device=device).to(torch.bfloat16) for _ in range(2))
    result = torch.empty_like(left)
    flops = 2 * size**3
    times = max(1, round(_MATMUL_FLOPS * options.scale / flops))
    gate = Gate(channel, [1] + [times] * repeats)
    for _ in range(gate.total):
        torch.mm(left, right, out=result)
        gate.add(flops=flops)
        gate.step()
