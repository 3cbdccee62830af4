"""Texts of many requests, computed together by a few threads.

Nothing waits for a batch to fill: a thread that is free takes what is there. So one text alone is computed at once,
and under load batches grow by themselves. ONNX Runtime lets other threads of Python run while it computes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from trunkline.errors import TrunklineError
from trunkline.model import Model

MOST_CHARACTERS = 4000
"""Of a batch of several texts, so that short ones do not wait for long ones."""


class Item(NamedTuple):
    """A text that waits, and where its predictions go."""

    model: Model
    text: str
    tasks: tuple[str, ...]
    answer: asyncio.Future[dict[str, Any]]


class Batches:
    """The queue and the threads; `observe` is told the number of texts of each batch, from the thread it ran on."""

    def __init__(self, batch: int, threads: int, observe: Callable[[int], None]) -> None:
        self.line: deque[Item] = deque()
        self.pool = ThreadPoolExecutor(threads)
        self._batch, self._observe, self._loop = batch, observe, asyncio.get_running_loop()

    def submit(self, model: Model, asked: Iterable[tuple[str, tuple[str, ...]]]) -> asyncio.Future[list[Any]]:
        """Puts texts with their tasks into the queue; the answer is their predictions."""
        items = [Item(model, *one, self._loop.create_future()) for one in asked]
        self.line.extend(items)
        for _ in items:
            # Those that come when others took all end at once.
            self.pool.submit(self._work)
        return asyncio.gather(*(item.answer for item in items))

    def _work(self) -> None:
        items: list[Item] = []
        characters = 0
        while self.line and len(items) < self._batch:
            try:
                item = self.line.popleft()
            except IndexError:
                break
            characters += len(item.text)
            if items and (item.model is not items[0].model or characters > MOST_CHARACTERS):
                self.line.appendleft(item)
                self.pool.submit(self._work)
                break
            # Nobody waits for requests that timed out.
            items += [] if item.answer.done() else [item]
        if items:
            self._observe(len(items))
            self._loop.call_soon_threadsafe(_deliver, items, compute(items))


def compute(items: Sequence[Item]) -> list[Any]:
    """A prediction, or the error, for each text: one that is refused spoils no other."""
    model = items[0].model
    try:
        if len({item.tasks for item in items}) == 1:
            return model.predict([item.text for item in items], items[0].tasks)
        found = iter(model.predict_mixed([(item.text, task) for item in items for task in item.tasks]))
        return [{task: next(found) for task in item.tasks} for item in items]
    except Exception as error:
        if len(items) > 1:
            return [compute([item])[0] for item in items]
        if not isinstance(error, TrunklineError):
            logging.getLogger(__name__).exception("a prediction failed")
        return [error]


def _deliver(items: Sequence[Item], found: Sequence[Any]) -> None:
    for item, prediction in zip(items, found, strict=True):
        if isinstance(prediction, Exception) and not item.answer.done():
            item.answer.set_exception(prediction)
        elif not item.answer.done():
            item.answer.set_result(prediction)
