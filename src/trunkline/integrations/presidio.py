"""A recogniser for Presidio: entities of a task become its findings, beside its own rules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trunkline.errors import TrunklineError, needs
from trunkline.integrations import open_shared

with needs("presidio", "trunkline.integrations.presidio"):
    from presidio_analyzer import EntityRecognizer, RecognizerResult


class TrunklineRecognizer(EntityRecognizer):
    """Finds entities by a task; add it with `analyzer.registry.add_recognizer`.

    Args:
        model: A bundle, as for `trunkline.load`.
        task: Its task of the family ner; needed where there are several.
        entities: The task's labels -> Presidio's names, such as `{"person": "PERSON"}`; by default in capitals.
        language: Of the texts, in two letters.
    """

    def __init__(
        self,
        model: str | Path,
        task: str | None = None,
        *,
        entities: Mapping[str, str] | None = None,
        language: str = "en",
    ) -> None:
        self._model = open_shared(model)
        there = [name for name, family in self._model.tasks.items() if family == "ner"]
        chosen = task or (there[0] if len(there) == 1 else "")
        if chosen not in there:
            given = f"{self._model.name} has {f'no task {task!r}' if task else f'{len(there)} tasks of the family ner'}"
            raise TrunklineError(given, expected=f"task=, one of {', '.join(there) or '(none)'}")
        self._task, types = chosen, self._model._predictor.tasks[chosen].types
        unknown = sorted(set(entities or {}) - set(types))
        if unknown:
            raise TrunklineError(f"entities of the labels {unknown}", expected=f"some of {', '.join(types)}")
        self._names = dict(entities) if entities else {label: label.upper() for label in types}
        super().__init__(sorted(set(self._names.values())), name="TrunklineRecognizer", supported_language=language)

    def load(self) -> None:
        """Nothing: the model is opened when the recogniser is made."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[RecognizerResult]:
        """The entities of a text that are asked for, with the task's scores; all where `entities` is empty."""
        found = []
        for one in self._model.predict([text], [self._task])[0][self._task]:
            name = self._names.get(one["label"])
            if name and (not entities or name in entities):
                found.append(RecognizerResult(name, one["start"], one["end"], one["score"]))
        return found
