#!/usr/bin/env bash
# @huggingface/tokenizers 0.2.0 (npm) and tokenizers 0.23.3 (Python): one tokenizer.json of BERT's kind, two answers.
# The normalizer puts blanks around Chinese characters. The binding of JavaScript does so in the basic plane only, the
# one of Python also in the planes above, so that rare ideographs, as in names, become other tokens. Its encodings have
# no offsets either. Seen: 'a中b' three words in both; 'a' + U+20000 + 'b' three in Python and one in JavaScript; keys
# of an encoding: ids, tokens, attention_mask.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tokenizers==0.23.3
cd "$folder"
npm init --yes > /dev/null
npm install --silent --no-audit --no-fund --ignore-scripts @huggingface/tokenizers@0.2.0
"$folder/venv/bin/python" - <<'PY'
import json

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

vocabulary = {"[UNK]": 0, "a": 1, "b": 2, "中": 3, "\U00020000": 4}
tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
tokenizer.normalizer = normalizers.BertNormalizer()
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
tokenizer.save("tokenizer.json")
texts = ["a中b", "a\U00020000b"]
found = [tokenizer.encode(text).tokens for text in texts]
print(f"Python: {found}")
assert found == [["a", "中", "b"], ["a", "\U00020000", "b"]], found
json.dump(texts, open("texts.json", "w"))
PY
cat > run.mjs <<'JS'
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Tokenizer } from "@huggingface/tokenizers";

const tokenizer = new Tokenizer(JSON.parse(readFileSync("tokenizer.json", "utf8")), {});
const found = JSON.parse(readFileSync("texts.json", "utf8")).map((text) => tokenizer.encode(text));
console.log("JavaScript:", JSON.stringify(found));
assert.deepEqual(found.map((one) => one.tokens), [["a", "中", "b"], ["[UNK]"]]);
assert.deepEqual(Object.keys(found[0]), ["ids", "tokens", "attention_mask"]);
JS
node run.mjs
