#!/usr/bin/env bash
# tokenizers 0.23.3: with BERT's normalizer, which strips accents, a decomposed accent belongs to no token.
# Offsets of 'cafe' + U+0301 end before the accent, those of the composed word after it: a span that is read off the
# tokens' offsets loses the last accent of a word, and inside a word a gap opens between two tokens.
# Seen: 'café' composed, 4 characters: (0, 4). Decomposed, 5 characters: (0, 4). Decomposed with s: (0, 4), (5, 6).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tokenizers==0.23.3
"$folder/venv/bin/python" - "$folder" <<'PY'
import unicodedata

import tokenizers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "cafe": 1, "##s": 2}, unk_token="[UNK]"))
tokenizer.normalizer = normalizers.BertNormalizer()
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
found = {}
for form in ("NFC", "NFD"):
    for word in ("caf\u00e9", "caf\u00e9s"):
        text = unicodedata.normalize(form, word)
        found[form, len(text)] = tokenizer.encode(text).offsets
print(f"tokenizers {tokenizers.__version__}: offsets by form and length: {found}")
assert found == {
    ("NFC", 4): [(0, 4)],
    ("NFC", 5): [(0, 4), (4, 5)],
    ("NFD", 5): [(0, 4)],
    ("NFD", 6): [(0, 4), (5, 6)],
}, found
PY
