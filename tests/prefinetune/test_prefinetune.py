"""Pre-finetuning: whose gradient reaches what, what a recipe yields, what is refused, and a run that is killed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tiny_models
from trunkline.config import PrefinetuneRecipe
from trunkline.encoder.bundle_files import Loaded, load_any, load_bundle
from trunkline.errors import MismatchError, RecipeError, TrunklineError
from trunkline.prefinetune import Report, prefinetune
from trunkline.prefinetune.model import PrefinetuneModel, Source, StepBatch, draw_batch
from trunkline.prefinetune.objectives import OBJECTIVES
from trunkline.prefinetune.run import Session
from trunkline.prefinetune.sources import recipe_sources
from trunkline.prefinetune.strategies import adapters_of
from trunkline.text.examples import NerExample
from trunkline.text.words import split_words
from trunkline.training import read_rows
from trunkline.training.loop import Place

Folders = Callable[[str], Path]
FAMILIES = ("ner", "classification")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def session_of(recipe: PrefinetuneRecipe, folder: Path) -> Session:
    start = load_any(recipe.encoder, fork=recipe.fork, max_length=recipe.max_length)
    sources = recipe_sources(recipe, start.tokenizer)
    session = Session(recipe, start, sources, folder, Report())
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in session.model.adapters.parameters():
            parameter.normal_(std=0.1)
    return session


def batch_of(session: Session, family: str, step: int = 0) -> StepBatch:
    return draw_batch(
        session.mixtures[family],
        session.model.objectives[family],
        session.tokenizer,
        step=step,
        section=session.recipe.families[family].model_copy(update={"tokens": 64}),
        pad_id=1,
        place=Place(),
    )


def size(module: torch.nn.Module) -> float:
    """The gradient's largest absolute value over all parameters; 0 where there is none."""
    return max((float(p.grad.abs().max()) for p in module.parameters() if p.grad is not None), default=0.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_of_one_family_leaves_the_other_familys_adapter_and_objective_alone(
    family: str, tiny_folder: Folders, data: Path, tmp_path: Path
) -> None:
    other = next(name for name in FAMILIES if name != family)
    session = session_of(tiny_models.recipe_of(tiny_folder("bert"), data), tmp_path)
    model = session.model.train()
    model(family, batch_of(session, family)).backward()
    assert size(model.adapters[family]) > 0
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.adapters[family].parameters())
    assert size(model.adapters[other]) == 0
    assert size(model.objectives[other]) == 0
    for layer in range(4):
        assert size(model.encoder.layers[layer]) > 0, "the whole backbone learns, trunk and branch"
    assert size(model.encoder.embeddings) > 0


def test_a_step_of_one_family_alone_does_not_move_the_other_familys_adapter(
    tiny_folder: Folders, data: Path, tmp_path: Path
) -> None:
    session = session_of(tiny_models.recipe_of(tiny_folder("bert"), data, optimizer={"weight_decay": 0.0}), tmp_path)
    model = session.model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for step in range(3):
        session.optimizer.zero_grad(set_to_none=True)
        model("ner", batch_of(session, "ner", step)).backward()
        session.optimizer.step()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not any(name.startswith("adapters.classification") for name in moved)
    assert any(name.startswith("adapters.ner") for name in moved)
    assert any(name.startswith("encoder.layers.0") for name in moved)


def test_gradients_of_both_families_add_up_in_the_backbone(tiny_folder: Folders, data: Path, tmp_path: Path) -> None:
    recipe = tiny_models.recipe_of(tiny_folder("bert"), data, optimizer={"dropout": 0.0})
    session = session_of(recipe, tmp_path)
    model = session.model.train()
    batches = {family: batch_of(session, family) for family in FAMILIES}
    alone = {}
    for family in FAMILIES:
        model.zero_grad(set_to_none=True)
        model(family, batches[family]).backward()
        alone[family] = [parameter.grad.clone() for parameter in model.encoder.layers.parameters()]
    model.zero_grad(set_to_none=True)
    for family in FAMILIES:
        model(family, batches[family]).backward()
    for parameter, one, two in zip(model.encoder.layers.parameters(), *alone.values(), strict=True):
        assert torch.allclose(parameter.grad, one + two, atol=1e-6)


