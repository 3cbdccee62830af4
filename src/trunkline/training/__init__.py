"""The one training loop, which pre-finetuning and adaptation share, and what it needs: precision, checkpoints, logs."""
