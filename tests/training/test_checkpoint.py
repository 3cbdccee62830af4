"""Checkpoints and logs: going on is the same as never having stopped, and halves are ignored."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

import tiny_models
from trunkline.encoder.bundle_files import load_bundle
from trunkline.errors import MismatchError, TrunklineError
from trunkline.prefinetune import Report, prefinetune
from trunkline.training import MetricsLog, read_rows, write_rows
from trunkline.training.checkpoint import (
    checkpoints,
    load_checkpoint,
    random_state,
    save_checkpoint,
)
from trunkline.training.loop import Interrupted

Folders = Callable[[str], Path]


class Crash(Exception):
    """Stands for a power cut."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def reference(tiny_folder: Folders, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was never stopped."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    prefinetune(tiny_models.recipe_of(tiny_folder("bert"), data), folder)
    return folder


def stop_at(step: int, number: int | None) -> Report:
    def progress(done: int, steps: int, values: dict[str, float]) -> None:
        if done == step:
            if number is None:
                raise Crash
            os.kill(os.getpid(), number)

    return Report(progress=progress)


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds_per_step"} for row in rows]


@pytest.mark.parametrize(
    ("stops", "resumed"),
    [
        ([(5, signal.SIGTERM)], [5]),
        ([(3, signal.SIGINT), (8, signal.SIGTERM)], [3, 8]),
        ([(7, None)], [5]),
        ([(2, None)], []),
        ([(10, signal.SIGTERM)], [10]),
    ],
    ids=[
        "stopped at 5",
        "stopped at 3 and 8",
        "crashed at 7",
        "crashed before the first checkpoint",
        "stopped at the end",
    ],
)
def test_a_run_that_was_stopped_ends_bit_for_bit_like_one_that_was_not(
    stops: list[tuple[int, int | None]],
    resumed: list[int],
    tiny_folder: Folders,
    data: Path,
    reference: Path,
    tmp_path: Path,
) -> None:
    recipe = tiny_models.recipe_of(tiny_folder("bert"), data)
    said: list[str] = []
    for step, number in stops:
        with pytest.raises(Crash if number is None else Interrupted):
            prefinetune(recipe, tmp_path / "run", stop_at(step, number))
        assert not (tmp_path / "run" / "bundle").exists()
        torch.randn(17)
    prefinetune(recipe, tmp_path / "run", Report(say=said.append))
    assert [line for line in said if "going on" in line] == [f"going on after step {step}" for step in resumed[-1:]]
    ours, theirs = (tiny_models.bundle_tensors(folder / "bundle") for folder in (tmp_path / "run", reference))
    assert tiny_models.same_bits(ours, theirs)
    rows = [without_times(read_rows(folder / "metrics.jsonl")) for folder in (tmp_path / "run", reference)]
    assert rows[0] == rows[1]
    infos = [load_bundle(folder / "bundle").info for folder in (tmp_path / "run", reference)]
    assert infos[0]["tokens_seen"] == infos[1]["tokens_seen"] > 0


def test_the_run_did_train(tiny_folder: Folders, data: Path, reference: Path, tmp_path: Path) -> None:
    before = load_bundle(reference / "bundle").backbone
    other = tiny_models.recipe_of(tiny_folder("bert"), data, seed=4)
    prefinetune(other, tmp_path / "run")
    tensors = [tiny_models.bundle_tensors(folder / "bundle") for folder in (reference, tmp_path / "run")]
    assert tensors[0].keys() == tensors[1].keys()
    assert not any(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[0] if "lora" in key)
    assert before != load_bundle(tmp_path / "run" / "bundle").backbone


def test_two_runs_of_a_recipe_are_equal_bit_for_bit(
    tiny_folder: Folders, data: Path, reference: Path, tmp_path: Path
) -> None:
    recipe = tiny_models.recipe_of(tiny_folder("bert"), data)
    prefinetune(recipe, tmp_path / "run")
    folders = (tmp_path / "run" / "bundle", reference / "bundle")
    assert tiny_models.same_bits(*(tiny_models.bundle_tensors(folder) for folder in folders))


def test_a_finished_run_is_left_alone(tiny_folder: Folders, data: Path, reference: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in reference.rglob("*")}
    said: list[str] = []
    bundle = prefinetune(tiny_models.recipe_of(tiny_folder("bert"), data), reference, Report(say=said.append))
    assert bundle == reference / "bundle"
    assert len(said) == 1
    assert said[0].endswith("is complete, nothing to do")
    assert {path: path.stat().st_mtime_ns for path in reference.rglob("*")} == before


