"""Named entity recognition: words or pieces are units, entities are spans of them, decoded from BIO tags."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.tasks.classification import (
    Answer,
    Answers,
    Classification,
    Counts,
    FloatArray,
    Labels,
    Scored,
    WordedText,
    Words,
)
from trunkline.text.examples import NerExample, Span
from trunkline.text.tokens import IntArray, TextTokenizer, Tokens, UnitText, word_units
from trunkline.text.words import unit_shapes

STRENGTH = 5
"""Tags that the prior of a tag's transitions is worth."""

RARE = 0.1
"""Share of entities inside words up to which units are words all the same, as pieces are harder to label than words:
their features are of one token, and an entity has more borders to miss."""

BLOCK = 2**17
"""Most values of a step of `best_paths`, label pairs times texts: 1 MB, which stays in a core's cache."""


class Ner(Classification):
    """The units are words or pieces of the text, whatever the tokens of a file were."""

    name = "ner"
    main_score = "f1"
    readable = "O, or B- or I- and a type"

    def choose_units(self, examples: Sequence[Any], tokenizer: TextTokenizer) -> str:
        """Words, unless more than `RARE` of the entities are out of their reach and within that of pieces."""
        tokens = tokenizer.encode([example.text for example in examples])
        gained = sum(
            len(unheld_spans(example, part.words)) - len(unheld_spans(example, part.borders("pieces")))
            for example, part in zip(examples, tokens, strict=True)
        )
        return "pieces" if gained > RARE * sum(len(example.spans) for example in examples) else "words"

    def unheld(self, examples: Sequence[Any], borders: Sequence[Words]) -> list[str]:
        """The entities that begin or end inside a unit, or overlap others."""
        return [
            f"{example.text[span.start : span.end]!r} in {example.text[:60]!r}"
            for example, own in zip(examples, borders, strict=True)
            for span in unheld_spans(example, own)
        ]

    def units(self, tokens: Tokens, words: Words) -> UnitText:
        """The words, or pieces, as units."""
        return word_units(tokens, words)

    def widened(self, texts: Sequence[WordedText], features: Sequence[FloatArray]) -> list[FloatArray]:
        """Features with the shapes of the units and their neighbours behind, which say what vocabularies hide."""
        pairs = zip(features, texts, strict=True)
        return [np.concatenate([part, unit_shapes(*text)], axis=1) for part, text in pairs]

    def labels(self, examples: Sequence[Any]) -> Labels:
        """O, then B- and I- of every entity type."""
        types = sorted({span.label for example in examples for span in example.spans})
        return "O", *(f"{prefix}-{kind}" for kind in types for prefix in "BI")

    def unreadable(self, labels: Labels) -> list[str]:
        """All but O, and B- and I- of types."""
        return [label for label in labels if label != "O" and not (label[:2] in ("B-", "I-") and label[2:])]

    def classes(self, example: Any) -> set[str]:
        """The entity types of the sentence."""
        return {span.label for span in example.spans}

    def unit_targets(self, example: Any, labels: Labels, words: Words) -> list[int]:
        """The BIO tag of each unit, -1 for a type that the head does not have; see `word_spans`."""
        index = {label: number for number, label in enumerate(labels)}
        targets = [index.get("O", -1)] * len(words)
        for first, last, label in word_spans(example, words):
            targets[first:last] = [index.get(f"I-{label}", -1)] * (last - first)
            targets[first] = index.get(f"B-{label}", -1)
        return targets

    def transitions(self, targets: Sequence[Sequence[int]], labels: Labels) -> npt.NDArray[np.float32]:
        """How much likelier a tag is after another than anywhere: log P(tag | tag before) - log P(tag).

        As pairs are few, each row is smoothed as if `STRENGTH` more tags had been seen after its tag (a Dirichlet
        prior), distributed as the pairs of all entity types together say: how often O, I, or B of the same or of
        another type follows O, B, I or the start, against how often it would if tags were independent.

        In go the tags of the words of each sentence, as indices into `labels`; -1 is unknown and breaks the chain. Out
        comes [labels + 1, labels], the last row for the first word; zero where a tag may not follow.
        """
        follows = may_follow(labels)
        counts = np.zeros(follows.shape)
        for tags in targets:
            tag = np.asarray(tags, dtype=np.int64)
            before = np.concatenate([[len(labels)], tag])[: len(tag)]
            known = (before >= 0) & (tag >= 0)
            np.add.at(counts, (before[known], tag[known]), 1)
        tag_share = (counts.sum(axis=0) + 1) / (counts.sum() + len(labels))
        seen = counts.sum(axis=1, keepdims=True)
        names = [[f"{a[:1]}{b[0]} {a[2:] == b[2:]}" for b in labels] for a in (*labels, "")]
        kinds = np.unique(names, return_inverse=True)[1].reshape(follows.shape)
        found, expected = (np.bincount(kinds.ravel(), table.ravel()) + 1 for table in (counts, seen * tag_share))
        prior = follows * tag_share * (found / expected)[kinds]
        smoothed = (counts + STRENGTH * prior / prior.sum(axis=1, keepdims=True)) / (seen + STRENGTH)
        return np.where(follows, np.log(np.maximum(smoothed, 1e-12) / tag_share), 0.0).astype(np.float32)

    def label_covariance(self, labels: Labels) -> npt.NDArray[np.float32]:
        """A third of a tag's weights is its own, a third that of its type, a third that of its prefix."""
        same = [[(a == b) + (a[2:] == b[2:]) + (a[0] == b[0]) for b in labels] for a in labels]
        return np.asarray(same, np.float32) / np.float32(3)

    def decode(self, tasks: Sequence[Scored]) -> list[list[Any]]:
        """Entities by the best valid tag sequence; the score is the mean probability that its units are of its type."""
        scores = [[np.log(np.maximum(part, 1e-12)) for part in task.probabilities] for task in tasks]
        rules = [
            np.where(may_follow(t.labels), 0.0 if t.transitions is None else t.transitions, -np.inf) for t in tasks
        ]
        results = []
        for task, paths in zip(tasks, best_paths(list(zip(scores, rules, strict=True))), strict=True):
            rows = zip(task.probabilities, task.texts, paths, strict=True)
            results.append([_entities(part, *text, task.labels, path) for part, text, path in rows])
        return results

    def measures(self, counts: Counts) -> dict[str, FloatArray]:
        """F1, precision and recall of entities, right only with exact characters and type, and F1 mean over types."""
        right, predicted, gold = (part.sum(axis=1) for part in (counts.right, counts.predicted, counts.gold))
        return {
            "f1": 2 * right / np.maximum(predicted + gold, 1),
            "precision": right / np.maximum(predicted, 1),
            "recall": right / np.maximum(gold, 1),
            "macro_f1": counts.macro_f1(counts.predicted + counts.gold > 0),
        }

    def align(self, example: Any, prediction: Any) -> list[tuple[Answer | None, Answer | None]]:
        """Entities that overlap stand for each other, one for one: equal ones first, then those of most characters."""
        truth, guess = (sorted(answers) for answers in self.compare(example, prediction))
        shared = [(min(t[1], g[1]) - max(t[0], g[0]), t, g) for t in truth for g in guess]
        shared.sort(key=lambda one: (one[1] != one[2], one[1][:2] != one[2][:2], -one[0], one[1][-1] != one[2][-1]))
        pairs: list[tuple[Answer | None, Answer | None]] = []
        for overlap, t, g in shared:
            if overlap > 0 and t in truth and g in guess:
                pairs.append((t, g))
                truth.remove(t)
                guess.remove(g)
        return [*pairs, *((t, None) for t in truth), *((None, g) for g in guess)]

    def confidences(self, example: Any, prediction: Any) -> dict[Answer, float]:
        """The entities with their scores."""
        return {(one["start"], one["end"], one["text"], one["label"]): one["score"] for one in prediction}

    def likelihood(self, example: Any, prediction: Any) -> None:
        """Not known: a prediction has no probability of other entities."""

    def compare(self, example: Any, prediction: Any) -> tuple[Answers, Answers]:
        """The entities as (start, end, text, label)."""
        truth = [(span.start, span.end, span.label) for span in example.spans]
        guess = [(entity["start"], entity["end"], entity["label"]) for entity in prediction]
        left, right = ({(a, b, example.text[a:b], label) for a, b, label in part} for part in (truth, guess))
        return frozenset(left), frozenset(right)


