"""GradCache: the exact gradient of a loss over a large batch, with the graph of one chunk in memory at a time.

Gao, Zhang, Han, Callan 2021: "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", arXiv
2101.06983, section 3.2. It costs one more forward pass of the encoder without a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from trunkline.errors import TrainingError

Chunk = TypeVar("Chunk")

REPEAT_TOLERANCE = 1e-2
"""Greatest relative difference of a chunk's two encodings: kernels may round otherwise, other dropout masks differ."""


def cached_losses(
    chunks: Sequence[Chunk],
    encode: Callable[[Chunk], Tensor],
    loss: Callable[[Tensor], Tensor],
    own: Iterable[Tensor] = (),
) -> Iterator[Tensor]:
    """Yields the loss of a batch as one scalar for each chunk, to be back-propagated one after the other.

    Every chunk is encoded without a graph, the gradient of the loss is taken with respect to the embeddings, and each
    chunk is encoded once more, with a graph and the same random numbers, for its share of the gradient. When all
    shares, each times the same factor, have been back-propagated, every parameter has got the gradient of that factor
    times the loss; the values of the shares add up to the loss.

    Args:
        chunks: The parts of a batch, in the order of their units.
        encode: A chunk's embeddings, [units, width]. It is called twice for each chunk and enters autocast itself, so
            that no weight cast in the pass without a graph is left over for the pass with one.
        loss: A scalar from the embeddings of all chunks, [units of the batch, width]; called once.
        own: Parameters that the loss may use besides the embeddings; they get their gradient with the first share.

    Raises:
        TrainingError: There are no chunks, or the second encoding of a chunk is not the first.
    """
    if not chunks:
        raise TrainingError("a batch without chunks", expected="at least one")
    states: list[list[Tensor]] = []
    parts: list[Tensor] = []
    with torch.no_grad():
        for chunk in chunks:
            states.append(_random_state())
            parts.append(encode(chunk).detach())
    sizes = [len(part) for part in parts]
    embeddings = torch.cat(parts).requires_grad_()
    del parts
    with torch.enable_grad():
        value = loss(embeddings)
    parameters = [parameter for parameter in own if parameter.requires_grad]
    inputs = [embeddings, *parameters]
    found = torch.autograd.grad(value, inputs, allow_unused=True) if value.requires_grad else [None] * len(inputs)
    gradient = torch.zeros_like(embeddings) if found[0] is None else found[0]
    share = value.detach() / len(chunks)
    before = embeddings.detach().split(sizes)
    for number, (chunk, wanted) in enumerate(zip(chunks, gradient.split(sizes), strict=True)):
        again = _encode_again(encode, chunk, states[number])
        _check_repeated(before[number], again)
        surrogate = (again * wanted).sum()
        if number == 0:
            pairs = zip(parameters, found[1:], strict=True)
            surrogate = surrogate + sum((parameter * part).sum() for parameter, part in pairs if part is not None)
        del again
        # Only the gradient of the surrogate means something; its value is replaced by a share of the loss.
        yield surrogate - surrogate.detach() + share


def chunk_slices(sizes: Sequence[int], budget: int) -> list[slice]:
    """Cuts texts of these sizes into runs of neighbours of at most `budget` tokens, at least one text each."""
    slices: list[slice] = []
    first, total = 0, 0
    for number, size in enumerate(sizes):
        if number > first and total + size > budget:
            slices.append(slice(first, number))
            first, total = number, 0
        total += size
    return [*slices, slice(first, len(sizes))] if len(sizes) else []


def _random_state() -> list[Tensor]:
    """The state of the generators that dropout draws from: the CPU's and, where there is one, the current GPU's."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])]


def _encode_again(encode: Callable[[Chunk], Tensor], chunk: Chunk, state: list[Tensor]) -> Tensor:
    """Encodes with a graph and with earlier random numbers; the generators go on from where they were."""
    devices = [torch.cuda.current_device()] if len(state) > 1 else []
    with torch.random.fork_rng(devices), torch.enable_grad():
        torch.set_rng_state(state[0])
        if devices:
            torch.cuda.set_rng_state(state[1])
        return encode(chunk)


def _check_repeated(before: Tensor, again: Tensor) -> None:
    difference = float((again.detach() - before).norm())
    # A difference that is not a number comes from embeddings that are not finite, which the loss shows.
    if difference > REPEAT_TOLERANCE * float(before.norm()):
        raise TrainingError(
            f"a chunk's second encoding differs from its first by {difference:.3g}",
            expected="the same embeddings twice, else the gradient is wrong",
            todo="Let the encoder draw random numbers from torch's generators only, or leave out chunk_tokens",
        )
