"""The registry: one or more formats for each reader; a reader without one fails a test."""

from properties.ner_formats import NER
from properties.pair_formats import PAIRS
from properties.qa_formats import QA
from properties.text_formats import TEXT

FORMATS = (*NER, *TEXT, *PAIRS, *QA)

DAMAGED = (*{item.reader: item for item in NER}.values(), *TEXT, *PAIRS, *QA)
"""Those that are damaged in tests: of the tagging schemes, which damage does not tell apart, only one."""
