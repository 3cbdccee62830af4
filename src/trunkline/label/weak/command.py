"""`trunkline weak-label`: one's own text in, labelled sentences and a card out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from trunkline.label.weak.chat import label_chat
from trunkline.label.weak.config import ChatConfig, GazetteerConfig, LinksConfig, TeacherConfig, WeakLabelConfig
from trunkline.label.weak.gazetteer import SurfaceTrie, read_gazetteer
from trunkline.label.weak.links import label_links
from trunkline.label.weak.output import Desk, Labelled, card_path, write_card, write_labelled
from trunkline.label.weak.prompt import VERSION
from trunkline.label.weak.teacher import label_teacher
from trunkline.label.weak.text import iterate_sentences, normalise_type

TOP = 20


def weak_label(
    config: WeakLabelConfig,
    texts: Iterable[str],
    out: Path,
    *,
    say: Callable[[str], None] = lambda line: None,
    confirm: Callable[[str], bool] = lambda question: False,
) -> dict[str, Any]:
    """Labels the sentences of texts with concepts.

    Writes `out` (JSON lines with `text` and `spans`) and beside it a card, `.yaml`, that reads it as an open source; a
    recipe names the card's path. Both appear when they are complete.

    Args:
        config: See `parse_weak_label`.
        texts: Lines, paragraphs or documents; not used by the method links, which has files of its own.
        out: A `.jsonl` file; what was there is replaced.
        say: Takes lines of progress.
        confirm: Asked before anything is sent to a chat endpoint; without it nothing is sent.

    Returns:
        Numbers of `sentences` and those that are `labelled`, of `spans` and different `concepts`, the most frequent
        (`top`), what was `invalid` or `skipped` by kind, `seconds`, the paths of `file` and `card`, and more by
        method.

    Raises:
        TrunklineError: No text, no label, or a problem with an input, a server or a model.
    """
    began = time.perf_counter()
    card = card_path(config, out)
    skipped: Counter[str] = Counter()
    desk = Desk(out, say, confirm)
    sentences = islice(iterate_sentences(texts, config.max_words, skipped), config.limit)
    rows = _without(islice(_label(config, sentences, desk), config.limit), frozenset(map(normalise_type, config.drop)))
    written = write_labelled(out, rows, keep_unlabelled=config.keep_unlabelled)
    write_card(config, out, card, written.rows, describe(config))
    return {
        "sentences": written.sentences,
        "labelled": written.labelled,
        "spans": written.spans,
        "concepts": len(written.concepts),
        "top": sorted(written.concepts.items(), key=lambda item: (-item[1], item[0]))[:TOP],
        "invalid": {kind: number for kind, number in sorted(desk.invalid.items()) if number},
        "skipped": dict(sorted(skipped.items())),
        **desk.facts,
        "seconds": round(time.perf_counter() - began, 3),
        "file": str(out),
        "card": str(card),
    }


def describe(config: WeakLabelConfig) -> list[str]:
    """How the labels of a card were made, in sentences without paths."""
    given = config.model_dump(exclude_defaults=True, exclude={"method", "name", "licence", "cache", "key_variable"})
    shown = {key: value.name if isinstance(value, Path) else value for key, value in given.items()}
    how = [f"Method {config.method}: {', '.join(f'{key} {value}' for key, value in shown.items())}."]
    return [*how, f"Prompt version {VERSION}."] if isinstance(config, ChatConfig) else how


def _without(rows: Iterable[Labelled], dropped: frozenset[str]) -> Iterator[Labelled]:
    for text, spans in rows:
        yield text, [span for span in spans if span.label not in dropped]


def _label(config: WeakLabelConfig, sentences: Iterable[str], desk: Desk) -> Iterator[Labelled]:
    if isinstance(config, GazetteerConfig):
        return label_gazetteer(config, sentences, desk)
    if isinstance(config, LinksConfig):
        return label_links(config, sentences, desk)
    if isinstance(config, ChatConfig):
        return label_chat(config, sentences, desk)
    if isinstance(config, TeacherConfig):
        return label_teacher(config, sentences, desk)
    raise TypeError(f"no way of labelling for {type(config).__name__}")


def label_gazetteer(config: GazetteerConfig, sentences: Iterable[str], desk: Desk) -> Iterator[Labelled]:
    """Every sentence with the surfaces of the gazetteer that it has."""
    concepts, left_out = read_gazetteer(config)
    desk.facts.update(surfaces=len(concepts), gazetteer_left_out=dict(sorted(left_out.items())))
    desk.say(f"{len(concepts)} surfaces in {config.gazetteer.name}")
    trie = SurfaceTrie(concepts, whole_names=config.whole_names)
    for text in sentences:
        yield text, trie.find(text)
