"""spaCy's own pipeline around the components: rules beside them, saving, batches, several processes, one trunk pass."""

import pytest

import trunkline
from trunkline.errors import TrunklineError

spacy = pytest.importorskip("spacy")
NAMES = ("Anna", "Bogdan", "Carla")
TEXTS = [f"Send {amount} euros to {name} today" for amount in (5, 20, 70) for name in NAMES]
SPANS = [[(text.index("to ") + 3, text.index(" today"), "person")] for text in TEXTS]
PLAIN = [f"The weather in the {place} is fine" for place in ("north", "south", "east", "west")]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    model = trunkline.load()
    model.fit("names", TEXTS + PLAIN, SPANS + [[]] * len(PLAIN))
    model.fit("kind", TEXTS + PLAIN, ["payment"] * len(TEXTS) + ["talk"] * len(PLAIN))
    return str(model.save(tmp_path_factory.mktemp("spacy") / "bundle"))


def pipeline(bundle):
    nlp = spacy.blank("en")
    nlp.add_pipe("trunkline_ner", config={"model": bundle})
    nlp.add_pipe("trunkline_textcat", config={"model": bundle})
    return nlp


def said(doc):
    """Entities and categories; int8 scores depend a little on the other texts of a batch."""
    return [(e.start_char, e.end_char, e.label_) for e in doc.ents], pytest.approx(doc.cats, abs=0.02)


def test_entities_scores_and_categories_are_those_of_the_model(bundle):
    nlp, model = pipeline(bundle), trunkline.load(bundle)
    for text in TEXTS + PLAIN:
        doc, row = nlp(text), model.predict([text])[0]
        entities = [(one["start"], one["end"], one["label"]) for one in row["names"]]
        assert said(doc)[0] == entities
        assert doc.cats == row["kind"]["probabilities"]
        assert list(doc.spans["trunkline"].attrs["scores"]) == [one["score"] for one in row["names"]]
    assert said(nlp(TEXTS[0]))[0] == SPANS[0]


def test_batches_give_the_same_in_one_trunk_pass(bundle, monkeypatch):
    nlp, texts = pipeline(bundle), (TEXTS + PLAIN) * 3
    expected, seen = [said(nlp(text)) for text in texts], []
    real = trunkline.Model.predict

    def counting(self, texts, tasks=None):
        seen.append((len(texts), sorted(tasks)))
        return real(self, texts, tasks)

    nlp = pipeline(bundle)
    monkeypatch.setattr(trunkline.Model, "predict", counting)
    assert [(said(doc)[0], doc.cats) for doc in nlp.pipe(texts, batch_size=64)] == expected
    assert [count for count in seen if count[0]] == [(len(TEXTS + PLAIN), ["trunkline_ner", "trunkline_textcat"])]


def test_what_is_remembered_is_bounded(bundle, monkeypatch):
    monkeypatch.setattr("trunkline.integrations.spacy.REMEMBERED", 4)
    nlp = pipeline(bundle)
    assert len(list(nlp.pipe(TEXTS, batch_size=3))) == len(TEXTS)
    encoder = nlp.get_pipe("trunkline_ner")._encoder
    assert encoder is nlp.get_pipe("trunkline_textcat")._encoder
    assert len(encoder._said) == 4


def test_a_saved_pipeline_needs_the_first_bundle_no_more(bundle, tmp_path):
    nlp = pipeline(bundle)
    expected = said(nlp(TEXTS[1]))
    nlp.config["components"]["trunkline_ner"]["model"] = "/no/such/bundle"
    nlp.to_disk(tmp_path / "nlp")
    again = spacy.load(tmp_path / "nlp")
    doc = again(TEXTS[1])
    assert (said(doc)[0], doc.cats) == expected
    assert again.get_pipe("trunkline_ner")._encoder is again.get_pipe("trunkline_textcat")._encoder
    assert trunkline.load(tmp_path / "nlp" / "trunkline_ner").tasks == {"trunkline_ner": "ner"}
    nlp.to_disk(tmp_path / "nlp")


def test_rules_and_entities_stand_side_by_side(bundle):
    nlp = pipeline(bundle)
    ruler = nlp.add_pipe("entity_ruler", before="trunkline_ner")
    ruler.add_patterns([{"label": "MONEY", "pattern": "20 euros"}, {"label": "VIP", "pattern": "Anna"}])
    assert [(e.text, e.label_) for e in nlp(TEXTS[3]).ents] == [("20 euros", "MONEY"), ("Anna", "VIP")]
    assert [(e.text, e.label_) for e in nlp(TEXTS[4]).ents] == [("20 euros", "MONEY"), ("Bogdan", "person")]
    other = spacy.blank("en")
    other.add_pipe("entity_ruler").add_patterns([{"label": "VIP", "pattern": "Anna"}])
    other.add_pipe("trunkline_ner", config={"model": bundle, "overwrite_ents": True})
    assert [(e.text, e.label_) for e in other(TEXTS[3]).ents] == [("Anna", "person")]


def test_two_processes_say_the_same(bundle):
    nlp = pipeline(bundle)
    expected = [said(nlp(text)) for text in TEXTS]
    found = [(said(doc)[0], doc.cats) for doc in nlp.pipe(TEXTS, n_process=2, batch_size=3)]
    assert found == expected


def test_spacy_scores_the_components(bundle):
    nlp, examples = pipeline(bundle), []
    for text, spans in zip(TEXTS, SPANS, strict=True):
        gold = {"entities": spans, "cats": {"payment": 1.0, "talk": 0.0}}
        examples.append(spacy.training.Example.from_dict(nlp.make_doc(text), gold))
    scores = nlp.evaluate(examples)
    assert (scores["ents_f"], scores["cats_micro_f"]) == (1.0, 1.0)


def test_a_disabled_component_is_not_computed(bundle):
    nlp = pipeline(bundle)
    with nlp.select_pipes(disable=["trunkline_textcat"]):
        doc = nlp(TEXTS[0])
    assert (said(doc)[0], doc.cats) == (SPANS[0], {})
    assert nlp.get_pipe("trunkline_textcat")._encoder is None


def test_a_task_that_is_not_there_is_named(bundle):
    nlp = spacy.blank("en")
    nlp.add_pipe("trunkline_ner", config={"model": bundle, "task": "nams"})
    with pytest.raises(TrunklineError, match=r"has no task 'nams'. Expected one of names"):
        nlp("Anna")
    with pytest.raises(TrunklineError, match="alignment 'wide'"):
        nlp.add_pipe("trunkline_ner", name="other", config={"alignment": "wide"})
