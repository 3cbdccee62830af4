"""The case in LiteRT, whose packages are in an environment of their own."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from contextlib import ExitStack

from trunkline.errors import TrunklineError
from trunkline_lab.litert.export import open_litert
from trunkline_lab.speed.deployment.options import Options
from trunkline_lab.speed.side_by_side import Missing


def litert(options: Options) -> Callable[[], float]:
    """Milliseconds of trunk and branch: as `best_round`, measured in the process that has LiteRT."""
    if not options.place("litert").is_dir():
        raise Missing("no LiteRT files were made (--litert-python)")
    stack = ExitStack()
    atexit.register(stack.close)
    try:
        process = stack.enter_context(open_litert(options.place("litert"), python=options.litert_python or None))
    except TrunklineError as error:
        raise Missing(str(error)) from error
    process.seconds(options.length, 20)
    return lambda: 1000 * sum(process.seconds(options.length, 50).values())
