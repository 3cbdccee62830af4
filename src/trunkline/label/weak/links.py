"""Labels from links: a link's target has the table headers under which a gazetteer knows it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from trunkline.label.weak.config import LinksConfig
from trunkline.label.weak.output import Desk, Labelled
from trunkline_lab.data.readers import linked_gazetteer


def label_links(config: LinksConfig, sentences: Iterable[str], desk: Desk) -> Iterator[Labelled]:
    """The sentences of the linked paragraphs that have a typed link; `sentences` is not used."""
    options = linked_gazetteer.Options(
        gazetteer=str(config.gazetteer.resolve()),
        min_count=config.min_count,
        max_labels=config.max_concepts,
        max_words=config.max_words,
    )
    for example in linked_gazetteer.read(config.paragraphs, options):
        yield example.text, example.spans
