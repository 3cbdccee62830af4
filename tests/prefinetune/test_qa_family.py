"""Question answering in pre-finetuning: span pointers, and a third family beside the other two."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_models
import trunkline
from trunkline.config import PrefinetuneRecipe
from trunkline.data.load import load_examples
from trunkline.encoder.bundle_files import Loaded, load_any, load_bundle
from trunkline.errors import RecipeError, TrunklineError
from trunkline.prefinetune import Report, prefinetune
from trunkline.prefinetune.model import draw_batch
from trunkline.prefinetune.objectives import PointerTargets, SpanPointerObjective
from trunkline.prefinetune.run import Session
from trunkline.prefinetune.sources import recipe_sources
from trunkline.tasks.qa import Qa
from trunkline.text.examples import QaExample
from trunkline.training import read_rows
from trunkline.training.loop import Place

Folders = Callable[[str], Path]
FAMILY = Qa()
FAMILIES = ("ner", "classification", "qa")


def qa_rows(count: int, seed: int = 0, unanswerable: float = 0.2) -> list[dict[str, Any]]:
    """Who and where about sentences with one person and one place, some without the one that is asked for."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        name, place, word = rng.choice(tiny_models.NAMES), rng.choice(tiny_models.PLACES), rng.choice(tiny_models.WORDS)
        context = rng.choice((f"{name} lives in {place} {word}", f"yesterday in {place} we met {name} {word}"))
        who = rng.random() < 0.5
        answer = name if who else place
        if rng.random() < unanswerable:
            context = context.replace(answer, "it")
            rows.append({"question": "who" if who else "where", "context": context, "answers": []})
            continue
        answers = [{"text": answer, "answer_start": context.index(answer)}]
        rows.append({"question": "who" if who else "where", "context": context, "answers": answers})
    return rows


def squad_of(rows: list[dict[str, Any]], path: Path) -> Path:
    paragraphs = [{"context": row["context"], "qas": [{**row, "id": n}]} for n, row in enumerate(rows)]
    path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    return path


