"""Weak labels for one's own text, by a gazetteer or a chat model: `trunkline label weak`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from trunkline.errors import TrunklineError
from trunkline.label import files
from trunkline.label.chat import label_chat
from trunkline.label.gazetteer import SurfaceIndex, iterate_sentences, normalise_type, read_gazetteer
from trunkline.label.options import TEXT_METHODS, ChatOptions, check_options
from trunkline.text.examples import Span

TOP = 20


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

    Writes `out` (JSON lines with `text` and `spans`) and beside it a source card, `.yaml`, which says that what is
    unlabelled is unknown. Both appear when they are complete.

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
    given: Any = check_options(method, options, TEXT_METHODS)
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
        cache = given.cache or out.with_suffix(".cache.sqlite")
        rows = label_chat(given, sentences, cache, report, say=say, confirm=confirm)
    else:
        concepts = read_gazetteer(given.gazetteer)
        report["surfaces"], index = len(concepts), SurfaceIndex(concepts)
        rows = ((text, index.find(text)) for text in sentences)
    labelled = _labelled(rows, {normalise_type(name) for name in given.drop}, report)
    settings = given.model_dump(exclude_defaults=True, exclude={"licence", "cache", "key_variable"})
    shown = (f"{key} {value.name if isinstance(value, Path) else value}" for key, value in settings.items())
    title, how = f"Weakly labelled text ({method})", [f"Method {method}: {', '.join(shown)}."]
    written = files.write_source(out, labelled, "ner", title, given.licence, how)
    report |= {"labelled": written.pop("rows"), **written}
    report |= {what: dict(sorted((+report[what]).items())) for what in ("invalid", "skipped")}
    return {**report, "seconds": round(time.perf_counter() - began, 3)}


def _labelled(
    rows: Iterable[tuple[str, list[Span]]], dropped: set[str], report: dict[str, Any]
) -> Iterator[dict[str, Any]]:
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
            todo="Check that the text is in the language of the gazetteer or model, and the options",
        )
    top = sorted(concepts.items(), key=lambda item: (-item[1], item[0]))[:TOP]
    report |= {"spans": concepts.total(), "concepts": len(concepts), "top": top}
