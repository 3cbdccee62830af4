#!/usr/bin/env bash
# safetensors 0.8.0: one set of tensors with one metadata dict of several keys gives other bytes at nearly every save.
# The order of the keys in the header changes from call to call, so hashes of equal files differ. One key is stable.
# Seen: 20 saves, 1 hash with one key of metadata; 20 saves, about 20 hashes with six keys, all with equal content.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet safetensors==0.8.0 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PY'
import hashlib
import json

import numpy as np
import safetensors
from safetensors.numpy import save

tensors = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3)}


def header(content):
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def saves(keys):
    return [save(tensors, {f"key{number}": "value" for number in range(keys)}) for _ in range(20)]


one, six = saves(1), saves(6)
hashes = [len({hashlib.sha256(content).hexdigest() for content in found}) for found in (one, six)]
print(f"safetensors {safetensors.__version__}: {hashes[0]} hash of 20 saves with one key, {hashes[1]} hashes with six keys")
assert hashes[0] == 1, hashes
assert hashes[1] > 1, hashes
assert all(header(content) == header(six[0]) for content in six), "the contents differ"
PY
