"""Weak labels for one's own text, by a gazetteer or a chat model: `trunkline label weak`.

A typed gazetteer is found by longest match over words. Sentences, word borders and names of concepts are here, too.
"""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from trunkline.data.values import data_error, shorten
from trunkline.errors import TrunklineError
from trunkline.label import files
from trunkline.label.options import TEXT_METHODS, ChatOptions, check_options
from trunkline.text.examples import Span
from trunkline.text.words import char_classes, split_sentences, split_words

TOP, MAX_CONCEPT_WORDS = 20, 6

# What joins words to a longer one that no blank divides; a possessive `'s` does not.
_JOINED_BEFORE = re.compile(r"(?:\w|\w['’\-‐‑&@])$")
_JOINED_AFTER = re.compile(r"\w|(?!['’][sS](?![\w'’-]))['’\-‐‑&@]\w")
_AS = {ord("u"): " ", ord("m"): "x", ord("j"): "x"}  # unspaced characters, marks and joiners, for those patterns


def label_text(
    source: str | Path | Iterable[str],
    out: str | Path,
    *,
    method: str,
    say: Callable[[str], None] = lambda line: None,
    confirm: Callable[[str], bool] = lambda question: False,
    **options: Any,
) -> dict[str, Any]:
    """Labels the sentences of texts with concepts: a source of pre-finetuning.

    Writes `out` (JSON lines with `text` and `spans`) and beside it a source card, `.yaml`, when they are complete.

    Args:
        source: A text file, a table with a column of texts, a folder of text files, or texts (each one a document).
        out: A `.jsonl` file; what was there is replaced.
        method: `gazetteer` or `chat`.
        say: Takes lines of progress.
        confirm: Asked before anything is sent to a chat endpoint; without it nothing is sent.
        options: Those of the method, see `trunkline.label.options`.

    Returns:
        Numbers of `sentences` and those that are `labelled`, of `spans` and different `concepts`, the most frequent
        (`top`), what was `invalid` or `skipped` by kind, `seconds`, the paths `out` and `card`, and more by method.

    Raises:
        TrunklineError: Wrong options, no text, no label, or a problem with an input, a server or a model.
    """
    began, out = time.perf_counter(), Path(out)
    given = check_options(method, options, TEXT_METHODS)
    inputs = [value for value in given.__dict__.values() if isinstance(value, Path)]
    if isinstance(source, str | Path):
        documents = files.read_documents([Path(source)], given.text_column)
        inputs.append(Path(source))
    else:
        documents = (text.split("\n") for text in source)
    files.check_output(out, inputs)
    report: dict[str, Any] = {"sentences": 0, "invalid": Counter(), "skipped": Counter()}
    passages = (passage for lines in documents for passage in files.split_passages(lines))
    sentences = islice(iterate_sentences(passages, given.max_words, report["skipped"]), given.limit)
    if isinstance(given, ChatOptions):
        from trunkline.label.chat import label_chat

        cache = given.cache or out.with_suffix(".cache.sqlite")
        rows = label_chat(given, sentences, cache, report, say=say, confirm=confirm)
    else:
        concepts = read_gazetteer(given.gazetteer)
        report["surfaces"], index = len(concepts), SurfaceIndex(concepts)
        rows = ((text, index.find(text)) for text in sentences)
    labelled = _labelled(rows, {normalise_type(name) for name in given.drop}, report)
    written = files.write_source(out, labelled, "ner", "Weakly labelled text", method, given)
    report |= {"labelled": written.pop("rows"), **written}
    report |= {what: dict(sorted((+report[what]).items())) for what in ("invalid", "skipped")}
    return {**report, "seconds": round(time.perf_counter() - began, 3)}


def _labelled(rows: Iterable[tuple[str, list[Span]]], dropped: set[str], report: dict[str, Any]) -> Iterator[Any]:
    """Yields `{"text": ..., "spans": [[start, end, concept], ...]}` for what has labels, and counts."""
    concepts: Counter[str] = Counter()
    for text, found in rows:
        spans = sorted({(span.start, span.end, span.label) for span in found if span.label not in dropped})
        report["sentences"] += 1
        concepts.update(label for *_, label in spans)
        if spans:
            yield {"text": text, "spans": spans}
    if not concepts:
        number = report["sentences"]
        raise TrunklineError(
            f"none of {number} sentences got a label" if number else "there is no sentence to label",
            expected="at least one with a label",
            todo="Check that the text is in the language of --gazetteer or --model, and --drop and --text-column",
        )
    top = sorted(concepts.items(), key=lambda item: (-item[1], item[0]))[:TOP]
    report |= {"spans": concepts.total(), "concepts": len(concepts), "top": top}


