"""Labels from a teacher: any Hugging Face token classifier, or a GLiNER model; only safetensors, no remote code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.errors import EncoderError, TrunklineError
from trunkline.label.weak.cache import AnswerCache, key_of
from trunkline.label.weak.config import TeacherConfig
from trunkline.label.weak.gliner import load_gliner
from trunkline.label.weak.output import Desk, Labelled
from trunkline.label.weak.text import normalise_type
from trunkline.problems import nearest
from trunkline.text.examples import Span
from trunkline.text.packing import word_units
from trunkline.text.tags import SCHEMES, Scheme, decode_with_repairs
from trunkline.text.tokens import TextTokenizer
from trunkline.text.words import split_words

VERSION = "1"
MAX_LENGTH = 256
PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.model")
"""What is fetched from the hub: no code and no pickled weights."""

_USUAL_NAMES = {
    "per": "person",
    "pers": "person",
    "org": "organization",
    "loc": "location",
    "gpe": "country, city or state",
    "fac": "building or facility",
    "misc": "nationality, event or work",
}
_PREFIXES: dict[str, Scheme] = {"BI": "BIO", "B": "BIO", "I": "IO", "BEIS": "BIOES", "BILU": "BILOU"}

Finder = Callable[[Sequence[str]], list[list[Span]]]
"""Finds the entities of sentences, with the teacher's own labels."""


def label_teacher(config: TeacherConfig, sentences: Iterable[str], desk: Desk) -> Iterator[Labelled]:
    """Has the teacher read what is not in the cache, then yields all sentences.

    Raises:
        EncoderError: A teacher that cannot be found or used.
    """
    folder = find_teacher(config.teacher, config.revision)
    with AnswerCache(config.cache or desk.out.with_suffix(".cache.jsonl")) as cache:
        given = list(sentences)
        identity = _identity(config, folder)
        pending = [text for text in dict.fromkeys(given) if key_of(*identity, text) not in cache]
        desk.facts["cached"] = len(set(given)) - len(pending)
        if pending:
            _read_all(config, folder, pending, identity, cache, desk)
        for text in given:
            spans = [Span(*row) for row in cache.get(key_of(*identity, text))]
            yield text, [Span(s.start, s.end, name) for s in spans if (name := concept_name(s.label, config.names))]


def find_teacher(name: str, revision: str | None = None, patterns: Sequence[str] = PATTERNS) -> Path:
    """The folder of a model: a local one, or a snapshot of the hub without code and pickled weights.

    Raises:
        EncoderError: It is in neither place.
    """
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise EncoderError(
            f"the teacher {name!r} is no folder and cannot be had from the hub ({str(error).splitlines()[0]})",
            expected="the folder or the hub id of a token classifier or a GLiNER model",
            todo="Check the name and the network",
        ) from None


def load_teacher(config: TeacherConfig, folder: Path, *, gliner: Any = None) -> Finder:
    """A function that finds entities.

    Args:
        config: Labels, threshold and device.
        folder: The model's.
        gliner: The module `gliner`; imported where it is needed if it is not given.

    Raises:
        EncoderError: No safetensors weights, or a model of another kind.
    """
    if not any(folder.glob("*.safetensors")):
        raise EncoderError(
            f"{folder} has no safetensors weights",
            expected="*.safetensors; other formats can run code when they are loaded",
            todo="Convert the model, or use another one",
        )
    if (folder / "gliner_config.json").is_file():
        return load_gliner(config, folder, find_teacher, gliner)
    if config.labels:
        raise TrunklineError(
            "labels were given", expected="none for a token classifier, which has its own", todo="Use --rename"
        )
    return load_classifier(config, folder)


