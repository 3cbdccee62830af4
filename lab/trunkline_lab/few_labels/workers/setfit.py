"""SetFit with its defaults and at most 1,000 steps. Runs where `setfit` is installed, see `Worker`."""

import json
import sys
import tempfile
import time

CHANNEL, sys.stdout = sys.stdout, sys.stderr
STEPS = 1000


def main() -> None:
    """Answers requests until there are no more."""
    sys.path = [place for place in sys.path if not place.endswith("workers")]  # This file has the library's name.
    import torch
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments
    from setfit.sampler import ContrastiveDataset
    from transformers import PrinterCallback

    torch.set_num_threads(1)
    for line in sys.stdin:
        asked = json.loads(line)
        labels = sorted({label for _, label in asked["train"]})
        began = time.process_time()
        model = SetFitModel.from_pretrained(asked["encoder"], labels=labels, local_files_only=True)
        texts, targets = (list(column) for column in zip(*asked["train"], strict=True))
        pairs = len(ContrastiveDataset(texts, [labels.index(label) for label in targets], False))
        with tempfile.TemporaryDirectory(prefix="setfit-") as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                seed=asked["seed"],
                max_steps=STEPS if pairs > 16 * STEPS else -1,
                report_to="none",
                logging_strategy="no",
                save_strategy="no",
                show_progress_bar=False,
            )
            data = Dataset.from_dict({"text": texts, "label": targets})
            trainer = Trainer(model=model, args=arguments, train_dataset=data)
            trainer.st_trainer.remove_callback(PrinterCallback)
            trainer.train()
        seconds = time.process_time() - began
        chances = model.predict_proba(asked["test"], as_numpy=True, show_progress_bar=False)
        predictions = [
            {"label": labels[row.argmax()], "probabilities": dict(zip(labels, row.tolist(), strict=True))}
            for row in chances
        ]
        size = sum(p.numel() * 4 for p in model.model_body.parameters()) + 4 * model.model_head.coef_.size
        steps = min(STEPS, -(-pairs // 16))
        answer = {"predictions": predictions, "seconds": seconds, "bytes": size, "about": {"steps": steps}}
        CHANNEL.write(json.dumps(answer) + "\n")
        CHANNEL.flush()


main()
