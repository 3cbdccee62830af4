"""The embedded default encoder, where its package is installed (the Makefile does that)."""

import logging

import pytest
import torch

from trunkline.encoder import resolve
from trunkline.encoder.bundle_files import load_any
from trunkline.encoder.encoder import TokenBatch
from trunkline.text.tokens import pack, text_unit

TEXTS = ["Lunch with Ana on Friday at 1 pm?", "the parcel has not come yet", "Zoë's café — 7 €"]
embedded, reason = resolve._embedded(resolve.DEFAULT_ENCODER)
pytestmark = pytest.mark.skipif(embedded is None, reason=f"no embedded encoder: {reason}")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_default_is_found_without_a_hub_and_the_log_says_where(offline, caplog):
    with caplog.at_level(logging.INFO, logger="trunkline"):
        found = resolve.resolve("default")
    assert found.origin == "embedded"
    assert [word for word in ("folder", "cache", "hub") if f"not from {word}" in caplog.text] == [
        "folder",
        "cache",
        "hub",
    ]


def test_default_equals_the_reference_implementation():
    from transformers import AutoModel, AutoTokenizer

    loaded = load_any(str(embedded))
    assert (loaded.encoder.config.n_layers, loaded.encoder.config.hidden_size) == (6, 384)
    units = [text_unit(tokens) for tokens in loaded.tokenizer.encode(TEXTS)]
    batch = TokenBatch.from_packed(pack(units, loaded.encoder.config.pad_id))
    model, tokenizer = AutoModel.from_pretrained(embedded).eval(), AutoTokenizer.from_pretrained(embedded)
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        ours = batch.pool(loaded.encoder(batch))
        states = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None]
    assert torch.allclose(ours, (states * mask).sum(1) / mask.sum(1), atol=1e-5)
