"""NER in pre-finetuning: what a word is known to be."""

import torch

from trunkline.prefinetune.model import Source
from trunkline.prefinetune.objectives import TokenConceptObjective
from trunkline.text.examples import NerExample, Span
from trunkline.text.words import split_words


def sentence(text, *spans):
    return NerExample(
        text, split_words(text), tuple(Span(text.index(s), text.index(s) + len(s), kind) for s, kind in spans)
    )


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
