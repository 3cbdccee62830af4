"""Stored corpora give back what was put in; their tokens are those of the tokenizer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_models
from trunkline.errors import TrunklineError
from trunkline.prefinetune import store
from trunkline.prefinetune.corpus import Subset, corpus_of, marks_of, tokens_of
from trunkline.prefinetune.objectives import get_prefinetune_family
from trunkline.prefinetune.store import open_rows, store_rows
from trunkline.text.examples import NerExample, PairExample, PlainExample, Span, TextExample
from trunkline.text.words import split_words

letters = st.text(alphabet="abc ÄŁ漢🙂'\n", min_size=1, max_size=30).filter(str.strip)


def sentence(text: str) -> NerExample:
    words = split_words(text)
    spans = tuple(Span(start, end, f"kind {end % 3}") for start, end in words[::2])
    return NerExample(text, words, spans)


made = {
    "ner": letters.map(sentence),
    "text": st.builds(TextExample, letters, st.sampled_from(["spam", "ham"])),
    "pair": st.builds(PairExample, letters, letters, st.sampled_from(["", "g"])),
    "plain": st.builds(PlainExample, letters),
}


@pytest.mark.parametrize("kind", made)
def test_what_is_stored_comes_back_in_any_order(kind, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(store, "ROWS", 3)  # so that a few examples fill several batches

    @settings(max_examples=25, deadline=None)
    @given(st.lists(made[kind], min_size=1, max_size=10))
    def check(examples):
        monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path_factory.mktemp("store")))
        corpus = corpus_of("k", lambda: examples)
        assert list(corpus) == examples
        assert [corpus[i] for i in reversed(range(len(corpus)))] == examples[::-1]
        assert corpus[-1] == examples[-1] and corpus[1:3] == examples[1:3]

    check()


def test_a_corpus_is_read_once_and_only_complete_ones_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path))
    reads = []

    def examples():
        reads.append(1)
        yield PlainExample("one")
        if len(reads) == 1:
            raise TrunklineError("the file broke off")
        yield PlainExample("two")

    with pytest.raises(TrunklineError, match="broke off"):
        corpus_of("k", examples)
    assert [path.name for path in (tmp_path / "corpora").iterdir()] == []
    assert len(corpus_of("k", examples)) == len(corpus_of("k", examples)) == 2
    assert len(reads) == 2


@pytest.mark.parametrize("examples", [[], [PlainExample("a"), TextExample("b", "c")]])
def test_nothing_and_mixed_kinds_are_refused(examples, tmp_path, monkeypatch):
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path))
    with pytest.raises(TrunklineError, match=r"at least one|one kind"):
        corpus_of("k", lambda: examples)


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "file"))
    with pytest.raises(TrunklineError, match="TRUNKLINE_CACHE"):
        corpus_of("k", lambda: [PlainExample("a")])


def test_equal_content_has_an_equal_hash(tmp_path):
    rows = [("a b", [1, 2]), ("c", [])]
    first, second = (store_rows(tmp_path / name, {"t": "text", "n": "ints"}, rows) for name in "xy")
    other = store_rows(tmp_path / "z", {"t": "text", "n": "ints"}, rows[::-1])
    assert first.info["sha256"] == second.info["sha256"] != other.info["sha256"]
    again = open_rows(tmp_path / "x")
    assert again is not None and [(text, numbers.tolist()) for text, numbers in (again[0], again[1])] == rows
    assert open_rows(tmp_path / "nowhere") is None


@pytest.mark.parametrize(("family", "kind"), [("ner", "ner"), ("classification", "pair")])
def test_cached_tokens_are_those_of_the_tokenizer(family, kind, tmp_path, monkeypatch, tiny):
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path))
    texts = [*tiny_models.SENTENCES, "word " * 200]
    examples = [sentence(t) if kind == "ner" else PairExample(t, t[::-1]) for t in texts]
    unit_texts = get_prefinetune_family(family).unit_texts
    corpus = corpus_of("k", lambda: examples)
    for _ in range(2):  # made, then read
        cached = tokens_of(corpus, tiny.tokenizer, family, unit_texts)
        assert len(cached) == len(examples)
        for index, example in enumerate(examples):
            for ours, theirs in zip(cached[index], unit_texts([example], tiny.tokenizer), strict=True):
                assert ours.sizes == theirs.sizes and ours.n_units == theirs.n_units
                for name in ("ids", "token", "unit"):
                    assert np.array_equal(getattr(ours, name), getattr(theirs, name))
    assert len(list((tmp_path / "tokens").iterdir())) == 1


def test_a_subset_is_a_view():
    some = Subset("abcdef", [4, 0, 2])
    assert list(some) == ["e", "a", "c"] and some[-1] == "c" and list(some[1:]) == ["a", "c"] and len(some) == 3


@settings(max_examples=60, deadline=None)
@given(letters.map(sentence))
def test_marks_are_the_words_that_overlap_a_span(example):
    numbers = {"kind 0": 0, "kind 2": 1}
    naive = [
        (word, numbers[span.label])
        for span in example.spans
        if span.label in numbers
        for word, (start, end) in enumerate(example.words)
        if start < span.end and end > span.start
    ]
    assert marks_of(example, numbers) == naive


def test_what_other_code_stored_is_read_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path))
    assert len(corpus_of("k", lambda: [PlainExample("one")])) == 1
    monkeypatch.setattr("trunkline.prefinetune.corpus.code_fingerprint", lambda: "other code")
    assert len(corpus_of("k", lambda: [PlainExample("one"), PlainExample("two")])) == 2
