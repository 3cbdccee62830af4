"""Plain text: what is masked, what it is predicted from, and that such a run is one like any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tiny_models
from trunkline.config import PrefinetuneRecipe, parse_recipe
from trunkline.encoder.bundle_files import Loaded, load_any
from trunkline.encoder.encoder import TokenBatch
from trunkline.errors import EncoderError, RecipeError, TrunklineError
from trunkline.model import load
from trunkline.prefinetune import Report, prefinetune
from trunkline.prefinetune import masked_text as masked_lm
from trunkline.prefinetune.masked_text import MaskedTextObjective, even_windows
from trunkline.prefinetune.model import PrefinetuneModel, StepBatch, draw_batch
from trunkline.prefinetune.objectives import OBJECTIVES, make_objective
from trunkline.prefinetune.run import Session
from trunkline.prefinetune.sources import recipe_sources
from trunkline.tasks import FAMILIES
from trunkline.text.examples import NerExample, PlainExample
from trunkline.text.tokens import Tokens, pack
from trunkline.training import read_rows
from trunkline.training.loop import Place

Folders = Callable[[str], Path]
SPECIAL = [0, 1, 2]


def sentences(count: int, seed: int = 0) -> list[str]:
    return [row["text"] for row in tiny_models.ner_rows(count, seed)]


def recipe_of(encoder: Path, data: Path, **changes: Any) -> PrefinetuneRecipe:
    path = data / "notes.txt"
    if not path.is_file():
        path.write_text("\n\n".join(sentences(120)), encoding="utf-8")
    families = {"text": {"sources": {str(path): {}}, "tokens": 128}}
    return tiny_models.recipe_of(encoder, data, **{"strategy": "individual", "families": families, **changes})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def units_of(tiny: Loaded, count: int) -> list[Any]:
    return MaskedTextObjective.unit_texts([PlainExample(text) for text in sentences(count)], tiny.tokenizer)


def objective_of(tiny: Loaded, seed: int = 0) -> MaskedTextObjective:
    section = recipe_section()
    made = make_objective("text", section, [], tiny, seed)
    assert isinstance(made, MaskedTextObjective)
    return made


def recipe_section() -> Any:
    raw = {"name": "r", "families": {"text": {"sources": {"brown": {}}}}}
    return parse_recipe(raw, PrefinetuneRecipe, "r").families["text"]


# What is masked


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 400), st.integers(3, 60))
def test_windows_are_even_and_have_every_token_once(count: int, room: int) -> None:
    """Overlapping windows as the tokenizer makes them are cut anew."""
    ids = np.arange(10, 10 + count)
    stride = room - min(32, room // 2)
    starts = range(0, max(count - (room - stride), 1), stride) if count > room else [0]
    windows = [np.concatenate(([0], ids[s : s + room], [2])) for s in starts]
    whole = np.concatenate(windows)
    place = np.asarray([np.flatnonzero(whole == token)[-1] for token in ids], np.int64)
    sizes = tuple(len(window) for window in windows)
    made = even_windows(Tokens("", np.zeros((count, 2), np.int64), whole, sizes, place))
    ends = np.cumsum(made.sizes)
    parts = [made.ids[end - size : end] for end, size in zip(ends, made.sizes, strict=True)]
    assert all((part[0], part[-1]) == (0, 2) for part in parts)
    assert np.concatenate([part[1:-1] for part in parts]).tolist() == ids.tolist()
    assert len(parts) == max(1, -(-count // room))
    assert max(made.sizes) - min(made.sizes) <= 1 and max(made.sizes) <= room + 2
    assert made.n_units == len(made.token) == 0


def test_fifteen_percent_of_the_batch_are_units_and_the_rest_is_as_it_was(tiny: Loaded) -> None:
    texts = units_of(tiny, 80)
    before = [text.ids.copy() for text in texts]
    altered, targets = objective_of(tiny).prepare(texts, [], 4)
    ordinary = sum(int((~np.isin(ids, SPECIAL)).sum()) for ids in before)
    assert sum(text.n_units for text in altered) == len(targets) == round(0.15 * ordinary)
    assert [text.sizes for text in altered] == [text.sizes for text in texts]
    found = []
    for text, ids in zip(altered, before, strict=True):
        assert text.unit.tolist() == list(range(text.n_units))
        rest = np.setdiff1d(np.arange(len(ids)), text.token)
        assert text.ids[rest].tolist() == ids[rest].tolist()
        assert not np.isin(ids[text.token], SPECIAL).any()
        found += ids[text.token].tolist()
    assert targets.tolist() == found
    assert all((text.ids == ids).all() for text, ids in zip(texts, before, strict=True)), "what is stored stays"
    mask = tiny_models.vocabulary()["[MASK]"]
    shares = np.concatenate([text.ids[text.token] for text in altered]) == mask
    assert 0.6 < shares.mean() < 0.95


def test_the_choice_depends_on_seed_and_step_alone(tiny: Loaded) -> None:
    texts = units_of(tiny, 20)

    def ids(seed: int, step: int) -> list[int]:
        return np.concatenate([text.ids for text in objective_of(tiny, seed).prepare(texts, [], step)[0]]).tolist()

    first = ids(0, 3)
    torch.rand(5)
    assert ids(0, 3) == first
    assert ids(1, 3) != first != ids(0, 4)


# What it is predicted from


def test_the_loss_is_that_of_the_states_at_the_masked_tokens(tiny: Loaded) -> None:
    made = objective_of(tiny)
    altered, targets = made.prepare(units_of(tiny, 12), [], 0)
    batch = TokenBatch.from_packed(pack(altered, 1))
    hidden = tiny.encoder(batch)
    words = tiny.encoder.embeddings.word.weight
    wanted = made(hidden.flatten(0, 1)[batch.unit_tokens], targets[batch.unit_ids])
    assert made(batch.pool(hidden), targets).item() == pytest.approx(wanted.item(), abs=1e-5)
    assert not any(parameter is words for parameter in made.parameters()), "it is trained once, as the encoder's"


def gradients(model: PrefinetuneModel, batch: StepBatch) -> dict[str, Tensor]:
    model.zero_grad()
    model("text", batch).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def session_of(recipe: PrefinetuneRecipe, folder: Path) -> Session:
    start = load_any(recipe.encoder, fork=recipe.fork, max_length=recipe.max_length)
    return Session(recipe, start, recipe_sources(recipe, start.tokenizer), folder, Report())


def batch_of(session: Session, **changes: Any) -> StepBatch:
    return draw_batch(
        session.mixtures["text"],
        session.model.objectives["text"],
        session.tokenizer,
        step=0,
        section=session.recipe.families["text"].model_copy(update={"tokens": 200, **changes}),
        pad_id=1,
        place=Place(),
    )


@pytest.mark.parametrize("how", ["in chunks", "few logits at a time"])
def test_what_saves_memory_changes_no_gradient(
    how: str, tiny_folder: Folders, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = [session_of(recipe_of(tiny_folder("bert"), data), tmp_path) for _ in range(2)]
    sessions[1].model.load_state_dict(sessions[0].model.state_dict())
    for session in sessions:
        session.model.eval()
    whole = gradients(sessions[0].model, batch_of(sessions[0]))
    if how == "in chunks":
        batch = batch_of(sessions[1], chunk_tokens=40)
        assert len(batch.chunks) > 3
    else:
        batch = batch_of(sessions[1])
        monkeypatch.setattr(masked_lm, "AT_ONCE", 5)
    assert len(batch.targets) > 20
    parts = gradients(sessions[1].model, batch)
    assert whole.keys() == parts.keys() and "encoder.embeddings.word.weight" in whole
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


# A run


@pytest.fixture(scope="module")
def bundle(tiny_folder: Folders, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rates = {"steps": 80, "backbone_rate": 3e-3, "objective_rate": 1e-2, "dropout": 0.0}
    recipe = recipe_of(
        tiny_folder("bert"),
        data,
        optimizer=rates,
        monitor={"every": 80, "log_every": 10},
        checkpoint={"every": 80},
    )
    return prefinetune(recipe, tmp_path_factory.mktemp("run") / "run")


def test_the_loss_falls_and_held_out_tokens_are_guessed(bundle: Path) -> None:
    rows = read_rows(bundle.parent / "metrics.jsonl")
    losses = [row["loss/text"] for row in rows if "loss/text" in row]
    assert losses[-1] < 0.6 * losses[0]
    first, last = (row for row in rows if "dev/text/masked_accuracy" in row)
    assert (first["step"], last["step"]) == (0, 80)
    assert last["dev/text/loss"] < 0.7 * first["dev/text/loss"]
    assert last["dev/text/masked_accuracy"] > first["dev/text/masked_accuracy"] + 0.2


def test_the_bundle_is_a_backbone_from_which_a_task_and_another_run_start(
    bundle: Path, tiny_folder: Folders, data: Path, tmp_path: Path
) -> None:
    loaded = load_any(str(bundle))
    assert loaded.primaries == loaded.tasks == {}
    assert loaded.backbone != load_any(str(tiny_folder("bert"))).backbone
    card = (bundle / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "pre-finetuned for text" in card and "trunkline fit my_task" in card
    rows = tiny_models.ner_rows(50, 9)
    texts = [row["text"] for row in rows]
    spans = [[tuple(entity) for entity in row["entities"]] for row in rows]
    model = load(bundle)
    model.fit("find", texts[:25], spans[:25], family="ner")
    assert model.evaluate("find", texts[25:], spans[25:]).scores["f1"] > 0.5
    pairs = tiny_models.recipe_of(bundle, data, optimizer={"steps": 2}, monitor={"every": 0})
    again = load_any(str(prefinetune(pairs, tmp_path / "run")))
    assert set(again.primaries) == {"ner", "classification"}


def test_five_steps_and_five_more_are_ten_bit_for_bit(tiny_folder: Folders, data: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tiny_folder("bert"), data, monitor={"every": 5, "log_every": 1})

    def stop(done: int, steps: int, values: dict[str, float]) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prefinetune(recipe, tmp_path / "stopped", Report(progress=stop))
    said: list[str] = []
    stopped = prefinetune(recipe, tmp_path / "stopped", Report(say=said.append))
    assert any(text.startswith("going on after step") for text in said)
    whole = prefinetune(recipe, tmp_path / "whole")
    assert tiny_models.same_bits(tiny_models.bundle_tensors(stopped), tiny_models.bundle_tensors(whole))


def test_it_trains_beside_other_families(tiny_folder: Folders, data: Path, tmp_path: Path) -> None:
    base = recipe_of(tiny_folder("bert"), data)
    text = base.families["text"].model_dump()
    both = {**tiny_models.recipe_of(tiny_folder("bert"), data).model_dump()["families"], "text": text}
    recipe = recipe_of(
        tiny_folder("bert"),
        data,
        strategy="task-primary",
        families={name: both[name] for name in ("ner", "text")},
        optimizer={"steps": 2},
        monitor={"every": 2, "log_every": 1},
    )
    made = load_any(str(prefinetune(recipe, tmp_path / "run")))
    assert set(made.primaries) == {"ner", "text"}
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert all({"loss/ner", "loss/text"} <= row.keys() for row in rows if "rate_factor" in row)


# Sources


def names_of(sources: dict[str, dict[str, Any]], **more: Any) -> PrefinetuneRecipe:
    return parse_recipe({"name": "r", "families": {"text": {"sources": sources}}, **more}, PrefinetuneRecipe, "r")


def test_files_and_folders_are_sources(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text("one\n\ntwo two", encoding="utf-8")
    lines = tiny_models.write_jsonl(tmp_path / "lines.jsonl", [{"text": "a line of text"}] * 3)
    sentences = tiny_models.write_jsonl(tmp_path / "ner.jsonl", tiny_models.ner_rows(5))
    named = {str(sentences): {}, str(tmp_path / "notes"): {}, str(lines): {"cap": 2}}
    found = recipe_sources(names_of(named))["text"]
    assert [source.name for source in found] == ["ner", "notes", "lines"]
    assert all(type(source.train[0]) is PlainExample for source in found)
    assert [len(source.train) for source in found[1:]] == [2, 2]
    (tmp_path / "notes" / "b.md").write_text("three", encoding="utf-8")
    folder = recipe_sources(names_of({str(tmp_path / "notes"): {}}))["text"][0]
    assert len(folder.train) == 3, "a folder that has changed is read anew"
    ner = {"name": "r", "families": {"ner": {"sources": {str(sentences): {}}}}}
    source = recipe_sources(parse_recipe(ner, PrefinetuneRecipe, "r"))["ner"][0]
    assert type(source.train[0]) is NerExample, "views of a file are told apart"


def test_what_stands_in_a_tasks_test_part_is_left_out(tmp_path: Path) -> None:
    leak = "the meeting with ana moved to the big room on monday"
    task = tiny_models.write_jsonl(tmp_path / "test.jsonl", [{"text": leak.upper(), "label": "a"}])
    (tmp_path / "notes.txt").write_text("\n\n".join([*sentences(30), leak]), encoding="utf-8")
    sources = {str(tmp_path / "notes.txt"): {}}
    for clean, left in ((None, 31), ({"against": str(task)}, 30)):
        more = {"decontaminate": clean} if clean else {}
        source = recipe_sources(names_of(sources, **more))["text"][0]
        texts = [example.text for example in (*source.train, *source.held_out)]
        assert len(texts) == left and (leak in texts) == (clean is None)


# Bad input


def test_sources_without_text_are_listed_with_what_is_wrong(tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("", encoding="utf-8")
    pairs = tiny_models.write_jsonl(tmp_path / "pairs.jsonl", tiny_models.pair_rows(3))
    (tmp_path / "none").mkdir()
    sources = {str(empty): {}, str(pairs): {}, str(tmp_path / "none"): {}, str(tmp_path / "emty.txt"): {}}
    with pytest.raises(RecipeError) as caught:
        recipe_sources(names_of(sources))
    problems = caught.value.problems
    assert len(problems) == len(sources)
    wanted = ("empty.txt", "pairs.jsonl", "none", "did you mean 'empty.txt'")
    for problem, words in zip(problems, wanted, strict=True):
        assert words in problem


@pytest.mark.parametrize(
    ("change", "message"),
    [({"sources": {}}, "sources"), ({"sources": {"brown": 0}}, "brown")],
)
def test_a_section_that_makes_no_sense_is_refused(change: dict[str, Any], message: str) -> None:
    section = {"sources": {"brown": {}}, **change}
    with pytest.raises(RecipeError, match=message):
        parse_recipe({"name": "r", "families": {"text": section}}, PrefinetuneRecipe, "r")


def test_plain_text_has_no_tasks() -> None:
    assert OBJECTIVES["text"] is MaskedTextObjective
    with pytest.raises(TrunklineError, match="one of ner, classification, multilabel, qa"):
        FAMILIES["text"]


def test_a_tokenizer_without_a_mask_is_an_error(tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.prefinetune.masked_text.MASK_NAMES", ("<other>",))
    with pytest.raises(EncoderError, match="no mask token"):
        objective_of(tiny)
