"""Presidio's analyzer with the recogniser beside its own rules."""

import pytest

import trunkline
from trunkline.errors import TrunklineError

presidio = pytest.importorskip("presidio_analyzer")
NAMES = ("Anna", "Bogdan", "Carla")
TEXTS = [f"Send {amount} euros to {name} today" for amount in (5, 20, 70) for name in NAMES]
SPANS = [[(text.index("to ") + 3, text.index(" today"), "person")] for text in TEXTS]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    model = trunkline.load()
    model.fit("names", TEXTS, SPANS)
    return model.save(tmp_path_factory.mktemp("presidio") / "bundle")


def test_findings_are_the_entities_of_the_task(bundle):
    from trunkline.integrations.presidio import TrunklineRecognizer

    recognizer, model = TrunklineRecognizer(bundle), trunkline.load(bundle)
    for text in TEXTS:
        row = model.predict([text])[0]
        found = [(one.start, one.end, one.score) for one in recognizer.analyze(text, ["PERSON"])]
        assert found == [(one["start"], one["end"], one["score"]) for one in row["names"]]
    assert recognizer.analyze(TEXTS[0], ["LOCATION"]) == []
    named = TrunklineRecognizer(bundle, entities={"person": "NAME"})
    assert [one.entity_type for one in named.analyze(TEXTS[0], [])] == ["NAME"]


def test_beside_the_rules_of_an_analyzer(bundle):
    from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine
    from presidio_analyzer.predefined_recognizers import EmailRecognizer

    from trunkline.integrations.presidio import TrunklineRecognizer

    class Nothing(NlpEngine):
        def load(self): ...
        def is_loaded(self):
            return True

        def process_text(self, text, language):
            return NlpArtifacts([], [], [], [], self, language)

        def process_batch(self, texts, language, **more):
            return ((text, self.process_text(text, language)) for text in texts)

        def is_stopword(self, word, language):
            return False

        def is_punct(self, word, language):
            return False

        def get_supported_entities(self):
            return []

        def get_supported_languages(self):
            return ["en"]

    registry = presidio.RecognizerRegistry(recognizers=[EmailRecognizer(), TrunklineRecognizer(bundle)])
    analyzer = presidio.AnalyzerEngine(registry=registry, nlp_engine=Nothing(), supported_languages=["en"])
    text = "Send 20 euros to Bogdan today, his mail is b@example.com"
    found = {(one.entity_type, text[one.start : one.end]) for one in analyzer.analyze(text, language="en")}
    assert found >= {("PERSON", "Bogdan"), ("EMAIL_ADDRESS", "b@example.com")}


def test_a_task_that_is_not_there_is_named(bundle):
    from trunkline.integrations.presidio import TrunklineRecognizer

    with pytest.raises(TrunklineError, match="no task 'x'"):
        TrunklineRecognizer(bundle, "x")
    with pytest.raises(TrunklineError, match="some of person"):
        TrunklineRecognizer(bundle, entities={"persn": "PERSON"})
