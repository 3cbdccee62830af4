"""Data for pre-finetuning out of one's own text: weak labels for NER, and text pairs for classification."""

from trunkline.label.pairs import mine_pairs
from trunkline.label.weak import label_text

__all__ = ["label_text", "mine_pairs"]
