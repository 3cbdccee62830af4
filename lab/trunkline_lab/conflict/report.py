"""What the measurements of `conflict` say: several runs side by side over time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch

from trunkline.config import PrefinetuneRecipe
from trunkline.errors import DataError
from trunkline.prefinetune.model import Mixture, PrefinetuneModel, Source, StepBatch, draw_batch
from trunkline.prefinetune.run import Session
from trunkline.text.tokens import TextTokenizer
from trunkline.training import read_rows
from trunkline.training.loop import Place
from trunkline_lab.conflict.measure import (
    FILE,
    WHOLE,
    ConflictLog,
    as_in_training,
    measure_conflict,
    shared_parameters,
    without_noise,
)

_KEYS = (
    *("step", "adapters", "families", "group", "batches", "cosine", "cosine_se", "conflict", "norm_ratio"),
    *("log_ratio_se", "within", "within_se"),
)
_OTHER_SEED = 7919
"""Added to the recipe's seed, so that the batches are not those of the first steps of the run."""

Line = tuple[str, bool, tuple[str, ...]]
"""What is drawn as one line: a run, with or without its adapters, and a pair of families."""


def draw_batches(
    recipe: PrefinetuneRecipe,
    sources: Mapping[str, Sequence[Source]],
    model: PrefinetuneModel,
    tokenizer: TextTokenizer,
) -> Iterator[dict[str, StepBatch]]:
    """Draws one batch of each family again and again: the same ones each time this is called.

    Args:
        recipe: Token budgets, seed and how sources are drawn.
        sources: The families' sources; how far training has walked through them is not touched.
        model: Its objectives make the targets; the batches lie on its device.
        tokenizer: Of the model's encoder.
    """
    device = next(model.encoder.parameters()).device
    seed = recipe.seed + _OTHER_SEED
    mixtures = {
        family: Mixture(sources[family], seed, one_source_a_step=section.one_source_a_step)
        for family, section in recipe.families.items()
    }
    for step in count():
        batch: dict[str, StepBatch] = {}
        # Some objectives choose other negatives in training.
        with as_in_training(model, model.objectives):
            for family, section in recipe.families.items():
                batch[family] = draw_batch(
                    mixtures[family],
                    model.objectives[family],
                    tokenizer,
                    step=step,
                    section=section,
                    pad_id=model.encoder.config.pad_id,
                    place=Place(device),
                )
        yield batch


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


def summarise_conflict(folders: Mapping[str, Path]) -> dict[str, Any]:
    """Averages the measurements of runs over time and compares the runs.

    A mean over time leaves step 0 out where there are later ones, as there the objectives are random and the adapters
    zero. All steps see the same batches, so its error is the mean error of a step: more steps do not make it smaller.

    Args:
        folders: Folder of each run by the name that it goes by; the first one is the baseline of comparisons.

    Returns:
        Plain data. `lines`: one for each run, setting of adapters and pair of families, with `label`, `run`,
        `adapters`, `families`, `steps`, `groups` (means over time by group; `margin` and `ratio_margin` are half the
        width of 95 % intervals of `cosine` and of the logarithm of `norm_ratio`) and `over_time`; and `findings`, which
        are sentences.

    Raises:
        DataError: A folder without measurements, or rows of another form.
    """
    lines: dict[Line, list[dict[str, Any]]] = {}
    for name, folder in folders.items():
        for row in _read(folder / FILE):
            lines.setdefault((name, row["adapters"], tuple(row["families"])), []).append(row)
    with_adapters = {name for name, adapters, _ in lines if adapters}
    result: list[dict[str, Any]] = []
    for (name, adapters, families), rows in lines.items():
        steps = sorted({row["step"] for row in rows})
        late = [step for step in steps if step > 0] or steps
        groups = dict.fromkeys(row["group"] for row in rows)
        result.append(
            {
                "label": name if adapters or name not in with_adapters else f"{name}, adapters out",
                "run": name,
                "adapters": adapters,
                "families": list(families),
                "steps": steps,
                "groups": {g: _average([r for r in rows if r["group"] == g and r["step"] in late]) for g in groups},
                "over_time": [_moment(step, [row for row in rows if row["step"] == step]) for step in steps],
            }
        )
    order = list(folders)
    result.sort(key=lambda line: (order.index(line["run"]), not line["adapters"]))
    return {"lines": result, "findings": _findings(result)}