def load_classifier(config: TeacherConfig, folder: Path) -> Finder:
    """A token classifier: a word has the label of its first token, an entity the mean probability of its words.

    Raises:
        EncoderError: No token classifier that transformers knows, or labels without `O` or a known scheme.
        TrunklineError: `names` with labels that the model does not have.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForTokenClassification

    safe = {"use_safetensors": True, "trust_remote_code": False, "local_files_only": True}
    try:
        model, found = AutoModelForTokenClassification.from_pretrained(str(folder), output_loading_info=True, **safe)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise EncoderError(
            f"{folder} cannot be loaded as a token classifier ({str(error).splitlines()[0]})",
            expected="a model that transformers knows, with its tokenizer",
        ) from error
    if found["missing_keys"]:
        raise EncoderError(
            f"{folder} has no weights for {', '.join(sorted(found['missing_keys'])[:3])}",
            expected="a token classifier, not an encoder without a head",
        )
    labels = [model.config.id2label[number] for number in range(model.config.num_labels)]
    scheme = scheme_of(labels)
    _check_names(config.names, {label.partition("-")[2] or label for label in labels} - {"O"})
    positions = getattr(model.config, "max_position_embeddings", None) or MAX_LENGTH
    # RoBERTa counts its positions from behind the padding, so that two of them are not to be had.
    tokenizer = TextTokenizer.from_folder(folder, min(MAX_LENGTH, positions - 2))
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.eval().to(device)

    def find(sentences: Sequence[str]) -> list[list[Span]]:
        words = [split_words(sentence) for sentence in sentences]
        rows = _word_probabilities(model, tokenizer, sentences, words)
        return [
            decode(probabilities, labels, scheme, offsets, config.threshold)
            for probabilities, offsets in zip(rows, words, strict=True)
        ]

    return find


def scheme_of(labels: Sequence[str]) -> Scheme:
    """The scheme of a classifier's labels, by their prefixes.

    Raises:
        EncoderError: There is no `O`, or the prefixes are of no known scheme.
    """
    kinds = sorted(set(labels) - {"O"})
    prefixes = "".join(sorted({kind[0] for kind in kinds if kind[1:2] == "-"}))
    plain = not any(kind[1:2] == "-" for kind in kinds)
    whole = all(kind[1:2] == "-" and len(kind) > 2 for kind in kinds)
    if "O" not in labels or not kinds or not (plain or (whole and prefixes in _PREFIXES)):
        raise EncoderError(
            f"the classifier's labels are {', '.join(map(repr, labels[:8]))}{', ...' if len(labels) > 8 else ''}",
            expected=f"'O' and entity types, with the prefixes of one of {', '.join(SCHEMES)}",
            todo="Use a model for named entities whose config.json names its labels",
        )
    return "IO" if plain else _PREFIXES[prefixes]


def decode(
    probabilities: npt.NDArray[np.float32],
    labels: Sequence[str],
    scheme: Scheme,
    words: Sequence[tuple[int, int]],
    threshold: float,
) -> list[Span]:
    """The entities of a sentence from [words, labels] probabilities."""
    if not len(words):
        return []
    best = probabilities.argmax(axis=1)
    found, _ = decode_with_repairs([labels[number] for number in best], scheme)
    top = probabilities[np.arange(len(best)), best]
    return [
        Span(words[first][0], words[last - 1][1], label)
        for first, last, label in found
        if float(top[first:last].mean()) >= threshold
    ]


def concept_name(label: str, names: Mapping[str, str]) -> str:
    """The concept for a teacher's label: as the user says, the usual one (`PER` is `person`), or the label in words."""
    return names[label] if label in names else _USUAL_NAMES.get(label.lower()) or normalise_type(label)


def _word_probabilities(
    model: Any, tokenizer: TextTokenizer, sentences: Sequence[str], words: Sequence[Sequence[tuple[int, int]]]
) -> list[npt.NDArray[np.float32]]:
    import torch

    tokens = tokenizer.encode(sentences)
    windows = [window for text in tokens for window in text.windows]
    width = max(len(window.ids) for window in windows)
    ids = np.full((len(windows), width), model.config.pad_token_id or 0, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, window in enumerate(windows):
        ids[row, : len(window.ids)] = window.ids
        mask[row, : len(window.ids)] = 1
    with torch.inference_mode():
        logits = model(
            input_ids=torch.from_numpy(ids).to(model.device), attention_mask=torch.from_numpy(mask).to(model.device)
        ).logits
        table = logits.float().softmax(-1).cpu().numpy()
    result = []
    starts = np.cumsum([0, *(len(text.windows) for text in tokens)])
    for text, offsets, start in zip(tokens, words, starts[:-1], strict=True):
        units = word_units(text, offsets)
        # The first token of each word; word_units gives a word without tokens the opening one.
        _, first = np.unique(units.unit, return_index=True)
        parts = [table[start + number, :size] for number, size in enumerate(units.sizes)]
        result.append(np.concatenate(parts)[units.token[first]])
    return result


def _read_all(
    config: TeacherConfig, folder: Path, pending: Sequence[str], identity: Sequence[str], cache: AnswerCache, desk: Desk
) -> None:
    find = load_teacher(config, folder)
    desk.say(f"{len(pending)} sentences for {config.teacher}")
    cuts = [*range(0, len(pending), config.batch), len(pending)]
    step = max(len(cuts) // 10, 1)
    for number, (begin, end) in enumerate(pairwise(cuts), 1):
        batch = pending[begin:end]
        rows = [[[s.start, s.end, s.label] for s in spans] for spans in find(batch)]
        cache.add((key_of(*identity, text), row) for text, row in zip(batch, rows, strict=True))
        if number % step == 0:
            desk.say(f"{end} of {len(pending)} sentences")


def _identity(config: TeacherConfig, folder: Path) -> list[str]:
    """What the answers depend on besides the sentence; files by size and time, as weights are large."""
    files = sorted(file for pattern in PATTERNS for file in folder.glob(pattern))
    state = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    return ["teacher", VERSION, json.dumps([state, sorted(config.labels), config.threshold])]


def _check_names(names: Mapping[str, str], labels: set[str]) -> None:
    unknown = sorted(names.keys() - labels)
    if unknown:
        raise TrunklineError(
            f"the teacher has no label {unknown[0]!r}{nearest(unknown[0], labels)}",
            expected=f"one of {', '.join(sorted(labels))}",
        )
