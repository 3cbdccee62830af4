"""Precision and attention: measured once, kept with the run, without a trace in anything that is trained."""

import dataclasses
import json
import random
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny_models
from trunkline.encoder.architectures import read_config
from trunkline.errors import MismatchError, RecipeError, TrunklineError
from trunkline.prefinetune import Report, prefinetune
from trunkline.training import speed
from trunkline.training.speed import (
    CHOICES,
    Speed,
    attention_setting,
    choose_speed,
    fastest,
    measure_speed,
    usual_attention,
)

CPU = torch.device("cpu")
SIZES = {
    "model_type": "bert",
    "vocab_size": 100,
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
    "hidden_act": "gelu",
    "max_position_embeddings": 64,
    "layer_norm_eps": 1e-12,
}
CONFIG = read_config(SIZES, "sizes")


@pytest.fixture
def recipe(tiny_folder, tmp_path):
    return tiny_models.recipe_of(tiny_folder("bert"), tmp_path, precision="auto")


@pytest.fixture
def measured(monkeypatch):
    """Stands in for the measurement, on a processor with bf16; the test says what is fast."""
    seconds = dict.fromkeys(CHOICES, 1.0)
    calls = []

    def measure(config, tokens, device, choices):
        calls.append((tokens, choices))
        return {choice: seconds[choice] for choice in choices}

    monkeypatch.setattr(speed, "measure_speed", measure)
    monkeypatch.setattr(speed, "resolve_precision", lambda asked: "bf16" if asked == "auto" else asked)
    return seconds, calls


@given(st.dictionaries(st.sampled_from(CHOICES), st.floats(0.001, 10.0)), st.sampled_from(CHOICES))
def test_the_usual_choice_stays_unless_another_is_clearly_faster(seconds, usual):
    chosen = fastest(seconds, usual)
    if chosen != usual:
        assert seconds[chosen] == min(seconds.values()) and seconds[usual] > 1.15 * seconds[chosen]
    elif usual in seconds:
        assert seconds[usual] <= 1.15 * min(seconds.values())


def test_what_is_clearly_fastest_is_taken_and_kept(recipe, measured, tmp_path):
    seconds, calls = measured
    seconds["fp32", "sdpa"] = 0.5
    said = []
    first = choose_speed(recipe, CONFIG, tmp_path, said.append)
    assert (first.precision, first.attention) == ("fp32", "sdpa")
    assert "fp32 sdpa 500.0 ms" in said[0] and "bf16 eager 1000.0 ms" in said[0]
    stored = json.loads((tmp_path / "speed.json").read_text())
    assert (stored["precision"], stored["attention"], stored["usual"]) == ("fp32", "sdpa", "bf16 eager")
    assert stored["milliseconds"]["fp32 sdpa"] == 500
    seconds["bf16", "eager"] = 0.1
    again = choose_speed(recipe, CONFIG, tmp_path)
    assert again == first and len(calls) == 1, "a run that goes on measures nothing"


def test_it_is_measured_with_as_many_tokens_as_a_pass_of_the_run_has_and_no_more_than_is_quick(
    recipe, measured, tmp_path
):
    _, calls = measured
    choose_speed(recipe, CONFIG, tmp_path / "small")
    families = {name: section.model_copy(update={"tokens": 4096}) for name, section in recipe.families.items()}
    choose_speed(recipe.model_copy(update={"families": families}), CONFIG, tmp_path / "large")
    assert [tokens for tokens, _ in calls] == [96, 256]


@pytest.mark.parametrize(
    ("asked", "compared"),
    [
        ({"precision": "fp32"}, [("fp32", "sdpa"), ("fp32", "eager")]),
        ({"attention": "sdpa"}, [("fp32", "sdpa"), ("bf16", "sdpa")]),
        ({"precision": "fp32", "attention": "eager"}, None),
    ],
)
def test_what_is_set_by_hand_is_not_up_for_choice(asked, compared, recipe, measured, tmp_path):
    _, calls = measured
    chosen = choose_speed(recipe.model_copy(update=asked), CONFIG, tmp_path)
    assert [list(choices) for _, choices in calls] == ([compared] if compared else [])
    assert all(getattr(chosen, key) == value for key, value in asked.items())


