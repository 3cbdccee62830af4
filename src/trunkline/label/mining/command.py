"""`trunkline mine-pairs`: from anyone's own text to a source of pairs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from trunkline.errors import TrunklineError
from trunkline.label.mining.cleaning import Tally, clean
from trunkline.label.mining.consistency import Embed, filter_consistent
from trunkline.label.mining.methods import find_candidates
from trunkline.label.mining.options import MinePairsConfig
from trunkline.label.mining.output import Spool, card_path, nothing_kept, to_line, write_card, write_lines
from trunkline.text.examples import PairExample

_INCONSISTENT = "not consistent"
_EVERY = 50_000
"""Pairs between two lines of progress."""


def mine_pairs(
    config: MinePairsConfig,
    sources: Sequence[str | Path],
    out: Path,
    *,
    embed: Embed | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Mines pairs, filters them and writes `out` (JSON lines) with a card of the same name beside it.

    The output is a source of `trunkline prefinetune` as it is. Nothing is written unless all goes well.

    Args:
        config: Method and limits.
        sources: Files and folders.
        out: A `.jsonl` file; it is replaced.
        embed: An encoder for the consistency filter; without it there is none.
        say: Receives lines of progress.

    Returns:
        `out`, `card`, `method`, number of `candidates`, `dropped` by reason, `kept`, the report of the filter under
        `consistency` (None without one), and `seconds`.

    Raises:
        DataError: Sources that are missing or malformed, with file and line, or an output that cannot be written.
        TrunklineError: No source, or no pair is left.
    """
    began = time.perf_counter()
    if not sources:
        raise TrunklineError("no file to mine", expected="at least one file or folder")
    card = card_path(out)
    tally = Tally()
    pairs = clean(find_candidates(sources, config), config, tally)
    report: dict[str, Any] | None = None
    if embed is None:
        kept = _write(pairs, out, config, tally, say)
    else:
        kept, report = _filter_and_write(pairs, out, config, tally, embed, say)
    _write_card(out, config, sources, kept, report)
    return {
        "out": str(out),
        "card": str(card),
        "method": config.method,
        "candidates": tally.candidates,
        "dropped": dict(+tally.dropped),
        "kept": kept,
        "consistency": report,
        "seconds": round(time.perf_counter() - began, 3),
    }


def _is_grouped(config: MinePairsConfig) -> bool:
    return config.group_documents or config.group_column is not None


def _write(
    pairs: Iterable[PairExample], out: Path, config: MinePairsConfig, tally: Tally, say: Callable[[str], None]
) -> int:
    grouped, kept = _is_grouped(config), 0
    with write_lines(out) as write:
        for pair in pairs:
            write(to_line(pair, grouped))
            kept += 1
            if kept % _EVERY == 0:
                say(f"{kept} pairs of {tally.candidates} candidates")
        if not kept:
            raise nothing_kept(tally.candidates, dict(+tally.dropped))
    return kept


def _filter_and_write(
    pairs: Iterable[PairExample],
    out: Path,
    config: MinePairsConfig,
    tally: Tally,
    embed: Embed,
    say: Callable[[str], None],
) -> tuple[int, dict[str, Any]]:
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out.parent) as stream:
        spool = Spool(stream, _is_grouped(config))
        for pair in pairs:
            spool.append(pair)
        if not spool:
            raise nothing_kept(tally.candidates, dict(+tally.dropped))
        say(f"{len(spool)} pairs of {tally.candidates} candidates go to the consistency filter")

        said = 0

        def progress(done: int) -> None:
            nonlocal said
            if done - said >= _EVERY or done == len(spool):
                said = done
                say(f"{done} of {len(spool)} pairs ranked")

        kept, report = filter_consistent(
            spool, embed, top_k=config.top_k, pool=config.pool, seed=config.seed, progress=progress
        )
        tally.dropped[_INCONSISTENT] = len(spool) - len(kept)
        if not len(kept):
            raise nothing_kept(tally.candidates, dict(+tally.dropped))
        with write_lines(out) as write:
            for index in kept:
                write(spool.line(int(index)))
    return len(kept), report


def _write_card(
    out: Path, config: MinePairsConfig, sources: Sequence[str | Path], kept: int, report: dict[str, Any] | None
) -> None:
    names = [Path(source).name for source in sources]
    listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    settings = config.model_dump(mode="json", exclude_defaults=True, exclude={"licence", "method"})
    quirks = [
        f"Mined from {listed} by the method {config.method}"
        + (f" ({', '.join(f'{key} {value}' for key, value in settings.items())})." if settings else ".")
    ]
    if report is not None:
        quirks.append(
            f"Consistency filter: {report['kept']} of {report['pairs']} pairs have a partner that an encoder ranks in "
            f"the top {report['top_k']} among {report['pool']} texts."
        )
    write_card(
        out,
        title=f"Pairs mined from {listed}",
        licence=config.licence,
        quirks=quirks,
        grouped=_is_grouped(config),
        count=kept,
    )
