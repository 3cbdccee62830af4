"""SetFit (Tunstall et al. 2022, arXiv 2209.11055): the encoder tuned on pairs of few texts, and a linear head.

SetFit's own trainer with its defaults. Two bounds keep it feasible with many texts, see `Settings`.
"""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline.tasks import FAMILIES
from trunkline_lab.benchmark.peers import PeerOutput
from trunkline_lab.benchmark.peers.common import clean_folder, decode_all, load_tokenizer, quiet, timed
from trunkline_lab.benchmark.peers.trainer import parameter_bytes

if TYPE_CHECKING:
    from trunkline_lab.fitting import TaskData


@dataclass(frozen=True)
class Settings:
    """SetFit's defaults, and bounds on what it would do by default.

    Attributes:
        rate: Of the encoder, SetFit's default.
        batch: Pairs a step, SetFit's default.
        max_steps: Most steps; SetFit would otherwise take every pair of the texts once, which grows with the square
            of their number.
        max_texts: Most texts to make pairs of, drawn by the seed; the head is fitted on all texts.
    """

    rate: float = 2e-5
    batch: int = 16
    max_steps: int = 1000
    max_texts: int = 2000


def fit_predict(task: TaskData, encoder: Path, *, seed: int, settings: Settings = Settings()) -> PeerOutput:
    """See `trunkline_lab.benchmark.peers.Peer`; as in SetFit's examples, dev decides nothing."""
    import setfit
    from sentence_transformers import SentenceTransformer
    from sklearn.linear_model import LogisticRegression
    from transformers import PrinterCallback

    labels = FAMILIES[task.family].labels(task.train)
    texts, targets = [e.text for e in task.train], [labels.index(e.label) for e in task.train]
    chosen = np.random.default_rng(seed).permutation(len(texts))[: settings.max_texts]
    few = [targets[i] for i in chosen]
    setfit.logging.set_verbosity_warning()
    bounded = pair_steps(few, settings.batch) > settings.max_steps
    with quiet(), clean_folder(encoder) as folder, tempfile.TemporaryDirectory(prefix="peer-run-") as run:
        # Mean pooling, as the folder does not say otherwise.
        body = SentenceTransformer(str(folder), local_files_only=True, model_kwargs={"use_safetensors": True})
        body.max_seq_length = load_tokenizer(folder).model_max_length
        # Not from_pretrained, which would unpickle a head that lies in the folder.
        model = setfit.SetFitModel(model_body=body, model_head=LogisticRegression(), labels=list(labels))
        arguments = setfit.TrainingArguments(
            output_dir=run,
            batch_size=settings.batch,
            body_learning_rate=settings.rate,
            max_steps=settings.max_steps if bounded else -1,
            seed=seed,
            report_to="none",
            logging_strategy="no",
            logging_first_step=False,
            save_strategy="no",
            show_progress_bar=False,
        )
        trainer = setfit.Trainer(model=model, args=arguments)
        trainer.st_trainer.remove_callback(PrinterCallback)
        trainer.train_embeddings([texts[i] for i in chosen], few)
        trainer.train_classifier(texts, targets)

        def predict(examples: Sequence[Any]) -> list[Any]:
            known = model.predict_proba([e.text for e in examples], as_numpy=True, show_progress_bar=False)
            return decode_all(task.family, list(np.asarray(known)[:, None]), examples, labels)

        predictions, milliseconds = timed(predict, task.test)
        n_bytes = parameter_bytes(model.model_body) + 4 * (model.model_head.coef_.size + len(labels))
        return PeerOutput(predictions, predict(task.dev), n_bytes, milliseconds)


def pair_steps(targets: Sequence[int], batch: int) -> int:
    """Steps of SetFit's default: all pairs of unlike texts and as many of like ones, or the other way round."""
    n = len(targets)
    like = sum(count * (count + 1) // 2 for count in Counter(targets).values())
    return math.ceil(2 * max(like, n * (n + 1) // 2 - like) / batch)
