"""scikit-learn's interface: a classifier, a tagger and a transformer of texts, for pipelines, searches and scorers.

Estimators are pickled without the encoder: the pickle holds their task file and the model's name, by which the encoder
is opened again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from trunkline.data.inputs import texts_from
from trunkline.errors import TrunklineError, needs
from trunkline.integrations import open_shared
from trunkline.model import Model
from trunkline.tasks import FAMILIES

with needs("sklearn", "trunkline.integrations.sklearn"):
    from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
    from sklearn.utils import Tags
    from sklearn.utils.validation import check_is_fitted

TASK = "task"

Span = tuple[int, int, str]
"""Start, end (exclusive) and label of an entity, in characters."""


class _TextEstimator(BaseEstimator):
    """What estimators share: parameters, a fitted task, and how both are pickled."""

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        mode: str = "head",
        random_state: int = 0,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.mode = mode
        self.random_state = random_state
        self.settings = settings

    def _learn(self, texts: list[str], labels: Any, family: str, **more: Any) -> None:
        learner = open_shared(self.model, tasks=False)
        given = {"seed": self.random_state, **(self.settings or {}), **more}
        report = learner.fit(TASK, texts, labels, family=family, mode=self.mode, **given)
        self.report_, self.n_features_in_ = report, 1
        self.task_file_: bytes = learner._predictor.tasks[TASK].content
        self._learner = learner

    def _model(self) -> Model:
        """The model with the fitted task, opened anew in another process."""
        check_is_fitted(self, "task_file_")
        if not hasattr(self, "_learner"):
            learner = open_shared(self.model, tasks=False)
            learner.add(TASK, self.task_file_)
            self._learner = learner
        return self._learner

    def save_task(self, path: str | Path) -> Path:
        """Writes the task file, for `trunkline bundle add` and `Model.add`; returns its path."""
        check_is_fitted(self, "task_file_")
        place = Path(path).expanduser()
        place.write_bytes(self.task_file_)
        return place

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_learner"}

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array, tags.input_tags.two_d_array, tags.input_tags.string = True, False, True
        return tags


class TrunklineClassifier(ClassifierMixin, _TextEstimator):
    """Classifies texts by a task of one encoder.

    Args:
        model: As for `trunkline.load`: by default the default model.
        mode: `head`, `lora` or `auto`, as for `Model.fit`.
        class_weight: None, or `balanced`.
        random_state: Seed of the folds.
        settings: Others of `Model.fit`, as `{"rank": 4}` in mode `lora`.

    Attributes:
        classes_: The labels, sorted, of the type that they were given in.
        report_: What `Model.fit` returned.
        task_file_: The task file's bytes.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        mode: str = "head",
        class_weight: str | None = None,
        random_state: int = 0,
        settings: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(model, mode=mode, random_state=random_state, settings=settings)
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any) -> Self:
        """Learns from texts, a list or column of strings, and as many labels, strings or numbers.

        Raises:
            TrunklineError: What cannot be learnt, as from `Model.fit`.
        """
        texts, labels = list(texts_from(X)), np.asarray(y)
        if labels.ndim != 1 or len(labels) != len(texts):
            raise TrunklineError(f"{len(texts)} texts and labels of shape {labels.shape}", expected="one label a text")
        self.classes_, codes = np.unique(labels, return_inverse=True)
        names = _names(self.classes_)
        weight = {"class_weight": self.class_weight} if self.class_weight else {}
        self._learn(texts, [names[code] for code in codes], "classification", **weight)
        return self

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """[texts, classes] probabilities, calibrated on held-out folds, in the order of `classes_`."""
        names = _names(self._known_classes())
        rows = [found[TASK]["probabilities"] for found in self._model().predict_iter(X)]
        return np.asarray([[row[name] for name in names] for row in rows], np.float64).reshape(-1, len(names))

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """The label of each text."""
        places = {name: number for number, name in enumerate(_names(self._known_classes()))}
        found = [places[found[TASK]["label"]] for found in self._model().predict_iter(X)]
        return self.classes_[np.asarray(found, dtype=np.intp)]

    def _known_classes(self) -> npt.NDArray[Any]:
        check_is_fitted(self, "classes_")
        return self.classes_


class TrunklineTagger(_TextEstimator):
    """Finds entities in texts by a task of one encoder; arguments as for `TrunklineClassifier`.

    Attributes:
        classes_: The entity types, sorted.
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Learns from texts and for each a list of entities `(start, end, label)` in characters, `end` exclusive.

        Raises:
            TrunklineError: What cannot be learnt, as from `Model.fit`.
        """
        self._learn(list(texts_from(X)), y, "ner")
        self.classes_ = np.asarray(self.report_.labels)
        return self

    def predict(self, X: Any) -> list[list[Span]]:
        """The entities of each text, in the form that `fit` takes."""
        found = (row[TASK] for row in self._model().predict_iter(X))
        return [[(one["start"], one["end"], one["label"]) for one in entities] for entities in found]

    def score(self, X: Any, y: Any) -> float:
        """Entity F1 from 0 to 1: an entity counts where its characters and its label are right."""
        scores = self._model().evaluate(TASK, list(texts_from(X)), y).scores
        return float(scores[FAMILIES["ner"].main_score])


class TrunklineFeatures(TransformerMixin, BaseEstimator):
    """Texts as feature vectors of the frozen encoder: those that the heads of classification tasks read.

    Args:
        model: As for `trunkline.load`: by default the default model.
    """

    def __init__(self, model: str | Path | None = None) -> None:
        self.model = model

    def fit(self, X: Any, y: Any = None) -> Self:
        """Opens the model; there is nothing to learn."""
        self.n_features_out_ = int(open_shared(self.model).bundle.manifest.encoder.hidden_size)
        return self

    def transform(self, X: Any) -> npt.NDArray[np.float32]:
        """[texts, hidden] features: means of the branch's layers over the tokens of each text."""
        model = open_shared(self.model)
        read = model.tokenizer.encode(list(texts_from(X)))
        rows = model._predictor.features(read, "classification", "text")
        return np.concatenate(rows) if rows else np.zeros((0, model.bundle.manifest.encoder.hidden_size), np.float32)

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[Any]:
        """`trunkline0`, `trunkline1` and so on."""
        check_is_fitted(self, "n_features_out_")
        return np.asarray([f"trunkline{number}" for number in range(self.n_features_out_)], dtype=object)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array, tags.input_tags.two_d_array, tags.input_tags.string = True, False, True
        tags.requires_fit = False
        return tags


def _names(classes: npt.NDArray[Any]) -> list[str]:
    """Labels as the strings that task files hold."""
    names = [str(value) for value in classes.tolist()]
    if len(set(names)) < len(names):
        raise TrunklineError(f"labels that read alike: {sorted(names)}", expected="labels of one type")
    return names