def test_naive_has_no_adapters_and_one_path_for_both_families(tiny_folder: Folders, data: Path, tmp_path: Path) -> None:
    recipe = tiny_models.recipe_of(tiny_folder("bert"), data, strategy="naive")
    session = session_of(recipe, tmp_path)
    batch = batch_of(session, "ner").chunks[0]
    session.model.eval()
    features = [session.model.features(family, batch) for family in FAMILIES]
    assert len(session.model.adapters) == 0
    assert torch.equal(*features)
    prefinetune(recipe, tmp_path / "run")
    assert load_bundle(tmp_path / "run" / "bundle").primaries == {}


def test_families_take_their_own_path_with_task_primary(tiny_folder: Folders, data: Path, tmp_path: Path) -> None:
    session = session_of(tiny_models.recipe_of(tiny_folder("bert"), data), tmp_path)
    batch = batch_of(session, "ner").chunks[0]
    session.model.eval()
    features = [session.model.features(family, batch) for family in FAMILIES]
    assert not torch.allclose(*features, atol=1e-3)


def test_the_bundle_has_each_familys_adapter_and_what_made_it(tiny_folder: Folders, data: Path, tmp_path: Path) -> None:
    recipe = tiny_models.recipe_of(
        tiny_folder("bert"), data, adapter={"rank": 3, "targets": ["key", "up"], "layers": 1}
    )
    bundle = load_bundle(prefinetune(recipe, tmp_path / "run"))
    assert set(bundle.primaries) == set(FAMILIES)
    for family in FAMILIES:
        lora = bundle.primaries.get(family)
        assert lora is not None
        assert (lora.config.rank, lora.config.targets, lora.config.layers) == (3, ("key", "up"), (3,))
        assert any(part.abs().sum() > 0 for name, part in lora.state_dict().items() if name.endswith(".b"))
    assert bundle.info["recipe"] == recipe.model_dump(mode="json")
    assert bundle.info["start"]["encoder"] == str(tiny_folder("bert"))
    assert bundle.encoder.fork == 2
    assert bundle.tokenizer.max_length == 32
    assert bundle.tasks == {}


def test_one_family_alone_is_trained_by_strategy_individual(tiny_folder: Folders, data: Path, tmp_path: Path) -> None:
    recipe = tiny_models.recipe_of(tiny_folder("bert"), data)
    ner = {"ner": recipe.families["ner"].model_dump()}
    recipe = tiny_models.recipe_of(tiny_folder("bert"), data, strategy="individual", families=ner)
    bundle = load_bundle(prefinetune(recipe, tmp_path / "run"))
    assert bundle.primaries == {}
    assert bundle.backbone != load_any(str(tiny_folder("bert"))).backbone
    assert {key for row in read_rows(tmp_path / "run" / "metrics.jsonl") for key in row if key.startswith("loss/")} == {
        "loss/ner"
    }


def test_strategy_individual_with_two_families_is_refused(tiny_folder: Folders, data: Path) -> None:
    with pytest.raises(RecipeError, match="individual trains one family, 2 are given"):
        tiny_models.recipe_of(tiny_folder("bert"), data, strategy="individual")


@pytest.mark.parametrize("strategy", ["task-primary", "naive"])
def test_the_losses_of_both_families_fall_and_retrieval_rises(
    strategy: str, tiny_folder: Folders, data: Path, tmp_path: Path
) -> None:
    recipe = tiny_models.recipe_of(
        tiny_folder("bert"),
        data,
        strategy=strategy,
        optimizer={"steps": 60, "backbone_rate": 3e-3, "adapter_rate": 3e-3, "objective_rate": 1e-2, "dropout": 0.0},
        monitor={"every": 60, "log_every": 10},
        checkpoint={"every": 60},
    )
    prefinetune(recipe, tmp_path / "run")
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    losses = [row for row in rows if "loss/ner" in row]
    measures = [row for row in rows if "dev/ner/loss" in row]
    assert losses[-1]["loss/ner"] < 0.7 * losses[0]["loss/ner"]
    assert losses[-1]["loss/classification"] < 0.8 * losses[0]["loss/classification"]
    assert [row["step"] for row in measures] == [0, 60]
    assert measures[1]["dev/ner/recall_at_1"] > measures[0]["dev/ner/recall_at_1"] + 0.2
    assert measures[1]["dev/ner/loss"] < measures[0]["dev/ner/loss"]


