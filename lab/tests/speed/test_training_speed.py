"""The benchmark of training speed: its counting and its arithmetic, and that every case of it runs."""

import io
import json
import os
import re
import subprocess
import sys
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import tiny_models
from trunkline.encoder.resolve import resolve
from trunkline.errors import EncoderError
from trunkline_lab.speed import gate as gates
from trunkline_lab.speed.side_by_side import Ratio
from trunkline_lab.speed.training.cases import Options, parts
from trunkline_lab.speed.training.common import cut, cut_by_tokens, step_flops
from trunkline_lab.speed.training.report import measures, page, ratios, summarise


@pytest.mark.parametrize("kind", ["bert", "electra"])
@pytest.mark.parametrize("adapted", [False, True])
def test_operations_counted_from_shapes_are_those_that_torch_counts(kind, adapted, tiny_folder):
    from trunkline.encoder.bundle_files import load_any

    start = load_any(str(tiny_folder(kind)), fork=1, max_length=64)
    encoder = start.encoder.train()
    encoder.attention = "eager"
    targets = ("query", "up", "down")
    adapter = tiny_models.random_adapter(encoder.config, [1, 2], targets=targets) if adapted else None
    batch = tiny_models.token_batch(start.tokenizer, tiny_models.SENTENCES * 3, encoder.config.pad_id)
    with FlopCounterMode(display=False) as counter:
        encoder(batch, adapter).sum().backward()
    flops = step_flops(encoder, adapter, batch)
    assert flops.done == counter.get_total_flops()
    assert flops.real < flops.done
    alone = tiny_models.token_batch(start.tokenizer, tiny_models.SENTENCES[:1], encoder.config.pad_id)
    assert len(set(step_flops(encoder, adapter, alone))) == 1, "one text without padding: all of it is real"


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=30),
    st.lists(st.integers(1, 60), min_size=1, max_size=4),
    st.integers(8, 200),
)
def test_every_way_to_cut_batches_has_the_same_examples_in_the_same_order(sizes, plan, budget):
    by_count, by_tokens = cut(plan, len(sizes), 8), cut_by_tokens(plan, sizes, budget)
    for count, left, right in zip(plan, by_count, by_tokens, strict=True):
        examples = [list(chain.from_iterable(batches)) for batches in (left, right)]
        assert examples[0] == examples[1] and len(examples[0]) == count
        assert all(len(batch) == 8 for batch in left[:-1]) and all(right)


def test_a_gate_counts_each_repeat_alone(monkeypatch):
    channel = io.StringIO()
    monkeypatch.setattr(sys, "stdin", io.StringIO("go\ngo\n"))
    gate = gates.Gate(channel, [1, 2, 1])
    for tokens in (100, 5, 6, 7):
        gate.add(tokens=tokens)
        gate.step()
    messages = [json.loads(line) for line in channel.getvalue().splitlines()]
    assert [message.get("tokens") for message in messages] == [None, 11, 7, None]
    assert messages[0]["ready"] > 0 and messages[-1]["peak"] >= messages[0]["ready"]
    assert all(message["seconds"] > 0 for message in messages[1:3])


def test_a_worker_that_is_told_nothing_more_ends(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(SystemExit) as ended:
        gates.Gate(io.StringIO(), [1, 1]).step()
    assert ended.value.code == 0


def result(seconds, peak=1000, **counts):
    return {
        "says": "does it",
        "repeats": [{"seconds": s, "cpu_seconds": 2 * s, **counts} for s in seconds],
        "ready": 500,
        "peak": peak,
    }


def test_ratios_are_paired_by_repeat_and_judged_by_their_median():
    # Each pair of repeats has the ratio 4, though the second pair ran while the machine was busy.
    results = {"fast": result([1, 10, 1], tokens=80), "slow": result([2, 20, 2], tokens=40)}
    asked = Ratio("fast / slow", "tokens_per_second", "fast", "slow", at_least=4)
    (found,) = ratios([asked], results)
    assert found["median"] == found["least"] == found["most"] == 4 and found["met"] is True
    (slower,) = ratios([Ratio("slow / fast", "seconds_per_token", "slow", "fast", at_most=3.9)], results)
    assert slower["median"] == 4 and slower["met"] is False
    assert ratios([Ratio("memory", "peak", "fast", "slow")], results)[0]["median"] == 1
    missing = {**results, "slow": {"says": "", "repeats": [], "missing": "not installed"}}
    assert ratios([asked], missing) == []


def test_measures_of_a_repeat():
    found = measures({"seconds": 2, "cpu_seconds": 4, "tokens": 60, "computed": 80, "waited": 0.5})
    assert (found["tokens_per_second"], found["tokens_per_cpu_second"]) == (30, 15)
    assert (found["padding"], found["waiting"]) == (0.25, 0.25)
    assert "pairs_per_second" not in found


def test_every_ratio_is_of_cases_of_its_section_and_shown():
    options = Options(steps=2)
    machine = {"accelerators": [], "cores": 2, "processor": "a processor"}
    found = {}
    for name, part in parts(options).items():
        cases = {case.name: result([1.0, 2.0], tokens=80, computed=100, pairs=4, flops=8) for case in part.cases}
        compared = ratios(part.ratios, cases)
        assert len(compared) == len(part.ratios) and len({case.name for case in part.cases}) == len(part.cases)
        found[name] = {"cases": cases, "summary": summarise(cases), "ratios": compared, "threads": 2, "load": 0.1}
    found["pairs"]["cases"]["sentence-transformers fp32, 8 pairs"] = {"says": "", "repeats": [], "missing": "not here"}
    found["pairs"]["summary"] = summarise(found["pairs"]["cases"])
    shown = page({"machine": machine, "parts": found}, parts(options))
    assert all(f"| {case.name} |" in shown for part in parts(options).values() for case in part.cases)
    assert "| sentence-transformers fp32, 8 pairs | not here |" in shown


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("section", parts(Options()))
def test_every_case_runs(section, tmp_path):
    try:
        resolve("default")
    except EncoderError:
        pytest.skip("the default encoder is not here")
    options = ["--steps", "1", "--repeats", "1", "--tokens", "128", "--chunk-tokens", "256", "--threads", "1"]
    command = [sys.executable, "-m", "trunkline_lab.speed.training", *options, "--sections", section]
    done = subprocess.run(
        [*command, "--out", str(tmp_path), "--sentences", "sample_events", "--pairs", "sample_pairs"],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-2000:]
    content = json.loads((tmp_path / "results.json").read_text("utf-8"))
    part = parts(Options(steps=1, repeats=1, tokens=128, chunk_tokens=256))[section]
    cases = content["parts"][section]["cases"]
    assert cases.keys() == {case.name for case in part.cases}
    for case in part.cases:
        found = cases[case.name]
        assert len(found["repeats"]) == case.repeats or "is not installed" in found["missing"]
        assert "missing" in found or found["peak"] >= found["ready"] > 0
    texts = {name: row["repeats"][0].get("tokens") for name, row in cases.items() if row["repeats"]}
    alike = {"tokens": ["."], "pairs": [" 8 pairs", " 64 pairs"], "joint": ["naive|task"], "gradcache": []}
    for pattern in alike[section]:
        found = [tokens for name, tokens in texts.items() if re.search(pattern, name)]
        assert len(set(found)) == 1, "the same texts for all"
    assert (tmp_path / "table.md").read_text("utf-8").startswith("# Training speed")