def iterate_sentences(passages: Iterable[str], max_words: int, skipped: Counter[str]) -> Iterator[str]:
    """The sentences of passages, with every run of blanks as one; those of more than `max_words` are cut.

    `skipped` counts what is left out: `no letter`, and `damaged` for lone surrogates, which no UTF-8 file can hold.
    """
    for passage in passages:
        for sentence in split_sentences(passage, max_words):
            if not any(map(str.isalpha, sentence)):
                skipped["no letter"] += 1
            elif any("\ud800" <= character <= "\udfff" for character in sentence):
                skipped["damaged"] += 1
            else:
                yield sentence


def is_whole(text: str, start: int, end: int) -> bool:
    """Whether a stretch between borders of words neither begins nor ends inside a longer one.

    Letters, digits and underscores go on with a word, and so does what a hyphen, an apostrophe, `&` or `@` joins to it
    without a blank. Scripts that put no blanks between words have no longer ones.
    """
    begin = max(start - 2, 0)
    near = text[begin : end + 3]
    if not near.isascii():
        near = "".join(_AS.get(kind, character) for kind, character in zip(char_classes(near), near, strict=True))
    before, inner, after = near[: start - begin], near[start - begin : end - begin], near[end - begin :]
    opens_inside = inner[0].isalnum() and _JOINED_BEFORE.search(before)
    return not opens_inside and not (inner[-1].isalnum() and _JOINED_AFTER.match(after))


def normalise_type(name: str) -> str:
    """A concept's name in lower case with single blanks for `_`, `-` and `/`, or nothing where it is no name.

    No name is: without a letter, shorter than two characters, or longer than `MAX_CONCEPT_WORDS` words.
    """
    words = re.sub(r"[_\-/\s]+", " ", name.lower()).split()
    joined = " ".join(words).strip(" .,:;!?\"'“”‘’()[]{}<>*#`")
    is_name = 2 <= len(joined) <= 80 and len(words) <= MAX_CONCEPT_WORDS and any(map(str.isalpha, joined))
    return joined if is_name and joined.isprintable() else ""


class SurfaceIndex:
    """Finds surfaces (with their concepts) in sentences as whole words, the longest first.

    A surface with an upper-case letter is matched as it is, another one in any case. Blanks count between letters and
    digits only, so that `Johnny's` is found in the tokenised `Johnny 's`.
    """

    def __init__(self, concepts: Mapping[str, tuple[str, ...]]) -> None:
        self._names: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._most: dict[str, int] = {}  # words of the longest surface by its first word
        for surface, names in concepts.items():
            if keys := tuple(word_keys(surface)[0]):
                self._names[keys] = tuple(dict.fromkeys((*self._names.get(keys, ()), *names)))
                self._most[keys[0]] = max(self._most.get(keys[0], 0), len(keys))

    def find(self, text: str) -> list[Span]:
        """The spans of a sentence; one with several concepts comes once for each."""
        keys, words = word_keys(text)
        rows = keys, [key.lower() for key in keys]
        spans: list[Span] = []
        first = 0
        while first < len(keys):
            last = min(first + max(self._most.get(row[first], 0) for row in rows), len(keys))
            tried = (
                (end, self._names.get(tuple(row[first:end]), ())) for end in range(last, first, -1) for row in rows
            )
            start = words[first][0]
            found = ((end, names) for end, names in tried if names and is_whole(text, start, words[end - 1][1]))
            end, names = next(found, (first + 1, ()))
            spans += (Span(start, words[end - 1][1], name) for name in names)
            first = end
        return spans


def word_keys(text: str) -> tuple[list[str], tuple[tuple[int, int], ...]]:
    """The words of a text with their offsets; a `+` goes before one that is glued to letters or digits (`A4`)."""
    words, kinds = split_words(text), char_classes(text)
    keys: list[str] = []
    before = -1  # where letters or digits end
    for start, end in words:
        joins = kinds[start] in b"ld"
        keys.append(f"{'+' if joins and start == before else ''}{text[start:end]}")
        before = end if joins else -1
    return keys, words


def find_all(text: str, surface: str) -> list[tuple[int, int]]:
    """Every place where a surface stands in a text as it is and as whole words, without overlap."""
    spans = SurfaceIndex({surface: ("",)}).find(text)
    return [(span.start, span.end) for span in spans if text[span.start : span.end] == surface]


def read_gazetteer(path: Path) -> dict[str, tuple[str, ...]]:
    """The concepts of each surface of a table with these two columns, in the order of the file."""
    concepts: dict[str, dict[str, None]] = defaultdict(dict)
    for _, line, (given, named) in files.read_columns([path], ("surface", "concept")):
        surface, concept = " ".join(given.split()), normalise_type(named)
        if not split_words(surface) or not concept:
            row = f"the surface {shorten(given)} with the concept {shorten(named)}"
            raise data_error(path, line, row, "a surface, and a concept that is a name")
        concepts[surface][concept] = None
    if not concepts:
        raise data_error(path, None, "the file is empty", "rows of surface and concept")
    return {surface: tuple(names) for surface, names in concepts.items()}
