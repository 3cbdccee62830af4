"""trunkline: one small encoder, many language features.

The public names are imported when they are first used, so that `import trunkline` is fast and imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trunkline.encoder.peft_format import export_peft, import_peft
    from trunkline.errors import TrunklineError
    from trunkline.model import Model, load

__version__ = "0.1.0"

_HOMES = {
    "Model": "trunkline.model",
    "TrunklineError": "trunkline.errors",
    "export_peft": "trunkline.encoder.peft_format",
    "import_peft": "trunkline.encoder.peft_format",
    "load": "trunkline.model",
}

__all__ = ["Model", "TrunklineError", "__version__", "export_peft", "import_peft", "load"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'trunkline' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
