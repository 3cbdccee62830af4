"""NER: decoding, scoring, and what a word is known to be."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.config import FamilySection, parse_recipe
from trunkline.errors import RecipeError
from trunkline.prefinetune.losses.token_concept import nearest_concepts
from trunkline.prefinetune.mixture import Source
from trunkline.prefinetune.objectives.ner import TokenConceptObjective
from trunkline.tasks import paths
from trunkline.tasks.ner import Ner, may_follow, tag_transitions
from trunkline.tasks.paths import best_paths
from trunkline.text.examples import NerExample, Span
from trunkline.text.tags import decode_tags
from trunkline.text.words import split_words

LABELS = ("O", "B-a", "I-a", "B-b", "I-b")


def allowed(path):
    tags = [LABELS[i] for i in path]
    return all(
        not tag.startswith("I-") or (i > 0 and tags[i - 1] in ("B-" + tag[2:], "I-" + tag[2:]))
        for i, tag in enumerate(tags)
    )


def total(path, scores, transitions):
    before = [len(LABELS), *path][: len(path)]
    return sum(scores[i, tag] + transitions[b, tag] for i, (b, tag) in enumerate(zip(before, path, strict=True)))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 4), max_size=5), st.booleans(), st.sampled_from([1, 50, 2**17]))
def test_tags_are_the_best_of_all_valid_sequences(seed, lengths, learned, block):
    rng = np.random.default_rng(seed)
    probabilities = [rng.dirichlet(np.ones(len(LABELS)), size=length) for length in lengths]
    transitions = rng.normal(size=(6, 5)).astype(np.float32) * 2 if learned else None
    texts = [("abcd", [(i, i + 1) for i in range(length)]) for length in lengths]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "BLOCK", block)
        found = Ner().decode(probabilities, texts, LABELS, transitions)
    for length, part, entities in zip(lengths, probabilities, found, strict=True):
        valid = [p for p in itertools.product(range(len(LABELS)), repeat=length) if allowed(p)]
        added = np.zeros((6, 5)) if transitions is None else transitions
        best = max(valid, key=lambda path: total(path, np.log(part), added))
        spans = decode_tags([LABELS[tag] for tag in best])
        assert [(e["start"], e["end"], e["label"]) for e in entities] == spans


def test_without_transitions_ties_go_to_the_tag_that_comes_first():
    even = np.full((3, 5), 0.2, np.float32)
    assert Ner().decode([even], [("abc", [(0, 1), (1, 2), (2, 3)])], LABELS) == [[]]
    assert best_paths([([even, even[:0]], np.zeros((6, 5)))])[0][0].tolist() == [0, 0, 0]
    assert best_paths([([even], np.eye(6, 5))])[0][0].tolist() == [0, 0, 0]


def test_a_tag_after_another_is_worth_what_training_says():
    # O B-a I-a, twice; O B-b; an unknown tag, behind which nothing is counted.
    targets = [[0, 1, 2], [0, 1, 2], [], [0, 3], [3, -1, 0]]
    worth = tag_transitions(targets, LABELS)
    assert worth.shape == (6, 5)
    assert worth.dtype == np.float32
    assert worth[1, 2] == worth[1].max() > 1, "I-a follows B-a"
    assert worth[3, 4] > 1, "I-b follows B-b, as types share what is seen of them"
    assert worth[1, 1] < 0, "B-a does not follow B-a"
    assert worth[5, 0] > 0 > worth[5, 1], "sentences begin with O"
    assert (worth[:, [2, 4]][~may_follow(LABELS)[:, [2, 4]]] == 0).all(), "what is forbidden has no worth"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 6))
def test_transitions_times_the_share_of_the_tag_are_probabilities(seed, sentences):
    rng = np.random.default_rng(seed)
    rules = np.where(may_follow(LABELS), 0.0, -np.inf)
    scores = [rng.normal(size=(5, 5)) for _ in range(sentences)]
    targets = [row.tolist() for row in best_paths([(scores, rules)])[0]]
    share = (np.bincount(np.ravel(targets).astype(int), minlength=5) + 1) / (5 * sentences + 5)
    follows = np.where(may_follow(LABELS), np.exp(tag_transitions(targets, LABELS)), 0.0)
    assert follows @ share == pytest.approx(np.ones(6), rel=1e-5)


def test_learned_transitions_mend_a_person_cut_in_two():
    text = "Ana Lima"
    words = split_words(text)
    probabilities = np.array([[0.02, 0.95, 0.01, 0.01, 0.01], [0.04, 0.5, 0.4, 0.03, 0.03]], np.float32)
    worth = tag_transitions([[0, 1, 2, 0], [1, 2], [0, 3]], LABELS)
    [cut, mended] = (Ner().decode([probabilities], [(text, words)], LABELS, t)[0] for t in (None, worth))
    assert [e["text"] for e in cut] == ["Ana", "Lima"]
    assert [e["text"] for e in mended] == ["Ana Lima"]
    assert mended[0]["score"] == pytest.approx((0.95 + 0.4) / 2)


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
    [found] = Ner().decode([probabilities], [(text, words)], LABELS)
    assert [(e["text"], e["label"]) for e in found] == [("Ana Lima", "a"), ("7pm", "b")]
    assert all(text[e["start"] : e["end"]] == e["text"] for e in found)
    assert found[0]["score"] == pytest.approx(0.96)


def test_no_words_give_no_entities():
    assert Ner().decode([np.zeros((0, 5))], [("", ())], LABELS) == [[]]
    assert Ner().decode([], [], LABELS) == []


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
        scores = [rng.normal(size=(len(words), 5)) for _ in range(2)]
        allowed = np.where(may_follow(LABELS), 0.0, -np.inf)
        tags = [[LABELS[i] for i in path] for path in best_paths([(scores, allowed)])[0]]
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


def on_a_line(texts):
    """Embeddings that are the nearer by cosine, the nearer the numbers at the end of the texts."""
    angles = torch.tensor([float(text.split()[-1]) for text in texts]) / 100
    return torch.stack((angles.cos(), angles.sin()), -1)


def hard_objective(*sources, negatives=6, hard=3, seed=0):
    return TokenConceptObjective(sources, on_a_line, negatives, seed, hard)


def names_of(made, targets):
    names = sorted(made.index, key=made.index.get)
    return [names[c] for c in targets.concepts.tolist()]


def test_hard_negatives_are_the_nearest_and_the_rest_is_drawn():
    source = Source("s", [], [], {f"L{i}": f"concept {i}" for i in range(40)})
    drawn = [(0, sentence("Ana left", ("Ana", "L20")))]
    made = hard_objective(source, hard=4)
    for step in range(40):
        names = names_of(made, made.targets(drawn, step))
        assert len(set(names)) == len(names) == 7
        assert {f"concept {i}" for i in (18, 19, 20, 21, 22)} <= set(names)
    assert made.targets(drawn, 0).concepts.tolist() != made.targets(drawn, 1).concepts.tolist()
    assert torch.equal(made.targets(drawn, 2).concepts, hard_objective(source, hard=4).targets(drawn, 2).concepts)


def test_hard_negatives_are_nearest_to_any_concept_of_the_batch():
    source = Source("s", [], [], {f"L{i}": f"concept {i}" for i in range(40)})
    drawn = [(0, sentence("Ana left Bo", ("Ana", "L5"), ("Bo", "L30")))]
    made = hard_objective(source, negatives=4, hard=4)
    assert set(names_of(made, made.targets(drawn, 0))) == {f"concept {i}" for i in (4, 5, 6, 29, 30, 31)}


def test_hard_negatives_count_only_for_words_of_sources_that_have_the_concept():
    closed = Source("c", [], [], {f"L{i}": f"concept {i}" for i in (1, 2, 50)}, closed=True)
    opened = Source("o", [], [], {f"X{i}": f"concept {i}" for i in (10, 11, 12)}, closed=False)
    made = hard_objective(closed, opened, negatives=3, hard=3)
    drawn = [(0, sentence("Ana left", ("Ana", "L1"))), (1, sentence("take aspirin", ("aspirin", "X10")))]
    targets = made.targets(drawn, 0)
    names = names_of(made, targets)
    assert set(names) == {f"concept {i}" for i in (1, 2, 10, 11, 12)}
    for word, known in enumerate(({1, 2, 10}, {1, 2}, set(), {1, 10, 11, 12})):
        assert {int(n.split()[1]) for n, v in zip(names, targets.valid[word].tolist(), strict=True) if v} == known


def test_concepts_of_sources_outside_the_batch_are_no_hard_negatives():
    here = Source("c", [], [], {"L1": "concept 1", "L90": "concept 90"})
    elsewhere = Source("d", [], [], {"L2": "concept 2"})
    made = hard_objective(here, elsewhere)
    assert set(names_of(made, made.targets([(0, sentence("Ana left", ("Ana", "L1")))], 0))) == {
        "concept 1",
        "concept 90",
    }


def test_held_out_data_and_batches_without_concepts_get_no_hard_negatives():
    source = Source("s", [], [], {f"L{i}": f"concept {i}" for i in range(40)})
    drawn, empty = [(0, sentence("Ana left", ("Ana", "L20")))], [(0, sentence("nothing here"))]
    made, plain = hard_objective(source), hard_objective(source, hard=0)
    assert torch.equal(made.targets(empty, 1).concepts, plain.targets(empty, 1).concepts)
    assert not torch.equal(made.targets(drawn, 1).concepts, plain.targets(drawn, 1).concepts)
    assert torch.equal(made.eval().targets(drawn, 1).concepts, plain.targets(drawn, 1).concepts)


def test_neighbours_are_looked_for_once_and_only_when_asked(monkeypatch):
    calls = []

    def counted(table, count):
        calls.append(count)
        return nearest_concepts(table, count)

    monkeypatch.setattr("trunkline.prefinetune.objectives.ner.nearest_concepts", counted)
    source = Source("s", [], [], {f"L{i}": f"concept {i}" for i in range(40)})
    drawn = [(0, sentence("Ana left", ("Ana", "L20")))]
    hard_objective(source, hard=0).targets(drawn, 0)
    made = hard_objective(source)
    assert not calls
    for step in range(3):
        made.targets(drawn, step)
    assert calls == [64]


def test_the_recipe_gives_the_hard_negatives_and_refuses_more_than_negatives():
    section = FamilySection(sources={"x": {}}, negatives=5, hard_negatives=2)
    source = Source("s", [], [], {f"L{i}": f"concept {i}" for i in range(9)})
    assert Ner().objective(section, [source], on_a_line, 0).hard_negatives == 2
    with pytest.raises(RecipeError, match="hard_negatives 6 is more than negatives 5"):
        parse_recipe({"sources": {"x": {}}, "negatives": 5, "hard_negatives": 6}, FamilySection, "recipe")
