#!/usr/bin/env bash
# transformers 5.24.0: do_lower_case of tokenizer_config.json overrules the normalizer that tokenizer.json holds.
# The same folder gives other ids in transformers than in tokenizers, which reads tokenizer.json alone; no warning.
# Seen: tokenizer.json lower-cases, the config says false: transformers ['Hello', 'café'], tokenizers ['hello', 'cafe'].
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0 tokenizers==0.23.3
"$folder/venv/bin/python" - "$folder" <<'PY'
import json
import sys
from pathlib import Path

import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer

folder = Path(sys.argv[1]) / "model"
folder.mkdir()
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "Hello", "cafe", "caf\u00e9"]
tokenizer = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
tokenizer.save(str(folder / "tokenizer.json"))
(folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
(folder / "tokenizer_config.json").write_text(
    json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": False})
)
text = "Hello caf\u00e9"
theirs = AutoTokenizer.from_pretrained(folder).tokenize(text)
alone = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).tokens
print(f"transformers {transformers.__version__}: {theirs}; tokenizers alone: {alone}")
assert theirs == ["Hello", "caf\u00e9"], theirs
assert alone == ["hello", "cafe"], alone
PY