@pytest.mark.parametrize(
    ("changes", "key"), [({"seed": 9}, "seed"), ({"optimizer": {"backbone_rate": 1e-4}}, "optimizer")]
)
def test_going_on_with_another_recipe_is_refused_and_the_difference_named(
    changes: dict[str, Any], key: str, tiny_folder: Folders, data: Path, reference: Path
) -> None:
    recipe = tiny_models.recipe_of(tiny_folder("bert"), data, **changes)
    with pytest.raises(MismatchError, match=f"differs in {key}.*--out"):
        prefinetune(recipe, reference)


def training() -> tuple[nn.Module, torch.optim.Optimizer]:
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    return module, torch.optim.AdamW(module.parameters(), lr=0.1)


def steps(module: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
    for _ in range(count):
        optimizer.zero_grad()
        module(torch.randn(5, 3)).square().mean().backward()
        optimizer.step()


def test_weights_optimizer_and_random_state_come_back(tmp_path: Path) -> None:
    module, optimizer = training()
    steps(module, optimizer, 3)
    path = save_checkpoint(tmp_path, 3, module, optimizer, {"note": "ü"}, keep=1)
    steps(module, optimizer, 4)
    torch.manual_seed(99)
    again, its_optimizer = training()
    assert load_checkpoint(path, again, its_optimizer) == (3, {"note": "ü"})
    steps(again, its_optimizer, 4)
    assert tiny_models.same_bits(module.state_dict(), again.state_dict())


def drawn() -> list[float]:
    return torch.randn(3).tolist()


def test_each_process_gets_its_own_random_state_back(tmp_path: Path) -> None:
    module, optimizer = training()
    states, wanted = [], []
    for _ in range(2):
        states.append(random_state())
        wanted.append(drawn())
    path = save_checkpoint(tmp_path, 1, module, optimizer, {}, keep=1, random=states)
    for rank in (1, 0):
        load_checkpoint(path, module, optimizer, rank=rank)
        assert drawn() == wanted[rank]
    with pytest.raises(MismatchError, match=r"is of 2 processes and this is number 3"):
        load_checkpoint(path, module, optimizer, rank=2)


def test_training_draws_from_torch_and_from_generators_of_its_own_alone() -> None:
    """So a checkpoint needs no state of numpy's and Python's global generators."""
    source = Path(prefinetune.__code__.co_filename).parents[1]
    for path in [p for part in ("prefinetune", "training", "encoder", "text") for p in (source / part).rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r"np\.random\.(?!default_rng|Generator|seed\(seed\))", text), path
        assert not re.findall(r"\brandom\.(choice|random|shuffle|sample|gauss)\(", text.replace("rng.random", "")), path


def test_the_optimizers_state_replaces_what_was_there(tmp_path: Path) -> None:
    module, optimizer = training()
    path = save_checkpoint(tmp_path, 0, module, optimizer, {}, keep=1)
    first = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    torch.manual_seed(1)
    steps(module, optimizer, 3)
    after = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    load_checkpoint(path, module, optimizer)
    assert tiny_models.same_bits(module.state_dict(), first)
    torch.manual_seed(1)
    steps(module, optimizer, 3)
    assert tiny_models.same_bits(module.state_dict(), after)


@pytest.mark.parametrize("kept", [0.0, 0.05, 0.5, 0.99])
def test_a_damaged_checkpoint_is_named_and_changes_nothing(kept: float, tmp_path: Path) -> None:
    module, optimizer = training()
    steps(module, optimizer, 2)
    path = save_checkpoint(tmp_path, 1, module, optimizer, {}, keep=1)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    other, its_optimizer = training()
    before = {key: tensor.clone() for key, tensor in other.state_dict().items()}
    with pytest.raises(TrunklineError, match=r"step-00000001\.safetensors is damaged.*Delete it and run"):
        load_checkpoint(path, other, its_optimizer)
    assert tiny_models.same_bits(before, other.state_dict())
    assert not its_optimizer.state


@pytest.mark.gpu
@pytest.mark.parametrize("fused", [False, True])
def test_a_run_on_a_gpu_goes_on_bit_for_bit(fused: bool, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")

    def on_gpu() -> tuple[nn.Module, torch.optim.Optimizer]:
        module = training()[0].cuda()
        return module, torch.optim.AdamW(module.parameters(), lr=0.1, fused=fused)

    def gpu_steps(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for _ in range(4):
            optimizer.zero_grad()
            module(torch.randn(5, 3, device="cuda")).square().mean().backward()
            optimizer.step()

    module, optimizer = on_gpu()
    gpu_steps(module, optimizer)
    path = save_checkpoint(tmp_path, 4, module, optimizer, {}, keep=1)
    gpu_steps(module, optimizer)
    again, its_optimizer = on_gpu()
    load_checkpoint(path, again, its_optimizer)
    gpu_steps(again, its_optimizer)
    assert tiny_models.same_bits(module.state_dict(), again.state_dict())


def test_only_the_last_checkpoints_are_kept_and_they_are_in_order(tmp_path: Path) -> None:
    module, optimizer = training()
    for step in (1, 9, 10, 100):
        save_checkpoint(tmp_path, step, module, optimizer, {}, keep=2)
    assert [path.stem for path in checkpoints(tmp_path)] == ["step-00000010", "step-00000100"]
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["step-00000010", "step-00000100"]


def test_half_written_checkpoints_are_ignored_and_cleared_away(tmp_path: Path) -> None:
    module, optimizer = training()
    save_checkpoint(tmp_path, 2, module, optimizer, {}, keep=3)
    half = tmp_path / ".step-00000003.safetensors.0a1b.part"
    half.write_bytes(b"half")
    assert [path.stem for path in checkpoints(tmp_path)] == ["step-00000002"]
    assert checkpoints(tmp_path / "none") == []
    save_checkpoint(tmp_path, 5, module, optimizer, {}, keep=3)
    assert [path.stem for path in checkpoints(tmp_path)] == ["step-00000002", "step-00000005"]
    assert not half.exists()


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["from the system", "from safetensors"],
)
def test_a_full_disk_keeps_earlier_checkpoints_and_says_so(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, optimizer = training()
    save_checkpoint(tmp_path, 1, module, optimizer, {}, keep=1)

    def fail(path: Path, content: bytes) -> None:
        raise error

    monkeypatch.setattr("trunkline.training.checkpoint.write_atomic", fail)
    with pytest.raises(TrunklineError, match=r"step-00000002\..*could not be written.*No space.*earlier checkpoints"):
        save_checkpoint(tmp_path, 2, module, optimizer, {}, keep=1)
    assert [path.stem for path in tmp_path.iterdir()] == ["step-00000001"]
    load_checkpoint(checkpoints(tmp_path)[0], module, optimizer)


def test_a_checkpoint_of_another_format_or_module_is_refused(tmp_path: Path) -> None:
    module, optimizer = training()
    path = save_checkpoint(tmp_path, 1, module, optimizer, {}, keep=1)
    other = nn.Linear(3, 4)
    with pytest.raises(MismatchError, match=r"does not fit this recipe(?s:.*)another run folder"):
        load_checkpoint(path, other, torch.optim.AdamW(other.parameters()))
    save_file(load_file(path), path, {"trunkline": json.dumps({"format": 0})})
    with pytest.raises(MismatchError, match=r"format 0.*format 3"):
        load_checkpoint(path, module, optimizer)


def test_the_log_drops_a_line_that_was_cut_off_and_rows_of_lost_steps(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for step in range(1, 8):
        log.write(step, {"loss": step / 2})
    with path.open("a") as file:
        file.write('{"step": 8, "lo')
    assert [row["step"] for row in read_rows(path)] == [1, 2, 3, 4, 5, 6, 7]
    again = MetricsLog(path, done=5)
    again.write(6, {"loss": 100.0})
    assert read_rows(path) == [*({"step": s, "loss": s / 2} for s in range(1, 6)), {"step": 6, "loss": 100.0}]
    assert path.read_text().endswith("\n")
    assert [item.name for item in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("action", ["begin", "write"])
def test_a_log_on_a_full_disk_ends_in_an_error_that_says_what_to_do(
    action: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.write(1, {"loss": 1.0})

    def fail(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.setattr(Path, "open", fail if action == "write" else Path.open)
    with pytest.raises(TrunklineError, match=r"metrics\.jsonl could not be written.*No space.*Free some space"):
        {"begin": lambda: MetricsLog(path, 1), "write": lambda: log.write(2, {})}[action]()
    monkeypatch.undo()
    assert read_rows(path) == [{"step": 1, "loss": 1.0}]


def test_a_missing_log_has_no_rows(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "none.jsonl") == []


def test_line_separators_of_unicode_inside_a_row_do_not_split_it(tmp_path: Path) -> None:
    rows = [{"step": 1, "text": "a\u2028b\u0085c\x0bd"}, {"step": 2, "text": "\n"}]
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows
