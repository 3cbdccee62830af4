"""Smaller vocabularies: nothing becomes unknown, kept pieces keep their meaning, and texts still fit the adapters."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tiny_models
from trunkline.encoder.bundle_files import Loaded, load_any
from trunkline.errors import TrunklineError
from trunkline.export.vocabulary import prune_encoder, prune_vocabulary
from trunkline.export.weights import shorten_positions, take_weights
from trunkline.text.tokens import TextTokenizer

CORPUS = [row["text"] for row in tiny_models.ner_rows(60)]
PAD = (1,)
LEAST = 4 + 2 * len([c for c in map(chr, range(33, 127)) if not c.isupper()])
"""Opening, closing, unknown, padding, and every character of the tiny tokenizer in both places."""


def raw_of(tokenizer: TextTokenizer) -> dict[str, Any]:
    return dict(json.loads(tokenizer.tokenizer.to_str()))


def made(model: Any, decoder: Any, trainer: Any, pre: Any, **options: Any) -> TextTokenizer:
    """A tokenizer trained on the tiny words, framed by special tokens."""
    from tokenizers import Tokenizer, processors

    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre, decoder
    tokenizer.train_from_iterator([*CORPUS, " ".join(tiny_models.WORDS)] * 3, trainer)
    opening, closing = tokenizer.token_to_id("<s>"), tokenizer.token_to_id("</s>")
    tokenizer.post_processor = options.get("post") or processors.RobertaProcessing(("</s>", closing), ("<s>", opening))
    return TextTokenizer(tokenizer, 64)


def bpe() -> TextTokenizer:
    from tokenizers import decoders, models, pre_tokenizers, trainers

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    pre = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return made(models.BPE(), decoders.ByteLevel(), trainer, pre)


def unigram() -> TextTokenizer:
    from tokenizers import decoders, models, pre_tokenizers, trainers

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False)
    return made(models.Unigram(), decoders.Metaspace(), trainer, pre_tokenizers.Metaspace())


def tokens_of(tokenizer: TextTokenizer, text: str) -> list[str]:
    return list(tokenizer.tokenizer.encode(text).tokens)


def same(before: TextTokenizer, after: TextTokenizer) -> float:
    """The share of the corpus's texts that are split as before."""
    return float(np.mean([tokens_of(before, text) == tokens_of(after, text) for text in CORPUS]))


def test_texts_are_split_again_and_kept_pieces_keep_their_rows(tiny: Loaded) -> None:
    vocabulary = prune_vocabulary(tiny.tokenizer, CORPUS, LEAST + 60, PAD)
    assert len(vocabulary.rows) == LEAST + 60 == vocabulary.tokenizer.tokenizer.get_vocab_size()
    old, new = tiny.tokenizer.tokenizer, vocabulary.tokenizer.tokenizer
    for piece, number in new.get_vocab().items():
        assert old.token_to_id(piece) == vocabulary.rows[number]
    assert vocabulary.added == ()
    # The corpus has few words, and those that it has stay; others are spelt.
    assert same(tiny.tokenizer, vocabulary.tokenizer) == 1.0
    assert tokens_of(vocabulary.tokenizer, "milk") == ["[CLS]", "m", "##i", "##l", "##k", "[SEP]"]
    assert tokens_of(tiny.tokenizer, "milk") == ["[CLS]", "milk", "[SEP]"]
    smaller = prune_vocabulary(tiny.tokenizer, CORPUS, LEAST, PAD)
    assert same(tiny.tokenizer, smaller.tokenizer) == 0.0


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_no_text_gets_an_unknown_token_that_had_none(kind: str, tiny: Loaded) -> None:
    tokenizer = {"wordpiece": lambda: tiny.tokenizer, "bpe": bpe, "unigram": unigram}[kind]()
    least = _least(tokenizer)
    most = tokenizer.tokenizer.get_vocab_size()
    unknown = "[UNK]" if kind == "wordpiece" else "<unk>"
    pruned = [prune_vocabulary(tokenizer, CORPUS[:5], size) for size in (least, (least + most) // 2)]
    assert all(len(p.rows) == p.tokenizer.tokenizer.get_vocab_size() for p in pruned)
    alphabet = sorted({character for piece in tokenizer.tokenizer.get_vocab() for character in piece} | set(" éß大\t"))

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.text(alphabet) | st.text(max_size=40) | st.lists(st.sampled_from(tiny_models.WORDS)).map("".join))
    def holds(text: str) -> None:
        before = tokenizer.tokenizer.encode(text).ids
        for vocabulary in pruned:
            new = vocabulary.tokenizer.tokenizer
            after = new.encode(text).ids
            counts = [ids.count(own.token_to_id(unknown)) for own, ids in ((tokenizer.tokenizer, before), (new, after))]
            assert counts[1] <= counts[0]
            assert [int(vocabulary.rows[after[place]]) for place in (0, -1)] == [before[0], before[-1]]
            for number in after:
                piece = new.id_to_token(number)
                assert (
                    tokenizer.tokenizer.id_to_token(int(vocabulary.rows[number])) == piece or piece in vocabulary.added
                )

    holds()


def _least(tokenizer: TextTokenizer) -> int:
    """What the refusal of a vocabulary of one piece says."""
    with pytest.raises(TrunklineError, match="1 pieces") as caught:
        prune_vocabulary(tokenizer, CORPUS, 1)
    return int(caught.value.expected.split(" ")[0])


def test_a_character_without_a_piece_of_its_own_gets_one(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    tiny_models.write_tokenizer(tmp_path)
    raw = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    names = list(raw["model"]["vocab"])
    names = [name for name in names if name not in ("##q", "é", "##é")] + ["##qué", "señor"]
    raw["model"]["vocab"] = {name: number for number, name in enumerate(names)}
    raw["normalizer"]["strip_accents"] = False
    tokenizer = TextTokenizer(Tokenizer.from_str(json.dumps(raw)), 64)
    assert tokens_of(tokenizer, "señor aqué")[1:-1] == ["señor", "a", "##qué"]
    vocabulary = prune_vocabulary(tokenizer, ["the train"], LEAST + 20)
    assert vocabulary.added == ("##q", "##é", "##ñ", "é", "ñ")
    assert tokens_of(vocabulary.tokenizer, "aqué")[1:-1] == ["a", "##q", "##u", "##é"]
    row = {token: int(vocabulary.rows[vocabulary.tokenizer.tokenizer.token_to_id(token)]) for token in vocabulary.added}
    assert [names[row[token]] for token in vocabulary.added] == ["q", "##qué", "señor", "##qué", "señor"]


def pruned(start: Loaded, size: int, keep: tuple[int, ...] = PAD) -> Loaded:
    """The same encoder with fewer pieces."""
    vocabulary = prune_vocabulary(start.tokenizer, CORPUS, size, keep)
    encoder = prune_encoder(start.encoder, vocabulary)
    return dataclasses.replace(start, encoder=encoder, tokenizer=vocabulary.tokenizer)


def test_a_pruned_encoder_gives_the_same_states_where_texts_are_split_as_before(tiny: Loaded) -> None:
    adapter = tiny_models.random_adapter(tiny.encoder.config, (2, 3))
    small = pruned(tiny, LEAST + 60)
    assert small.encoder.config.vocab_size == LEAST + 60 == len(small.encoder.embeddings.word.weight)
    assert small.encoder.config.pad_id == tiny.encoder.config.pad_id and not small.encoder.training
    texts = CORPUS[:4]
    before, after = (tiny_models.states(s.encoder, s.tokenizer, texts, adapter) for s in (tiny, small))
    assert tiny_models.difference(before, after) == 0
    spelt = tiny_models.states(small.encoder, small.tokenizer, ["milk"])[0]
    assert spelt.shape[0] == 6 and bool(torch.isfinite(spelt).all())
    assert len(tiny.encoder.embeddings.word.weight) > LEAST + 60


def test_padding_keeps_its_row_where_ids_move(tiny_folder: Callable[[str], Path]) -> None:
    start = load_any(str(tiny_folder("roberta")), fork=1, max_length=60)
    small = pruned(start, LEAST + 60)
    # All that is there: the same encoder again.
    again = pruned(small, small.tokenizer.tokenizer.get_vocab_size(), (small.encoder.config.pad_id,))
    assert torch.equal(again.encoder.embeddings.word.weight, small.encoder.embeddings.word.weight)
    assert raw_of(again.tokenizer) == raw_of(small.tokenizer)
    for width in (0, 64):
        before, after = (tiny_models.states(s.encoder, s.tokenizer, CORPUS[:2], width=width) for s in (start, again))
        assert [len(x) for x in before] == [len(x) for x in after]


def test_positions_behind_the_window_go(tiny: Loaded, tiny_folder: Callable[[str], Path]) -> None:
    weights, name = take_weights(tiny.encoder), "embeddings.position.weight"
    short = shorten_positions(weights, 20)
    assert short.tensors[name].shape == (20, tiny_models.WIDTH) and short.config.max_length == 20
    roberta = take_weights(load_any(str(tiny_folder("roberta")), fork=1).encoder)
    assert len(shorten_positions(roberta, 20).tensors[name]) == 22


def test_what_cannot_be_pruned_is_refused(tiny: Loaded) -> None:
    size = tiny.tokenizer.tokenizer.get_vocab_size()
    for wrong in (LEAST - 1, size + 1):
        with pytest.raises(TrunklineError, match=f"{wrong} pieces"):
            prune_vocabulary(tiny.tokenizer, CORPUS, wrong, PAD)
    with pytest.raises(TrunklineError, match="without a word"):
        prune_vocabulary(tiny.tokenizer, ["", " \n"], LEAST)


def test_a_tokenizer_of_whole_words_is_refused() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    with pytest.raises(TrunklineError, match="kind WordLevel"):
        prune_vocabulary(TextTokenizer(tokenizer, 64), ["a"], 3)
