"""The unit in C++ (for the present: one op after the other)."""

from griffin.ops.recurrent_unit.eager import recurrent_unit

__all__ = ["recurrent_unit"]
