"""NER: units, their tags, decoding and scores."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagged import decode_tags
from trunkline.tasks import ner
from trunkline.tasks.classification import Scored
from trunkline.tasks.ner import Ner, best_paths, may_follow, unheld_spans, word_spans
from trunkline.text.examples import NerExample, Span
from trunkline.text.tokens import Tokens
from trunkline.text.words import split_words

NONE = np.zeros(0, np.int64)
LABELS = ("O", "B-a", "I-a", "B-b", "I-b")


def decode(probabilities, texts, transitions=None):
    return Ner().decode([Scored(probabilities, texts, LABELS, transitions)])[0]


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
        patch.setattr(ner, "BLOCK", block)
        found = decode(probabilities, texts, transitions)
    for length, part, entities in zip(lengths, probabilities, found, strict=True):
        valid = [p for p in itertools.product(range(len(LABELS)), repeat=length) if allowed(p)]
        added = np.zeros((6, 5)) if transitions is None else transitions
        best = max(valid, key=lambda path: total(path, np.log(part), added))
        spans = decode_tags([LABELS[tag] for tag in best])
        assert [(e["start"], e["end"], e["label"]) for e in entities] == spans


def test_without_transitions_ties_go_to_the_tag_that_comes_first():
    even = np.full((3, 5), 0.2, np.float32)
    assert decode([even], [("abc", [(0, 1), (1, 2), (2, 3)])]) == [[]]
    assert best_paths([([even, even[:0]], np.zeros((6, 5)))])[0][0].tolist() == [0, 0, 0]
    assert best_paths([([even], np.eye(6, 5))])[0][0].tolist() == [0, 0, 0]


def test_a_tag_after_another_is_worth_what_training_says():
    # O B-a I-a, twice; O B-b; an unknown tag, behind which nothing is counted.
    targets = [[0, 1, 2], [0, 1, 2], [], [0, 3], [3, -1, 0]]
    worth = Ner().transitions(targets, LABELS)
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
    follows = np.where(may_follow(LABELS), np.exp(Ner().transitions(targets, LABELS)), 0.0)
    assert follows @ share == pytest.approx(np.ones(6), rel=1e-5)


def test_learned_transitions_mend_a_person_cut_in_two():
    text = "Ana Lima"
    words = split_words(text)
    probabilities = np.array([[0.02, 0.95, 0.01, 0.01, 0.01], [0.04, 0.5, 0.4, 0.03, 0.03]], np.float32)
    worth = Ner().transitions([[0, 1, 2, 0], [1, 2], [0, 3]], LABELS)
    [cut, mended] = (decode([probabilities], [(text, words)], t)[0] for t in (None, worth))
    assert [e["text"] for e in cut] == ["Ana", "Lima"]
    assert [e["text"] for e in mended] == ["Ana Lima"]
    assert mended[0]["score"] == pytest.approx((0.95 + 0.01 + 0.5 + 0.4) / 2)


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
    [found] = decode([probabilities], [(text, words)])
    assert [(e["text"], e["label"]) for e in found] == [("Ana Lima", "a"), ("7pm", "b")]
    assert all(text[e["start"] : e["end"]] == e["text"] for e in found)
    assert found[0]["score"] == pytest.approx(0.97), "B and I together"


def test_no_words_give_no_entities():
    assert decode([np.zeros((0, 5))], [("", ())]) == [[]]
    assert decode([], []) == []


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


def test_labels_are_o_and_b_and_i_of_types_in_alphabetical_order():
    assert Ner().labels([sentence("Bo met Ana", ("Bo", "b"), ("Ana", "a")), sentence("nobody")]) == LABELS
    assert Ner().labels([sentence("nobody")]) == ("O",)


def test_unit_targets_are_bio_and_unknown_types_are_left_out():
    example = sentence("Ana Lima met Bo", ("Ana Lima", "a"), ("Bo", "new"))
    assert Ner().unit_targets(example, LABELS, split_words(example.text)) == [1, 2, 0, -1]
    pieces = [(0, 2), (2, 3), (4, 8), (9, 12), (13, 15)]
    assert Ner().unit_targets(example, LABELS, pieces) == [1, 2, 2, 0, -1]


def test_entities_that_units_cannot_hold_are_widened_or_left_out_and_named():
    example = sentence("Romtown saw AnaLima and Bo", ("Rom", "a"), ("Ana", "a"), ("Lima", "b"), ("Bo", "b"))
    words = split_words(example.text)
    assert word_spans(example, words) == [(0, 1, "a"), (2, 3, "a"), (4, 5, "b")]
    assert unheld_spans(example, words) == list(example.spans[:3])
    pieces = [(0, 3), (3, 7), (8, 11), (12, 15), (15, 19), (20, 23), (24, 26)]
    assert unheld_spans(example, pieces) == []
    nested = sentence("University of Rome", ("University of Rome", "a"), ("Rome", "b"))
    assert unheld_spans(nested, split_words(nested.text)) == [nested.spans[1]]
    blank = NerExample("a  b", ((0, 1), (3, 4)), (Span(1, 3, "a"),))
    assert word_spans(blank, blank.words) == []
    assert unheld_spans(blank, blank.words) == [Span(1, 3, "a")]
    assert unheld_spans(NerExample("", (), ()), ()) == []


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_what_is_held_comes_back_from_its_tags_and_nothing_else_does(seed):
    rng = np.random.default_rng(seed)
    words = [(3 * i, 3 * i + 2) for i in range(6)]
    text = "ab " * 6
    borders = sorted(rng.choice(len(text) + 1, 2 * rng.integers(1, 5), replace=False).tolist())
    spans = tuple(Span(a, b, str(rng.choice(["a", "b"]))) for a, b in zip(borders[::2], borders[1::2], strict=True))
    example = NerExample(text, tuple(words), spans)
    tags = np.eye(5)[Ner().unit_targets(example, LABELS, words)]
    found = {(e["start"], e["end"], e["label"]) for e in decode([tags], [(text, words)])[0]}
    unheld = unheld_spans(example, words)
    assert {(s.start, s.end, s.label) for s in spans if s not in unheld} == {s for s in found if Span(*s) in spans}
    assert all((s.start, s.end, s.label) not in found for s in unheld)


class Cutter:
    """A tokenizer that cuts off `가` and `town`, and nothing else."""

    def encode(self, texts):
        found = []
        for text in texts:
            places = {0, len(text), *(m.start() for m in re.finditer("가|town| ", text))}
            places |= {m.end() for m in re.finditer(" ", text)}
            offsets = [(a, b) for a, b in itertools.pairwise(sorted(places)) if text[a:b].strip()]
            found.append(Tokens(text, np.asarray(offsets).reshape(-1, 2), NONE, (), NONE))
        return found


@pytest.mark.parametrize(
    ("texts", "units"),
    [
        ([("김철수가 왔다", "김철수"), ("이영희가 갔다", "이영희")], "pieces"),
        ([("in Romtown", "Rom"), ("in Rome", "Rome")], "pieces"),
        # Borders that pieces do not hold either, as of offsets that count bytes.
        ([("in Romtown", "in Ro"), ("to Bobtown", "obt")], "words"),
        ([("北京天气", "北京"), ("ก่อนกรุงเทพ", "กรุงเทพ")], "words"),
        ([("in Rome", "Rome")] * 9 + [("in Romtown", "Rom")], "words"),
        ([("in Rome", "Rome")] * 8 + [("in Romtown", "Rom")], "pieces"),
        ([("in Rome", None)], "words"),
        ([], "words"),
    ],
)
def test_units_are_words_unless_entities_inside_words_need_pieces(texts, units):
    examples = [sentence(text, *([(found, "a")] if found else [])) for text, found in texts]
    assert Ner().choose_units(examples, Cutter()) == units


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
    scores = Ner().score(gold, predicted)
    same = sum(
        len({(s.start, s.end, s.label) for s in g.spans} & {tuple(e.values()) for e in p})
        for g, p in zip(gold, predicted, strict=True)
    )
    total = sum(map(len, predicted)) + sum(len(g.spans) for g in gold)
    assert scores["f1"] == pytest.approx(2 * same / max(total, 1))
