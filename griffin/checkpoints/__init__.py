"""Weights on disk <-> model, in any layout: Hugging Face, DeepMind's torch and Flax, our own."""

from griffin.checkpoints.checkpoint import Checkpoint
from griffin.checkpoints.convert import COMPANIONS, Converted, convert, copy_companions
from griffin.checkpoints.errors import CheckpointError, CheckpointWarning
from griffin.checkpoints.models import load_model, parse_dtype, save_model
from griffin.checkpoints.opening import open_checkpoint as open
from griffin.checkpoints.progress import Progress
from griffin.checkpoints.quantization_config import Quantization
from griffin.checkpoints.quantize import quantize
from griffin.checkpoints.random_weights import random_checkpoint

__all__ = [
    "COMPANIONS",
    "Checkpoint",
    "CheckpointError",
    "CheckpointWarning",
    "Converted",
    "Progress",
    "Quantization",
    "convert",
    "copy_companions",
    "load_model",
    "open",
    "parse_dtype",
    "quantize",
    "random_checkpoint",
    "save_model",
]
