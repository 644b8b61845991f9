"""Small changes to a model that travel by themselves: LoRA, in the files that PEFT writes."""

from griffin.adapters.adapter import Adapter
from griffin.adapters.config import LoraConfig
from griffin.adapters.layers import adapt, adapter_of, merge_into, unadapt
from griffin.adapters.peft_file import open_adapter, save_adapter

__all__ = [
    "Adapter",
    "LoraConfig",
    "adapt",
    "adapter_of",
    "merge_into",
    "open_adapter",
    "save_adapter",
    "unadapt",
]
