"""Smaller weights: the table FORMATS, one file a format; rounding with and without sample text;
storage."""

from griffin.quant.calibrate import calibrate
from griffin.quant.format import Format, Grid
from griffin.quant.formats import FORMATS, fastest_layout, get_format
from griffin.quant.gptq import gptq
from griffin.quant.quantize import quantize_model
from griffin.quant.screen import add_screen

__all__ = [
    "FORMATS",
    "Format",
    "Grid",
    "add_screen",
    "calibrate",
    "fastest_layout",
    "get_format",
    "gptq",
    "quantize_model",
]
