"""Stored corpora give back what was put in, with the tokenizer's tokens; their cache is bounded and shared."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_models
from trunkline.errors import TrunklineError
from trunkline.prefinetune import corpus as module
from trunkline.prefinetune.corpus import Corpus, View, cached, corpus_of
from trunkline.prefinetune.objectives import get_prefinetune_family
from trunkline.prefinetune.objectives.ner import marks_of
from trunkline.text.examples import Example, NerExample, PairExample, PlainExample, QaExample, Span, TextExample
from trunkline.text.tokens import TextTokenizer
from trunkline.text.words import split_words

letters = st.text(alphabet="abc ÄŁ漢🙂'\n\ud800", min_size=1, max_size=30).filter(str.strip)


def sentence(text: str) -> NerExample:
    words = split_words(text)
    spans = tuple(Span(start, end, f"kind {end % 3}") for start, end in words[::2])
    return NerExample(text, words, spans)


made = {
    "ner": letters.map(sentence),
    "pair": st.builds(PairExample, letters, letters, st.sampled_from(["", "g"])),
    "plain": st.builds(PlainExample, letters),
    "qa": st.builds(QaExample, letters, letters, st.lists(st.tuples(st.just(0), st.just(1)), max_size=2).map(tuple)),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_opened", set())
    return tmp_path / "cache" / "prefinetune"


def everything(corpus: Corpus) -> list[Example]:
    return [corpus.example(row) for row in range(len(corpus))]


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
        corpus = corpus_of("k", lambda: examples)
        assert everything(corpus) == examples
        assert [corpus.example(i) for i in reversed(range(len(corpus)))] == examples[::-1]
        again = corpus_of("k", lambda: pytest.fail("read twice"))
        assert everything(again) == examples and again.sha256 == corpus.sha256

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
        corpus_of("k", examples)
    assert entries(cache) == []
    assert len(corpus_of("k", examples)) == len(corpus_of("k", examples)) == 2
    assert len(reads) == 2
    assert len(corpus_of("another state", lambda: [PlainExample("x")])) == 1


@pytest.mark.parametrize("examples", [[], [PlainExample("a"), TextExample("b", "c")]])
def test_nothing_and_mixed_kinds_are_refused(examples: list[Example]) -> None:
    with pytest.raises(TrunklineError, match=r"at least one|one kind"):
        corpus_of("k", lambda: examples)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "file"))
    with pytest.raises(TrunklineError, match="TRUNKLINE_CACHE"):
        corpus_of("k", lambda: [PlainExample("a")])


def test_equal_content_has_an_equal_hash_whatever_the_tokens(tiny) -> None:
    examples = [PlainExample("a b"), PlainExample("c")]
    first, second = (corpus_of(name, lambda: examples) for name in "xy")
    tokens = corpus_of("x", lambda: examples, get_prefinetune_family("text"), tiny.tokenizer)
    other = corpus_of("z", lambda: examples[::-1])
    assert first.sha256 == second.sha256 == tokens.sha256 != other.sha256
    assert tokens.has_units and not first.has_units


@pytest.mark.parametrize(("family", "kind"), [("ner", "ner"), ("classification", "pair"), ("qa", "qa")])
def test_stored_tokens_are_those_of_the_tokenizer(family: str, kind: str, cache: Path, tiny) -> None:
    texts = [*tiny_models.SENTENCES, "word " * 200]
    make = {"ner": sentence, "pair": lambda t: PairExample(t, t[::-1]), "qa": lambda t: QaExample("why?", t, ())}[kind]
    examples = [make(text) for text in texts]
    known = get_prefinetune_family(family)
    for _ in range(2):  # made, then read
        corpus = corpus_of("k", lambda: examples, known, tiny.tokenizer)
        for index, example in enumerate(examples):
            for ours, theirs in zip(corpus.units(index), known.unit_texts([example], tiny.tokenizer), strict=True):
                assert ours.sizes == theirs.sizes and ours.n_units == theirs.n_units
                for name in ("ids", "token", "unit"):
                    assert np.array_equal(getattr(ours, name), getattr(theirs, name))
                wanted = marks_of(example, {label: n for n, label in enumerate(corpus.labels)}) if kind == "ner" else []
                assert ours.marks.tolist() == [list(mark) for mark in wanted]
    assert len(entries(cache)) == 1


def test_other_windows_are_other_tokens(cache: Path, tiny) -> None:
    known, examples = get_prefinetune_family("text"), [PlainExample("word " * 100)]
    sizes = []
    for length in (16, 32):
        tokenizer = TextTokenizer(tiny.tokenizer.tokenizer, length)
        sizes.append(max(corpus_of("k", lambda: examples, known, tokenizer).units(0)[0].sizes))
    assert sizes[0] <= 16 < sizes[1] <= 32 and len(entries(cache)) == 2


def test_a_view_reads_what_its_indices_say() -> None:
    some = View("abcdef".__getitem__, [4, 0, 2])
    assert list(some) == ["e", "a", "c"] and some[-1] == "c" and len(some) == 3


@settings(max_examples=60, deadline=None)
@given(letters.map(sentence))
def test_marks_are_the_words_that_overlap_a_span(example: NerExample) -> None:
    numbers = {"kind 0": 0, "kind 2": 1}
    naive = [
        (word, numbers[span.label])
        for span in example.spans
        if span.label in numbers
        for word, (start, end) in enumerate(example.words)
        if start < span.end and end > span.start
    ]
    assert marks_of(example, numbers) == naive


# The cache


def put(key: str, kilobytes: int = 100) -> Path:
    def make(folder: Path) -> None:
        (folder / "info.json").write_text("{}")
        (folder / "rows").write_bytes(bytes(kilobytes * 1000))

    def read(folder: Path) -> Path:
        (folder / "info.json").read_text()
        return folder

    return cached(key, make, read)


def test_above_the_limit_the_entries_that_were_not_used_for_longest_go(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUNKLINE_CACHE_GB", str(250_000 / 2**30))
    first, second = put("first"), put("second")
    for age, folder in ((100, second), (200, first)):
        os.utime(folder / "info.json", (1e9 - age, 1e9 - age))
    module._opened.clear()  # as in another process
    assert put("first") == first
    module._opened.clear()
    put("third")
    assert first.is_dir() and not second.exists(), "using an entry makes it young"


def test_what_this_process_has_opened_is_never_evicted(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_CACHE_GB", "0")
    folders = [put(key) for key in "abc"]
    assert all(folder.is_dir() for folder in folders)


def test_what_a_killed_run_left_is_cleared_away_after_a_day(cache: Path) -> None:
    put("a")
    for name, age in ((".old", 2), (".new", 0)):
        (cache / name).mkdir()
        (cache / name / "rows.arrow").write_bytes(b"half")
        os.utime(cache / name, (cache.stat().st_mtime - age * 86400,) * 2)
    put("b")
    assert ".new" in entries(cache) and ".old" not in entries(cache)


def read_slowly(folder: str, queue: multiprocessing.Queue) -> None:
    os.environ["TRUNKLINE_CACHE"] = folder
    corpus = corpus_of("k", lambda: [PlainExample(f"text {i}") for i in range(3000)])
    queue.put((len(corpus), corpus.sha256, corpus.example(2999).text))


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
