"""LoRA from few labels on the frozen encoder; needs the extra `[train]`."""

from trunkline.adapt.few_labels import LoraSettings, tune_lora
from trunkline.adapt.task import fit_lora

__all__ = ["LoraSettings", "fit_lora", "tune_lora"]
