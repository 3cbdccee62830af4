"""Teachers: a tiny random token classifier, and GLiNER through a stand-in for its package."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import tiny_models
from trunkline.errors import EncoderError, TrunklineError
from trunkline.label.weak.command import weak_label
from trunkline.label.weak.config import TeacherConfig
from trunkline.label.weak.teacher import concept_name, decode, find_teacher, label_teacher, load_teacher, scheme_of
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


def config_of(folder: Path, **options: Any) -> TeacherConfig:
    return TeacherConfig(**({"teacher": str(folder), "threshold": 0.0, "device": "cpu"} | options))


def test_a_classifier_labels_words(classifier: Path) -> None:
    """Compared with transformers on one sentence at a time, where the text fits into one window."""
    import transformers as hf

    model = hf.AutoModelForTokenClassification.from_pretrained(str(classifier)).eval()
    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_file=str(classifier / "tokenizer.json"))
    found = load_teacher(config_of(classifier), classifier)(TEXTS)
    assert sum(map(len, found)) >= len(TEXTS)
    for text, spans in list(zip(TEXTS, found, strict=True))[:-1]:
        coded = tokenizer(text, return_offsets_mapping=True, return_tensors="pt")
        with torch.no_grad():
            best = model(input_ids=coded["input_ids"], attention_mask=coded["attention_mask"]).logits[0].argmax(-1)
        offsets = coded["offset_mapping"][0].tolist()
        by_start = {start: int(best[n]) for n, (start, end) in enumerate(offsets) if end > start}
        tags = [LABELS[by_start[start]] for start, _ in split_words(text)]
        inside = {word for word, tag in zip(split_words(text), tags, strict=True) if tag != "O"}
        assert {w for w in split_words(text) for s in spans if s.start <= w[0] < s.end} == inside
        assert all({(s.start, text[s.start : s.end])} and 0 <= s.start < s.end <= len(text) for s in spans)
    assert found[-1]


def test_long_texts_and_batches_give_the_same(classifier: Path) -> None:
    find = load_teacher(config_of(classifier), classifier)
    together = find(TEXTS)
    assert [find([text])[0] for text in TEXTS] == together
    assert max(span.end for span in together[-1]) > 200  # beyond the first window of 62 tokens


def test_threshold(classifier: Path) -> None:
    low = load_teacher(config_of(classifier), classifier)(TEXTS)
    high = load_teacher(config_of(classifier, threshold=0.9), classifier)(TEXTS)
    assert sum(map(len, high)) < sum(map(len, low))
    assert all(set(few) <= set(many) for few, many in zip(high, low, strict=True))


def test_output_and_cache(classifier: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.jsonl"
    names = {"LOC": "place", "PER": ""}
    first = weak_label(config_of(classifier, names=names), TEXTS, out)
    content = out.read_bytes()
    assert first["cached"] == 0 and first["top"][0][0] == "place" and first["concepts"] == 1
    lines = (tmp_path / "t.cache.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == len({json.loads(line)["key"] for line in lines})
    (tmp_path / "t.cache.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:20])
    again = weak_label(config_of(classifier, names=names), TEXTS, out)
    assert again["cached"] == 2 and out.read_bytes() == content
    other = weak_label(config_of(classifier), TEXTS, out)
    assert other["cached"] > 2 and {"person", "location"} == {name for name, _ in other["top"]}


@pytest.mark.parametrize(
    ("labels", "scheme"),
    [
        (["O", "B-x", "I-x"], "BIO"),
        (["B-x", "O"], "BIO"),
        (["O", "I-x"], "IO"),
        (["O", "x", "yy-z"], "IO"),
        (["O", *(f"{p}-x" for p in "BIES")], "BIOES"),
        (["O", *(f"{p}-x" for p in "BILU")], "BILOU"),
    ],
)
def test_schemes(labels: list[str], scheme: str) -> None:
    assert scheme_of(labels) == scheme


@pytest.mark.parametrize("labels", [["LABEL_0", "LABEL_1"], ["O"], ["O", "B-x", "Q-x"], ["O", "B-"], ["O", "B-x", "x"]])
def test_labels_that_are_none(labels: list[str]) -> None:
    with pytest.raises(EncoderError, match="the classifier's labels are"):
        scheme_of(labels)


def test_decoding() -> None:
    words = split_words("ann lee saw bo")
    rows = np.eye(5, dtype=np.float32)[[1, 2, 0, 3]] * 0.8
    assert decode(rows, LABELS, "BIO", words, 0.5) == [Span(0, 7, "PER"), Span(12, 14, "LOC")]
    rows[1] *= 0.2
    assert decode(rows, LABELS, "BIO", words, 0.5) == [Span(12, 14, "LOC")]
    assert decode(rows[:0], LABELS, "BIO", (), 0.5) == []


def test_names() -> None:
    assert [concept_name(label, {"X": "thing", "Y": ""}) for label in ("X", "Y", "PER", "work_of_art")] == [
        "thing", "", "person", "work of art",
    ]  # fmt: skip


def test_teachers_that_cannot_be_used(classifier: Path, tmp_path: Path) -> None:
    def use(folder: Path, **options: Any) -> None:
        list(label_teacher(config_of(folder, **options), ["ann"], desk(tmp_path)))

    from trunkline.label.weak.output import Desk

    def desk(folder: Path) -> Desk:
        return Desk(folder / "x.jsonl", lambda line: None, lambda question: False)

    with pytest.raises(EncoderError, match="no folder and cannot be had from the hub"):
        find_teacher("nobody/no-such-model")
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(EncoderError, match="no safetensors weights"):
        use(tmp_path / "pickled")
    with pytest.raises(EncoderError, match="has no weights for classifier"):
        use(tiny_models.save_model("bert", tmp_path / "encoder", 1))
    with pytest.raises(TrunklineError, match="labels were given"):
        use(classifier, labels=("person",))
    with pytest.raises(TrunklineError, match="no label 'PERS'; did you mean 'PER'"):
        use(classifier, names={"PERS": "person"})
    broken = save_classifier(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(EncoderError, match="cannot be loaded as a token classifier"):
        use(broken)
    with pytest.raises(EncoderError, match="the classifier's labels are 'LABEL_0'"):
        use(save_classifier(tmp_path / "unnamed", ["LABEL_0", "LABEL_1"]))


class StandIn:
    """What of the package `gliner` is used; finds the words that are a label's first letter and more."""

    def __init__(self) -> None:
        self.loaded: list[tuple[str, dict[str, Any]]] = []
        self.GLiNER = SimpleNamespace(from_pretrained=self._load)

    def _load(self, name: str, **options: Any) -> Any:
        self.loaded.append((name, options))
        return SimpleNamespace(inference=self._inference)

    def _inference(
        self, texts: list[str], labels: list[str], *, threshold: float, batch_size: int, multi_label: bool
    ) -> list[list[dict[str, Any]]]:
        return [
            [
                {"start": start, "end": end, "text": text[start:end], "label": label, "score": 0.9}
                for start, end in [*split_words(text), (0, 9999)]
                for label in labels
                if text[start:end].startswith(label[0])
            ]
            for text in texts
        ]


