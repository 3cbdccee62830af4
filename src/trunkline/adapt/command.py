"""`trunkline adapt`: from files to a task in a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trunkline.adapt.fit import TaskData, adapt
from trunkline.config import AdaptSection, BudgetSection
from trunkline.data.load import check_labels, load_examples
from trunkline.data.mixture import split_source
from trunkline.data.sample import draw
from trunkline.families import get_family
from trunkline.model.bundle_files import add_task, check_name, load_any, save_bundle

DEV_SHARE = 5
"""Without a dev part, one in this many training examples is set aside."""


def adapt_command(
    task: tuple[str, str],
    parts: Mapping[str, str | None],
    encoder: str,
    section: AdaptSection,
    budget: BudgetSection,
    *,
    seed: int = 0,
    out: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Reads a task, adapts it and puts it into a bundle.

    Args:
        task: Its name in the bundle and its family.
        parts: `train`, `dev`, `test`: what `load_examples` accepts, or None.
        encoder: What `load_any` accepts.
        section: Mode and settings.
        budget: How many training examples to use.
        seed: Draws them.
        out: The bundle; the encoder itself if that is a bundle, else `bundles/NAME`.
        say: Receives lines of progress.

    Returns:
        Scores, numbers of examples, the adapter's file and its size in bytes.
    """
    name, family = task
    check_name(name)
    chosen = get_family(family)
    train, dev, test = (load_examples(spec, family) if (spec := parts.get(k)) else [] for k in ("train", "dev", "test"))
    if not dev:
        rest, aside = split_source(len(train), max(1, len(train) // DEV_SHARE), None, seed, share=1 / DEV_SHARE)
        train, dev = [train[i] for i in rest], [train[i] for i in aside]
        say(f"no --dev: {len(dev)} of the training examples are set aside for it")
    check_labels(train, (), test)
    train = draw(train, chosen.classes, seed=seed, sentences=budget.sentences, per_class=budget.per_class)
    start = load_any(encoder, max_length=section.max_length)
    result = adapt(TaskData(name, family, train, dev, test), start, section, seed=seed, progress=say)
    is_bundle = (Path(encoder).expanduser() / "manifest.json").is_file()
    folder = out or (Path(encoder).expanduser() if is_bundle else Path("bundles") / name)
    if not (folder / "manifest.json").is_file():
        save_bundle(start, folder)
    path = add_task(folder, name, result.adapter)
    return {
        "task": name,
        "bundle": str(folder),
        "file": str(path),
        "bytes": path.stat().st_size,
        "examples": {"train": len(train), "dev": len(dev), "test": len(test)},
        "dev": result.dev,
        "test": result.test,
    }
