"""LoRA by PEFT on the raw encoder, trained by transformers' Trainer, as in PEFT's guide to token classification.

Rate, batch, epochs, weight decay, scale and dropout are the guide's; the rank is that of our own task adapters.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trunkline.errors import EncoderError
from trunkline_lab.benchmark.peers import PeerOutput
from trunkline_lab.benchmark.peers.trainer import TrainerSettings, fine_tune

if TYPE_CHECKING:
    from trunkline_lab.fitting import TaskData

_HEADS = ("classifier", "pre_classifier", "pooler")


@dataclass(frozen=True)
class Settings(TrainerSettings):
    """See `TrainerSettings`; `rank`, `alpha` and `dropout` as in `peft.LoraConfig`."""

    rate: float = 1e-3
    epochs: int = 10
    weight_decay: float = 0.01
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.1


def fit_predict(task: TaskData, encoder: Path, *, seed: int, settings: Settings = Settings()) -> PeerOutput:
    """See `trunkline_lab.benchmark.peers.Peer`."""
    import peft

    def adapted(model: Any, missing: set[str]) -> Any:
        # A pooler that the folder does not have is random, so it is trained and stored like the head.
        fresh = [name for name in _HEADS if any(name in key.split(".") for key in missing)]
        config = peft.LoraConfig(
            task_type="TOKEN_CLS" if task.family == "ner" else "SEQ_CLS",
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            modules_to_save=fresh,
        )
        try:
            return peft.get_peft_model(model, config)
        except ValueError as error:
            raise EncoderError(
                f"PEFT does not know where the queries and values of {model.config.model_type} are ({error})",
                expected="an architecture of its own list, such as bert, distilbert, roberta or electra",
            ) from error

    return fine_tune(task, encoder, settings, seed=seed, wrap=adapted, size=_adapter_bytes)


def _adapter_bytes(model: Any) -> int:
    import peft

    tensors = peft.get_peft_model_state_dict(model)
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
