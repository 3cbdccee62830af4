"""Labels from a teacher: any Hugging Face token classifier with safetensors weights; no remote code is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from trunkline.errors import EncoderError, TrunklineError
from trunkline.label.options import TeacherOptions
from trunkline.label.sentences import normalise_type
from trunkline.problems import nearest
from trunkline.text.examples import Span
from trunkline.text.tags import decode_with_repairs
from trunkline.text.words import split_words

MAX_LENGTH = 256
"""Tokens of a sentence that are read; the rest stays unlabelled."""

_USUAL_NAMES = {"per": "person", "pers": "person", "org": "organization", "loc": "location"}
_USUAL_NAMES |= {"gpe": "country, city or state", "fac": "building or facility", "misc": "nationality, event or work"}
_BIO = {"B": "B", "I": "I", "E": "I", "L": "I", "S": "B", "U": "B"}


def label_teacher(options: TeacherOptions, sentences: Iterable[str]) -> Iterator[tuple[str, list[Span]]]:
    """The sentences with the entities that the teacher finds; errors as for `load_teacher`."""
    find = load_teacher(options)
    rest = iter(sentences)
    while batch := list(islice(rest, options.batch)):
        for text, spans in zip(batch, find(batch), strict=True):
            named = ((span, concept_name(span.label, options.rename)) for span in spans)
            yield text, [Span(span.start, span.end, name) for span, name in named if name]


def load_teacher(options: TeacherOptions) -> Callable[[Sequence[str]], list[list[Span]]]:
    """A function that finds the entities of sentences, with the teacher's own labels.

    A word has the label of its first token, an entity the mean probability of its words.

    Raises:
        EncoderError: No token classifier that transformers knows with safetensors weights, or labels without `O`.
        TrunklineError: `rename` with labels that the model does not have, or a missing extra.
    """
    try:
        import transformers as hf

        from trunkline.encoder.resolve import resolve
    except ImportError as error:
        todo = "pip install 'trunkline[train]'"
        raise TrunklineError(f"a teacher needs the package {error.name}, which is missing", todo=todo) from None
    folder = str(resolve(options.teacher).folder)
    safe: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    try:
        tokenizer = hf.AutoTokenizer.from_pretrained(folder, **safe)
        model, found = hf.AutoModelForTokenClassification.from_pretrained(
            folder, output_loading_info=True, use_safetensors=True, **safe
        )
        problem = ", ".join(f"no weights for {name}" for name in sorted(found["missing_keys"])[:3])
    except Exception as error:  # whatever libraries raise for files that are damaged or of another kind
        problem = str(error).partition("\n")[0] or type(error).__name__
    if problem:
        raise EncoderError(
            f"{folder} cannot be loaded as a token classifier ({problem})",
            expected="a model for named entities that transformers knows, in safetensors with its tokenizer",
        )
    known = {label.partition("-")[2] or label for label in model.config.label2id} - {"O"}
    unknown = next(iter(sorted(options.rename.keys() - known)), None)
    if "O" not in model.config.label2id or unknown is not None:
        raise TrunklineError(
            f"the teacher has no label {unknown or 'O'!r}{nearest(unknown or 'O', known)}",
            expected=f"{'one of' if unknown else 'O beside'} {', '.join(sorted(known)[:20])}",
        )
    # RoBERTa counts its positions from behind the padding, so that two of them are not to be had.
    tokenizer.model_max_length = min(MAX_LENGTH, (getattr(model.config, "max_position_embeddings", 0) or 10**6) - 2)
    device = None if options.device == "auto" else options.device
    pipe = hf.pipeline("token-classification", model, tokenizer=tokenizer, device=device, ignore_labels=[])

    def find(sentences: Sequence[str]) -> list[list[Span]]:
        found = pipe(list(sentences), batch_size=options.batch)
        return [decode(text, tokens, options.threshold) for text, tokens in zip(sentences, found, strict=True)]

    return find


def decode(text: str, tokens: Sequence[Mapping[str, Any]], threshold: float) -> list[Span]:
    """The entities of a sentence, whose borders are those of words.

    Args:
        text: The sentence.
        tokens: In order, with `start` and `end` in the text, `entity` (a label of the schemes IO, BIO, BIOES or BILOU)
            and `score`.
        threshold: Lowest mean score of an entity's words.
    """
    words = split_words(text)
    tags, scores = ["O"] * len(words), [1.0] * len(words)
    number = 0
    for token in tokens:
        while number < len(words) and words[number][1] <= token["start"]:
            number += 1
        if number < len(words) and words[number][0] < token["end"]:
            prefix, dash, kind = token["entity"].partition("-")
            is_tag = dash and prefix in _BIO
            tags[number] = "O" if token["entity"] == "O" else f"{_BIO[prefix]}-{kind}" if is_tag else f"I-{prefix}{dash}{kind}"
            scores[number] = float(token["score"])
            number += 1
    return [
        Span(words[first][0], words[last - 1][1], label)
        for first, last, label in decode_with_repairs(tags, "BIO")[0]
        if sum(scores[first:last]) / (last - first) >= threshold
    ]


def concept_name(label: str, names: Mapping[str, str]) -> str:
    """The concept for a teacher's label: as the user says, the usual one (`PER` is `person`), or the label in words."""
    return names[label] if label in names else _USUAL_NAMES.get(label.lower()) or normalise_type(label)
