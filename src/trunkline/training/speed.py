"""Choosing precision and attention of a run by a short measurement on its device.

The choice is kept in the run's folder, and the main process makes it for all: a run that goes on, and each of its
processes, computes as the run began.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist

from trunkline.config import PrefinetuneRecipe
from trunkline.encoder.architectures import EncoderConfig
from trunkline.encoder.batch import TokenBatch
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.storage import read_json, write_json
from trunkline.errors import TrunklineError
from trunkline.text.packing import ROW_WIDTH
from trunkline.training.checkpoint import checkpoints
from trunkline.training.folders import write_errors
from trunkline.training.precision import resolve_precision

FILE = "speed.json"
MARGIN = 1.15
"""By what factor the fastest has to be faster than the usual choice: measurements on a busy machine are uncertain."""
ROUNDS = 6
LIMIT_S = 1.0
"""After two rounds no further one begins when so much time is gone."""
SMALLEST = 2**18
"""Weights of all feed-forward blocks below which calls and not arithmetic take the time, so nothing is measured."""
_SEGMENT = 32  # tokens of a text in the measured rows; masks are dense, so the time does not depend on it
_CPU_TOKENS, _MOST_TOKENS = 256, 16384


class Speed(NamedTuple):
    """What a run computes in: `precision` fp32 or bf16, `attention` sdpa or eager."""

    precision: str
    attention: str


CHOICES = tuple(Speed(precision, attention) for precision in ("fp32", "bf16") for attention in ("sdpa", "eager"))


def choose_speed(
    recipe: PrefinetuneRecipe, config: EncoderConfig, folder: Path, say: Callable[[str], None] = lambda text: None
) -> Speed:
    """Decides what a recipe leaves to `auto`: what a run computes in, and how it attends.

    Args:
        recipe: With `precision` and `attention`, each `auto` or chosen by hand.
        config: The encoder's sizes.
        folder: The run's; `speed.json` there holds the choice and the measurement behind it, and is read if it exists.
        say: Receives a line about the choice.

    Returns:
        The same in all processes.

    Raises:
        TrunklineError: `speed.json` is damaged or cannot be written.
    """
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    number = torch.zeros((), dtype=torch.long, device=state.device)
    if state.is_main_process:
        number += CHOICES.index(_decide(recipe, config, folder, state.device, say))
    if state.num_processes > 1:
        dist.broadcast(number, 0)
    return CHOICES[int(number)]


def usual_speed(recipe: PrefinetuneRecipe, device: torch.device | str | None = None) -> Speed:
    """What a recipe computes in without a measurement."""
    precision = resolve_precision(recipe.precision)
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Speed(precision, usual_attention(precision, where) if recipe.attention == "auto" else recipe.attention)


def attention_setting(speed: Speed, device: torch.device | str) -> str:
    """What `Encoder.attention` is to be in a run.

    It stays `auto` where this means the same in the run's precision: passes in another one, such as that which embeds
    the concepts, then attend as is best in theirs.
    """
    return "auto" if speed.attention == usual_attention(speed.precision, device) else speed.attention


def usual_attention(precision: str, device: torch.device | str) -> str:
    """What `auto` is for an encoder in a precision: in bf16 on CPUs the fused kernel's backward pass is slow."""
    return "eager" if precision == "bf16" and torch.device(device).type == "cpu" else "sdpa"


def _decide(
    recipe: PrefinetuneRecipe, config: EncoderConfig, folder: Path, device: torch.device, say: Callable[[str], None]
) -> Speed:
    path = folder / FILE
    if path.is_file():
        return _read(path)
    usual = usual_speed(recipe, device)
    possible = _possible(recipe, config)
    # A run that began without this file was not measured either.
    seconds: Mapping[Speed, float] = {}
    if len(possible) > 1 and not checkpoints(folder / "checkpoints"):
        seconds = measure_speed(config, _tokens(recipe, device), device, possible)
    chosen = fastest(seconds, usual)
    content = {
        **chosen._asdict(),
        "usual": " ".join(usual),
        "milliseconds": {" ".join(choice): round(1000 * value, 3) for choice, value in seconds.items()},
    }
    with write_errors(path, "nothing was trained yet"):
        write_json(content, path)
    if seconds:
        shown = ", ".join(f"{' '.join(choice)} {1000 * value:.1f} ms" for choice, value in seconds.items())
        say(f"computing in {chosen.precision} with {chosen.attention} attention; one layer took: {shown}")
    return chosen


