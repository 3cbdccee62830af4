"""Labels from a teacher: any Hugging Face token classifier with safetensors weights; no remote code is run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from trunkline.errors import EncoderError, TrunklineError
from trunkline.extras import needs
from trunkline.label.gazetteer import normalise_type
from trunkline.label.options import TeacherOptions
from trunkline.problems import nearest
from trunkline.text.examples import Span
from trunkline.text.tags import decode_with_repairs
from trunkline.text.words import split_words

MAX_LENGTH = 512
"""Tokens of a sentence that are read at most; the rest stays unlabelled."""

_USUAL_NAMES = {"per": "person", "org": "organization", "loc": "location", "gpe": "country, city or state"}
_BIO = {"B": "B", "I": "I", "E": "I", "L": "I", "S": "B", "U": "B"}


def label_teacher(options: TeacherOptions, sentences: Iterable[str]) -> Iterator[tuple[str, list[Span]]]:
    """The sentences with the entities that the teacher finds, under the concepts' names.

    Raises:
        EncoderError: No token classifier that transformers knows with safetensors weights.
        TrunklineError: Labels without `O`, `rename` with labels that the model does not have, or a missing extra.
    """
    find, rest = _load(options), iter(sentences)
    while batch := list(islice(rest, options.batch)):
        for text, tokens in zip(batch, find(batch, batch_size=options.batch), strict=True):
            spans = decode(text, tokens, options.threshold)
            named = (Span(span.start, span.end, concept_name(span.label, options.rename)) for span in spans)
            yield text, [span for span in named if span.label]


def _load(options: TeacherOptions) -> Any:
    with needs("train", "a teacher"):
        import transformers as hf

        from trunkline.encoder.resolve import resolve
    folder = str(resolve(options.teacher).folder)
    safe: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    kind = hf.AutoModelForTokenClassification
    try:
        tokenizer = hf.AutoTokenizer.from_pretrained(folder, **safe)
        model, found = kind.from_pretrained(folder, output_loading_info=True, use_safetensors=True, **safe)
        problem = ", ".join(f"no weights for {name}" for name in sorted(found["missing_keys"])[:3])
    except Exception as error:  # whatever libraries raise for files that are damaged or of another kind
        problem = str(error).partition("\n")[0] or type(error).__name__
    if problem:
        raise EncoderError(
            f"{folder} cannot be loaded as a token classifier ({problem})",
            expected="a model for named entities that transformers knows, in safetensors with its tokenizer",
        )
    labels = {label.partition("-")[2] or label for label in model.config.label2id}
    for label in {"O", *options.rename} - labels:
        given = f"the teacher has no label {label!r}{nearest(label, labels)}"
        raise TrunklineError(given, expected=f"O and types of entities; it has {', '.join(sorted(labels)[:20])}")
    # RoBERTa counts its positions from behind the padding, so that two of them are not to be had.
    tokenizer.model_max_length = min(MAX_LENGTH, (getattr(model.config, "max_position_embeddings", 0) or 10**6) - 2)
    return hf.pipeline("token-classification", model, tokenizer=tokenizer, ignore_labels=[])


def decode(text: str, tokens: Sequence[Mapping[str, Any]], threshold: float) -> list[Span]:
    """The entities of a sentence, from word to word, whose words have a mean score of `threshold` or more.

    A word has the label and the score of its first token. Tokens come in order, with `start` and `end` in the text,
    `entity` (a label of the schemes IO, BIO, BIOES or BILOU) and `score`.
    """
    words = split_words(text)
    tags, scores, number = ["O"] * len(words), [1.0] * len(words), 0
    for token in tokens:
        while number < len(words) and words[number][1] <= token["start"]:
            number += 1
        if number < len(words) and words[number][0] < token["end"]:
            label, scores[number] = token["entity"], float(token["score"])
            prefix, _, kind = label.partition("-")
            tags[number] = (
                label if label == "O" else f"{_BIO[prefix]}-{kind}" if kind and prefix in _BIO else f"I-{label}"
            )
            number += 1
    found, _ = decode_with_repairs(tags, "BIO")
    kept = (entity for entity in found if sum(scores[entity[0] : entity[1]]) >= threshold * (entity[1] - entity[0]))
    return [Span(words[first][0], words[last - 1][1], label) for first, last, label in kept]


def concept_name(label: str, names: Mapping[str, str]) -> str:
    """The concept for a teacher's label: as the user says, the usual one (`PER` is `person`), or the label in words."""
    return names[label] if label in names else _USUAL_NAMES.get(label.lower()) or normalise_type(label)
