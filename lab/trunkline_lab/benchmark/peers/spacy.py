"""spaCy's own pipelines, trained from nothing: a convolutional tok2vec with `ner` or `textcat`.

A blank English pipeline with spaCy's default component and no pretrained vectors, trained by spaCy's own loop with its
default optimiser, batches and early stopping on dev. Only the words are ours, so that entities begin and end where the
data's words do.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trunkline.tasks import FAMILIES
from trunkline.text.examples import WordSpan
from trunkline.text.words import split_words
from trunkline_lab.benchmark.peers import PeerOutput
from trunkline_lab.benchmark.peers.common import entities, plain_words, timed, word_spans

if TYPE_CHECKING:
    from trunkline_lab.fitting import TaskData


@dataclass(frozen=True)
class Settings:
    """Steps without progress on dev after which training ends, most steps, and steps between looks at dev; spaCy's."""

    patience: int = 1600
    max_steps: int = 20000
    eval_frequency: int = 200


def fit_predict(task: TaskData, encoder: Path, *, seed: int, settings: Settings = Settings()) -> PeerOutput:
    """See `trunkline_lab.benchmark.peers.Peer`; the encoder is not used."""
    from spacy.training.initialize import init_nlp
    from spacy.training.loop import train

    labels = FAMILIES[task.family].labels(task.train)
    with tempfile.TemporaryDirectory(prefix="peer-") as name:
        folder = Path(name)
        config = _config(task.family, folder, settings, seed)
        for part, examples in (("train", task.train), ("dev", task.dev)):
            _write(folder / f"{part}.spacy", task.family, examples, labels)
        nlp = init_nlp(config)
        (folder / "out").mkdir()
        # Its logger has no switch for the screen; what it writes goes nowhere.
        train(nlp, folder / "out", stdout=io.StringIO(), stderr=io.StringIO())
        nlp.from_disk(folder / "out" / "model-best")
        n_bytes = sum(path.stat().st_size for path in (folder / "out" / "model-best").rglob("*") if path.is_file())

    def predict(examples: Sequence[Any]) -> list[Any]:
        docs = list(nlp.pipe([_doc(nlp.vocab, example) for example in examples], batch_size=64))
        return [_prediction(task.family, doc, example) for doc, example in zip(docs, examples, strict=True)]

    predictions, milliseconds = timed(predict, task.test)
    return PeerOutput(predictions, predict(task.dev), n_bytes, milliseconds)


def _config(family: str, folder: Path, settings: Settings, seed: int) -> Any:
    import spacy

    pipe, measure = ("ner", "ents_f") if family == "ner" else ("textcat", "cats_micro_f")
    nlp = spacy.blank("en")
    nlp.add_pipe(pipe)
    config = nlp.config.copy()
    for part in ("train", "dev"):
        config["paths"][part] = str(folder / f"{part}.spacy")
        config["corpora"][part]["gold_preproc"] = True
    training = config["training"]
    training["patience"], training["max_steps"] = settings.patience, settings.max_steps
    training["eval_frequency"] = settings.eval_frequency
    # The measure that all methods are compared by also chooses the best state.
    training["score_weights"] = {**dict.fromkeys(training["score_weights"], None), measure: 1.0}
    config["system"]["seed"] = seed
    return config


def _write(path: Path, family: str, examples: Sequence[Any], labels: Sequence[str]) -> None:
    from spacy.tokens import DocBin, Span
    from spacy.vocab import Vocab

    vocab, store = Vocab(), DocBin(store_user_data=False)
    for example in examples:
        doc = _doc(vocab, example)
        if family == "ner":
            spans: list[WordSpan] = word_spans(example)
            doc.ents = tuple(Span(doc, first, last, label=label) for first, last, label in spans)
        else:
            doc.cats = {label: float(label == example.label) for label in labels}
        store.add(doc)
    store.to_disk(path)


def _doc(vocab: Any, example: Any) -> Any:
    from spacy.tokens import Doc

    offsets = split_words(example.text)
    following = [start for start, _ in offsets[1:]] + [len(example.text)]
    spaces = [end < after for (_, end), after in zip(offsets, following, strict=bool(offsets))]
    return Doc(vocab, words=plain_words(example), spaces=spaces)


def _prediction(family: str, doc: Any, example: Any) -> Any:
    if family == "ner":
        # spaCy's entity recogniser gives no probabilities.
        return entities(example, [(entity.start, entity.end, entity.label_, 1.0) for entity in doc.ents])
    ranked = sorted(doc.cats.items(), key=lambda item: -item[1])
    probabilities = {label: round(float(value), 6) for label, value in ranked}
    return {"label": ranked[0][0], "score": probabilities[ranked[0][0]], "probabilities": probabilities}
