"""Suites: all problems at once, which cells they have, and on what a cell's key depends."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_suites
import yaml

import tiny_models
from trunkline.config import load_recipe
from trunkline.encoder.bundle_files import load_any, save_bundle
from trunkline.errors import RecipeError, TrunklineError
from trunkline_lab.benchmark import cells as cells_module
from trunkline_lab.benchmark.cells import Cell, expand, group_jobs
from trunkline_lab.benchmark.run import list_cells
from trunkline_lab.benchmark.suite import LabelBudget, SuiteRecipe

Tasks = dict[str, Path]


def problems_of(raw: dict[str, Any], folder: Path) -> list[str]:
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, SuiteRecipe)
    return caught.value.problems


def expanded(recipe: SuiteRecipe, **options: Any) -> list[Cell]:
    """The cells without looking at encoders."""
    return expand(recipe, lambda source, family: {"source": source, "family": family}, **options)


def test_all_problems_are_reported_at_once_with_the_nearest_names(tasks: Tasks, tmp_path: Path) -> None:
    raw = {
        "name": "a b",
        "encoders": {"none": "default", "one": "default"},
        "baseline": "nome",
        "tasks": ["banking78", "sample_pairs", "sample_intents", "gmb"],
        "budgets": [{"per_class": 4, "share": 0.1}, {"share": 2}],
        "methods": ["heads", {"name": "lora", "encoders": ["on"], "budget": 3}],
        "adapt": {"lora": {"rates": 1}, "head": {"mode": "lora"}},
        "seeds": [0, 0],
        "peers_encoder": "two",
        "extra": 1,
    }
    found = problems_of(raw, tmp_path)
    for words in (
        ["name"],
        ["baseline", "'nome'", "did you mean 'none'"],
        ["tasks.0.card", "banking78", "did you mean 'banking77'"],
        ["tasks.1.card", "sample_pairs", "source of pre-finetuning"],
        ["tasks.3.card", "gmb"],
        ["budgets.0", "one of per_class, share and all"],
        ["budgets.1.share", "less than 1"],
        ["methods.0.name", "'heads'", "did you mean 'head'"],
        ["methods.1.budget", "unknown key", "budgets"],
        ["adapt.lora.rates", "unknown key", "rate"],
        ["adapt.head", "leave mode out"],
        ["seeds", "0 is given 2 times"],
        ["peers_encoder", "'two'"],
        ["extra", "unknown key"],
    ):
        assert any(all(word in problem for word in words) for problem in found), (words, found)


def test_what_does_not_fit_together_is_reported(tasks: Tasks, tmp_path: Path) -> None:
    raw = tiny_suites.raw_suite("default", tasks)
    raw["tasks"] = [*raw["tasks"], "sample_intents", {"card": "sample_intents"}]
    raw["encoders"] = {"none": "default", "apart": {"ner": "default"}}
    raw["budgets"] = [{"share": 0.1}, {"share": 0.1}]
    raw["peers_encoder"] = "apart"
    found = " ".join(problems_of(raw, tmp_path))
    assert "sample_intents is given 2 times" in found
    assert "apart has sources for ner, which leaves out kinds, sample_intents" in found
    assert "10 % is given 2 times" in found
    assert "'apart' is one encoder a family; peers need a single one" in found
    methods = [
        {"name": "head", "tasks": ["kind"], "budgets": [{"per_class": 3}], "encoders": ["nine"], "seeds": [7]},
        "lora",
        "lora",
        {"name": "linear_probe", "encoders": ["none"]},
    ]
    found = " ".join(problems_of(tiny_suites.raw_suite("default", tasks, methods=methods), tmp_path))
    assert "head: 'kind' is none of the suite's tasks; did you mean 'kinds'?" in found
    assert "head: '3 a class' is none of the suite's budgets" in found
    assert "head: 'nine' is none of the suite's encoders" in found
    assert "head: '7' is none of the suite's seeds" in found
    assert "is given 2 times" in found
    assert "linear_probe is a peer" in found


def test_a_card_without_test_part_is_refused_by_name(tasks: Tasks, tmp_path: Path) -> None:
    card = tiny_suites.write_task(tmp_path / "more", "untested", "classification", {"train": 9, "dev": 3})
    found = problems_of(tiny_suites.raw_suite("default", {"untested": card}), tmp_path)
    assert any("untested has no split test" in problem for problem in found)


@pytest.mark.parametrize(
    ("given", "label"),
    [({"per_class": 16}, "16 a class"), ({"share": 0.1}, "10 %"), ({"share": 0.025}, "2.5 %"), ({"all": True}, "all")],
)
def test_budgets_in_words(given: dict[str, Any], label: str) -> None:
    assert LabelBudget(**given).label() == label


def test_a_suite_has_all_combinations_but_those_that_a_method_leaves_out(tasks: Tasks) -> None:
    recipe = tiny_suites.suite(
        "default",
        tasks,
        encoders={"none": "default", "two": "b/{seed}", "apart": {"ner": "n-{seed}", "classification": "c-{seed}"}},
        seeds=[0, 3],
        methods=[
            "head",
            {
                "name": "lora",
                "budgets": [{"all": True}],
                "tasks": ["people"],
                "encoders": ["none", "two"],
                "seeds": [3],
            },
            {"name": "linear_probe", "budgets": [{"per_class": 2}]},
        ],
    )
    found = expanded(recipe)
    assert len({cell.key for cell in found}) == len(found) == 2 * 3 * 2 * 2 + 2 + 2 * 2
    assert {cell.place for cell in found if cell.method == "lora"} == {
        ("people", "none", "lora", "all", 3),
        ("people", "two", "lora", "all", 3),
    }
    assert {(cell.encoder, cell.family, cell.seed, cell.source) for cell in found if cell.method == "head"} == {
        (name, family, seed, source.format(seed=seed))
        for seed in (0, 3)
        for family, apart in (("ner", "n-{seed}"), ("classification", "c-{seed}"))
        for name, source in (("none", "default"), ("two", "b/{seed}"), ("apart", apart))
    }
    assert {cell.encoder for cell in found if cell.method == "linear_probe"} == {"none"}
    assert [cell.task for cell in found] == sorted(cell.task for cell in found)


def test_peers_work_on_the_encoder_that_is_named_and_only_on_their_families(tasks: Tasks) -> None:
    recipe = tiny_suites.suite(
        "default",
        tasks,
        encoders={"none": "default", "raw": "elsewhere"},
        methods=["hf_full"],
        peers_encoder="raw",
    )
    assert {(cell.encoder, cell.source, cell.task) for cell in expanded(recipe)} == {
        ("raw", "elsewhere", "kinds"),
        ("raw", "elsewhere", "people"),
    }


def test_only_some_tasks(tasks: Tasks) -> None:
    recipe = tiny_suites.suite("default", tasks)
    assert {cell.task for cell in expanded(recipe, only=["people"])} == {"people"}
    with pytest.raises(TrunklineError, match=r"no task 'peple'; did you mean 'people'"):
        expanded(recipe, only=["peple"])


def test_cells_that_share_features_are_one_job(tasks: Tasks) -> None:
    methods = ["head", "lora", "linear_probe"]
    recipe = tiny_suites.suite("default", tasks, methods=methods, seeds=[0, 1], encoders={"none": "default", "b": "b"})
    jobs = group_jobs(expanded(recipe))
    assert sum(len(job.cells) for job in jobs) == len(expanded(recipe))
    for job in jobs:
        assert len({(cell.task, cell.source) for cell in job.cells}) == 1
    kinds = [
        (cell.task, cell.encoder, tuple(dict.fromkeys(c.method for c in job.cells)))
        for job in jobs
        for cell in job.cells[:1]
    ]
    assert kinds.count(("kinds", "b", ("head", "lora"))) == 1
    assert len(jobs) == 2 * (2 + 1)
    for change in ({"max_length": 64}, {"precision": "bf16"}):
        other = recipe.adapt.model_copy(update={"lora": recipe.adapt.lora.model_copy(update=change)})
        assert len(group_jobs(expanded(recipe.model_copy(update={"adapt": other})))) == 2 * (2 * 2 + 1)


def test_a_task_has_its_own_window_length_for_all_methods(tasks: Tasks) -> None:
    recipe = tiny_suites.suite(
        "default", tasks, tasks=[{"card": str(tasks["kinds"]), "max_length": 200}], methods=["head", "lora"]
    )
    assert {cell.section.max_length for cell in expanded(recipe) if cell.section} == {200}


def keys(recipe: SuiteRecipe) -> dict[tuple[Any, ...], str]:
    return {cell.place: cell.key for cell in list_cells(recipe)}


def changed(before: dict[Any, str], after: dict[Any, str]) -> set[Any]:
    return {place for place in before if before[place] != after.get(place)}


def test_keys_depend_on_encoder_data_settings_and_format_and_on_nothing_else(
    tasks: Tasks, tiny_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = tiny_folder("bert")
    recipe = tiny_suites.suite(encoder, tasks, methods=["head", "lora"])
    before = keys(recipe)
    assert keys(recipe) == before
    copied = tmp_path / "moved" / "encoder"
    shutil.copytree(encoder, copied)
    assert changed(before, keys(tiny_suites.suite(copied, tasks, methods=["head", "lora"]))) == set()
    other = tiny_models.save_model("bert", tmp_path / "other", seed=1)
    assert changed(before, keys(tiny_suites.suite(other, tasks, methods=["head", "lora"]))) == set(before)
    adapt = recipe.adapt.model_copy(update={"lora": recipe.adapt.lora.model_copy(update={"rate": 0.5})})
    lora = {place for place in before if place[2] == "lora"}
    assert changed(before, keys(recipe.model_copy(update={"adapt": adapt}))) == lora
    more = keys(recipe.model_copy(update={"seeds": (0, 1), "name": "renamed"}))
    assert changed(before, more) == set()
    assert len(set(more.values())) == 2 * len(before)
    dev = tasks["people"].parent / "people-dev.jsonl"
    os.utime(dev, (1, 1))
    assert changed(before, keys(recipe)) == set(), "a file that was fetched again is the same file"
    dev.write_text("".join(dev.read_text().splitlines(keepends=True)[1:]))
    people = {place for place in before if place[0] == "people"}
    assert changed(before, keys(recipe)) == people
    monkeypatch.setattr(cells_module, "RESULT_FORMAT", 0)
    assert changed(before, keys(recipe)) == set(before)


def test_keys_depend_on_windows_precision_and_the_encoders_tokenizer(
    tasks: Tasks, tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    encoder = tiny_folder("bert")
    recipe = tiny_suites.suite(encoder, tasks)
    before = keys(recipe)
    for change in ({"max_length": 64}, {"precision": "bf16"}):
        adapt = recipe.adapt.model_copy(update={"head": recipe.adapt.head.model_copy(update=change)})
        assert changed(before, keys(recipe.model_copy(update={"adapt": adapt}))) == set(before)
    tokens = shutil.copytree(encoder, tmp_path / "tokens") / "tokenizer.json"
    tokens.write_text(tokens.read_text().replace('"lowercase": true', '"lowercase": false'))
    assert changed(before, keys(tiny_suites.suite(tokens.parent, tasks))) == set(before)


def test_keys_depend_on_the_fork_of_our_methods_alone(
    tasks: Tasks, tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    found = []
    for fork in (1, 2):
        save_bundle(load_any(str(tiny_folder("bert")), fork=fork), tmp_path / str(fork))
        found.append(keys(tiny_suites.suite(tmp_path / str(fork), tasks, methods=["head", "linear_probe"])))
    assert changed(*found) == {place for place in found[0] if place[2] == "head"}


def test_keys_depend_on_the_primary_adapter_of_the_tasks_family_alone(
    tasks: Tasks, tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    start = load_any(str(tiny_folder("bert")), fork=2, max_length=64)

    def with_primaries(name: str, seeds: dict[str, int]) -> str:
        files = {
            family: tiny_models.random_adapter(start.encoder.config, (2, 3), seed=seed)
            for family, seed in seeds.items()
        }
        save_bundle(replace(start, primaries=files), tmp_path / name)
        return str(tmp_path / name)

    one = keys(tiny_suites.suite(with_primaries("one", {"ner": 1, "classification": 2}), tasks))
    two = keys(tiny_suites.suite(with_primaries("two", {"ner": 1, "classification": 3}), tasks))
    assert changed(one, two) == {place for place in one if place[0] == "kinds"}


def test_an_encoder_that_is_not_here_does_not_keep_the_others_from_being_listed(
    tasks: Tasks, tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    encoders = {"none": str(tiny_folder("bert")), "gone": str(tmp_path / "gone")}
    found = list_cells(tiny_suites.suite("", tasks, encoders=encoders))
    assert {("missing" in cell.identity["encoder"], cell.encoder) for cell in found} == {
        (False, "none"),
        (True, "gone"),
    }
