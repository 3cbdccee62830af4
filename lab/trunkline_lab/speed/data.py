"""How fast batches are made, beside training on this machine and the default collation of sentence-transformers.

    trunkline-lab speed data --out lab/results/data-speed/results.json

Needs sentence-transformers (extra `peers`) for the comparison and uses the shipped sample. All rates are tokens,
padding not counted, per second of CPU time of the process, in one thread.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch
import typer

from trunkline.bundle.files import write_atomic
from trunkline.config import FamilyName, PrefinetuneRecipe, parse_recipe
from trunkline.encoder.bundle_files import load_any
from trunkline.prefinetune.model import Mixture, StepBatch, draw_batch
from trunkline.prefinetune.objectives import make_objective
from trunkline.prefinetune.run import Session
from trunkline.prefinetune.sources import recipe_sources
from trunkline.training import Report
from trunkline.training.loop import Place
from trunkline.versions import versions
from trunkline_lab.data.finder import CardFinder

RECIPE = {
    "name": "data-speed",
    "max_length": 128,
    "families": {"ner": {"sources": {"sample_sentences": {}}}, "classification": {"sources": {"sample_pairs": {}}}},
    "monitor": {"every": 0},
}


def timed(make: Callable[[int], int], rounds: int, steps: int) -> list[float]:
    """Tokens per CPU second of each round."""
    rates = []
    for number in range(rounds):
        begin = time.process_time()
        tokens = sum(make(number * steps + step) for step in range(steps))
        rates.append(tokens / (time.process_time() - begin))
    return rates


def ours(
    family: str, recipe: PrefinetuneRecipe, tokenizer: Any, sources: list[Any], *, targets: bool = True
) -> Callable[[int], StepBatch]:
    """Draws, reads, tokenises or looks up, packs and makes the targets of a step (which collation does not)."""
    start = load_any("default", max_length=recipe.max_length)
    section = recipe.families[cast(FamilyName, family)]
    objective: Any = make_objective(family, section, sources, start, 0)
    if not targets:
        objective.targets = lambda drawn, step: torch.zeros(0)
    mixture = Mixture(sources, 0)

    def make(step: int) -> StepBatch:
        return draw_batch(mixture, objective, tokenizer, step=step, section=section, pad_id=0, place=Place())

    return make


def collation(batches: list[list[dict[str, str]]]) -> Callable[[int], int] | None:
    """The default collator of sentence-transformers over lists of rows of texts; none where it is not installed."""
    try:
        from sentence_transformers import SentenceTransformer, models
        from sentence_transformers.data_collator import SentenceTransformerDataCollator
    except ImportError:
        return None
    from trunkline.encoder.resolve import resolve

    transformer = models.Transformer(str(resolve("default").folder), max_seq_length=128)
    model = SentenceTransformer(modules=[transformer, models.Pooling(384)], device="cpu")
    preprocess = getattr(model, "preprocess", None) or model.tokenize
    names = {field.name for field in dataclasses.fields(SentenceTransformerDataCollator)}
    collator = SentenceTransformerDataCollator(
        **{("preprocess_fn" if "preprocess_fn" in names else "tokenize_fn"): preprocess}
    )

    def make(step: int) -> int:
        batch = collator(batches[step % len(batches)])
        return int(sum(value.sum() for name, value in batch.items() if name.endswith("attention_mask")))

    return make


def measure(rounds: int, steps: int, folder: Path) -> dict[str, Any]:
    """All rates."""
    torch.set_num_threads(1)
    recipe = parse_recipe(RECIPE, PrefinetuneRecipe, "benchmark")
    start = load_any("default", max_length=recipe.max_length)
    sources = recipe_sources(recipe, start.tokenizer, finder=CardFinder())
    rates: dict[str, list[float]] = {}
    padding: dict[str, float] = {}
    for family, group in sources.items():
        plain = [dataclasses.replace(source, units=None) for source in group]
        unlabelled = ours(family, recipe, start.tokenizer, group, targets=False)
        rates[f"{family}, cached, without targets"] = timed(
            lambda step: unlabelled(step).n_tokens,  # noqa: B023
            rounds,
            steps,
        )
        for name, chosen in (("tokenised in the step", plain), ("cached", group)):
            make = ours(family, recipe, start.tokenizer, chosen)
            rates[f"{family}, {name}"] = timed(lambda step: make(step).n_tokens, rounds, steps)  # noqa: B023
        batches = [chunk for step in range(steps) for chunk in make(step).chunks]
        padding[family] = 1 - sum(b.n_tokens for b in batches) / sum(b.input_ids.numel() for b in batches)
        drawn = [make(step).drawn for step in range(steps)]
        texts = [[_texts(group[source].train[index]) for source, index in step] for step in drawn]
        other = collation(texts)
        if other is not None:
            rates[f"{family}, sentence-transformers"] = timed(other, rounds, steps)
    session = Session(recipe, start, sources, folder, Report())
    rates["training"] = timed(lambda step: _train(session, step), 3, 6)
    middle = {name: statistics.median(values) for name, values in rates.items()}
    ratios = {
        f"{family}, {kind} / {other}": middle[f"{family}, {kind}"] / middle[name]
        for family in sources
        for kind in ("cached", "cached, without targets")
        for other, name in (("training", "training"), ("sentence-transformers", f"{family}, sentence-transformers"))
        if name in middle
    }
    return {
        "unit": "tokens per CPU second, one thread",
        "rates": rates,
        "median": middle,
        "ratios": ratios,
        "padding": padding,
        "versions": versions(),
    }


def _texts(example: Any) -> dict[str, str]:
    return {"left": example.left, "right": example.right} if hasattr(example, "left") else {"text": example.text}


def _train(session: Session, step: int) -> int:
    before = session.tokens_seen
    for _, weight, loss in session.losses(step):
        (weight * loss).backward()
    session.optimizer.step()
    session.optimizer.zero_grad()
    return session.tokens_seen - before


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("lab/results/data-speed/results.json"))
    options = parser.parse_args(arguments)
    result = measure(options.rounds, options.steps, options.out.parent)
    write_atomic(options.out, json.dumps(result, indent=2) + "\n")
    for name, value in {**result["ratios"], **{f"padding, {k}": v for k, v in result["padding"].items()}}.items():
        typer.echo(f"{name}: {value:.3g}")


if __name__ == "__main__":
    main()
