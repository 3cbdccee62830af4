"""The whole way on the shipped sample, with a tiny encoder and few steps; the numbers mean nothing here."""

import json

import pytest
import yaml

import trunkline
from trunkline.quickstart import RECIPES, quickstart


@pytest.fixture
def small(tmp_path, tiny_folder):
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    run = yaml.safe_load((RECIPES / "quickstart.yaml").read_text("utf-8"))
    run |= {"encoder": str(tiny_folder("bert")), "fork": 2, "monitor": {"every": 3}, "checkpoint": {"every": 2}}
    run["adapter"] = {"rank": 4, "alpha": 8}
    run["optimizer"]["steps"] = 4
    for family in run["families"].values():
        family["tokens"] = 128
        family["held_out"] = 10
    sweep = yaml.safe_load((RECIPES / "quickstart-sweep.yaml").read_text("utf-8"))
    sweep["encoders"]["none"] = str(tiny_folder("bert"))
    sweep["seeds"] = [0, 1]
    (recipes / "quickstart.yaml").write_text(yaml.safe_dump(run), "utf-8")
    (recipes / "quickstart-sweep.yaml").write_text(yaml.safe_dump(sweep), "utf-8")
    return recipes


def test_quickstart_makes_a_bundle_that_predicts_and_skips_what_is_done(small, tmp_path, capsys):
    folder = tmp_path / "out"
    quickstart(folder, small)
    shown = capsys.readouterr().out
    assert "average ner" in shown
    assert shown.count("  trunkline ") == 3
    summary = [json.loads(line) for line in (folder / "comparison.jsonl").read_text("utf-8").splitlines()]
    assert {row["encoder"] for row in summary} == {"none", "task-primary"}
    assert all(row["interval"][0] <= row["mean"] <= row["interval"][1] for row in summary)
    results = (folder / "results.jsonl").read_text("utf-8")
    assert len(results.splitlines()) == 4 * 2 * 2
    bundle = trunkline.load(folder / "run" / "bundle")
    assert set(bundle.tasks) == {"events", "orders", "intents", "triage"}
    text = "Lunch with Ana at one"
    (found,) = bundle.predict([text])
    assert found["intents"]["label"] in found["intents"]["probabilities"]
    assert all(text[entity["start"] : entity["end"]] == entity["text"] for entity in found["events"])
    quickstart(folder, small)
    assert (folder / "results.jsonl").read_text("utf-8") == results, "finished cells are not run again"
