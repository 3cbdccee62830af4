"""scikit-learn's own tools on the estimators: pipelines, searches, calibration, cloning, pickling by folder."""

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

import trunkline
from trunkline.errors import TrunklineError
from trunkline.integrations.sklearn import TrunklineClassifier, TrunklineFeatures, TrunklineTagger

TEXTS = [
    *("Where is my parcel?", "The parcel never came", "Track the parcel for me", "My delivery is late"),
    *("I was charged twice", "Refund my card, please", "The bill is wrong", "You took money from my card"),
    *("The app crashes on start", "Login fails with an error", "The page shows an error", "A bug froze the screen"),
]
LABELS = ["delivery"] * 4 + ["billing"] * 4 + ["bug"] * 4
NEW = ["Where has the delivery gone?", "There is an error when I log in"]


@pytest.fixture(scope="module")
def fitted():
    return TrunklineClassifier().fit(TEXTS, LABELS)


def test_a_classifier_predicts_as_the_model_does(fitted):
    model = trunkline.load()
    model.fit("task", TEXTS, LABELS)
    rows = [row["task"] for row in model.predict(NEW)]
    assert fitted.predict(NEW).tolist() == [row["label"] for row in rows] == ["delivery", "bug"]
    assert fitted.classes_.tolist() == ["billing", "bug", "delivery"]
    expected = [[row["probabilities"][name] for name in fitted.classes_] for row in rows]
    np.testing.assert_array_equal(fitted.predict_proba(NEW), expected)
    assert fitted.score(TEXTS, LABELS) == 1.0


@pytest.mark.parametrize("values", [[7, 10, 9], [True, False, True], ["x", "y", "z"]])
def test_labels_come_back_as_they_were_given(values):
    given = [values[0]] * 4 + [values[1]] * 4 + [values[2]] * 4
    classifier = TrunklineClassifier().fit(pd.Series(TEXTS, index=range(50, 62)), pd.Series(given))
    assert classifier.classes_.tolist() == sorted(set(given))
    guessed = classifier.predict(np.asarray(TEXTS, dtype=object))
    assert guessed.tolist() == given
    assert type(guessed.tolist()[0]) is type(values[0])


def test_in_a_search_a_pipeline_and_a_calibration():
    search = GridSearchCV(TrunklineClassifier(), {"class_weight": [None, "balanced"]}, cv=2).fit(TEXTS, LABELS)
    assert set(search.predict(TEXTS)) <= set(LABELS)
    calibrated = CalibratedClassifierCV(TrunklineClassifier(), cv=2, method="sigmoid").fit(TEXTS, LABELS)
    np.testing.assert_allclose(calibrated.predict_proba(NEW).sum(axis=1), 1)
    pipeline = make_pipeline(TrunklineFeatures(), LogisticRegression()).fit(TEXTS, LABELS)
    assert pipeline.predict(NEW).tolist() == ["delivery", "bug"]


def test_features_beside_other_columns():
    table = pd.DataFrame({"text": TEXTS, "length": [len(text) for text in TEXTS]})
    columns = ColumnTransformer([("text", TrunklineFeatures(), "text"), ("length", "passthrough", ["length"])])
    columns.set_output(transform="pandas")
    found = columns.fit_transform(table)
    assert found.shape == (12, 385)
    assert found.columns[0] == "text__trunkline0"
    np.testing.assert_allclose(found.iloc[:, 0], TrunklineFeatures().fit_transform(TEXTS)[:, 0])


def test_polars_columns_are_texts():
    polars = pytest.importorskip("polars")
    classifier = TrunklineClassifier().fit(polars.Series(TEXTS), polars.Series(LABELS))
    assert classifier.predict(polars.Series(NEW)).tolist() == ["delivery", "bug"]


def test_a_tagger_says_what_it_was_taught():
    texts = [f"Send {amount} euros to {name} today" for amount in (5, 20, 70) for name in ("Anna", "Bogdan", "Carla")]
    spans = [[(text.index("to ") + 3, text.index(" today"), "person")] for text in texts]
    tagger = TrunklineTagger().fit(texts, spans)
    assert tagger.predict(texts) == spans
    assert tagger.score(texts, spans) == 1.0
    assert tagger.score(texts, [[]] * 8 + [spans[8]]) == pytest.approx(2 / 10)
    assert tagger.classes_.tolist() == ["person"]
    assert cross_val_score(TrunklineTagger(), texts, spans, cv=3).min() > 0.9


def test_a_pickle_holds_the_task_and_not_the_encoder(fitted, tmp_path):
    fitted.predict(NEW)
    content = pickle.dumps(fitted)
    assert len(content) < 20_000
    (tmp_path / "x.pickle").write_bytes(content)
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).predict_proba(sys.argv[2:]).tolist())"
    command = [sys.executable, "-c", code, str(tmp_path / "x.pickle"), *NEW]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.strip() == str(fitted.predict_proba(NEW).tolist())


def test_a_clone_is_unfitted_and_two_estimators_do_not_meet(fitted):
    other = clone(fitted)
    with pytest.raises(NotFittedError):
        other.predict(NEW)
    other.fit(TEXTS[:8], LABELS[:8])
    assert fitted.predict(NEW)[1] == "bug"
    assert other.classes_.tolist() == ["billing", "delivery"]


def test_the_task_file_goes_into_a_model(fitted, tmp_path):
    model = trunkline.load()
    model.add("desk", fitted.save_task(tmp_path / "desk.task"))
    assert [row["desk"]["label"] for row in model.predict(NEW)] == fitted.predict(NEW).tolist()


def test_bad_input_is_refused_by_name():
    with pytest.raises(TrunklineError, match=r"12 texts and labels of shape \(11,\)"):
        TrunklineClassifier().fit(TEXTS, LABELS[:11])
    with pytest.raises(TrunklineError, match="shape"):
        TrunklineClassifier().fit(pd.DataFrame({"a": TEXTS, "b": TEXTS}), LABELS)
    with pytest.raises(TrunklineError, match="mode head has no setting 'rank'"):
        TrunklineClassifier(settings={"rank": 4}).fit(TEXTS, LABELS)


@pytest.mark.parametrize("estimator", [TrunklineClassifier(), TrunklineTagger(), TrunklineFeatures()])
@pytest.mark.filterwarnings("ignore:Can't test estimator")
def test_scikit_learn_finds_no_fault_as_far_as_its_checks_take_texts(estimator):
    assert [row["check_name"] for row in check_estimator(estimator, on_fail=None) if row["status"] == "failed"] == []
