"""The best weights by a declared rule: what counts as better, that they stay, and rules that cannot be followed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

import tiny_models
from trunkline.config import parse_recipe
from trunkline.config.prefinetune import CheckpointSection, OptimizerSection
from trunkline.errors import RecipeError, TrunklineError
from trunkline.training.best import best_of, keep_best
from trunkline.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from trunkline.training.loop import averages_of

RULES = {"ner": "dev/ner/recall_at_1", "classification": "dev/classification/loss"}


def values(ner: float, loss: float) -> dict[str, float]:
    return {"dev/ner/recall_at_1": ner, "dev/classification/loss": loss, "probe/subj": 0.5}


def line(value: float) -> nn.Module:
    module = nn.Linear(2, 1)
    nn.init.constant_(module.weight, value)
    return module


def test_each_family_keeps_the_weights_that_were_best_by_its_own_rule(tmp_path: Path) -> None:
    measured = [values(0.5, 2.0), values(0.4, 1.0), values(0.75, 1.5), values(0.75, 1.0), values(0.6, float("nan"))]
    news = [keep_best(tmp_path, RULES, step, row, line(step)) for step, row in enumerate(measured)]
    assert news == [["ner", "classification"], ["classification"], ["ner"], [], []]
    for family, step in (("ner", 2), ("classification", 1)):
        held = best_of(tmp_path, family)
        assert held is not None
        assert (held["step"], held["measure"], held["values"]) == (step, RULES[family], measured[step])
        assert bool((load_file(tmp_path / f"best-{family}.safetensors")["weight"] == step).all())
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["best-classification.safetensors", "best-ner.safetensors"]


def test_a_value_that_is_not_a_number_is_never_the_best(tmp_path: Path) -> None:
    assert keep_best(tmp_path, RULES, 0, values(float("nan"), float("-inf")), line(0)) == []
    assert keep_best(tmp_path, RULES, 1, values(0.1, 9.0), line(1)) == ["ner", "classification"]


def test_rotation_leaves_the_best_alone_and_counts_it_for_no_checkpoint(tmp_path: Path) -> None:
    module = line(1)
    optimizer = torch.optim.AdamW(module.parameters())
    keep_best(tmp_path, RULES, 1, values(0.5, 1.0), module)
    for step in range(1, 6):
        save_checkpoint(tmp_path, step, module, optimizer, {}, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best-classification.safetensors",
        "best-ner.safetensors",
        "step-00000004.safetensors",
        "step-00000005.safetensors",
    ]
    assert [path.stem for path in checkpoints(tmp_path)] == ["step-00000004", "step-00000005"]


def run(folder: Path, steps: int, stop: int | None = None) -> tuple[nn.Module, AveragedModel]:
    """A tiny training with averages that measures and saves after each step; `stop` ends it as a crash would."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    optimizer, ema, start = torch.optim.AdamW(module.parameters(), lr=0.3), averages_of(module, 0.8), 0
    if found := checkpoints(folder):
        start, _ = load_checkpoint(found[-1], module, optimizer, ema)
    for step in range(start, steps):
        optimizer.zero_grad()
        module(torch.randn(5, 3)).square().mean().backward()
        optimizer.step()
        ema.update_parameters(module)
        with torch.no_grad():
            loss = float(ema(torch.ones(1, 3)).square().mean())
            keep_best(folder, {"ner": "dev/ner/loss"}, step + 1, {"dev/ner/loss": loss}, ema.module)
        if stop == step + 1:
            break
        if (step + 1) % 2 == 0:
            save_checkpoint(folder, step + 1, module, optimizer, {}, 1, ema)
    return module, ema


@pytest.mark.parametrize("stops", [(5,), (3, 4, 9)])
def test_after_a_crash_weights_averages_and_best_are_those_of_a_run_without_one(
    stops: tuple[int, ...], tmp_path: Path
) -> None:
    whole = run(tmp_path / "whole", 10)
    for stop in stops:
        run(tmp_path / "run", 10, stop)
    again = run(tmp_path / "run", 10)
    assert tiny_models.same_bits(whole[0].state_dict(), again[0].state_dict())
    assert tiny_models.same_bits(whole[1].state_dict(), again[1].state_dict())
    assert best_of(tmp_path / "run", "ner") == best_of(tmp_path / "whole", "ner")
    for name in ("best-ner", "step-00000010"):
        tensors = [load_file(tmp_path / run / f"{name}.safetensors") for run in ("run", "whole")]
        assert tiny_models.same_bits(*tensors)
        assert any(key.startswith("averages/") for key in tensors[0]) == (name != "best-ner")


def test_a_rule_that_names_what_is_not_measured_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(TrunklineError, match=r"best\.ner is 'dev/ner/recal'.*did you mean 'dev/ner/recall_at_1'"):
        keep_best(tmp_path, {"ner": "dev/ner/recal"}, 1, values(0.5, 1.0), line(0))
    with pytest.raises(TrunklineError, match=r"best\.ner is 'probe/sub'.*did you mean 'probe/subj'"):
        keep_best(tmp_path, {"ner": "probe/sub"}, 1, values(0.5, 1.0), line(0))


def test_a_family_without_held_out_data_has_no_best_and_the_others_have(tmp_path: Path) -> None:
    assert keep_best(tmp_path, RULES, 1, {"dev/classification/loss": 1.0}, line(0)) == ["classification"]
    assert best_of(tmp_path, "ner") is None


def test_a_best_one_that_is_damaged_is_refused(tmp_path: Path) -> None:
    keep_best(tmp_path, RULES, 1, values(0.5, 1.0), line(0))
    (tmp_path / "best-ner.safetensors").write_bytes(b"half")
    with pytest.raises(TrunklineError, match=r"best-ner\.safetensors is damaged"):
        keep_best(tmp_path, RULES, 2, values(0.5, 1.0), line(0))


def test_a_recipe_declares_the_rules_and_the_average() -> None:
    section = parse_recipe({}, CheckpointSection, "r")
    assert section.best["ner"] == "dev/ner/recall_at_1"
    assert section.best["classification"] == "dev/classification/mrr"
    assert parse_recipe({"best": {}}, CheckpointSection, "r").best == {}
    assert parse_recipe({"best": {"ner": "probe/x"}}, CheckpointSection, "r").best == {"ner": "probe/x"}
    with pytest.raises(RecipeError, match=r"best\.nerr"):
        parse_recipe({"best": {"nerr": "probe/x"}}, CheckpointSection, "r")
    assert parse_recipe({}, OptimizerSection, "r").ema == 0
    bad: Any
    for bad in (1.0, -0.1, "x"):
        with pytest.raises(RecipeError, match="ema"):
            parse_recipe({"ema": bad}, OptimizerSection, "r")
