"""What peers share: a clean encoder folder, a tokenizer, predictions in the families' form, and time."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trunkline.errors import EncoderError, TrunklineError
from trunkline.tasks import FAMILIES, Scored, ner
from trunkline.text.examples import NerExample, WordSpan
from trunkline.text.words import split_words

if TYPE_CHECKING:
    from trunkline_lab.fitting import TaskData

MAX_LENGTH = 256
"""Most tokens that a peer's encoder sees at once, special ones included."""


@contextmanager
def clean_folder(encoder: Path) -> Iterator[Path]:
    """A temporary copy of an encoder's folder with nothing in it that could run code.

    It holds config.json without remote code, links to the safetensors, and the tokenizer exactly as its tokenizer.json
    says. Bundles have no tokenizer_config.json, without which some classes of transformers would change lower-casing.

    Raises:
        EncoderError: No config.json or no safetensors in the folder, or no tokenizer.
    """
    weights = sorted(encoder.glob("*.safetensors"))
    if not (encoder / "config.json").is_file() or not weights:
        raise EncoderError(
            f"{encoder} has no config.json or no *.safetensors",
            expected="a folder in Hugging Face layout; other formats of weights can run code when they are loaded",
            todo="Convert the weights, or use another encoder",
        )
    with tempfile.TemporaryDirectory(prefix="peer-") as name:
        folder = Path(name)
        config = json.loads((encoder / "config.json").read_text(encoding="utf-8"))
        config.pop("auto_map", None)
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        for path in [*weights, *encoder.glob("*.safetensors.index.json")]:
            (folder / path.name).symlink_to(path.resolve())
        _tokenizer(encoder, config).save_pretrained(str(folder))
        yield folder


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a `clean_folder`."""
    return _tokenizer(folder, json.loads((folder / "config.json").read_text(encoding="utf-8")))


def _tokenizer(folder: Path, config: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    file = folder / "tokenizer.json"
    try:
        if file.is_file():
            tokenizer: Any = PreTrainedTokenizerFast(tokenizer_file=str(file))
        else:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), use_fast=True, local_files_only=True)
    # Which errors there are is up to the tokenizer's class and to a library in Rust.
    except Exception as error:
        raise EncoderError(
            f"{folder}: no usable tokenizer ({error})", expected="tokenizer.json, or a vocabulary with its config"
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(config.get("pad_token_id") or 0)
    # RoBERTa counts its positions from behind the padding, so that two of them are not to be had.
    tokenizer.model_max_length = min(MAX_LENGTH, config.get("max_position_embeddings", MAX_LENGTH) - 2)
    return tokenizer


def load_model(folder: Path, kind: Any, **options: Any) -> Any:
    """A model of one of transformers' Auto classes from a `clean_folder`.

    Returns:
        What `from_pretrained` gives: the model, or with `output_loading_info` a pair.

    Raises:
        EncoderError: An architecture that transformers does not know, or damaged weights.
    """
    from safetensors import SafetensorError

    options |= {"use_safetensors": True, "local_files_only": True}
    try:
        return kind.from_pretrained(str(folder), **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise EncoderError(
            f"the encoder cannot be loaded ({str(error).splitlines()[0]})",
            expected="an encoder that transformers knows",
        ) from error


def check_task(name: str, families: Sequence[str], task: TaskData) -> None:
    """Refuses (TrunklineError) another family than the peer's, a missing train or dev part, and too few classes."""
    if task.family not in families:
        raise TrunklineError(
            f"the peer {name} was given {task.name}, a task of the family {task.family}",
            expected=f"a task of {' or '.join(families)}",
        )
    if not task.train or not task.dev:
        raise TrunklineError(
            f"task {task.name} has {len(task.train)} train and {len(task.dev)} dev examples",
            expected="both, because peers are chosen or stopped on dev",
            todo="Set a part of train aside for dev",
        )
    classes = set().union(*(FAMILIES[task.family].classes(example) for example in task.train))
    least = 2 if task.family == "classification" else 1
    if len(classes) < least:
        raise TrunklineError(
            f"task {task.name} has {len(classes)} classes in train: {', '.join(sorted(classes)) or 'none'}",
            expected=f"at least {least}",
            todo="Give more labelled examples",
        )


def plain_words(example: Any) -> list[str]:
    """The words of an example; one that is only blanks or control characters, which libraries drop, is `_`."""
    words = [example.text[start:end] for start, end in split_words(example.text)]
    return [word if word.strip() and word.isprintable() else "_" for word in words]


def word_spans(example: NerExample) -> list[WordSpan]:
    """The entities of a sentence by the numbers of their words."""
    return ner.word_spans(example, split_words(example.text))


def entities(example: NerExample, found: Sequence[tuple[int, int, str, float]]) -> list[dict[str, Any]]:
    """Entities (first word, last word exclusive, label, score) in the decoded form of the family `ner`."""
    rows, words = [], split_words(example.text)
    for first, last, label, score in sorted(found):
        start, end = words[first][0], words[last - 1][1]
        rows.append(
            {"start": start, "end": end, "text": example.text[start:end], "label": label, "score": round(score, 6)}
        )
    return rows


def decode_all(family: str, probabilities: Sequence[Any], examples: Sequence[Any], labels: Sequence[str]) -> list[Any]:
    """Predictions from [units, labels] probabilities of each example, decoded as our own are."""
    texts = [(example.text, split_words(example.text)) for example in examples]
    return FAMILIES[family].decode([Scored(probabilities, texts, tuple(labels))])[0]


def timed(predict: Callable[[Sequence[Any]], list[Any]], test: Sequence[Any]) -> tuple[list[Any], float]:
    """Predictions of a test part and milliseconds a text, all of the peer's work included."""
    if not test:
        return [], 0.0
    began = time.perf_counter()
    predictions = predict(test)
    return predictions, 1000 * (time.perf_counter() - began) / len(test)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers from writing bars and reports about the fresh heads of a model."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
