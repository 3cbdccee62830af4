"""Fine-tuning with the Trainer of transformers, as its examples do, for the peers that stand on it."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline.tasks import FAMILIES
from trunkline_lab.benchmark.peers import PeerOutput
from trunkline_lab.benchmark.peers.common import clean_folder, decode_all, load_model, load_tokenizer, quiet, timed
from trunkline_lab.benchmark.peers.rows import Rows, make_rows, unit_probabilities

if TYPE_CHECKING:
    from trunkline_lab.fitting import TaskData

Wrap = Callable[[Any, set[str]], Any]
"""Makes the model to train of the loaded one and of the parameters that the folder does not have."""
Size = Callable[[Any], int]


@dataclass(frozen=True)
class TrainerSettings:
    """What the Trainer is given; the rest is its defaults (AdamW, linear decay of the rate, no warm-up).

    Attributes:
        rate: Learning rate.
        batch: Rows a step.
        epochs: Epochs, but at least `min_steps` steps, as three epochs of few labels are too few steps to learn.
        min_steps: See there.
        evaluations: Dev is predicted after every epoch, or this many times where there would be more epochs; the best
            state is kept, the earlier one where several are the best.
        weight_decay: AdamW's.
    """

    rate: float = 5e-5
    batch: int = 16
    epochs: int = 3
    min_steps: int = 200
    evaluations: int = 10
    weight_decay: float = 0.0

    def schedule(self, n_rows: int) -> tuple[int, int]:
        """Steps in all, and steps between evaluations."""
        an_epoch = math.ceil(n_rows / self.batch)
        steps = max(self.epochs * an_epoch, self.min_steps)
        return steps, max(an_epoch, math.ceil(steps / self.evaluations))


def fine_tune(
    task: TaskData, encoder: Path, settings: TrainerSettings, *, seed: int, wrap: Wrap, size: Size
) -> PeerOutput:
    """Trains a token or sequence classifier of transformers on a task.

    Args:
        task: The examples; the state that is kept is the best on dev by the family's main score.
        encoder: A folder in Hugging Face layout.
        settings: See there.
        seed: Of the fresh head, the order of batches and dropout.
        wrap: See `Wrap`.
        size: Bytes of a trained model that this task adds.

    Raises:
        EncoderError: A folder that transformers cannot load.
    """
    import transformers as hf

    labels = FAMILIES[task.family].labels(task.train)
    with quiet(), clean_folder(encoder) as folder, tempfile.TemporaryDirectory(prefix="peer-run-") as run:
        tokenizer = load_tokenizer(folder)
        hf.set_seed(seed)
        words = task.family == "ner"
        kind = hf.AutoModelForTokenClassification if words else hf.AutoModelForSequenceClassification
        model, found = load_model(folder, kind, num_labels=len(labels), output_loading_info=True)
        train, dev = (make_rows(task.family, part, labels, tokenizer) for part in (task.train, task.dev))
        collator = hf.DataCollatorForTokenClassification(tokenizer) if words else hf.DataCollatorWithPadding(tokenizer)
        trainer = hf.Trainer(
            model=wrap(model.float(), set(found["missing_keys"])),
            args=_arguments(settings, Path(run), seed, settings.schedule(len(train.inputs))),
            train_dataset=train.inputs,
            eval_dataset=dev.inputs,
            data_collator=collator,
            compute_metrics=_scorer(task, dev, labels),
        )
        # It would write every evaluation to the screen.
        trainer.remove_callback(hf.PrinterCallback)
        trainer.train()
        trainer.compute_metrics = None

        def predict(examples: Sequence[Any]) -> list[Any]:
            rows = make_rows(task.family, examples, labels, tokenizer)
            inputs: Any = rows.inputs
            logits = np.asarray(trainer.predict(inputs).predictions)
            return decode_all(task.family, unit_probabilities(logits, rows, labels), examples, labels)

        predictions, milliseconds = timed(predict, task.test)
        return PeerOutput(predictions, predict(task.dev), size(trainer.model), milliseconds)


def parameter_bytes(model: Any) -> int:
    """Bytes of all parameters of a model."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def _arguments(settings: TrainerSettings, run: Path, seed: int, schedule: tuple[int, int]) -> Any:
    import torch
    import transformers as hf

    steps, every = schedule
    return hf.TrainingArguments(
        output_dir=str(run),
        max_steps=steps,
        per_device_train_batch_size=settings.batch,
        per_device_eval_batch_size=64,
        learning_rate=settings.rate,
        weight_decay=settings.weight_decay,
        bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="best",
        save_total_limit=1,
        save_only_model=True,
        load_best_model_at_end=True,
        metric_for_best_model="score",
        greater_is_better=True,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        label_names=["labels"],
        seed=seed,
    )


def _scorer(task: TaskData, rows: Rows, labels: Sequence[str]) -> Callable[[Any], dict[str, float]]:
    family = FAMILIES[task.family]

    def score(outputs: Any) -> dict[str, float]:
        probabilities = unit_probabilities(np.asarray(outputs.predictions), rows, labels)
        found = decode_all(task.family, probabilities, task.dev, labels)
        return {"score": family.score(task.dev, found)[family.main_score]}

    return score
