"""Bits per byte of what a recipe holds out, as lines: after training, and of any model."""

from __future__ import annotations

from typing import Any


def held_out_table(results: dict[str, Any]) -> list[str]:
    """Return results in lines: what was held out, and bits per byte, of each source if several."""
    held_out, sources = results["held_out"], results.get("sources", {})
    share = held_out["lines_in_training"] / max(held_out["lines"], 1)
    lines = [
        f"{results['parameters']:,} parameters; held out: {held_out['documents']} documents,"
        f" {held_out['bytes']:,} bytes, {held_out['tokens']:,} tokens",
        f"{share:.1%} of their lines over 40 characters stand in training; bits per byte:",
    ]
    columns = {"all": results["bits_per_byte"]}
    columns |= {name: found["bits_per_byte"] for name, found in sources.items()}
    width = {name: max(len(name), 6) for name in columns}
    if sources:
        lines.append("".join(f"  {name:>{width[name]}}" for name in columns))
    for what in results["bits_per_byte"]:
        cells = {name: f"{of[what]:.4f}" if what in of else "" for name, of in columns.items()}
        lines.append("".join(f"  {cells[n]:>{width[n]}}" for n in columns) + f"  {what}")
    return lines
