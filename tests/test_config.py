"""Recipes: every problem at once, with the nearest valid name."""

import pytest

from trunkline.config import PrefinetuneRecipe, load_recipe, parse_recipe
from trunkline.errors import RecipeError

GOOD = {"name": "x", "families": {"ner": {"sources": {"gmb": {}}}, "classification": {"sources": {"sgd_turns": {}}}}}


def problems(raw, kind=PrefinetuneRecipe):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(raw, kind, "r.yaml")
    return caught.value.problems


def test_a_small_recipe_is_complete():
    recipe = parse_recipe(GOOD, PrefinetuneRecipe, "r.yaml")
    assert recipe.strategy == "task-primary"
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 1


def test_all_problems_are_listed_at_once():
    raw = {
        **GOOD,
        "strateg": "naive",
        "adapter": {"rank": 0},
        "optimizer": {"steps": "many", "warmup": 2},
        "families": {"ner": {"sources": {"gmb": {"wieght": 1}}, "tokens": 10}, "foo": {"sources": {}}},
    }
    found = "\n".join(problems(raw))
    for words in (
        "strateg: unknown key; did you mean 'strategy'?",
        "families.ner.sources.gmb.wieght: unknown key; did you mean 'weight'?",
        "families.foo",
        "optimizer.steps",
        "optimizer.warmup",
        "task-primary needs adapters",
    ):
        assert words in found, found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"strategy": "individual"}, "one family"),
        ({"max_length": 4096}, "less than max_length"),
        ({"families": {}}, "at least 1"),
        ({"families": {"ner": {"sources": {"gmb": {"weight": 0}}}}}, "greater than 0"),
        ({"optimizer": {"backbone_rate": float("nan")}}, "backbone_rate"),
        ({"optimizer": {"weight_decay": float("inf")}}, "weight_decay: Input should be a finite number"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
        ({"seed": 2**32}, "seed: Input should be less than 4294967296"),
    ],
)
def test_contradictions_are_named(change, words):
    assert any(words in problem for problem in problems({**GOOD, **change}))


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("adapter", "rank_growth"),
        ("optimizer", "layer_decay"),
        ("optimizer", "b_ratio"),
        ("optimizer", "sharpen"),
        ("monitor", "conflict_every"),
    ],
)
def test_switches_that_there_are_not_are_refused(section, key):
    assert any(f"{section}.{key}: unknown key" in problem for problem in problems({**GOOD, section: {key: 2}}))


def test_one_held_out_file_is_a_list_of_one():
    one, many = (
        parse_recipe({**GOOD, "decontaminate": {"against": against}}, PrefinetuneRecipe, "r").decontaminate
        for against in ("dev.jsonl", ["dev.jsonl"])
    )
    assert one == many
    assert any("decontaminate.against" in problem for problem in problems({**GOOD, "decontaminate": {"against": []}}))


@pytest.mark.parametrize("content", ["- a\n- b\n", "name: [", "", "a: !!python/object/apply:os.system ['true']"])
def test_files_that_are_no_recipe(tmp_path, content):
    path = tmp_path / "r.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"r\.yaml"):
        load_recipe(path, PrefinetuneRecipe)


def test_a_value_of_the_wrong_type_is_one_problem_not_a_missing_key_as_well():
    assert len(problems({**GOOD, "name": 5})) == 1
    assert len(problems({**GOOD, "families": {"ner": {"sources": []}}})) == 1


def test_the_nearest_valid_name_is_given_at_every_depth():
    raw = {**GOOD, "monitr": {}, "optimizer": {"step": 5, "backbone_lr": 1}, "zzz": 1}
    found = "\n".join(problems(raw))
    assert "monitr: unknown key; did you mean 'monitor'?" in found, found
    assert "optimizer.step: unknown key; did you mean 'steps'?" in found, found
    assert "did you mean 'backbone_rate'?" in found, found
    assert "zzz: unknown key" in found and "strategy" in found, found


def test_a_recipe_extends_another_one_and_a_command_line_both(tmp_path):
    import yaml

    (tmp_path / "base.yaml").write_text(yaml.safe_dump({**GOOD, "optimizer": {"steps": 7, "clip": 2.0}}))
    path = tmp_path / "own.yaml"
    own = {"extends": "base.yaml", "name": "own", "optimizer": {"steps": 9}, "families": {"ner": None}}
    path.write_text(yaml.safe_dump({**own, "strategy": "individual"}))
    recipe = load_recipe(path, PrefinetuneRecipe)
    assert (recipe.name, recipe.optimizer.steps, recipe.optimizer.clip) == ("own", 9, 2.0)
    assert list(recipe.families) == ["classification"]
    other = load_recipe(path, PrefinetuneRecipe, {"seed": 3, "optimizer": {"steps": 2}})
    assert (other.seed, other.optimizer.steps, other.optimizer.clip) == (3, 2, 2.0)
    with pytest.raises(RecipeError, match=r"(?s)2 problems.*optimizer\.steps.*seed"):
        load_recipe(path, PrefinetuneRecipe, {"seed": -1, "optimizer": {"steps": 0}})
    path.write_text(yaml.safe_dump({**own, "extends": "own.yaml"}))
    with pytest.raises(RecipeError, match="circle"):
        load_recipe(path, PrefinetuneRecipe)