def word_spans(example: NerExample, words: Words) -> list[tuple[int, int, str]]:
    """First unit, last unit (exclusive) and label of each entity that the units can hold.

    An entity whose borders are not those of units is widened to the units that it touches; one that shares a unit with
    an entity before it, or touches none, is left out. `unheld_spans` names them all.
    """
    starts, ends = ([word[side] for word in words] for side in (0, 1))
    found, taken = [], 0
    for span in sorted(example.spans, key=lambda item: (item.start, item.end)):
        first, last = bisect_right(ends, span.start), bisect_left(starts, span.end)
        if taken <= first < last:
            found.append((first, last, span.label))
            taken = last
    return found


def unheld_spans(example: NerExample, words: Words) -> list[Span]:
    """The entities that no prediction can hit: with borders inside units, or in a unit of an entity before them."""
    held = {(words[first][0], words[last - 1][1], label) for first, last, label in word_spans(example, words)}
    return [span for span in example.spans if (span.start, span.end, span.label) not in held]


def may_follow(labels: Labels) -> npt.NDArray[np.bool_]:
    """[labels + 1, labels] whether a BIO tag (column) may follow another (row; the last: the start of the sentence)."""
    kinds = np.asarray([label[2:] for label in labels])
    inside = np.asarray([label.startswith("I-") for label in labels], dtype=bool)
    return np.concatenate([~inside | (kinds[:, None] == kinds), ~inside[None]])


