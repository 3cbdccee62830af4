"""Batches in chunks (GradCache), in whole runs."""

import pytest

import tiny_models
from trunkline.config import PrefinetuneRecipe, parse_recipe
from trunkline.prefinetune import prefinetune
from trunkline.training import read_rows


def run_with(tiny_folder, folder, name, families, **changes):
    raw = tiny_models.recipe_of(tiny_folder("bert"), folder).model_dump(mode="json")
    for family, section in families.items():
        raw["families"][family].update(section)
    for key, value in changes.items():
        raw[key] = {**raw[key], **value} if isinstance(value, dict) else value
    bundle = prefinetune(parse_recipe(raw, PrefinetuneRecipe, "x"), folder / name)
    return tiny_models.bundle_tensors(bundle), [
        r for r in read_rows(folder / name / "metrics.jsonl") if "loss/ner" in r
    ]


@pytest.mark.parametrize("strategy", ["task-primary", "pcgrad"])
def test_a_batch_in_chunks_trains_like_a_whole_one(strategy, tiny_folder, tmp_path):
    changes = {"optimizer": {"dropout": 0.0, "steps": 3}, "strategy": strategy}
    chunks = {"ner": {"chunk_tokens": 20}, "classification": {"chunk_tokens": 30}}
    _, whole = run_with(tiny_folder, tmp_path, "whole", {}, **changes)
    _, parts = run_with(tiny_folder, tmp_path, "parts", chunks, **changes)
    assert len(whole) == len(parts) == 3
    for one, other in zip(whole, parts, strict=True):
        for key in ("loss/ner", "loss/classification", "gradient_norm"):
            assert one[key] == pytest.approx(other[key], rel=2e-3)


def test_chunks_repeat_bit_for_bit(tiny_folder, tmp_path):
    families = {
        "ner": {"chunk_tokens": 20},
        "classification": {"chunk_tokens": 30},
    }
    first, _ = run_with(tiny_folder, tmp_path, "first", families, optimizer={"steps": 4})
    again, _ = run_with(tiny_folder, tmp_path, "again", families, optimizer={"steps": 4})
    assert tiny_models.same_bits(first, again)