def test_tiny_encoders_and_processors_without_bf16_follow_the_rule(recipe, measured, tmp_path, monkeypatch):
    _, calls = measured
    tiny = dataclasses.replace(CONFIG, hidden_size=32, intermediate_size=48)
    found = choose_speed(recipe, tiny, tmp_path / "tiny")
    assert (found.precision, found.attention) == ("bf16", usual_attention("bf16", CPU))
    monkeypatch.setattr(speed, "resolve_precision", lambda asked: "fp32" if asked == "auto" else asked)
    found = choose_speed(recipe, CONFIG, tmp_path / "plain")
    assert (found.precision, found.attention) == ("fp32", "sdpa")
    assert not calls


def test_a_damaged_choice_is_refused(recipe, tmp_path):
    for content in ('{"precision": "bf16"}', '["bf16", "eager"]'):
        (tmp_path / "speed.json").write_text(content)
        with pytest.raises(TrunklineError, match=r"speed\.json does not say .*bf16 eager"):
            choose_speed(recipe, CONFIG, tmp_path)


def test_an_encoder_keeps_to_auto_where_it_means_the_same():
    found = {speed: attention_setting(speed, "cpu") for speed in CHOICES}
    assert found[Speed("bf16", "eager")] == found[Speed("fp32", "sdpa")] == "auto"
    assert (found[Speed("bf16", "sdpa")], found[Speed("fp32", "eager")]) == ("sdpa", "eager")
    assert attention_setting(Speed("bf16", "sdpa"), "cuda") == "auto"


def test_measuring_is_quick_and_leaves_no_trace():
    threads, states = torch.get_num_threads(), (torch.get_rng_state(), random.getstate(), np.random.get_state())
    began = time.process_time()
    found = measure_speed(CONFIG, 256, CPU)
    assert time.process_time() - began < 2
    assert found.keys() == set(CHOICES) and all(0 < seconds < 1 for seconds in found.values())
    assert torch.equal(states[0], torch.get_rng_state()) and torch.get_num_threads() == threads
    assert states[1] == random.getstate()
    assert all(np.array_equal(a, b) for a, b in zip(states[2], np.random.get_state(), strict=True))


class Stop(Exception):
    """Ends a run in the middle, as a crash would."""


def test_a_run_goes_on_bit_for_bit_in_what_it_began_with(recipe, measured, tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "SMALLEST", 0)
    seconds, _ = measured
    seconds["fp32", "eager"] = 0.5
    whole = prefinetune(recipe, tmp_path / "whole")
    experiment = json.loads((tmp_path / "whole" / "experiment.json").read_text())
    info = json.loads((whole / "manifest.json").read_text())["info"]
    assert experiment["precision"] == "fp32"
    assert info["speed"] == {"precision": "fp32", "attention": "eager"}
    assert (info["recipe"]["precision"], info["recipe"]["attention"]) == ("auto", "auto")
    assert "precision fp32" in (tmp_path / "whole" / "MODEL_CARD.md").read_text()

    def stop(step, steps, values):
        if step == 7:
            raise Stop

    with pytest.raises(Stop):
        prefinetune(recipe, tmp_path / "halves", Report(progress=stop))
    seconds["bf16", "eager"] = 0.1
    halves = prefinetune(recipe, tmp_path / "halves")
    assert tiny_models.same_bits(tiny_models.bundle_tensors(whole), tiny_models.bundle_tensors(halves))
    sdpa = prefinetune(recipe.model_copy(update={"precision": "bf16"}), tmp_path / "other")
    assert not tiny_models.same_bits(tiny_models.bundle_tensors(whole), tiny_models.bundle_tensors(sdpa))


def test_a_run_whose_recipe_lacks_a_key_that_has_a_default_goes_on(recipe, tmp_path):
    folder = tmp_path / "run"
    prefinetune(recipe.model_copy(update={"attention": "auto"}), folder)
    stored = json.loads((folder / "recipe.json").read_text())
    del stored["attention"], stored["optimizer"]["ema"]
    (folder / "recipe.json").write_text(json.dumps(stored))
    prefinetune(recipe, folder)
    with pytest.raises(MismatchError, match="differs in attention"):
        prefinetune(recipe.model_copy(update={"attention": "eager"}), folder)
    (folder / "recipe.json").write_text(json.dumps(stored | {"speling": 1}))
    with pytest.raises(RecipeError, match="speling"):
        prefinetune(recipe, folder)
