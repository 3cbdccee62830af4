"""Speed and memory of training beside peers, as ratios, on the same encoder, texts and threads.

    trunkline-lab speed training --out lab/results/training-speed

Sections: `tokens` (the Trainer of transformers), `pairs` (sentence-transformers), `joint` (task-primary against naive
training, and the share of the machine's bf16 matrix peak), `gradcache`. Peers are in the extra `peers`; a case whose
peer is missing is left out and named. Without the data sets of the cards the shipped sample is used. With fewer
`--steps` than 32 everything gets smaller: to see that it runs, not to measure. Run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from functools import partial
from typing import Any

import torch

from trunkline.versions import versions
from trunkline_lab.data.cards import load_card
from trunkline_lab.speed.side_by_side import Part, Worker, parser_of, run_sections, say, take_turns, work
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
    known = tuple(parts(Options()))
    given = parser_of(__doc__ or "", "lab/results/training-speed", known, Options).parse_args(arguments)
    options = options_of(given)
    sections = parts(options)

    def shown(content: dict[str, Any]) -> str:
        # The names of cases say their sizes, so a section that was run in another size is shown by its own options.
        found = {key: parts(Options(**part["options"]))[key] for key, part in content["parts"].items()}
        return page(content, {key: found[key] for key in known if key in found})

    run_sections(given.sections, given.out, lambda name: measure(sections[name], options), shown, versions())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], Options, run_case)
    else:
        main()