def _entities(
    probabilities: FloatArray, text: str, words: Words, labels: Labels, path: IntArray
) -> list[dict[str, Any]]:
    """The entities of a valid path: each begins at a B and goes on as long as there are I."""
    entities, inside = [], [labels[tag].startswith("I-") for tag in path]
    for first, tag in enumerate(path):
        if not labels[tag].startswith("B-"):
            continue
        last = next((n for n in range(first + 1, len(path)) if not inside[n]), len(path))
        start, end, label = words[first][0], words[last - 1][1], labels[tag][2:]
        # B and I of the type together: which of both it is, is mostly said by the unit before.
        columns = [number for number, other in enumerate(labels) if other[2:] == label]
        score = round(float(probabilities[first:last, columns].sum()) / (last - first), 6)
        entities.append({"start": start, "end": end, "text": text[start:end], "label": label, "score": score})
    return entities


def best_paths(tasks: Sequence[tuple[Sequence[FloatArray], npt.NDArray[Any]]]) -> list[list[IntArray]]:
    """The label sequences with the highest sums of scores and transitions (Viterbi), of many texts and tasks at a time.

    It takes about the time of the longest text alone: time goes by the number of steps, one a unit, not by what is
    computed in one, as long as that is small. For each task go in the scores of its texts, [units, labels], and its
    transitions, [labels + 1, labels], where minus infinity forbids; out come the labels of its texts, [units]. Of equal
    sums, the lower label of the last unit at which they differ wins.
    """
    most = max((transitions.shape[1] for _, transitions in tasks), default=0)
    # Labels that a task does not have are never reached.
    into = np.full((len(tasks), most, most), -np.inf)
    first = np.full((len(tasks), most), -np.inf)
    for number, (_, transitions) in enumerate(tasks):
        count = transitions.shape[1]
        into[number, :count, :count], first[number, :count] = transitions[:-1].T, transitions[-1]
    paths = [[np.zeros(0, np.int64)] * len(scores) for scores, _ in tasks]
    order = [(number, index) for number, (scores, _) in enumerate(tasks) for index in range(len(scores))]
    order.sort(key=lambda item: -len(tasks[item[0]][0][item[1]]))
    rows = max(1, BLOCK // max(1, most * most))
    for begin in range(0, len(order), rows):
        chosen = order[begin : begin + rows]
        owner = [number for number, _ in chosen]
        found = _block_paths([tasks[number][0][index] for number, index in chosen], into[owner], first[owner])
        for (number, index), path in zip(chosen, found, strict=True):
            paths[number][index] = path
    return paths


def _block_paths(scores: Sequence[FloatArray], into: npt.NDArray[Any], first: npt.NDArray[Any]) -> list[IntArray]:
    """`best_paths` of texts that get no longer; `into` [texts, labels, labels before] and `first` [texts, labels]."""
    lengths = np.asarray([len(part) for part in scores])
    longer = np.searchsorted(-lengths, -np.arange(lengths[0] + 1), side="left").tolist()
    # best[unit][text, label]: the highest sum of a sequence up to this unit that ends in this label.
    best = np.zeros((lengths[0], *first.shape))
    for row, part in enumerate(scores):
        best[: len(part), row, : part.shape[1]] = part
    best[:1] += first
    for unit in range(1, lengths[0]):
        rows = longer[unit]
        best[unit, :rows] += (best[unit - 1, :rows, None] + into[:rows]).max(axis=2)
    path = np.zeros(best.shape[:2], dtype=np.int64)
    for unit in reversed(range(lengths[0])):
        rows, following = longer[unit], longer[unit + 1]
        best[unit, :following] += into[np.arange(following), path[unit + 1 : unit + 2, :following].ravel()]
        best[unit, :rows].argmax(axis=1, out=path[unit, :rows])
    return [path[:length, row] for row, length in enumerate(lengths)]
