"""LoRA from few labels on the frozen encoder; needs the extra `[train]`."""

from trunkline.adapt.few_labels import LoraSettings, fit_lora, tune_lora

__all__ = ["LoraSettings", "fit_lora", "tune_lora"]