def test_an_empty_source_and_one_of_the_wrong_kind_are_both_named_before_anything_is_trained(
    tiny_folder: Folders, data: Path, tmp_path: Path
) -> None:
    good = tiny_models.recipe_of(tiny_folder("bert"), data)
    pairs = next(iter(good.families["classification"].sources))
    (tmp_path / "empty.jsonl").write_text("")
    sources = {str(tmp_path / "empty.jsonl"): {}, pairs: {}, str(tmp_path / "none.jsonl"): {}}
    recipe = tiny_models.recipe_of(tiny_folder("bert"), data, families={"ner": {"sources": sources}})
    with pytest.raises(RecipeError) as caught:
        prefinetune(recipe, tmp_path / "run")
    assert len(caught.value.problems) == 3
    for problem, name in zip(caught.value.problems, sources, strict=True):
        assert problem.startswith(f"families.ner.sources.{name}: ")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_ner_without_any_concept_is_refused(tiny_folder: Folders, tmp_path: Path) -> None:
    blank = tiny_models.write_jsonl(tmp_path / "blank.jsonl", [{"text": "nothing here", "entities": []}] * 20)
    families = {"ner": {"sources": {str(blank): {}}, "tokens": 64}}
    recipe = tiny_models.recipe_of(tiny_folder("bert"), tmp_path, families=families)
    with pytest.raises(TrunklineError, match=r"no entity.*labelled spans"):
        prefinetune(recipe, tmp_path / "run")


def test_sources_without_a_concept_among_others_are_handled_in_training_and_measured(
    tiny: Loaded, tiny_folder: Folders, data: Path, tmp_path: Path
) -> None:
    recipe = tiny_models.recipe_of(tiny_folder("bert"), data)
    blank = [NerExample(text, split_words(text), ()) for text in tiny_models.SENTENCES]
    some = recipe_sources(recipe)["ner"][0]
    ner = [
        Source("blank", blank, blank, {}, closed=False),
        dataclasses.replace(some, name="open", closed=False, held_out=blank, weight=1e-6),
    ]
    pairs = recipe_sources(recipe)["classification"]
    session = Session(recipe, tiny, {"ner": ner, "classification": pairs}, tmp_path, Report())
    batch = batch_of(session, "ner")
    assert len(batch.targets.concepts) == 0
    loss = session.model.train()("ner", batch)
    loss.backward()
    assert float(loss.detach()) == 0
    assert size(session.model) == 0
    values = session.evaluate()
    assert values["dev/ner/blank/loss"] >= 0 and values["dev/ner/open/loss"] >= 0