def recipe_of(encoder: Path, data: Path, **changes: Any) -> PrefinetuneRecipe:
    base = tiny_models.recipe_of(encoder, data)
    if not (data / "questions.jsonl").is_file():
        tiny_models.write_jsonl(data / "questions.jsonl", qa_rows(80))
    families = {name: section.model_dump() for name, section in base.families.items()}
    families["qa"] = {"sources": {str(data / "questions.jsonl"): {}}, "tokens": 96}
    return tiny_models.recipe_of(encoder, data, families=families, **changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def bundle(tiny_folder: Folders, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty joint steps of three families."""
    rates = {"steps": 20, "backbone_rate": 3e-3, "adapter_rate": 3e-3, "objective_rate": 1e-2, "dropout": 0.0}
    recipe = recipe_of(
        tiny_folder("bert"), data, optimizer=rates, monitor={"every": 20, "log_every": 1}, checkpoint={"every": 20}
    )
    return prefinetune(recipe, tmp_path_factory.mktemp("run"))


# The objective


def questions() -> list[QaExample]:
    return [
        QaExample("q", "a b c a", ((0, 1), (6, 7))),
        QaExample("q", "a b"),
        QaExample("q", "one two three", ((0, 7),)),
        QaExample("q", "one two three", ((0, 3), (0, 7))),
    ]


def targets_of(examples: list[QaExample]) -> PointerTargets:
    return SpanPointerObjective(4).targets([(0, example) for example in examples], 0)


def test_the_loss_is_the_cross_entropy_of_all_right_starts_and_ends() -> None:
    objective = SpanPointerObjective(8)
    targets = targets_of(questions())
    features = torch.randn(5 + 3 + 4 + 4, 8)
    scores = objective.pointers(features).double().detach()
    gold = [({1, 4}, {1, 4}), ({0}, {0}), ({1}, {2}), ({1}, {1, 2})]
    parts = []
    for rows, sides in zip(scores.split([5, 3, 4, 4]), gold, strict=True):
        for side, right in enumerate(sides):
            parts.append(-rows[:, side].softmax(0)[sorted(right)].sum().log())
    assert float(objective(features, targets).detach()) == pytest.approx(float(torch.stack(parts).mean()), abs=1e-6)


def test_gradients_are_finite_and_a_question_does_not_touch_another_ones_units() -> None:
    objective = SpanPointerObjective(8)
    features = torch.randn(8, 8, requires_grad=True)
    objective(features, targets_of(questions()[:2])).backward()
    assert features.grad is not None and torch.isfinite(features.grad).all() and features.grad.any(dim=1).all()
    alone = features.detach()[:5].requires_grad_(True)
    objective(alone, targets_of(questions()[:1])).backward()
    assert alone.grad is not None and torch.allclose(2 * features.grad[:5], alone.grad, atol=1e-6)


def test_measure_counts_exact_spans() -> None:
    objective = SpanPointerObjective(2)
    with torch.no_grad():
        objective.pointers.weight.copy_(torch.eye(2))
        objective.pointers.bias.zero_()
    features = torch.full((16, 2), -5.0)
    for unit, side in ((4, 0), (4, 1), (5, 0), (5, 1), (9, 0), (10, 1), (13, 0), (15, 1)):
        features[unit, side] = 5.0
    name, found = objective.measure(features, targets_of(questions()))
    assert name == "exact_match"
    assert found.tolist() == [1.0, 1.0, 1.0, 0.0]
    features[4] = -6.0
    features[0] = 0.0
    assert objective.measure(features, targets_of(questions()))[1].tolist() == [0.0, 1.0, 1.0, 0.0]


# Beside the other families


def session_of(recipe: PrefinetuneRecipe, folder: Path) -> Session:
    start = load_any(recipe.encoder, fork=recipe.fork, max_length=recipe.max_length)
    session = Session(recipe, start, recipe_sources(recipe, start.tokenizer), folder, Report())
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in session.model.adapters.parameters():
            parameter.normal_(std=0.1)
    return session


def size(module: torch.nn.Module) -> float:
    return max((float(p.grad.abs().max()) for p in module.parameters() if p.grad is not None), default=0.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_reaches_only_its_own_familys_adapter_and_objective(
    family: str, tiny_folder: Folders, data: Path, tmp_path: Path
) -> None:
    session = session_of(recipe_of(tiny_folder("bert"), data), tmp_path)
    model = session.model.train()
    assert set(model.adapters) == set(model.objectives) == set(FAMILIES)
    batch = draw_batch(
        session.mixtures[family],
        model.objectives[family],
        session.tokenizer,
        step=0,
        section=session.recipe.families[family].model_copy(update={"tokens": 64}),
        pad_id=1,
        place=Place(),
    )
    model(family, batch).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.adapters[family].parameters())
    for other in set(FAMILIES) - {family}:
        assert size(model.adapters[other]) == size(model.objectives[other]) == 0
    assert all(size(layer) > 0 for layer in model.encoder.layers)
    if family == "qa":
        assert size(model.objectives["qa"]) > 0


def test_three_families_are_trained_together(bundle: Path) -> None:
    rows = read_rows(bundle.parent / "metrics.jsonl")
    losses = [row for row in rows if "loss/qa" in row]
    assert {f"loss/{family}" for family in FAMILIES} <= losses[0].keys()
    assert losses[-1]["loss/qa"] < 0.9 * losses[0]["loss/qa"]
    assert [row["step"] for row in rows if "dev/qa/exact_match" in row] == [0, 20]
    loaded = load_bundle(bundle)
    assert set(loaded.primaries) == set(FAMILIES)


def test_a_task_from_a_squad_file_is_fitted_saved_and_loaded(bundle: Path, tmp_path: Path) -> None:
    train, test = (squad_of(qa_rows(count, seed), tmp_path / f"{seed}.json") for count, seed in ((120, 5), (60, 6)))
    family, examples = load_examples(train)
    assert family == "qa"
    model = trunkline.load(bundle)
    model.fit("ask", examples)
    model.save(tmp_path / "bundle")
    gold = load_examples(test)[1]
    first, again = (trunkline.load(tmp_path / "bundle").predict([example.text for example in gold]) for _ in range(2))
    assert first == again
    predicted = [row["ask"] for row in first]
    scores = FAMILY.score(gold, predicted)
    assert scores == pytest.approx(dict(model.evaluate("ask", gold).scores))
    assert all(
        p["answer"] == ("" if p["start"] is None else e.context[p["start"] : p["end"]])
        for p, e in zip(predicted, gold, strict=True)
    )
    rng = random.Random(0)
    by_chance = [{"answer": rng.choice([*example.context.split(), ""])} for example in gold]
    assert scores["token_f1"] > FAMILY.score(gold, by_chance)["token_f1"] + 0.25
    assert {p["answer"] for p in predicted if p["answer"]} & set(tiny_models.NAMES)


def test_tasks_of_other_families_on_the_same_text_do_not_disturb_each_other(bundle: Path, tmp_path: Path) -> None:
    model = trunkline.load(bundle)
    model.fit("ask", load_examples(squad_of(qa_rows(60, 8), tmp_path / "qa.json"))[1])
    model.fit("find", load_examples(tiny_models.write_jsonl(tmp_path / "ner.jsonl", tiny_models.ner_rows(40)))[1])
    texts = ["who\nann lives in rome", f"where\n{'the old river ' * 40}and ann lives in rome", "who\nnobody"]
    together = model.predict(texts)
    for name in ("ask", "find"):
        alone = model.predict(texts, tasks=[name])
        assert [row[name] for row in together] == [row[name] for row in alone]
    with pytest.raises(TrunklineError):
        model.predict(["ann lives in rome"])
    assert model.predict(["ann lives in rome"], tasks=["find"])[0]["find"]


def test_a_long_context_has_units_in_every_window(tiny: Loaded) -> None:
    context = f"{'the old river ' * 60}yesterday in rome we met ann {'the new river ' * 60}"
    example = QaExample("who", context, ((context.index("ann"), context.index("ann") + 3),))
    units = SpanPointerObjective.unit_texts([example], tiny.tokenizer)[0]
    assert len(units.sizes) > 4 and set(units.unit.tolist()) == set(range(units.n_units))


def test_sources_of_another_kind_are_refused(tiny_folder: Folders, data: Path, tmp_path: Path) -> None:
    pairs = tiny_models.write_jsonl(tmp_path / "pairs.jsonl", tiny_models.pair_rows(5))
    recipe = tiny_models.recipe_of(tiny_folder("bert"), data, families={"qa": {"sources": {str(pairs): {}}}})
    with pytest.raises(RecipeError, match=r"1 problem:\s+- families\.qa\.sources\..*pairs\.jsonl"):
        recipe_sources(recipe)
