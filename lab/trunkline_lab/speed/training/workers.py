"""One case, in the process that was started for it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import IO, Any

from trunkline_lab.speed.side_by_side import Missing
from trunkline_lab.speed.training.cases import Options
from trunkline_lab.speed.training.gate import open_channel


def kinds() -> dict[str, Callable[..., None]]:
    """The functions that run a case, by kind."""
    from trunkline_lab.speed.training import joint, pair_cases, token_cases

    return {
        "trainer": token_cases.trainer,
        "tagger": token_cases.tagger,
        "sentence_transformers": pair_cases.sentence_transformers,
        "text_pairs": pair_cases.text_pairs,
        "joint": joint.joint,
        "matmul": joint.matmul,
    }


def work(content: str) -> None:
    """Runs a case; `content` is a JSON list of the case and the options, see `cases.py`."""
    channel = open_channel()
    case, raw = json.loads(content)
    options = Options(**raw)
    import torch

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    try:
        _run(case, options, channel)
    except Missing as error:
        channel.write(json.dumps({"missing": str(error)}) + "\n")
        channel.flush()
        sys.exit(0)


def _run(case: dict[str, Any], options: Options, channel: IO[str]) -> None:
    settings = dict(case["settings"])
    if case["kind"] in ("text_pairs", "joint", "matmul"):
        settings["repeats"] = case["repeats"]
    kinds()[case["kind"]](options, channel, **settings)
