"""Replicas that do not fit are refused with the arithmetic, before anything is loaded."""

from __future__ import annotations

import pytest
import torch

from griffin.capacity import plan
from griffin.cli.shared import devices
from griffin.cli.shared.devices import memory_bytes
from griffin.cli.shared.memory import check_memory
from griffin.cli.shared.model_source import ModelSource
from griffin.model import GriffinConfig

SOURCE = ModelSource(model="recurrentgemma-2b", quantize="int8", device="cpu")
ASKED = {"slots": 8, "chunk": 64, "cache_bytes": 256 << 20}


def one_replica() -> int:
    return plan(
        GriffinConfig.preset("recurrentgemma-2b"),
        ram_bytes=1 << 62,
        dtype=torch.bfloat16,
        format="int8",
        slots=8,
        prefix_cache_bytes=256 << 20,
    ).total_bytes


@pytest.mark.parametrize("fit", [1, 3])
def test_as_many_as_fit(monkeypatch, fit):
    monkeypatch.setattr(devices, "memory_bytes", lambda: fit * one_replica())
    check_memory(fit, SOURCE, **ASKED)
    with pytest.raises(
        ValueError, match=f"{fit + 1} replicas take up to .*enough for {fit}\\. Ask for fewer"
    ):
        check_memory(fit + 1, SOURCE, **ASKED)
    with pytest.raises(ValueError, match="of weights"):
        check_memory(fit, SOURCE, **{**ASKED, "slots": 500})


def test_the_limit_of_a_control_group_counts(tmp_path, monkeypatch):
    own, groups = tmp_path / "own", tmp_path / "groups"
    inner = groups / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.setattr(devices, "_OWN_GROUP", own)
    monkeypatch.setattr(devices, "_GROUPS", groups)
    everything = memory_bytes()
    own.write_text("0::/a/b\n")
    (inner / "memory.max").write_text("max\n")
    assert memory_bytes() == everything
    (groups / "a" / "memory.max").write_text("123456789\n")
    assert memory_bytes() == 123456789
    (inner / "memory.max").write_text(f"{everything * 2}\n")
    assert memory_bytes() == 123456789
