"""Small changes to a model that travel by themselves: LoRA, in the files that PEFT writes, and
tuned states."""

from griffin.adapters.adapter import Adapter, check_base
from griffin.adapters.base_mark import BaseMark
from griffin.adapters.config import LoraConfig
from griffin.adapters.layers import (
    adapt,
    adapter_of,
    check_together,
    merge_into,
    parameter_name,
    unadapt,
)
from griffin.adapters.peft_file import open_adapter, save_adapter
from griffin.adapters.tuned_file import is_tuned, open_tuned, save_tuned_state

__all__ = [
    "Adapter",
    "BaseMark",
    "LoraConfig",
    "adapt",
    "adapter_of",
    "check_base",
    "check_together",
    "is_tuned",
    "merge_into",
    "open_adapter",
    "open_tuned",
    "parameter_name",
    "save_adapter",
    "save_tuned_state",
    "unadapt",
]
