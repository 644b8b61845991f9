"""The unit on a GPU: one op after the other, each with kernels of its own."""

from griffin.ops.recurrent_unit.eager import recurrent_unit

__all__ = ["recurrent_unit"]
