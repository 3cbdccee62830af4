"""Question answering: windows, units, decoding and scores."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_models
from trunkline.encoder.bundle_files import Loaded
from trunkline.errors import TrunklineError
from trunkline.tasks.classification import Scored
from trunkline.tasks.qa import LONGEST, Qa, best_f1, context_words, normalise
from trunkline.text.examples import QaExample
from trunkline.text.tokens import TextTokenizer, UnitText
from trunkline.text.words import split_words

Folders = Callable[[str], Path]
FAMILY = Qa()
LABELS = ("O", "start", "end", "single", "no answer")


def questions() -> list[QaExample]:
    return [
        QaExample("q", "a b c a", ((0, 1), (6, 7))),
        QaExample("q", "a b"),
        QaExample("q", "one two three", ((0, 7),)),
        QaExample("q", "one two three", ((0, 3), (0, 7))),
    ]


def units_of(example: QaExample, tokenizer: TextTokenizer) -> UnitText:
    text = example.text
    return FAMILY.units(tokenizer.encode([text])[0], split_words(text))


def targets_of(example: QaExample, labels: tuple[str, ...] = LABELS) -> list[int]:
    return FAMILY.unit_targets(example, labels, split_words(example.text))


def decode(probabilities: Any, text: str, labels: tuple[str, ...]) -> dict[str, Any]:
    [found] = FAMILY.decode([Scored([probabilities], [(text, split_words(text))], labels)])[0]
    return found


# Windows


def test_a_window_is_the_question_the_closing_token_and_the_context(tiny: Loaded) -> None:
    units = units_of(QaExample("who lives", "ann lives in rome", ((0, 3),)), tiny.tokenizer)
    token = tiny_models.vocabulary().__getitem__
    words = ["[CLS]", "who", "lives", "[SEP]", "ann", "lives", "in", "rome"]
    assert units.ids.tolist() == [token(word) for word in words]
    assert (units.sizes, units.n_units) == ((8,), 5)
    assert sorted(zip(units.unit.tolist(), units.token.tolist(), strict=True)) == [
        (0, 0),
        (1, 4),
        (2, 5),
        (3, 6),
        (4, 7),
    ]


words_of_text = st.lists(st.sampled_from(["ann", "berlin", "xyzzy", "42", "!", "the", "\u200b"]), max_size=60)


@settings(max_examples=80, deadline=None)
@given(words_of_text, words_of_text, st.integers(8, 40))
def test_every_window_has_the_question_and_every_word_its_tokens(
    tiny_folder: Folders, question: list[str], context: list[str], length: int
) -> None:
    tokenizer = TextTokenizer.from_folder(tiny_folder("bert"), length)
    example = QaExample(" ".join(question), " ".join(context))
    found = units_of(example, tokenizer)
    whole = units_of(example, TextTokenizer.from_folder(tiny_folder("bert"), 10_000))
    assert len(whole.sizes) == 1 and found.n_units == whole.n_units == 1 + len(split_words(example.context))
    assert max(found.sizes) <= length
    windows = np.split(found.ids, np.cumsum(found.sizes)[:-1])
    asked = whole.ids[: list(whole.ids).index(tokenizer.closing) + 1]
    cut = np.append(asked[:-1][: 1 + (length - 2) // 2], tokenizer.closing)
    head = asked if len(whole.ids) <= length else cut
    for window in windows:
        assert window[: len(head)].tolist() == head.tolist()
        assert window.tolist().count(tokenizer.closing) == 1
    for unit in range(1, found.n_units):
        pieces = [part.ids[part.token[part.unit == unit]].tolist() for part in (found, whole)]
        assert pieces[0] == pieces[1], "each token of a word once"
    starts = np.cumsum(found.sizes) - found.sizes
    assert found.token[found.unit == 0].tolist() == starts.tolist(), "unit 0 is the opening token of every window"


@given(st.text("a1 .\n\u0301\u200dก", max_size=8), st.text("a1 .\n\u0301\u200dก", max_size=12))
def test_words_of_the_context_do_not_depend_on_the_question(question: str, context: str) -> None:
    text = QaExample(question, context).text
    assert context_words(text, split_words(text)) == list(split_words(context))


def test_a_text_without_a_context_is_refused(tiny: Loaded) -> None:
    with pytest.raises(TrunklineError, match=r"'who lives' has one line.*a line feed and the context"):
        FAMILY.units(tiny.tokenizer.encode(["who lives"])[0], split_words("who lives"))


# Head, decoding and scores


def test_targets_tag_the_answers_and_unit_zero_where_there_is_none() -> None:
    labels = FAMILY.labels(questions())
    assert labels == LABELS
    assert [targets_of(e, labels) for e in questions()] == [
        [0, 3, 0, 0, 3],
        [4, 0, 0],
        [0, 1, 2, 0],
        [0, 3, 0, 0],
    ]
    inner = QaExample("q", "one two three", ((0, 13), (4, 7)))
    assert targets_of(inner, labels) == [0, 1, 0, 2]
    assert FAMILY.labels(questions()[2:]) == LABELS[:4]
    assert targets_of(questions()[1], LABELS[:4]) == [-1, 0, 0]
    assert [FAMILY.classes(e) for e in questions()[:2]] == [{"answer"}, {"no answer"}]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 5), st.booleans())
def test_decode_finds_the_likeliest_single_span(seed: int, n_words: int, knows_none: bool) -> None:
    labels = LABELS if knows_none else LABELS[:4]
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(len(labels)), size=1 + n_words)
    context = " ".join("abcde"[:n_words])
    text = f"who is it\n{context}"
    odds: dict[str, float] = {}
    if knows_none:
        odds[""] = probabilities[0, 4] / probabilities[0, 0]
    for first, last in itertools.combinations_with_replacement(range(n_words), 2):
        tags = [0] * n_words
        tags[last] = 2
        tags[first] = 1 if first < last else 3
        whole = np.prod([probabilities[1 + n, tag] for n, tag in enumerate(tags)])
        odds[context[2 * first : 2 * last + 1]] = whole / np.prod(probabilities[1:, 0])
    found = decode(probabilities, text, labels)
    if not odds:
        assert found == {"answer": "", "start": None, "end": None, "score": 1.0}
        return
    best = max(odds, key=odds.__getitem__)
    assert found["answer"] == best
    assert found["score"] == pytest.approx(odds[best] / sum(odds.values()), abs=2e-6)
    assert (found["start"], found["end"]) == (
        (context.index(best), context.index(best) + len(best)) if best else (None, None)
    )


def test_an_answer_has_at_most_so_many_words() -> None:
    context = " ".join("x" * 60)
    probabilities = np.tile([0.9, 0.01, 0.01, 0.01], (61, 1))
    probabilities[[1, 1 + LONGEST, LONGEST]] = [0.05, 0.1, 0.1, 0.01], [0.01, 0.01, 0.97, 0.01], [0.3, 0.1, 0.5, 0.1]
    found = decode(probabilities, f"?\n{context}", LABELS[:4])
    assert len(found["answer"].split()) == 2
    probabilities[LONGEST] = probabilities[2]
    found = decode(probabilities, f"?\n{context}", LABELS[:4])
    assert (found["start"], len(found["answer"].split())) == (2, LONGEST)
    json.dumps(found)


@pytest.mark.parametrize(
    ("truths", "guess", "f1", "exact"),
    [
        (["the Eiffel Tower"], "eiffel tower!", 1.0, 1),
        (["a big red dog"], "the red dog", 0.8, 0),
        (["x", "Oslo city"], "Oslo", 2 / 3, 0),
        ([], "", 1.0, 1),
        ([], "something", 0.0, 0),
        (["Oslo"], "", 0.0, 0),
        (["to be to"], "to to be", 1.0, 0),
        (["the"], "", 1.0, 1),
    ],
)
def test_scores_are_those_of_squad(truths: list[str], guess: str, f1: float, exact: int) -> None:
    context, spans = "", []
    for truth in truths:
        spans.append((len(context), len(context) + len(truth)))
        context += f"{truth}\n"
    gold = [QaExample("q", context, tuple(spans))]
    scores = FAMILY.score(gold, [{"answer": guess}])
    assert scores == {"token_f1": pytest.approx(f1), "exact_match": exact}


def test_normalisation() -> None:
    assert normalise(" The U.S.  and an 'apple'\n") == "us and apple"
    assert best_f1(["a"], "the") == 1.0