def levels(groups: Iterable[str]) -> list[str]:
    """The groups that are one above the other in the encoder: embeddings and whole layers, from the input up."""
    found = [group for group in groups if group != WHOLE and "/" not in group]
    return sorted(found, key=lambda group: -1 if group == "embeddings" else int(group.partition("-")[2]))


def _read(path: Path) -> list[dict[str, Any]]:
    rows = read_rows(path)
    if not rows:
        raise DataError(
            "no measurement of conflict" if path.is_file() else "no such file",
            path=path,
            expected="what a run of several families writes while it measures conflict",
            todo="Name a run's folder whose recipe switches the conflict report on",
        )
    for number, row in enumerate(rows, 1):
        if missing := [key for key in _KEYS if key not in row]:
            raise DataError(f"row without {', '.join(missing)}", path=path, line=number, expected="rows of our own")
    return rows


def _average(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over steps; what is corrected for noise is so after averaging, as a quotient of small numbers leaps."""
    from scipy.stats import t

    plain = ("cosine", "cosine_se", "conflict", "log_ratio_se")
    result: dict[str, Any] = {key: _mean(row[key] for row in rows) for key in plain}
    ratio = _mean(row["norm_ratio"] and math.log(row["norm_ratio"]) for row in rows)
    families = rows[0]["families"]
    batches = min(row["batches"] for row in rows)
    result |= {
        "families": families,
        "batches": batches,
        "norm_ratio": None if ratio is None else math.exp(ratio),
        "within": {family: _mean(row["within"][family] for row in rows) for family in families},
        "within_se": {family: _mean(row["within_se"][family] for row in rows) for family in families},
    }
    factor = float(t.ppf(0.975, batches - 1)) if batches > 1 else None
    for margin, error in (("margin", "cosine_se"), ("ratio_margin", "log_ratio_se")):
        result[margin] = None if factor is None or result[error] is None else factor * result[error]
    result["corrected"], result["corrected_se"] = without_noise(result)
    return result


def _moment(step: int, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One step of a run: conflict over all levels together, and the whole backbone's measures."""
    by_group = {row["group"]: row for row in rows}
    whole = by_group.get(WHOLE, {})
    return {
        "step": step,
        "conflict": _mean(by_group[group]["conflict"] for group in levels(by_group)),
        "conflict_whole": whole.get("conflict"),
        "cosine_whole": whole.get("cosine"),
        "norm_ratio_whole": whole.get("norm_ratio"),
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _findings(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where the families collide, and what changes between lines, as far as 95 % intervals tell."""
    found = [_where(line) for line in lines]
    for number, line in enumerate(lines):
        earlier = [other for other in lines[:number] if other["families"] == line["families"]]
        bases = earlier[:1] + [other for other in earlier[1:] if other["run"] == line["run"]]
        found += [_change(line, base) for base in bases]
    return found


def _where(line: Mapping[str, Any]) -> str:
    sure = {
        group: row["cosine"]
        for group, row in line["groups"].items()
        if group in levels(line["groups"]) and row["margin"] is not None and abs(row["cosine"]) > row["margin"]
    }
    against = [f"{group} ({value:+.3f})" for group, value in sure.items() if value < 0]
    along = [f"{group} ({value:+.3f})" for group, value in sure.items() if value > 0]
    names = " and ".join(line["families"])
    return (
        f"{line['label']}: {names} collide in {', '.join(against) or 'no layer'}; they agree in "
        f"{', '.join(along) or 'no layer'}; elsewhere their cosine cannot be told from 0"
    )


def _change(line: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    moved: dict[bool, list[str]] = {True: [], False: []}
    for group in levels(line["groups"]):
        ours, theirs = line["groups"][group], base["groups"].get(group, {})
        values = [ours["cosine"], theirs.get("cosine"), ours["margin"], theirs.get("margin")]
        if None not in values and abs(values[0] - values[1]) > math.hypot(values[2], values[3]):
            moved[values[0] > values[1]].append(f"{group} ({values[0] - values[1]:+.3f})")
    names = " and ".join(line["families"])
    return (
        f"{line['label']} against {base['label']}: the cosine of {names} rises in "
        f"{', '.join(moved[True]) or 'no layer'} and falls in {', '.join(moved[False]) or 'no layer'}"
    )
