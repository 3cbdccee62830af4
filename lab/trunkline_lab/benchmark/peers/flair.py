"""flair's fine-tuning of the whole encoder, its documented recipe for transformers: a linear layer, no RNN, no CRF.

flair 0.15 asks for transformers below 5, so it wants an environment of its own, see docs/peers.md.
"""

from __future__ import annotations

import importlib.metadata
import logging
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trunkline.errors import TrunklineError
from trunkline.tasks import FAMILIES
from trunkline_lab.benchmark.peers import PeerOutput
from trunkline_lab.benchmark.peers.common import clean_folder, entities, plain_words, quiet, timed, word_spans
from trunkline_lab.benchmark.peers.trainer import parameter_bytes

if TYPE_CHECKING:
    from trunkline_lab.fitting import TaskData

_TYPE = "label"


@dataclass(frozen=True)
class Settings:
    """flair's defaults of `fine_tune`, but at least `min_steps` steps, as for the other peers that are fine-tuned."""

    rate: float = 5e-5
    batch: int = 4
    epochs: int = 10
    min_steps: int = 200


def fit_predict(task: TaskData, encoder: Path, *, seed: int, settings: Settings = Settings()) -> PeerOutput:
    """See `trunkline_lab.benchmark.peers.Peer`; as in flair's recipe the last state is kept, so dev decides nothing."""
    flair = _import()
    flair.set_seed(seed)
    logging.getLogger("flair").setLevel(logging.ERROR)
    labels = FAMILIES[task.family].labels(task.train)
    with quiet(), clean_folder(encoder) as folder, tempfile.TemporaryDirectory(prefix="peer-run-") as run:
        train = [_sentence(task.family, example, labelled=True) for example in task.train]
        corpus = flair.data.Corpus(train=train, sample_missing_splits=False)
        model = (_tagger if task.family == "ner" else _classifier)(flair, corpus, folder)
        flair.trainers.ModelTrainer(model, corpus).fine_tune(
            run,
            learning_rate=settings.rate,
            mini_batch_size=settings.batch,
            max_epochs=max(settings.epochs, math.ceil(settings.min_steps / math.ceil(len(train) / settings.batch))),
            # Nothing is stored, because flair stores by pickle.
            save_final_model=False,
            create_file_logs=False,
            create_loss_file=False,
        )

        def predict(examples: Sequence[Any]) -> list[Any]:
            sentences = [_sentence(task.family, example) for example in examples]
            model.predict(sentences, mini_batch_size=64, return_probabilities_for_all_classes=task.family != "ner")
            return [_prediction(task.family, s, e, labels) for s, e in zip(sentences, examples, strict=True)]

        predictions, milliseconds = timed(predict, task.test)
        return PeerOutput(predictions, predict(task.dev), parameter_bytes(model), milliseconds)


def _import() -> Any:
    try:
        import flair
        import flair.data
        import flair.embeddings
        import flair.models
        import flair.trainers
    except ImportError as error:
        versions = {name: importlib.metadata.version(name) for name in ("flair", "transformers")}
        raise TrunklineError(
            f"flair {versions['flair']} cannot be imported beside transformers {versions['transformers']} ({error})",
            expected="a version of transformers that flair asks for",
            todo="`pip install flair` in an environment of its own, see docs/peers.md",
        ) from error
    return flair


def _embeddings(folder: Path) -> dict[str, Any]:
    return {"model": str(folder), "layers": "-1", "fine_tune": True, "use_safetensors": True}


def _tagger(flair: Any, corpus: Any, folder: Path) -> Any:
    return flair.models.SequenceTagger(
        embeddings=flair.embeddings.TransformerWordEmbeddings(
            **_embeddings(folder), subtoken_pooling="first", use_context=False
        ),
        tag_dictionary=corpus.make_label_dictionary(label_type=_TYPE, add_unk=False),
        tag_type=_TYPE,
        use_crf=False,
        use_rnn=False,
        reproject_embeddings=False,
    )


def _classifier(flair: Any, corpus: Any, folder: Path) -> Any:
    return flair.models.TextClassifier(
        embeddings=flair.embeddings.TransformerDocumentEmbeddings(**_embeddings(folder)),
        label_dictionary=corpus.make_label_dictionary(label_type=_TYPE, add_unk=False),
        label_type=_TYPE,
    )


def _sentence(family: str, example: Any, labelled: bool = False) -> Any:
    from flair.data import Sentence

    sentence = Sentence(plain_words(example) or ["_"])
    if labelled and family == "ner":
        for first, last, label in word_spans(example):
            sentence[first:last].add_label(_TYPE, label)
    elif labelled:
        sentence.add_label(_TYPE, example.label)
    return sentence


def _prediction(family: str, sentence: Any, example: Any, labels: Sequence[str]) -> Any:
    if family == "ner":
        spans = [span for span in sentence.get_spans(_TYPE) if example.words]
        return entities(example, [(s[0].idx - 1, s[-1].idx, s.tag, float(s.score)) for s in spans])
    scores = dict.fromkeys(labels, 0.0) | {label.value: float(label.score) for label in sentence.get_labels(_TYPE)}
    ranked = {label: round(score, 6) for label, score in sorted(scores.items(), key=lambda item: -item[1])}
    best = next(iter(ranked))
    return {"label": best, "score": ranked[best], "probabilities": ranked}
