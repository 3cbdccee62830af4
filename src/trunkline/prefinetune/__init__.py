"""Pre-finetuning: one encoder for several families, by the strategy that a recipe names."""

from trunkline.prefinetune.run import prefinetune
from trunkline.prefinetune.sources import FileFinder
from trunkline.training import Report

__all__ = ["FileFinder", "Report", "prefinetune"]