def test_two_sources_with_the_same_file_name_are_told_apart_and_the_run_resumes(
    tiny_folder: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.prefinetune.model.OFTEN", 0)
    for number, part in enumerate("ab"):
        tiny_models.write_jsonl(tmp_path / part / "train.jsonl", tiny_models.ner_rows(30, seed=number))
    sources = {str(tmp_path / part / "train.jsonl"): {} for part in "ab"}
    families = {"ner": {"sources": sources, "tokens": 64}}
    recipe = tiny_models.recipe_of(tiny_folder("bert"), tmp_path / "data", families=families, checkpoint={"every": 2})

    def progress(done: int, steps: int, values: dict[str, float]) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prefinetune(recipe, tmp_path / "run", Report(progress=progress))
    said: list[str] = []
    prefinetune(recipe, tmp_path / "run", Report(said.append))
    assert [f" of {name} will be drawn" in line for name in ("train", "train-2") for line in said].count(True) == 2
    names = {
        key.split("/")[2] for row in read_rows(tmp_path / "run" / "metrics.jsonl") for key in row if key.count("/") == 3
    }
    assert len(names) == 2


def test_a_batch_is_filled_up_to_its_budget(tiny_folder: Folders, data: Path, tmp_path: Path) -> None:
    session = session_of(tiny_models.recipe_of(tiny_folder("bert"), data), tmp_path)
    for family in FAMILIES:
        batch = batch_of(session, family)
        source, index = batch.drawn[-1]
        example = session.sources[family][source].train[index]
        last = sum(text.size for text in OBJECTIVES[family].unit_texts([example], session.tokenizer))
        assert 64 <= batch.n_tokens < 64 + last


def test_adapters_that_do_not_fit_are_refused(tiny: Loaded, tiny_folder: Folders, data: Path) -> None:
    recipe = tiny_models.recipe_of(tiny_folder("bert"), data, adapter={"layers": 3})
    with pytest.raises(TrunklineError, match=r"layers \[1\].*fork at 2"):
        adapters_of(recipe, tiny.encoder)


def test_starting_from_a_bundle_goes_on_from_its_backbone(tiny_folder: Folders, data: Path, tmp_path: Path) -> None:
    first = prefinetune(tiny_models.recipe_of(tiny_folder("bert"), data), tmp_path / "first")
    recipe = tiny_models.recipe_of(first, data, optimizer={"steps": 1, "backbone_rate": 1e-12, "weight_decay": 0.0})
    second = load_bundle(prefinetune(recipe, tmp_path / "second"))
    encoder = second.info["encoder"]
    assert (encoder["name"], encoder["bundle"]) == (tiny_folder("bert").name, True), "the one at the bottom"
    assert (
        tiny_models.difference(
            list(load_bundle(first).encoder.state_dict().values()), list(second.encoder.state_dict().values())
        )
        < 1e-6
    )


def test_what_a_bundle_was_trained_on_stays_in_the_licences_of_the_next(
    tiny_folder: Folders, data: Path, tmp_path: Path
) -> None:
    recipe = tiny_models.recipe_of(tiny_folder("bert"), data, optimizer={"steps": 1})
    first = prefinetune(recipe, tmp_path / "first")
    only = {"strategy": "individual", "families": {"ner": recipe.families["ner"].model_dump()}}
    second = prefinetune(tiny_models.recipe_of(first, data, optimizer={"steps": 1}, **only), tmp_path / "second")
    assert {part.part for part in load_bundle(second).licences} == {tiny_folder("bert").name, "ner", "pairs"}


def test_a_recipe_with_another_fork_than_its_bundle_is_refused(
    tiny_folder: Folders, data: Path, tmp_path: Path
) -> None:
    bundle = prefinetune(tiny_models.recipe_of(tiny_folder("bert"), data, optimizer={"steps": 1}), tmp_path / "first")
    with pytest.raises(MismatchError, match="fork is 1"):
        prefinetune(tiny_models.recipe_of(bundle, data, fork=1), tmp_path / "second")


def test_the_model_holds_one_objective_and_adapter_for_each_family(
    tiny_folder: Folders, data: Path, tmp_path: Path
) -> None:
    model: PrefinetuneModel = session_of(tiny_models.recipe_of(tiny_folder("bert"), data), tmp_path).model
    assert set(model.objectives) == set(model.adapters) == set(FAMILIES)
    assert model.adapter("other") is None


def test_two_runs_in_one_folder_are_refused(tiny_folder: Folders, data: Path, tmp_path: Path) -> None:
    recipe = tiny_models.recipe_of(tiny_folder("bert"), data, optimizer={"steps": 2}, monitor={"every": 0})
    tried = []

    def progress(done: int, steps: int, values: dict[str, float]) -> None:
        with pytest.raises(TrunklineError, match=r"another run is at work in .*run\..*--out"):
            prefinetune(recipe, tmp_path / "run")
        tried.append(done)

    bundle = prefinetune(recipe, tmp_path / "run", Report(progress=progress))
    assert tried == [1, 2]
    assert prefinetune(recipe, tmp_path / "run") == bundle, "the lock is gone with the run"


def test_who_watches_sees_the_start_and_every_step_and_changes_nothing(
    tiny_folder: Folders, data: Path, tmp_path: Path
) -> None:
    recipe = tiny_models.recipe_of(tiny_folder("bert"), data, optimizer={"steps": 4})
    seen: list[tuple[int, float]] = []

    def watch(step: int, session: Session) -> None:
        seen.append((step, float(session.model.encoder.embeddings.word.weight.detach().sum())))

    watched = prefinetune(recipe, tmp_path / "watched", watch=watch)
    plain = prefinetune(recipe, tmp_path / "plain")
    assert [step for step, _ in seen] == [0, 1, 2, 3, 4]
    assert len({value for _, value in seen}) == 5
    assert tiny_models.same_bits(tiny_models.bundle_tensors(watched), tiny_models.bundle_tensors(plain))
