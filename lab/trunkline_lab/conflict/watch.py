"""Measuring conflict beside training: a watcher for `trunkline.prefinetune.prefinetune`."""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch

from trunkline.prefinetune.run import Session
from trunkline_lab.conflict.measure import FILE, ConflictLog, measure_conflict, shared_parameters
from trunkline_lab.conflict.report import draw_batches


class ConflictWatch:
    """Compares the families' gradients every so many steps, on the same batches; writes `conflict.jsonl`.

    It measures nothing where there is one family, or a backbone that is not trained.

    Args:
        every: Steps from one measurement to the next; the start is measured, too.
        batches: How many batches of each family are compared.
    """

    def __init__(self, every: int, batches: int = 16) -> None:
        self.every, self.batches = every, batches
        self._log: ConflictLog | None = None
        self._compared: list[dict[str, Any]] = []

    def __call__(self, step: int, session: Session) -> None:
        """See `watch` of `prefinetune`."""
        if len(session.recipe.families) < 2 or not shared_parameters(session.model.encoder)[0]:
            return
        if self._log is None:
            self._log = ConflictLog(session.folder / FILE, step)
            with torch.random.fork_rng():
                drawn = draw_batches(session.recipe, session.sources, session.model, session.tokenizer)
                self._compared = list(islice(drawn, self.batches))
            if step:
                return  # of the run that goes on, this step is measured already
        if step % self.every == 0:
            measured = measure_conflict(session.model, self._compared, bf16=session.bf16, weights=session.weights)
            self._log.write(step, measured)
