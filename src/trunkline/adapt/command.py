"""`trunkline adapt`: from files to a task in a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trunkline.adapt.fit import TaskData, adapt
from trunkline.config import AdaptSection, BudgetSection
from trunkline.data.load import check_labels, load_examples
from trunkline.encoder.bundle_files import Loaded, add_task, check_name, load_any, save_bundle
from trunkline.prefinetune.mixture import split_source
from trunkline.tasks import get_family
from trunkline_lab.data.sample import draw

DEV_SHARE = 5
"""Without a dev part, one in this many training examples is set aside."""


@dataclass(frozen=True, slots=True)
class AdaptOrder:
    """What `trunkline adapt` is asked for.

    Attributes:
        name: The task's name in the bundle.
        family: Its family.
        parts: `train`, `dev`, `test`: what `load_examples` accepts, or None.
        encoder: What `load_any` accepts.
        out: The bundle; the encoder itself if that is a bundle, else `bundles/NAME`.
        seed: Draws the training examples.
        rounded: Makes the encoder that the task is fitted on of the one that is loaded, where that is to be rounded as
            a device will have it; the bundle keeps the one that is loaded.
    """

    name: str
    family: str
    parts: Mapping[str, str | None]
    encoder: str
    out: Path | None = None
    seed: int = 0
    rounded: Callable[[Loaded], Loaded] | None = None


def adapt_command(
    order: AdaptOrder, section: AdaptSection, budget: BudgetSection, *, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Reads a task, adapts it and puts it into a bundle.

    Args:
        order: The task, the encoder and the bundle.
        section: Mode and settings.
        budget: How many training examples to use.
        say: Receives lines of progress.

    Returns:
        Scores, numbers of examples, the adapter's file and its size in bytes; with a rounded encoder also the scores
        of the same task fitted on the encoder as it is.
    """
    check_name(order.name)
    task = _task(order, budget, say)
    start = load_any(order.encoder, max_length=section.max_length)
    result = adapt(task, start, section, seed=order.seed, progress=say)
    exact = {}
    if order.rounded is not None:
        exact = {"float32": {"dev": result.dev, "test": result.test}}
        say("again on the rounded encoder")
        result = adapt(task, order.rounded(start), section, seed=order.seed, progress=say)
    is_bundle = (Path(order.encoder).expanduser() / "manifest.json").is_file()
    folder = order.out or (Path(order.encoder).expanduser() if is_bundle else Path("bundles") / order.name)
    if not (folder / "manifest.json").is_file():
        save_bundle(start, folder)
    path = add_task(folder, order.name, result.adapter)
    return {
        "task": order.name,
        "bundle": str(folder),
        "file": str(path),
        "bytes": path.stat().st_size,
        "examples": {"train": len(task.train), "dev": len(task.dev), "test": len(task.test)},
        "dev": result.dev,
        "test": result.test,
        **exact,
    }


def _task(order: AdaptOrder, budget: BudgetSection, say: Callable[[str], None]) -> TaskData:
    family = get_family(order.family)
    specs = [order.parts.get(part) for part in ("train", "dev", "test")]
    train, dev, test = (load_examples(spec, order.family) if spec else [] for spec in specs)
    if not dev:
        size = max(1, len(train) // DEV_SHARE)
        rest, aside = split_source(len(train), size, None, order.seed, share=1 / DEV_SHARE)
        train, dev = [train[i] for i in rest], [train[i] for i in aside]
        say(f"no --dev: {len(dev)} of the training examples are set aside for it")
    check_labels(train, (), test)
    train = draw(train, family.classes, seed=order.seed, sentences=budget.sentences, per_class=budget.per_class)
    return TaskData(order.name, order.family, train, dev, test)
