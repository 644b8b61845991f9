"""What a config.json says about quantization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from griffin.checkpoints.errors import CheckpointError
from griffin.checkpoints.names import head_name, matrix_names
from griffin.foreign import shown
from griffin.model import GriffinConfig
from griffin.model.config import check_keys
from griffin.quant import FORMATS
from griffin.quant.screen import FORMAT as SCREEN_FORMAT

KEY = "quantization_config"
METHOD, VERSION = "griffin", 1


@dataclass(frozen=True)
class Quantization:
    """What `quantization_config` says.

    format: of all matrices. calibrated: sample text decided the rounding. head: the format of the
    head, which is the embedding where the two are tied, if that is another. screen: that of a
    preview of the head which lies beside it.
    """

    format: str
    calibrated: bool = False
    head: str | None = None
    screen: str | None = None

    def formats(self, config: GriffinConfig) -> dict[str, str]:
        """Return the format of every matrix by its name."""
        formats = dict.fromkeys(matrix_names(config), self.format)
        return formats | {head_name(config): self.head or self.format}

    def to_json(self) -> dict[str, Any]:
        """Return the fields of `quantization_config`."""
        own = {"head": self.head, "screen": self.screen}
        return {
            "quant_method": METHOD,
            "version": VERSION,
            "format": self.format,
            "calibrated": self.calibrated,
        } | {key: value for key, value in own.items() if value}


def parse_quantization(fields: Mapping[str, Any], where: str) -> Quantization | None:
    """Return what the fields of a config.json say about quantization; None if nothing.

    Raises CheckpointError, opened by `where`, for another method, version or format than ours.
    """
    found = fields.get(KEY)
    if found is None:
        return None
    where = f"{where}: {KEY}"
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{where} must be an object, not {shown(found)}")
    if (method := found.get("quant_method")) != METHOD:
        raise CheckpointError(
            f"{where} has quant_method {shown(method)}; expected {METHOD!r} (quantize the original"
            " weights with `griffin quantize`)"
        )
    if (version := found.get("version")) != VERSION:
        raise CheckpointError(f"{where} has version {shown(version)}; this griffin reads {VERSION}")
    try:
        own = {"quant_method", "version", "format", "calibrated", "head", "screen"}
        check_keys(found, own, KEY)
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from None
    format = _known(found.get("format"), f"{where} has format")
    head = _known(found.get("head", format), f"{where} has head")
    if not isinstance(calibrated := found.get("calibrated", False), bool):
        raise CheckpointError(f"{where}: calibrated must be true or false, not {shown(calibrated)}")
    if (screen := found.get("screen")) not in (None, SCREEN_FORMAT):
        raise CheckpointError(f"{where} has screen {shown(screen)}; expected {SCREEN_FORMAT}")
    return Quantization(format, calibrated, None if head == format else head, screen)


def _known(format: Any, where: str) -> str:
    """Return a format there is; CheckpointError, opened by `where`, for anything else."""
    if not isinstance(format, str) or format not in FORMATS:
        raise CheckpointError(f"{where} {shown(format)}; expected one of {', '.join(FORMATS)}")
    return format