def gliner_folder(folder: Path, **config: Any) -> Path:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "gliner_config.json").write_text(json.dumps({"encoder_config": {"model_type": "bert"}, **config}))
    return folder


def test_gliner(tmp_path: Path) -> None:
    folder, module = gliner_folder(tmp_path / "g"), StandIn()
    config = config_of(folder, labels=("animal", "bird"))
    found = load_teacher(config, folder, gliner=module)(["an ant and bo", "x"])
    assert found == [
        [Span(0, 2, "animal"), Span(3, 6, "animal"), Span(7, 10, "animal"), Span(11, 13, "bird")],
        [],
    ]
    assert module.loaded == [(str(folder), {"local_files_only": True, "map_location": "cpu"})]


def test_gliner_needs_labels_and_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = gliner_folder(tmp_path / "g")
    with pytest.raises(TrunklineError, match="without labels"):
        load_teacher(config_of(folder), folder, gliner=StandIn())
    monkeypatch.setitem(sys.modules, "gliner", None)
    with pytest.raises(TrunklineError, match=r"gliner cannot be imported.*trunkline\[teacher\]"):
        load_teacher(config_of(folder, labels=("x",)), folder)


def test_gliner_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    module = StandIn()
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "x.Y"}}))
    suspects = [
        gliner_folder(tmp_path / "a", encoder_config={"auto_map": {}}),
        gliner_folder(tmp_path / "b", encoder_config=None, model_name=str(base)),
        gliner_folder(tmp_path / "c", labels_encoder=str(base)),
    ]
    for folder in suspects:
        with pytest.raises(EncoderError, match="code of the model's own"):
            load_teacher(config_of(folder, labels=("x",)), folder, gliner=module)
    (base / "config.json").write_text("{}")
    load_teacher(config_of(suspects[1], labels=("x",)), suspects[1], gliner=module)
    assert len(module.loaded) == 1
    (base / "config.json").write_text("nonsense")
    with pytest.raises(EncoderError, match="no JSON object"):
        load_teacher(config_of(suspects[1], labels=("x",)), suspects[1], gliner=module)


def test_real_gliner_loads(tmp_path: Path) -> None:
    module = pytest.importorskip("gliner", reason="the package gliner, an extra, is not installed")
    assert callable(module.GLiNER.from_pretrained)
    assert callable(module.GLiNER.inference)
