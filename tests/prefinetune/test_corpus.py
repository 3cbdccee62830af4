"""Stored corpora give back what was put in, with the tokenizer's tokens; their cache is shared."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_models
from trunkline.errors import TrunklineError
from trunkline.prefinetune import sources as module
from trunkline.prefinetune.model import Objective
from trunkline.prefinetune.objectives import OBJECTIVES, labelled_words
from trunkline.prefinetune.sources import Corpus, corpus_of
from trunkline.text.examples import Example, NerExample, PairExample, PlainExample, QaExample, Span
from trunkline.text.tokens import TextTokenizer
from trunkline.text.words import split_words

PLAIN = OBJECTIVES["text"]
letters = st.text(alphabet="abc ÄŁ漢🙂'\n\ud800", min_size=1, max_size=30).filter(str.strip)


def sentence(text: str) -> NerExample:
    words = split_words(text)
    spans = tuple(Span(start, end, f"kind {end % 3}") for start, end in words[::2])
    return NerExample(text, words, spans)


made = {
    "ner": letters.map(sentence),
    "classification": st.builds(PairExample, letters, letters, st.sampled_from(["", "g"])),
    "text": st.builds(PlainExample, letters),
    "qa": st.builds(QaExample, letters, letters, st.lists(st.tuples(st.just(0), st.just(1)), max_size=2).map(tuple)),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "prefinetune"


def stored(
    state: str,
    examples: Callable[[], Iterable[Example]],
    objective: type[Objective],
    tokenizer: TextTokenizer | None = None,
) -> Corpus:
    return corpus_of(state, lambda: (examples(), {"removed": 0}), objective, tokenizer)


def everything(corpus: Corpus) -> list[Example]:
    return [corpus[row] for row in range(len(corpus))]


def entries(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir()) if cache.is_dir() else []


@pytest.mark.parametrize("kind", made)
def test_what_is_stored_comes_back_in_any_order(
    kind: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 3)

    @settings(max_examples=20, deadline=None)
    @given(st.lists(made[kind], min_size=1, max_size=10))
    def check(examples: list[Example]) -> None:
        monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path_factory.mktemp("store")))
        corpus = stored("k", lambda: examples, OBJECTIVES[kind])
        assert everything(corpus) == examples
        assert [corpus[i] for i in reversed(range(len(corpus)))] == examples[::-1]
        again = stored("k", lambda: pytest.fail("read twice"), OBJECTIVES[kind])
        assert everything(again) == examples and again.facts["sha256"] == corpus.facts["sha256"]

    check()


def test_a_corpus_is_read_once_and_only_complete_ones_are_kept(cache: Path) -> None:
    reads = []

    def examples() -> Iterator[Example]:
        reads.append(1)
        yield PlainExample("one")
        if len(reads) == 1:
            raise TrunklineError("the file broke off")
        yield PlainExample("two")

    with pytest.raises(TrunklineError, match="broke off"):
        stored("k", examples, PLAIN)
    assert entries(cache) == []
    assert len(stored("k", examples, PLAIN)) == len(stored("k", examples, PLAIN)) == 2
    assert len(reads) == 2
    assert len(stored("another state", lambda: [PlainExample("x")], PLAIN)) == 1


def test_nothing_is_refused() -> None:
    with pytest.raises(TrunklineError, match="at least one"):
        stored("k", lambda: [], PLAIN)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "file"))
    with pytest.raises(TrunklineError, match="TRUNKLINE_CACHE"):
        stored("k", lambda: [PlainExample("a")], PLAIN)


def test_equal_content_has_an_equal_hash_whatever_the_tokens(tiny) -> None:
    examples = [PlainExample("a b"), PlainExample("c")]
    first, second = (stored(name, lambda: examples, PLAIN) for name in "xy")
    tokens = stored("x", lambda: examples, PLAIN, tiny.tokenizer)
    other = stored("z", lambda: examples[::-1], PLAIN)
    assert len({part.facts["sha256"] for part in (first, second, tokens)}) == 1
    assert other.facts["sha256"] != first.facts["sha256"]
    assert tokens.has_units and not first.has_units


@pytest.mark.parametrize(("family", "kind"), [("ner", "ner"), ("classification", "pair"), ("qa", "qa")])
def test_stored_tokens_are_those_of_the_tokenizer(family: str, kind: str, cache: Path, tiny) -> None:
    texts = [*tiny_models.SENTENCES, "word " * 200]
    make = {"ner": sentence, "pair": lambda t: PairExample(t, t[::-1]), "qa": lambda t: QaExample("why?", t, ())}[kind]
    examples = [make(text) for text in texts]
    known = OBJECTIVES[family]
    for _ in range(2):  # made, then read
        corpus = stored("k", lambda: examples, known, tiny.tokenizer)
        for index, example in enumerate(examples):
            for ours, theirs in zip(corpus.units(index), known.unit_texts([example], tiny.tokenizer), strict=True):
                assert ours.sizes == theirs.sizes and ours.n_units == theirs.n_units
                for name in ("ids", "token", "unit"):
                    assert np.array_equal(getattr(ours, name), getattr(theirs, name))
    assert len(entries(cache)) == 1


def test_other_windows_are_other_tokens(cache: Path, tiny) -> None:
    known, examples = OBJECTIVES["text"], [PlainExample("word " * 100)]
    sizes = []
    for length in (16, 32):
        tokenizer = TextTokenizer(tiny.tokenizer.tokenizer, length)
        sizes.append(max(stored("k", lambda: examples, known, tokenizer).units(0)[0].sizes))
    assert sizes[0] <= 16 < sizes[1] <= 32 and len(entries(cache)) == 2


def test_another_format_tokenizer_or_objective_is_another_entry(
    cache: Path, tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokenizers import Tokenizer, normalizers

    other = Tokenizer.from_str(tiny.tokenizer.tokenizer.to_str())
    other.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizers = tiny.tokenizer, TextTokenizer(other, tiny.tokenizer.max_length, tiny.tokenizer.overlap)
    ids = [stored("k", lambda: [PlainExample("ANN")], PLAIN, one).units(0)[0].ids.tolist() for one in tokenizers]
    assert ids[0] != ids[1]
    renamed = type("Renamed", (PLAIN,), {})
    stored("k", lambda: [PlainExample("ANN")], renamed, tiny.tokenizer)
    assert len(entries(cache)) == 3
    monkeypatch.setattr(module, "FORMAT", module.FORMAT + 1)
    stored("k", lambda: [PlainExample("ANN")], PLAIN, tiny.tokenizer)
    assert len(entries(cache)) == 4


@settings(max_examples=60, deadline=None)
@given(letters.map(sentence))
def test_labelled_words_are_those_that_overlap_a_span(example: NerExample) -> None:
    naive = [
        (word, span.label)
        for span in example.spans
        for word, (start, end) in enumerate(example.words)
        if start < span.end and end > span.start
    ]
    assert labelled_words(example, example.words) == naive


def read_slowly(folder: str, queue: multiprocessing.Queue) -> None:
    os.environ["TRUNKLINE_CACHE"] = folder
    corpus = stored("k", lambda: [PlainExample(f"text {i}") for i in range(3000)], PLAIN)
    queue.put((len(corpus), corpus.facts["sha256"], corpus[2999].text))


def test_several_processes_make_one_entry_at_once(cache: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    queue = context.Queue()
    processes = [context.Process(target=read_slowly, args=(str(cache.parent), queue)) for _ in range(3)]
    for process in processes:
        process.start()
    found = {queue.get(timeout=120) for _ in processes}
    for process in processes:
        process.join(30)
    assert len(found) == 1 and found.pop()[::2] == (3000, "text 2999")
    assert len(entries(cache)) == 1
