"""The conflict report: exact on gradients that are known, without a trace in training, and honest about noise."""

from __future__ import annotations

import itertools
import json
import random
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tiny_models
from trunkline.config import PrefinetuneRecipe
from trunkline.encoder.bundle_files import Loaded, load_any
from trunkline.errors import TrainingError, TrunklineError
from trunkline.prefinetune.model import PrefinetuneModel, Source, StepBatch
from trunkline.prefinetune.objectives import make_objective
from trunkline.prefinetune.sources import recipe_sources
from trunkline.prefinetune.strategies import adapters_of
from trunkline.training import read_rows
from trunkline_lab.conflict.measure import ConflictLog, gradients, measure_conflict, shared_parameters
from trunkline_lab.conflict.report import draw_batches, levels

Folders = Callable[[str], Path]
PARTS = {
    "embeddings": slice(0, 2),
    "layer-0/attention": slice(2, 5),
    "layer-0/feed-forward": slice(5, 9),
    "layer-0": slice(2, 9),
    "whole": slice(0, 9),
}


class ToyLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.up = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(4))


class ToyEncoder(nn.Module):
    """Its features are its nine parameters, all zero."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.ParameterDict({"word": torch.zeros(2)})
        self.layers = nn.ModuleList([ToyLayer()])

    def forward(self, tokens: Any, deltas: Any = None) -> Tensor:
        return torch.cat([parameter.flatten() for parameter in self.parameters()])


class ToyTokens:
    def pool(self, hidden: Tensor) -> Tensor:
        return hidden


class Quadratic(nn.Module):
    """1/2 |x + g|^2, whose gradient at x = 0 is g."""

    def forward(self, features: Tensor, gradient: Tensor) -> Tensor:
        return 0.5 * ((features + gradient) ** 2).sum()


def toy_model(families: Sequence[str] = ("a", "b")) -> PrefinetuneModel:
    encoder: Any = ToyEncoder()
    return PrefinetuneModel(encoder, {}, {family: Quadratic() for family in families})


def toy_batches(**gradients_of: Any) -> list[dict[str, StepBatch]]:
    """Batches with the given gradients, [batches, 9] for each family."""
    tokens: Any = ToyTokens()
    columns = {family: torch.as_tensor(np.asarray(rows), dtype=torch.float32) for family, rows in gradients_of.items()}
    count = len(next(iter(columns.values())))
    return [{family: StepBatch((tokens,), rows[i], []) for family, rows in columns.items()} for i in range(count)]


def by_group(measured: dict[str, Any], *, adapters: bool = False) -> dict[str, dict[str, Any]]:
    return {row["group"]: row for row in measured["rows"] if row["adapters"] == adapters}


def cosine(left: Any, right: Any) -> float:
    return float(left @ right / np.linalg.norm(left) / np.linalg.norm(right))


def test_every_measure_is_exact_on_known_gradients() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.5, 1, (6, 9)), rng.normal(-0.2, 2, (6, 9))
    measured = measure_conflict(toy_model(), toy_batches(a=a, b=b), bf16=False)
    found = by_group(measured)
    assert found.keys() == PARTS.keys()
    for group, part in PARTS.items():
        row, x, y = found[group], a[:, part], b[:, part]
        cosines = np.asarray([cosine(*pair) for pair in zip(x, y, strict=True)])
        logs = np.log(np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1))
        assert row["families"] == ["a", "b"] and row["batches"] == 6
        assert row["cosine"] == pytest.approx(cosines.mean(), abs=1e-6)
        assert row["cosine_se"] == pytest.approx(cosines.std(ddof=1) / 6**0.5, abs=1e-6)
        assert row["conflict"] == (cosines < 0).mean()
        assert row["norm_ratio"] == pytest.approx(np.exp(logs.mean()), rel=1e-5)
        assert row["log_ratio_se"] == pytest.approx(logs.std(ddof=1) / 6**0.5, abs=1e-5)
        for family, z in (("a", x), ("b", y)):
            inner = [cosine(*pair) for pair in itertools.pairwise(z)]
            assert row["within"][family] == pytest.approx(np.mean(inner), abs=1e-6)
            assert row["within_se"][family] == pytest.approx(np.std(inner, ddof=1) / 5**0.5, abs=1e-6)
        low, high = sorted(row["within"].values())
        corrected = pytest.approx(cosines.mean() / (low * high) ** 0.5, abs=1e-5) if low > 0 else None
        assert row["corrected"] == corrected
    assert measured["losses"][0]["a"] == pytest.approx(0.5 * (a**2).sum(1).mean(), rel=1e-5)
    assert {round(100 * row["conflict"]) for row in found.values()} - {0, 100}, "a case with some conflict"


@pytest.mark.parametrize(("factor", "conflict"), [(1.0, 0.0), (-1.0, 1.0), (-3.0, 1.0)])
def test_equal_losses_agree_and_opposite_ones_conflict(factor: float, conflict: float) -> None:
    g = np.tile(np.arange(1.0, 10.0), (4, 1))
    measured = measure_conflict(toy_model(), toy_batches(a=g, b=factor * g), bf16=False)
    for row in measured["rows"]:
        assert row["cosine"] == pytest.approx(np.sign(factor), abs=1e-6)
        assert row["corrected"] == pytest.approx(np.sign(factor), abs=1e-6)
        assert row["within"] == pytest.approx({"a": 1, "b": 1})
        assert row["conflict"] == conflict
        assert row["norm_ratio"] == pytest.approx(1 / abs(factor), rel=1e-6)


def test_weights_change_the_norm_ratio_alone() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 5, 9))
    plain = by_group(measure_conflict(toy_model(), toy_batches(a=a, b=b), bf16=False))
    weighted = by_group(measure_conflict(toy_model(), toy_batches(a=a, b=b), bf16=False, weights={"a": 4.0}))
    for group, row in weighted.items():
        assert row["norm_ratio"] == pytest.approx(4 * plain[group]["norm_ratio"], rel=1e-5)
        assert row["cosine"] == pytest.approx(plain[group]["cosine"], abs=1e-6)
        assert row["corrected"] == pytest.approx(plain[group]["corrected"], abs=1e-5)


def test_three_families_are_compared_pair_by_pair() -> None:
    a, b, c = np.random.default_rng(0).normal(size=(3, 4, 9))
    measured = measure_conflict(toy_model("abc"), toy_batches(a=a, b=b, c=c), bf16=False)
    for pair, (x, y) in {("a", "b"): (a, b), ("a", "c"): (a, c), ("b", "c"): (b, c)}.items():
        (row,) = [r for r in measured["rows"] if r["families"] == list(pair) and r["group"] == "whole"]
        assert row["cosine"] == pytest.approx(np.mean([cosine(*z) for z in zip(x, y, strict=True)]), abs=1e-6)


class WideEncoder(ToyEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.ParameterDict({"word": torch.zeros(2000)})


def test_the_corrected_cosine_sees_through_noise_that_hides_the_measured_one() -> None:
    rng = np.random.default_rng(0)
    size = 2007
    mean_a, mean_b = np.zeros(size), np.zeros(size)
    mean_a[0], mean_b[0], mean_b[1] = 20, -12, 16
    noise = rng.normal(size=(2, 40, size))
    encoder: Any = WideEncoder()
    model = PrefinetuneModel(encoder, {}, {"a": Quadratic(), "b": Quadratic()})
    whole = by_group(measure_conflict(model, toy_batches(a=mean_a + noise[0], b=mean_b + noise[1]), bf16=False))[
        "whole"
    ]
    assert whole["cosine"] == pytest.approx(-0.1, abs=0.03), "-0.6 * 400 / 2400"
    assert whole["within"] == pytest.approx({"a": 1 / 6, "b": 1 / 6}, abs=0.03)
    assert 0.01 < whole["corrected_se"] < 0.1
    assert abs(whole["corrected"] + 0.6) < 3 * whole["corrected_se"]


def test_a_batch_without_gradient_counts_as_neither_conflict_nor_agreement() -> None:
    a = np.ones((3, 9))
    b = -np.ones((3, 9))
    b[1] = 0
    a[:, PARTS["embeddings"]] = 0
    measured = measure_conflict(toy_model(), toy_batches(a=a, b=b), bf16=False)
    found = by_group(measured)
    assert (found["layer-0"]["batches"], found["layer-0"]["conflict"]) == (2, 1.0)
    assert found["embeddings"]["batches"] == 0
    assert [found["embeddings"][key] for key in ("cosine", "conflict", "norm_ratio", "corrected")] == [None] * 4
    json.dumps(measured, allow_nan=False)


def test_what_cannot_be_measured_is_refused() -> None:
    g = np.ones((3, 9))
    with pytest.raises(TrunklineError, match="at least 2 batches of each of at least 2 families"):
        measure_conflict(toy_model(), toy_batches(a=g), bf16=False)
    with pytest.raises(TrunklineError, match="1 batches of 2 families"):
        measure_conflict(toy_model(), toy_batches(a=g[:1], b=g[:1]), bf16=False)
    with pytest.raises(TrunklineError, match="0 batches"):
        measure_conflict(toy_model(), [], bf16=False)
    with pytest.raises(TrunklineError, match=r"batch 3 is of \['a'\]"):
        measure_conflict(toy_model(), [*toy_batches(a=g, b=g), *toy_batches(a=g)], bf16=False)
    frozen = toy_model()
    frozen.encoder.requires_grad_(False)
    with pytest.raises(TrunklineError, match="backbone is frozen"):
        measure_conflict(frozen, toy_batches(a=g, b=g), bf16=False)
    broken = g.copy()
    broken[2, 4] = np.nan
    with pytest.raises(TrainingError, match="gradient of b is not finite in batch 2"):
        measure_conflict(toy_model(), toy_batches(a=g, b=broken), bf16=False)


def test_frozen_parts_are_left_out() -> None:
    model = toy_model()
    model.encoder.embeddings.requires_grad_(False)
    rng = np.random.default_rng(0).normal(size=(2, 3, 9))
    found = by_group(measure_conflict(model, toy_batches(a=rng[0], b=rng[1]), bf16=False))
    assert "embeddings" not in found
    assert found["whole"]["cosine"] == found["layer-0"]["cosine"]


def test_no_more_than_one_gradient_more_than_families_is_alive() -> None:
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    def backward(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Sequence[Tensor | None]:
        nonlocal most
        found = gradients(loss, parameters)
        alive.append(weakref.ref(found[0]))  # type: ignore[arg-type]
        most = max(most, sum(reference() is not None for reference in alive))
        return found

    rng = np.random.default_rng(0).normal(size=(2, 8, 9))
    measure_conflict(toy_model(), toy_batches(a=rng[0], b=rng[1]), bf16=False, backward=backward)
    assert len(alive) == 16
    assert most == 3


# The tiny BERT with real batches


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


Parts = tuple[PrefinetuneModel, PrefinetuneRecipe, dict[str, list[Source]], Loaded]


def tiny_parts(folder: Path, data: Path, **changes: Any) -> Parts:
    """A model as a recipe says, its adapters as after some training."""
    recipe = tiny_models.recipe_of(folder, data, **changes)
    start = load_any(recipe.encoder, fork=recipe.fork, max_length=recipe.max_length)
    sources = recipe_sources(recipe, start.tokenizer)
    torch.manual_seed(0)
    start.encoder.dropout = recipe.optimizer.dropout
    objectives: dict[str, nn.Module] = {
        family: make_objective(family, section, sources[family], start, 0)
        for family, section in recipe.families.items()
    }
    model = PrefinetuneModel(start.encoder, adapters_of(recipe, start.encoder), objectives)
    with torch.no_grad():
        for parameter in model.adapters.parameters():
            parameter.normal_(std=0.2)
    return model, recipe, sources, start


def some_batches(parts: Parts, count: int = 3) -> list[dict[str, StepBatch]]:
    model, recipe, sources, start = parts
    return list(itertools.islice(draw_batches(recipe, sources, model, start.tokenizer), count))


def test_the_tiny_bert_gives_all_groups_with_and_without_adapters(tiny_folder: Folders, data: Path) -> None:
    parts = tiny_parts(tiny_folder("bert"), data)
    model = parts[0]
    parameters, groups = shared_parameters(model.encoder)
    shared = {id(parameter) for parameter in parameters}
    assert shared == {id(parameter) for parameter in model.encoder.parameters()}
    assert not shared & {id(parameter) for parameter in [*model.adapters.parameters(), *model.objectives.parameters()]}
    expected = {f"layer-{layer}{block}" for layer in range(4) for block in ("", "/attention", "/feed-forward")}
    assert groups.keys() == {"embeddings", *expected, "whole"}
    for layer in range(4):
        halves = groups[f"layer-{layer}/attention"] + groups[f"layer-{layer}/feed-forward"]
        assert sorted(halves) == groups[f"layer-{layer}"]
    assert sorted(i for name in levels(groups) for i in groups[name]) == groups["whole"] == list(range(len(parameters)))
    batches = some_batches(parts)
    measured = measure_conflict(model, batches, bf16=False)
    with_adapters, without = by_group(measured, adapters=True), by_group(measured)
    assert with_adapters.keys() == without.keys() == groups.keys()
    assert all(abs(row["cosine"]) <= 1 and row["norm_ratio"] > 0 for row in measured["rows"])
    # By another path: the whole gradient by backward, one family after the other.
    for adapters in (True, False):
        own = PrefinetuneModel(model.encoder, dict(model.adapters) if adapters else {}, dict(model.objectives))  # type: ignore[arg-type]
        vectors = {}
        for family in ("ner", "classification"):
            own.zero_grad()
            own.eval()(family, batches[0][family]).backward()
            grads = [p.grad.flatten() for p in own.encoder.layers[3].parameters() if p.grad is not None]
            vectors[family] = torch.cat(grads).numpy()
        own.zero_grad()
        one = by_group(measure_conflict(model, [batches[0]] * 2, bf16=False), adapters=adapters)["layer-3"]
        assert one["cosine"] == pytest.approx(cosine(vectors["ner"], vectors["classification"]), abs=1e-4)
        assert one["within"] == pytest.approx({"ner": 1, "classification": 1}, abs=1e-5)
    assert abs(with_adapters["layer-3"]["cosine"] - without["layer-3"]["cosine"]) > 1e-3


def train(parts: Parts, *, measure: bool) -> tuple[dict[str, Tensor], Any, list[Any]]:
    """Six steps with dropout, as the loop does them; conflict is measured between backward and step, too."""
    model, recipe, sources, start = parts
    fixed = some_batches(parts, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    model.train()
    other = recipe.model_copy(update={"seed": recipe.seed + 1})
    for batch in itertools.islice(draw_batches(other, sources, model, start.tokenizer), 6):
        optimizer.zero_grad()
        for family in recipe.families:
            model(family, batch[family]).backward()
            if measure:
                measure_conflict(model, fixed, bf16=False)
        assert all(module.training for module in model.modules())
        optimizer.step()
        if measure:
            measure_conflict(model.eval(), fixed, bf16=True)
            assert not any(module.training for module in model.modules())
            model.train()
    states = [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]  # type: ignore[index]
    gradients_left = {f"grad {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return model.state_dict() | gradients_left, optimizer.state_dict(), states


def test_training_is_bit_for_bit_the_same_with_and_without_measuring(tiny_folder: Folders, data: Path) -> None:
    changes: dict[str, Any] = {"optimizer": {"dropout": 0.2}}
    plain = train(tiny_parts(tiny_folder("bert"), data, **changes), measure=False)
    measured = train(tiny_parts(tiny_folder("bert"), data, **changes), measure=True)
    assert tiny_models.same_bits(plain[0], measured[0])
    for key, state in plain[1]["state"].items():
        assert all(torch.equal(value, measured[1]["state"][key][name]) for name, value in state.items())
    assert plain[2] == measured[2]


def test_the_losses_are_those_of_training_without_dropout(tiny_folder: Folders, data: Path) -> None:
    parts = tiny_parts(tiny_folder("bert"), data, optimizer={"dropout": 0.4})
    batches = some_batches(parts)
    again = measure_conflict(parts[0].train(), batches, bf16=False)
    assert again == measure_conflict(parts[0].eval(), batches, bf16=False)
    with torch.no_grad():
        expected = np.mean([float(parts[0]("ner", batch["ner"])) for batch in batches])
    assert again["losses"][0]["ner"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("bf16", [False, True])
def test_batches_in_chunks_have_the_gradients_of_whole_ones(bf16: bool, tiny_folder: Folders, data: Path) -> None:
    whole = tiny_parts(tiny_folder("bert"), data)
    sections = {name: {**f.model_dump(), "chunk_tokens": 32} for name, f in whole[1].families.items()}
    chunked = tiny_parts(tiny_folder("bert"), data, families=sections)
    batches = some_batches(chunked)
    assert min(len(part.chunks) for batch in batches for part in batch.values()) > 1
    found = by_group(measure_conflict(chunked[0], batches, bf16=bf16), adapters=True)
    expected = by_group(measure_conflict(whole[0], some_batches(whole), bf16=bf16), adapters=True)
    for group, row in found.items():
        for key in ("cosine", "norm_ratio"):
            assert row[key] == pytest.approx(
                expected[group][key], rel=0.15 if bf16 else 1e-4, abs=0.03 if bf16 else 1e-5
            )


def test_the_batches_are_the_same_each_time_and_others_with_another_seed(tiny_folder: Folders, data: Path) -> None:
    parts = tiny_parts(tiny_folder("bert"), data)
    model, recipe, sources, start = parts
    first, second = some_batches(parts, 4), some_batches(parts, 4)
    other = recipe.model_copy(update={"seed": recipe.seed + 1})
    others = list(itertools.islice(draw_batches(other, sources, model, start.tokenizer), 4))
    drawn = [[[b[family].drawn for b in rows] for family in recipe.families] for rows in (first, second, others)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len({str(batch["ner"].drawn) for batch in first}) == 4


def measured_with(value: float) -> dict[str, Any]:
    rng = np.random.default_rng(0).normal(size=(2, 3, 9))
    return measure_conflict(toy_model(), toy_batches(a=rng[0], b=value * rng[1]), bf16=False)


def test_the_log_resumes(tmp_path: Path) -> None:
    path = tmp_path / "run" / "conflict.jsonl"
    path.parent.mkdir()
    log = ConflictLog(path)
    for step in (0, 10, 20):
        log.write(step, measured_with(1.0))
    with path.open("a") as file:
        file.write('{"step": 30, "gro')
    resumed = ConflictLog(path, done=15)
    assert [row["step"] for row in read_rows(path)] == [0] * 5 + [10] * 5
    resumed.write(20, measured_with(-1.0))
    rows = read_rows(path)
    assert [row["step"] for row in rows] == [0] * 5 + [10] * 5 + [20] * 5
    assert [{k: v for k, v in row.items() if k != "step"} for row in rows[10:]] == measured_with(-1.0)["rows"]
    ConflictLog(path)
    assert read_rows(path) == []
