"""Every split of every task card loads from the real data with the count and the labels that its card says."""

from __future__ import annotations

import pytest

from trunkline.text.examples import NerExample
from trunkline_lab.data.cards import DATA_VARIABLE, data_folder, has_data_folder, labels_of, list_cards, load_card

pytestmark = pytest.mark.slow

# Not every copy of this data set has the file, as its card says.
INCOMPLETE = {("tweeteval_sentiment", "train")}
TASKS = [name for name in list_cards() if load_card(name).role == "task"]


@pytest.fixture(autouse=True)
def _real_data() -> None:
    if not has_data_folder() or not data_folder().is_dir():
        pytest.skip(f"the real data is not here: set {DATA_VARIABLE}")


@pytest.mark.parametrize("name", TASKS)
def test_counts_labels_and_disjoint_splits(name: str) -> None:
    card = load_card(name)
    seen: set[str] = set()
    texts: dict[str, set[str]] = {}
    missing = []
    for split in card.splits:
        if (name, split) in INCOMPLETE and not card.resolve(card.files[split][0].path).exists():
            missing.append(split)
            continue
        examples = card.load(split)
        assert len(examples) == card.counts[split]
        assert all(example.words for example in examples if isinstance(example, NerExample))
        seen.update(label for example in examples for label in labels_of(example))
        texts[split] = {" ".join(example.text.lower().split()) for example in examples}
    assert seen == set(card.labels)
    for split, rule in card.resplit.items():
        assert not texts[split] & texts[rule.source]
    if missing:
        pytest.skip(f"{name}: no files for {', '.join(missing)}; the other splits were checked")
