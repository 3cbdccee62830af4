"""Results as data: what `fit` and `evaluate` say, with one JSON form for Python, the commands and other readers."""

from trunkline.results.comparison import Comparison
from trunkline.results.evaluation import Evaluation, FitReport

__all__ = ["Comparison", "Evaluation", "FitReport"]
