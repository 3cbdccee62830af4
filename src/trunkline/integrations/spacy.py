"""Components for spaCy: `trunkline_ner` fills `doc.ents`, `trunkline_textcat` fills `doc.cats`.

Components of one pipeline that are on the same encoder share it, and a text runs through its trunk once for all.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from trunkline.errors import MismatchError, TrunklineError, needs
from trunkline.integrations import open_shared
from trunkline.model import Model

with needs("spacy", "trunkline.integrations.spacy"):
    from spacy import util
    from spacy.language import Language
    from spacy.scorer import Scorer, get_ner_prf
    from spacy.tokens import Doc, Span
    from spacy.training import Example

REMEMBERED = 1024
"""Texts whose predictions wait for the other components of a pipeline."""

ALIGNMENTS = ("expand", "contract", "strict")


class _Encoder:
    """A model with the tasks of all components on one encoder, and what it said of the last texts."""

    def __init__(self, source: str | Path | None) -> None:
        self.model: Model = open_shared(source, tasks=False)
        self._said: dict[str, dict[str, Any]] = {}

    def predict(self, texts: Sequence[str], names: Sequence[str]) -> list[dict[str, Any]]:
        """Predictions of the tasks `names`; texts that were seen just now are not computed again."""
        unknown = [text for text in dict.fromkeys(texts) if not set(names) <= self._said.get(text, {}).keys()]
        self._said |= zip(unknown, self.model.predict(unknown, names), strict=True)
        found = [self._said[text] for text in texts]
        for text in list(self._said)[:-REMEMBERED]:
            del self._said[text]
        return found


_ENCODERS: weakref.WeakKeyDictionary[Language, list[_Encoder]] = weakref.WeakKeyDictionary()


class TrunklineComponent:
    """What both components are: a task of a bundle, opened when the first document comes.

    Args:
        nlp: The pipeline.
        name: The component's.
        model: A bundle, as for `trunkline.load`.
        task: Its task; needed where there are several of the family.
    """

    family: ClassVar[str]

    def __init__(self, nlp: Language, name: str, model: str | None, task: str | None) -> None:
        self.name = name
        self._nlp, self._source, self._task = weakref.ref(nlp), model, task
        self._encoder: _Encoder | None = None

    def __call__(self, doc: Doc) -> Doc:
        """Annotates a document."""
        return next(self.pipe([doc]))

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 128) -> Iterator[Doc]:
        """Annotates documents, `batch_size` at a time."""
        for docs in util.minibatch(stream, batch_size):
            encoder = self._open()
            # The tasks of all enabled components on the encoder.
            parts = [part for _, part in getattr(self._nlp(), "pipeline", ()) if isinstance(part, TrunklineComponent)]
            names = [self.name, *(part.name for part in parts if part is not self and part._open() is encoder)]
            rows = encoder.predict([doc.text for doc in docs], names)
            for doc, row in zip(docs, rows, strict=True):
                self.annotate(doc, row[self.name])
                yield doc

    def annotate(self, doc: Doc, found: Any) -> None:
        """Writes a prediction into a document."""
        raise NotImplementedError

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the task."""
        return tuple(self._open().model._predictor.tasks[self.name].types)

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Writes a bundle with this component's task."""
        Path(path).mkdir(parents=True, exist_ok=True)
        self._open().model.save(path, tasks=[self.name])

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> TrunklineComponent:
        """Takes the bundle that `to_disk` wrote."""
        self._source, self._task, self._encoder = str(path), self.name, None
        return self

    def _open(self) -> _Encoder:
        """The encoder, with this component's task under the component's name."""
        if self._encoder is None:
            opened = open_shared(self._source)
            there = [name for name, family in opened.tasks.items() if family == self.family]
            chosen = self._task or (there[0] if len(there) == 1 else None)
            if chosen not in there:
                asked = f"has no task {self._task!r}" if self._task else f"has {len(there)} tasks"
                expected = f"one of {', '.join(there) or '(none)'}, of the family {self.family}"
                todo = "Name it in the component's config: {'model': BUNDLE, 'task': NAME}"
                raise TrunklineError(f"{self.name}: {opened.name} {asked}", expected=expected, todo=todo)
            self._encoder = self._join(opened._predictor.tasks[chosen].content)
        return self._encoder

    def _join(self, content: bytes) -> _Encoder:
        nlp = self._nlp()
        known = [] if nlp is None else _ENCODERS.setdefault(nlp, [])
        for encoder in known:
            try:
                encoder.model.add(self.name, content, replace=True)
            except MismatchError:
                continue
            return encoder
        own = _Encoder(self._source)
        own.model.add(self.name, content)
        known.append(own)
        return own


class TrunklineNer(TrunklineComponent):
    """Adds entities to `doc.ents` and, with `scores` among its `attrs`, to `doc.spans[spans_key]`."""

    family = "ner"

    def __init__(
        self,
        nlp: Language,
        name: str,
        model: str | None,
        task: str | None,
        spans_key: str = "trunkline",
        alignment: str = "expand",
        overwrite_ents: bool = False,
    ) -> None:
        super().__init__(nlp, name, model, task)
        if alignment not in ALIGNMENTS:
            raise TrunklineError(f"{name}: alignment {alignment!r}", expected=f"one of {', '.join(ALIGNMENTS)}")
        self._key, self._alignment, self._overwrite = spans_key, alignment, overwrite_ents

    def annotate(self, doc: Doc, found: Any) -> None:
        """Entities that touch those of earlier components are left out of `doc.ents`, unless they overwrite them."""
        spans, scores = list[Span](), list[float]()
        for entity in found:
            span = doc.char_span(entity["start"], entity["end"], entity["label"], alignment_mode=self._alignment)
            if span is not None and len(span):
                spans.append(span)
                scores.append(entity["score"])
        doc.spans[self._key] = spans
        doc.spans[self._key].attrs["scores"] = scores
        first, second = (spans, doc.ents) if self._overwrite else (doc.ents, spans)
        taken = {token.i for span in first for token in span}
        doc.set_ents(util.filter_spans([*first, *(s for s in second if taken.isdisjoint(range(s.start, s.end)))]))

    def score(self, examples: Iterable[Example], **more: Any) -> dict[str, Any]:
        """Entity precision, recall and F1, as spaCy counts them."""
        return get_ner_prf(examples)


class TrunklineTextcat(TrunklineComponent):
    """Fills `doc.cats` with the probability of each label."""

    family = "classification"

    def annotate(self, doc: Doc, found: Any) -> None:
        """Labels of earlier components stay."""
        doc.cats = {**doc.cats, **found["probabilities"]}

    def score(self, examples: Iterable[Example], **more: Any) -> dict[str, Any]:
        """F1 and more by label, as spaCy counts them."""
        return Scorer.score_cats(examples, attr="cats", labels=self.labels, multi_label=False)


make_ner = Language.factory(
    "trunkline_ner",
    assigns=["doc.ents", "doc.spans"],
    default_config={"model": None, "task": None},
    default_score_weights={"ents_f": 1.0, "ents_p": 0.0, "ents_r": 0.0, "ents_per_type": None},
)(TrunklineNer)

make_textcat = Language.factory(
    "trunkline_textcat", assigns=["doc.cats"], default_config={"model": None, "task": None}
)(TrunklineTextcat)