def _possible(recipe: PrefinetuneRecipe, config: EncoderConfig) -> tuple[Speed, ...]:
    """What may be chosen; nothing where a measurement could not say more than the rule."""
    if (
        config.n_layers * config.hidden_size * config.intermediate_size < SMALLEST
        or resolve_precision("auto") != "bf16"
    ):
        return ()
    return tuple(
        choice
        for choice in CHOICES
        if recipe.precision in ("auto", choice[0]) and recipe.attention in ("auto", choice[1])
    )


def _tokens(recipe: PrefinetuneRecipe, device: torch.device) -> int:
    """Tokens of one pass of the run, as far as measuring so many is quick."""
    largest = max(section.chunk_tokens or section.tokens for section in recipe.families.values())
    return min(largest, _CPU_TOKENS if device.type == "cpu" else _MOST_TOKENS)


def fastest(seconds: Mapping[Speed, float], usual: Speed) -> Speed:
    """The fastest choice if it is clearly faster than the usual one, and else that."""
    if usual not in seconds:
        return usual
    best = min(seconds, key=lambda choice: seconds[choice])
    return best if seconds[usual] > MARGIN * seconds[best] else usual


def measure_speed(
    config: EncoderConfig, tokens: int, device: torch.device, choices: tuple[Speed, ...] = CHOICES
) -> dict[Speed, float]:
    """Times a forward and backward pass of packed rows through one layer of an encoder of these sizes.

    One layer is enough, because all layers are alike. It is made for this, so nothing that is trained is touched, and
    the states of all random generators stay as they are.

    Args:
        config: The encoder's sizes.
        tokens: About how many to pass.
        device: Where to measure.
        choices: What to compare.

    Returns:
        Seconds of each, the least of several rounds in turn: other work on the machine only ever adds. On a CPU these
        are seconds of CPU time in one thread, as threads that wait for each other on busy cores measure the waiting.
    """
    sizes = replace(config, n_layers=1, vocab_size=min(config.vocab_size, 1024))
    with torch.random.fork_rng([torch.cuda.current_device()] if device.type == "cuda" else []):
        encoder = Encoder(sizes).to(device)
    batch = _rows(sizes, tokens, device)
    found = dict.fromkeys(choices, float("inf"))
    began = time.perf_counter()
    with _one_thread() if device.type == "cpu" else nullcontext():
        for choice in choices:
            _seconds(encoder, batch, choice)  # the first pass sets kernels up
        for number in range(ROUNDS):
            if number >= 2 and time.perf_counter() - began > LIMIT_S:
                break
            for choice in choices:
                found[choice] = min(found[choice], _seconds(encoder, batch, choice))
    return found


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _rows(config: EncoderConfig, tokens: int, device: torch.device) -> TokenBatch:
    """Full packed rows of short texts."""
    column = torch.arange(ROW_WIDTH, device=device)
    shape = (max(1, tokens // ROW_WIDTH), ROW_WIDTH)
    length = min(_SEGMENT, config.max_length)
    none = torch.zeros(0, dtype=torch.long, device=device)
    return TokenBatch(
        input_ids=(column % config.vocab_size).expand(shape),
        positions=(column % length).expand(shape),
        segments=(column // length).expand(shape),
        unit_tokens=none,
        unit_ids=none,
        n_units=0,
    )


def _seconds(encoder: Encoder, batch: TokenBatch, choice: Speed) -> float:
    device = batch.input_ids.device
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    precision, encoder.attention = choice
    _wait(device)
    began = clock()
    with torch.enable_grad():
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            hidden = encoder(batch)
        hidden.float().square().mean().backward()
    _wait(device)
    seconds = clock() - began
    encoder.zero_grad(set_to_none=True)
    return seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _read(path: Path) -> Speed:
    content = read_json(path)
    found = [choice for choice in CHOICES if isinstance(content, dict) and choice._asdict().items() <= content.items()]
    if not found:
        raise TrunklineError(
            f"{path} does not say what the run computes in",
            expected=f"precision and attention, one of {', '.join(map(' '.join, CHOICES))}",
            todo="Bring the file back as the run wrote it, or start anew in another folder",
        )
    return found[0]
