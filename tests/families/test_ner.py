"""NER: decoding, scoring, and what a word is known to be."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.data.examples import NerExample, Span, split_words
from trunkline.data.mixture import Source
from trunkline.data.tagging import decode_tags
from trunkline.families.ner import Ner, TokenConceptObjective, best_path

LABELS = ("O", "B-a", "I-a", "B-b", "I-b")


def allowed(path):
    tags = [LABELS[i] for i in path]
    return all(
        not tag.startswith("I-") or (i > 0 and tags[i - 1] in ("B-" + tag[2:], "I-" + tag[2:]))
        for i, tag in enumerate(tags)
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_best_path_is_the_best_of_all_valid_sequences(seed, n_words):
    scores = np.random.default_rng(seed).normal(size=(n_words, len(LABELS)))
    path = best_path(scores, LABELS)
    valid = [p for p in itertools.product(range(len(LABELS)), repeat=n_words) if allowed(p)]
    best = max(sum(scores[i, tag] for i, tag in enumerate(p)) for p in valid)
    assert allowed(path)
    assert sum(scores[i, tag] for i, tag in enumerate(path)) == pytest.approx(best)


def sentence(text, *spans):
    return NerExample(
        text, split_words(text), tuple(Span(text.index(s), text.index(s) + len(s), kind) for s, kind in spans)
    )


def test_decode_gives_character_offsets_of_the_text():
    text = "Meet Ana Lima, 7pm"
    words = split_words(text)
    probabilities = np.full((len(words), 5), 0.01)
    for word, tag in enumerate([0, 1, 2, 0, 3, 4]):
        probabilities[word, tag] = 0.96
    found = Ner().decode(probabilities, text, words, LABELS)
    assert [(e["text"], e["label"]) for e in found] == [("Ana Lima", "a"), ("7pm", "b")]
    assert all(text[e["start"] : e["end"]] == e["text"] for e in found)
    assert found[0]["score"] == pytest.approx(0.96)


def test_no_words_give_no_entities():
    assert Ner().decode(np.zeros((0, 5)), "", (), LABELS) == []


def test_score_is_strict_and_agrees_with_its_counts():
    gold = [sentence("Ana Lima met Bo", ("Ana Lima", "a"), ("Bo", "b")), sentence("nobody came")]
    predicted = [
        [{"start": 0, "end": 3, "label": "a"}, {"start": 13, "end": 15, "label": "b"}],
        [{"start": 0, "end": 6, "label": "a"}],
    ]
    scores = Ner().score(gold, predicted)
    # One of three predictions is right (Bo); two entities are true.
    assert scores["precision"] == pytest.approx(1 / 3)
    assert scores["recall"] == pytest.approx(1 / 2)
    assert scores["f1"] == pytest.approx(0.4)
    counts = Ner().counts(gold, predicted)
    assert counts == [[1, 2, 2], [0, 1, 0]]
    assert Ner().score_of_counts(np.sum(counts, axis=0)) == pytest.approx(scores["f1"])


def test_unit_targets_are_bio_and_unknown_types_are_left_out():
    example = sentence("Ana Lima met Bo", ("Ana Lima", "a"), ("Bo", "new"))
    assert Ner().unit_targets(example, LABELS) == [1, 2, 0, -1]


def objective(*sources):
    return TokenConceptObjective(sources, lambda texts: torch.ones(len(texts), 4), negatives=10, seed=0)


def test_closed_sources_know_that_unlabelled_words_are_negatives_of_their_own_concepts_only():
    closed = Source("c", [], [], {"A": "person", "B": "city"}, closed=True)
    opened = Source("o", [], [], {"X": "drug"}, closed=False)
    made = objective(closed, opened)
    drawn = [(0, sentence("Ana left", ("Ana", "A"))), (1, sentence("take aspirin", ("aspirin", "X")))]
    targets = made.targets(drawn, 0)
    names = sorted(made.index, key=made.index.get)
    column = {names[c]: number for number, c in enumerate(targets.concepts.tolist())}
    assert set(column) == {"person", "city", "drug"}
    assert targets.positive[0].nonzero().flatten().tolist() == [column["person"]]
    assert targets.valid[0].all()
    assert targets.valid[1].tolist() == [name != "drug" for name in sorted(column, key=column.get)]
    assert not targets.valid[2].any(), "an unlabelled word of an open source is unknown"
    assert targets.valid[3].all()
    assert targets.positive[3].nonzero().flatten().tolist() == [column["drug"]]


def test_the_same_concept_of_two_sources_is_one_concept():
    assert len(objective(Source("a", [], [], {"PER": "person"}), Source("b", [], [], {"pers": "person"})).index) == 1


def test_a_batch_without_concepts_has_a_finite_loss():
    made = objective(Source("o", [], [], {"X": "drug"}, closed=False))
    loss = made(torch.randn(2, 4), made.targets([(0, sentence("nothing here"))], 0))
    assert float(loss.detach()) == 0.0


def test_held_out_words_without_any_concept_are_measured_as_none():
    made = objective(Source("o", [], [], {"X": "drug"}, closed=False))
    name, values = made.measure(torch.randn(2, 4), made.targets([(0, sentence("nothing here"))], 0))
    assert (name, values.tolist()) == ("recall_at_1", [])


def test_a_word_of_several_entities_is_positive_for_each():
    source = Source("s", [], [], {"A": "person", "B": "singer", "C": "city"})
    made = objective(source)
    targets = made.targets([(0, sentence("Ana Lima sang", ("Ana Lima", "A"), ("Lima", "B")))], 0)
    names = [sorted(made.index, key=made.index.get)[c] for c in targets.concepts.tolist()]
    found = [{name for name, hit in zip(names, row, strict=True) if hit} for row in targets.positive.tolist()]
    assert found == [{"person"}, {"person", "singer"}, set()]
    assert targets.valid.all()


def test_negatives_are_limited_and_depend_on_seed_and_step_alone():
    source = Source("s", [], [], {f"L{i}": f"concept {i}" for i in range(40)})
    drawn = [(0, sentence("Ana left", ("Ana", "L7")))]
    made, again, other = (
        TokenConceptObjective([source], lambda t: torch.ones(len(t), 4), 5, seed) for seed in (0, 0, 1)
    )
    chosen = made.targets(drawn, 3).concepts.tolist()
    assert len(set(chosen)) == 6
    assert made.index["concept 7"] in chosen
    assert chosen == again.targets(drawn, 3).concepts.tolist()
    assert chosen != made.targets(drawn, 4).concepts.tolist()
    assert chosen != other.targets(drawn, 3).concepts.tolist()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_the_score_is_that_of_the_counts_whatever_is_predicted(seed):
    rng = np.random.default_rng(seed)
    gold, predicted = [], []
    for _ in range(4):
        text = " ".join("abcdefg"[: rng.integers(1, 8)])
        words = split_words(text)
        tags = [[LABELS[i] for i in best_path(rng.normal(size=(len(words), 5)), LABELS)] for _ in range(2)]
        spans = [[(words[a][0], words[b - 1][1], label) for a, b, label in decode_tags(row)] for row in tags]
        gold.append(NerExample(text, words, tuple(Span(*span) for span in spans[0])))
        predicted.append([{"start": a, "end": b, "label": label} for a, b, label in spans[1]])
    scores, total = Ner().score(gold, predicted), np.sum(Ner().counts(gold, predicted), axis=0)
    same = sum(
        len({(s.start, s.end, s.label) for s in g.spans} & {tuple(e.values()) for e in p})
        for g, p in zip(gold, predicted, strict=True)
    )
    assert Ner().score_of_counts(total) == pytest.approx(scores["f1"])
    assert total.tolist() == [same, sum(map(len, predicted)), sum(len(g.spans) for g in gold)]
