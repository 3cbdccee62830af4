"""Teachers: a tiny random token classifier."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_models
from trunkline.errors import EncoderError, TrunklineError
from trunkline.label import label_text
from trunkline.label.options import TeacherOptions
from trunkline.label.teacher import concept_name, decode, label_teacher
from trunkline.text.examples import Span
from trunkline.text.words import split_words

LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
TEXTS = [*tiny_models.SENTENCES, "ann", "bob met carla in oslo. " * 12]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random classifier that finds entities by chance."""
    return save_classifier(tmp_path_factory.mktemp("teacher") / "tiny")


def save_classifier(folder: Path, labels: Sequence[str] = LABELS, **options: Any) -> Path:
    import transformers as hf

    torch.manual_seed(1)
    config = hf.BertConfig(
        vocab_size=len(tiny_models.vocabulary()), pad_token_id=1, max_position_embeddings=64, hidden_size=16,
        num_attention_heads=2, num_hidden_layers=1, intermediate_size=16, id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )  # fmt: skip
    model = hf.BertForTokenClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    model.save_pretrained(str(folder), **options)
    tiny_models.write_tokenizer(folder)
    return folder


def find(folder: Path, texts: Sequence[str], **options: Any) -> list[list[Span]]:
    config = TeacherOptions(**({"teacher": str(folder), "threshold": 0.0} | options))
    found = list(label_teacher(config, texts))
    assert [text for text, _ in found] == list(texts)
    return [spans for _, spans in found]


def test_a_classifier_labels_words(classifier: Path) -> None:
    """Compared with transformers on one sentence at a time, where the text fits into the model."""
    import transformers as hf

    model = hf.AutoModelForTokenClassification.from_pretrained(str(classifier)).eval()
    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_file=str(classifier / "tokenizer.json"))
    found = find(classifier, TEXTS, rename={"PER": "PER", "LOC": "LOC"})
    assert sum(map(len, found)) >= len(TEXTS)
    for text, spans in list(zip(TEXTS, found, strict=True))[:-1]:
        coded = tokenizer(text, return_offsets_mapping=True, return_tensors="pt")
        with torch.no_grad():
            best = model(input_ids=coded["input_ids"], attention_mask=coded["attention_mask"]).logits[0].argmax(-1)
        offsets = coded["offset_mapping"][0].tolist()
        by_start = {start: LABELS[int(best[n])] for n, (start, end) in enumerate(offsets) if end > start}
        inside = {word: by_start[word[0]][2:] for word in split_words(text) if by_start[word[0]] != "O"}
        assert {w: s.label for w in split_words(text) for s in spans if s.start <= w[0] < s.end} == inside
    assert found[-1] and max(span.end for span in found[-1]) < len(TEXTS[-1])  # what is too long is cut


def test_batches_give_the_same(classifier: Path) -> None:
    together = find(classifier, TEXTS)
    assert [find(classifier, [text])[0] for text in TEXTS] == together == find(classifier, TEXTS, batch=2)


def test_threshold(classifier: Path) -> None:
    low, high = find(classifier, TEXTS), find(classifier, TEXTS, threshold=0.9)
    assert sum(map(len, high)) < sum(map(len, low))
    assert all(set(few) <= set(many) for few, many in zip(high, low, strict=True))


def test_output(classifier: Path, tmp_path: Path) -> None:
    given = {"method": "teacher", "teacher": str(classifier), "threshold": 0.0}
    report = label_text(TEXTS, tmp_path / "t.jsonl", rename="LOC=place,PER=", **given)
    assert report["top"][0][0] == "place" and report["concepts"] == 1
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert all({label for *_, label in row["spans"]} == {"place"} for row in rows)
    other = label_text(TEXTS, tmp_path / "u.jsonl", **given)
    assert {name for name, _ in other["top"]} == {"person", "location"}


def tokens(*rows: tuple[int, int, str, float]) -> list[dict[str, Any]]:
    return [dict(zip(("start", "end", "entity", "score"), row, strict=True)) for row in rows]


def test_words_have_the_label_of_their_first_token() -> None:
    text = "ann lee saw bo-jo"
    found = tokens(
        (0, 2, "B-PER", 0.9), (2, 3, "O", 1.0), (4, 7, "I-PER", 0.3), (8, 11, "O", 0.9), (12, 17, "B-LOC", 0.7)
    )
    assert decode(text, found, 0.6) == [Span(0, 7, "PER"), Span(12, 14, "LOC")]
    assert decode(text, found, 0.61) == [Span(12, 14, "LOC")]
    assert decode("", [], 0.5) == []


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("B-x I-x B-x O", [(0, 2, "x"), (2, 3, "x")]),
        ("I-x I-x O I-x", [(0, 2, "x"), (3, 4, "x")]),
        ("x x O y-z", [(0, 2, "x"), (3, 4, "y-z")]),
        ("B-x E-x S-x S-x", [(0, 2, "x"), (2, 3, "x"), (3, 4, "x")]),
        ("B-x I-x L-x U-y", [(0, 3, "x"), (3, 4, "y")]),
    ],
)
def test_schemes(tags: str, spans: list[tuple[int, int, str]]) -> None:
    found = tokens(*((2 * n, 2 * n + 1, tag, 1.0) for n, tag in enumerate(tags.split())))
    assert decode("a b c d", found, 0.5) == [Span(2 * start, 2 * end - 1, label) for start, end, label in spans]


def test_names() -> None:
    assert [concept_name(label, {"X": "thing", "Y": ""}) for label in ("X", "Y", "PER", "work_of_art")] == [
        "thing", "", "person", "work of art",
    ]  # fmt: skip


def test_teachers_that_cannot_be_used(classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EncoderError, match="found nowhere"):
        find(tmp_path / "none", ["ann"])
    pickled = save_classifier(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(EncoderError, match=r"cannot be loaded as a token classifier .*safetensors"):
        find(pickled, ["ann"])
    with pytest.raises(EncoderError, match="no weights for classifier"):
        find(tiny_models.save_model("bert", tmp_path / "encoder", 1), ["ann"])
    with pytest.raises(TrunklineError, match="no label 'PERS'; did you mean 'PER'"):
        find(classifier, ["ann"], rename={"PERS": "person"})
    broken = save_classifier(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(EncoderError, match="cannot be loaded as a token classifier"):
        find(broken, ["ann"])
    with pytest.raises(TrunklineError, match=r"no label 'O'.*it has LABEL_0, LABEL_1"):
        find(save_classifier(tmp_path / "unnamed", ["LABEL_0", "LABEL_1"]), ["ann"])
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(TrunklineError, match=r"transformers.*trunkline\[train\]"):
        find(classifier, ["ann"])
