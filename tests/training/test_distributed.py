"""Several processes are one: the same losses, the same weights."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny_models
from trunkline.config import PrefinetuneRecipe, parse_recipe
from trunkline.errors import TrainingError
from trunkline.prefinetune import prefinetune
from trunkline.training import read_rows
from trunkline.training.loop import gather_units, mean_gradients, shares

# Past the interpreter's own end, because gloo's threads now and then abort a process there, when all is saved
# (pytorch/pytorch#179291).
RUN = """
import os
import sys
from pathlib import Path
from trunkline.config import PrefinetuneRecipe, load_recipe
from trunkline.prefinetune import prefinetune
prefinetune(load_recipe(Path(sys.argv[1]), PrefinetuneRecipe), Path(sys.argv[2]))
os._exit(0)
"""


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 6))
def test_shares_cover_all_texts_in_order_and_none_is_empty(sizes, processes):
    if len(sizes) < processes:
        with pytest.raises(TrainingError, match="texts"):
            shares(sizes, processes)
        return
    parts = shares(sizes, processes)
    assert [number for part in parts for number in range(len(sizes))[part]] == list(range(len(sizes)))
    assert len(parts) == processes and all(sizes[part] for part in parts)
    assert max(sum(sizes[part]) for part in parts) <= sum(sizes) / processes + 2 * max(sizes) * processes


def test_one_process_gathers_and_averages_nothing():
    features, parameter = torch.ones(3, 2), torch.nn.Parameter(torch.ones(2))
    assert gather_units(features, ()) is features and gather_units(features, (3,)) is features
    mean_gradients([parameter], 1)
    assert parameter.grad is None


def launch(recipe: Path, folder: Path, processes: int) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}
    common |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "LOCAL_WORLD_SIZE": str(processes)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RUN, str(recipe), str(folder)],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    ended = [process.communicate(timeout=200)[1] for process in started]
    assert all(process.returncode == 0 for process in started), "\n".join(ended)[-4000:]


@pytest.mark.parametrize("change", ["task-primary", "pcgrad and chunks"])
def test_two_processes_equal_one(change, tiny_folder, tmp_path):
    raw = tiny_models.recipe_of(tiny_folder("bert"), tmp_path).model_dump(mode="json")
    raw["optimizer"] |= {"dropout": 0.0, "steps": 4}
    raw["monitor"]["every"] = raw["checkpoint"]["every"] = 2
    if change == "pcgrad and chunks":
        raw["strategy"] = "pcgrad"
        raw["families"]["ner"]["chunk_tokens"] = 24
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    one = prefinetune(parse_recipe(raw, PrefinetuneRecipe, "r"), tmp_path / "one")
    launch(path, tmp_path / "two", 2)
    ours, theirs = tiny_models.bundle_tensors(one), tiny_models.bundle_tensors(tmp_path / "two" / "bundle")
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        # A key's bias adds the same to all scores of a query: its gradient is rounding, which Adam enlarges.
        tolerance = 1e-3 if name.endswith("key.bias") else 5e-6
        assert torch.allclose(tensor, theirs[name], atol=tolerance), name
    losses = [
        [row["loss/ner"] for row in read_rows(tmp_path / name / "metrics.jsonl") if "loss/ner" in row]
        for name in ("one", "two")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and len(losses[0]) == 4
