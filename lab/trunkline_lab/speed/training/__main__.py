"""Speed and memory of training beside peers, as ratios, on the same encoder, texts and threads.

    trunkline-lab speed training --out lab/results/training-speed

Sections: `tokens` (the Trainer of transformers), `pairs` (sentence-transformers), `joint` (task-primary against naive
training, and the share of the machine's bf16 matrix peak), `gradcache`. Peers are in the extra `peers`; a case whose
peer is missing is left out and named. Without the data sets of the cards the shipped sample is used. With fewer
`--steps` than 32 everything gets smaller: to see that it runs, not to measure. Run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch

from trunkline.bundle.files import write_atomic
from trunkline.versions import git_state, hardware, versions
from trunkline_lab.data.cards import load_card
from trunkline_lab.speed.side_by_side import Part, Worker, add_options, say, take_turns, timed, work
from trunkline_lab.speed.training import joint, pair_cases, token_cases
from trunkline_lab.speed.training.cases import Options, parts
from trunkline_lab.speed.training.report import page, ratios, summarise

Kind = Callable[..., None]
SAMPLES = {"sentences": "sample_events", "pairs": "sample_pairs"}
REPEATED: dict[str, Kind] = {"text_pairs": pair_cases.text_pairs, "joint": joint.joint, "matmul": joint.matmul}
"""Cases that are told how often they are measured; the others' work is sized by the options."""
OTHERS: dict[str, Kind] = {
    "trainer": token_cases.trainer,
    "tagger": token_cases.tagger,
    "sentence_transformers": pair_cases.sentence_transformers,
}


def options_of(arguments: argparse.Namespace) -> Options:
    """The options; a card without its data here is replaced by the shipped sample."""
    given = {field.name: getattr(arguments, field.name) for field in fields(Options)}
    for name, sample in SAMPLES.items():
        if "train" not in load_card(given[name]).splits_here():
            say(f"the data of {given[name]} are not here, {sample} is taken (TRUNKLINE_DATA names their folder)")
            given[name] = sample
    return Options(**given)


def measure(part: Part, options: Options) -> dict[str, Any]:
    """A section's results, their summary and ratios."""
    results = take_turns([partial(Worker, __package__ or "", case, options, {}) for case in part.cases], say)
    return {
        "threads": options.threads or torch.get_num_threads(),
        "options": asdict(options),
        "cases": results,
        "summary": summarise(results),
        "ratios": ratios(part.ratios, results),
    }


def run_case(case: dict[str, Any], options: Options, channel: Any) -> None:
    """Runs a case in its process."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    settings, kind = case["settings"], case["kind"]
    if kind in REPEATED:
        REPEATED[kind](options, channel, **{**settings, "repeats": case["repeats"]})
    else:
        OTHERS[kind](options, channel, **settings)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs sections and writes results.json and table.md; sections that are not run stay as they are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("lab/results/training-speed"))
    known = tuple(parts(Options()))
    parser.add_argument("--sections", nargs="+", choices=known, default=list(known))
    add_options(parser, Options)
    given = parser.parse_args(arguments)
    options = options_of(given)
    sections = parts(options)
    path = given.out / "results.json"
    content: dict[str, Any] = {"parts": json.loads(path.read_text("utf-8"))["parts"] if path.is_file() else {}}
    content |= {"machine": hardware(), "versions": versions(), "git": git_state()}
    for name in given.sections:
        say(f"{name}: {', '.join(case.name for case in sections[name].cases)}")
        content["parts"][name] = timed(partial(measure, sections[name], options))
        write_atomic(path, json.dumps(content, indent=2) + "\n")
        # The names of cases say their sizes, so a section that was run in another size is shown by its own options.
        shown = {key: parts(Options(**found["options"]))[key] for key, found in content["parts"].items()}
        write_atomic(given.out / "table.md", page(content, {key: shown[key] for key in known if key in shown}))
    say((given.out / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], Options, run_case)
    else:
        main()
