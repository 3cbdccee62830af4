"""Weak labels for one's own text, by a gazetteer or a chat model: `trunkline label weak`."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from trunkline.errors import TrunklineError
from trunkline.label.chat import label_chat
from trunkline.label.files import card_path, open_atomic, read_documents, split_passages, write_card
from trunkline.label.gazetteer import SurfaceIndex, iterate_sentences, normalise_type, read_gazetteer
from trunkline.label.options import TEXT_METHODS, ChatOptions, GazetteerOptions, check_options
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
    given = check_options(method, options, TEXT_METHODS)
    inputs = [value for value in given.__dict__.values() if isinstance(value, Path)]
    if isinstance(source, str | Path):
        documents = read_documents([Path(source)], given.text_column)
        inputs.append(Path(source))
    else:
        documents = (text.split("\n") for text in source)
    card = card_path(out, inputs)
    skipped: Counter[str] = Counter()
    passages = (passage for lines in documents for passage in split_passages(lines))
    sentences = islice(iterate_sentences(passages, given.max_words, skipped), given.limit)
    report: dict[str, Any] = {"invalid": Counter()}
    if isinstance(given, GazetteerOptions):
        concepts = read_gazetteer(given)
        report["surfaces"], index = len(concepts), SurfaceIndex(concepts)
        rows: Iterator[tuple[str, list[Span]]] = ((text, index.find(text)) for text in sentences)
    elif isinstance(given, ChatOptions):
        cache = given.cache or out.with_suffix(".cache.sqlite")
        rows = label_chat(given, sentences, cache, report, say=say, confirm=confirm)
    dropped = {normalise_type(name) for name in given.drop}
    rows = ((text, [span for span in spans if span.label not in dropped]) for text, spans in rows)
    written = _write(out, rows)
    settings = given.model_dump(exclude_defaults=True, exclude={"licence", "cache", "key_variable"})
    shown = (f"{key} {value.name if isinstance(value, Path) else value}" for key, value in settings.items())
    how = [f"Method {method}: {', '.join(shown)}."]
    write_card(card, "ner", f"Weakly labelled text ({method})", given.licence, how, written["labelled"])
    report.update(invalid=dict(sorted((+report["invalid"]).items())), skipped=dict(sorted(skipped.items())))
    return {**written, **report, "seconds": round(time.perf_counter() - began, 3), "out": str(out), "card": str(card)}


def _write(out: Path, rows: Iterator[tuple[str, list[Span]]]) -> dict[str, Any]:
    """Writes `{"text": ..., "spans": [[start, end, concept], ...]}` lines for what has labels, and counts."""
    sentences = labelled = 0
    concepts: Counter[str] = Counter()
    with open_atomic(out) as stream:
        for text, found in rows:
            spans = sorted({(span.start, span.end, span.label) for span in found})
            sentences, labelled = sentences + 1, labelled + bool(spans)
            concepts.update(label for *_, label in spans)
            if spans:
                stream.write(json.dumps({"text": text, "spans": spans}, ensure_ascii=False) + "\n")
        if not labelled:
            raise TrunklineError(
                f"none of {sentences} sentences got a label" if sentences else "there is no sentence to label",
                expected="at least one with a label",
                todo="Check that the text is in the language of the gazetteer or model, and the options",
            )
    top = sorted(concepts.items(), key=lambda item: (-item[1], item[0]))[:TOP]
    numbers = {"sentences": sentences, "labelled": labelled, "spans": concepts.total(), "concepts": len(concepts)}
    return {**numbers, "top": top}
