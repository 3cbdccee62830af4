"""The whole way on the shipped sample, with a tiny encoder and few steps; the numbers mean nothing here."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml

import trunkline
from trunkline import quickstart as module
from trunkline.quickstart import TASKS, quickstart


@pytest.fixture
def small(tmp_path, tiny_folder, monkeypatch):
    """A recipe of four steps, and a tiny encoder in place of the default one."""
    recipe = yaml.safe_load(module.RECIPE.read_text("utf-8"))
    recipe |= {"encoder": str(tiny_folder("bert")), "fork": 2, "monitor": {"every": 3}, "checkpoint": {"every": 2}}
    recipe["adapter"] = {"rank": 4, "alpha": 8}
    recipe["optimizer"]["steps"] = 4
    for family in recipe["families"].values():
        family["tokens"] = 128
        family["held_out"] = 10
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), "utf-8")
    monkeypatch.setattr(module, "RECIPE", tmp_path / "recipe.yaml")
    monkeypatch.setattr(module, "load", lambda source=None: trunkline.load(source or tiny_folder("bert")))


def test_quickstart_makes_bundles_that_predict_and_skips_what_is_done(small, tmp_path, capsys):
    folder = tmp_path / "out"
    quickstart(folder)
    shown, said = capsys.readouterr()
    assert said.index("about 4 minutes on two cores") < said.index("3 of 3")
    assert "default encoder" in shown and "pre-finetuned" in shown
    assert shown.count(" predict ") == shown.count(" evaluate ") == shown.count(" fit ") == 1
    for name in ("few-labels", "pre-finetuned"):
        model = trunkline.load(folder / name)
        assert list(model.tasks) == sorted(TASKS)
        text = "Lunch with Ana at one"
        (found,) = model.predict([text])
        assert found["intents"]["label"] in found["intents"]["probabilities"]
        assert all(text[entity["start"] : entity["end"]] == entity["text"] for entity in found["events"])
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    quickstart(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")} == before


def test_no_bundle_is_recommended_for_what_pre_finetuning_lost(small, tmp_path, capsys, monkeypatch):
    def fitted(bundle, source):
        score = 0.5 if source is None else 0.6
        scores = {"accuracy": score, "other": 0.0}
        return {name: {"accuracy": 1 - score} if name in worse else scores for name in TASKS}

    monkeypatch.setattr(module, "_fitted", fitted)
    monkeypatch.setattr(module, "load", lambda source: SimpleNamespace(predict=lambda texts: [{}] * len(texts)))
    for worse, line in (
        (["events", "triage"], f"pre-finetuning lost on events, triage: use {tmp_path / 'few-labels'} for these"),
        ([], "pre-finetuning lost on no task"),
    ):
        quickstart(tmp_path)
        shown = capsys.readouterr().out
        assert line in shown.splitlines()
        advice = shown[shown.index("Three commands") :]
        assert advice.count("few-labels" if worse else "pre-finetuned") == 3
        assert ("pre-finetuned" if worse else "few-labels") not in advice


def test_the_commands_at_the_end_work_in_the_users_shell(tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["something"])
    command = [*module._program().split(), "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == trunkline.__version__


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_pre_finetuning_gains_on_average_in_each_family(tmp_path):
    quickstart(tmp_path)
    scores = {}
    for name in ("few-labels", "pre-finetuned"):
        model = trunkline.load(tmp_path / name)
        for task, ending in TASKS.items():
            _, test = module.load_examples(module.SAMPLES / "tasks" / f"{task}-test.{ending}")
            scores[name, task] = next(iter(model.evaluate(task, test).scores.values()))
    for tasks in (("events", "orders"), ("intents", "triage")):
        gains = [scores["pre-finetuned", task] - scores["few-labels", task] for task in tasks]
        assert sum(gains) > 0, gains
