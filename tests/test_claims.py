"""What the documentation claims of the shipped sample, measured again; minutes long, run by `make test-slow`."""

import json

import pytest

from trunkline.quickstart import quickstart


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_pre_finetuning_gains_on_average_in_each_family(tmp_path):
    quickstart(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "comparison.jsonl").read_text("utf-8").splitlines()]
    gains = {row["task"]: row["gain"] for row in rows if row["task"].startswith("average") and row["gain"] is not None}
    assert set(gains) == {"average ner", "average classification"}
    assert all(gain > 0 for gain in gains.values()), gains
