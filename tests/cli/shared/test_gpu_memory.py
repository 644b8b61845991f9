"""GPUs that are not here: what a verb says of their number and size before weights are read."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest
import torch

from griffin.capacity import plan
from griffin.cli.shared.devices import memory_of, place_of_replica
from griffin.cli.shared.memory import check_memory
from griffin.cli.shared.model_source import ModelSource
from griffin.cli.shared.spec import spec_of
from griffin.loading import check_device

GIB = 1 << 30
ONE = {"slots": 1, "chunk": None, "cache_bytes": 0}


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Two GPUs, as torch would tell of them; `free` is what is free on each."""
    found = SimpleNamespace(free=[24 * GIB, 24 * GIB])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(found.free))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda at: (found.free[at], 25 * GIB))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda at: f"GPU {at}")
    return found


def model(name: str = "recurrentgemma-2b", **fields) -> ModelSource:
    return ModelSource(model=name, **fields)


def test_devices_that_are_here(gpus) -> None:
    assert [check_device(each) for each in (None, "cuda", "cuda:1")] == ["cuda", "cuda", "cuda:1"]
    with pytest.raises(ValueError, match=r"device is 'cuda:9'; .* the last is cuda:1"):
        check_device("cuda:9")
    gpus.free.pop()
    with pytest.raises(ValueError, match=r"there is cuda:0 alone \(CUDA_VISIBLE_DEVICES"):
        check_device("cuda:1")
    assert memory_of("cuda").name == "cuda:0 (GPU 0)"


def test_replicas_take_gpus_in_turn(gpus) -> None:
    assert [place_of_replica(None, n) for n in (1, 2, 3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert [place_of_replica("cuda", n) for n in (1, 2)] == ["cuda:0", "cuda:1"]
    assert [place_of_replica("cuda:1", n) for n in (1, 2)] == ["cuda:1", "cuda:1"]
    assert [place_of_replica("cpu", n) for n in (1, 2)] == ["cpu", "cpu"]


def test_without_gpus_replicas_lie_where_they_lay(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [place_of_replica(each, 2) for each in (None, "cpu")] == [None, "cpu"]


def test_what_fits_is_let_in(gpus) -> None:
    check_memory(1, model(), **ONE)
    how = {"slots": 60, "chunk": None, "cache_bytes": GIB}
    check_memory(6, model(quantize="int8"), **how)
    # In the memory of the machine, whose GPUs are too small for the caches anyway.
    with pytest.raises(
        ValueError, match=r"prefix caches lie in this machine's memory: 2 of 1,024.00 TiB"
    ):
        check_memory(2, model(), slots=1, chunk=None, cache_bytes=1 << 50)


def test_a_gpu_too_small_for_the_model_says_what_would_fit(gpus) -> None:
    gpus.free[1] = 6 * GIB
    check_memory(1, model(device="cuda:0"), **ONE)
    with pytest.raises(ValueError, match=r"does not fit on cuda:1 \(GPU 1\): it takes .* weights"):
        check_memory(1, model(device="cuda:1"), **ONE)
    with pytest.raises(ValueError, match=r"fits: --quantize int8 with --slots \d+ or fewer;"):
        check_memory(1, model(device="cuda:1"), **ONE)
    gpus.free[1] = GIB
    told = r"1\.00 GiB of 25\.00 GiB are free there\. Nothing smaller fits"
    with pytest.raises(ValueError, match=told):
        check_memory(1, model(device="cuda:1"), **ONE)


def test_a_gpu_too_small_for_its_replicas(gpus) -> None:
    with pytest.raises(
        ValueError,
        match=r"cuda:0 .*: 5 replicas take up to .*fits: --quantize int4 with --slots \d+",
    ):
        check_memory(10, model(), slots=8, chunk=None, cache_bytes=0)


def test_two_processes_on_a_gpu(gpus):
    """The second is told what the first left, and does what it is told: then it fits."""
    how = {"slots": 64, "chunk": None, "cache_bytes": GIB}
    spec, gpus.free[0] = spec_of(model()), 17 * GIB
    check_memory(1, model(), **how)
    first = plan(
        spec.config, ram_bytes=1 << 62, chunk=4096, graphs=True, device_states=8, slots=64
    ).total_bytes
    gpus.free[0] -= first
    with pytest.raises(ValueError, match=r"GiB of 25\.00 GiB are free there\.") as refused:
        check_memory(1, model(), **how)
    fits = re.search(r"--quantize (int[48]) with --slots (\d+) or fewer", str(refused.value))
    assert fits is not None
    check_memory(1, model(quantize=fits[1]), **(how | {"slots": int(fits[2])}))
    with pytest.raises(ValueError, match="does not fit"):
        check_memory(1, model(quantize=fits[1]), **(how | {"slots": int(fits[2]) + 2}))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--device", "cuda:9"), "the last is cuda:1"),
        (("--device", "cuda:1"), "1,048,576 of 26,843,545,600 are free on cuda:1 (GPU 1)"),
    ],
)
def test_a_verb_is_misused_by_a_gpu_that_will_not_do(run, gpus, monkeypatch, arguments, told):
    """One line, a hint and exit code 2; no weight is read."""
    gpus.free[1] = 1 << 20
    monkeypatch.setattr("griffin.checkpoints.load_model", None)
    result = run("generate", "hello", *arguments)
    assert result.exit_code == 2, result.stderr
    assert told in result.stderr
    assert len(result.stderr.strip().splitlines()) == 2


def test_a_server_counts_its_slots_before_weights_are_read(run, gpus, monkeypatch):
    gpus.free[1] = 1 << 20
    monkeypatch.setattr("griffin.checkpoints.load_model", None)
    result = run("serve", "--model", "nano", "--no-store", "--device", "cuda:1", "--slots", "9")
    assert result.exit_code == 2, result.stderr
    assert "nano does not fit on cuda:1 (GPU 1): it takes" in result.stderr


def test_a_plan_for_a_gpu_names_whose_memory(run, gpus) -> None:
    words = ("plan", "--model", "recurrentgemma-2b", "--device")
    found = json.loads(run(*words, "cuda:1", "--json").stdout)
    assert (found["memory"], found["ram_bytes"]) == ("cuda:1 (GPU 1)", 24 * GIB)
    assert found["format"] is None and found["prefix_cache_memory"] == "this machine"
    other = json.loads(run(*words, "cuda", "--ram", "80G", "--no-prefix-cache", "--json").stdout)
    assert (other["memory"], other["ram_bytes"]) == ("cuda, which is not looked at", 80 * GIB)
    same = json.loads(run(*words, "cuda", "--ram", "80G", "--json").stdout)
    assert 0 < other["slots"] - same["slots"] <= 4 and same["slots"] > found["slots"] > 100
    # Eight whole states stay on the GPU, besides the cache that is not there.
    assert same["device_cache_bytes"] == 8 * same["slot_bytes"] == 137_904_192
    assert other["device_cache_bytes"] == 0
    text = run(*words, "cuda:1").stdout
    assert "of cuda:1 (GPU 1)" in text and "in this machine's memory, not counted here" in text
    assert "137,904,192" in text
