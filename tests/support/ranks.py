"""Processes that train together, as torchrun would start them."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from typing import Any

import torch
from torch.multiprocessing.spawn import start_processes

from griffin.train.scale.ranks import Ranks

# Imported once, by the process that those of the tests are copies of.
_PRELOADED = ["torch._dynamo", "torch.distributed.fsdp", "tests.support.killed_run"]


def forking() -> ForkServerContext:
    """Return how processes are started that have torch and the rooms of training already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def on_ranks(world: int, work: Callable[..., object], *args: Any) -> None:
    """Call `work(ranks, *args)` in `world` processes; what one of them raises is raised here."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    forking()
    start_processes(_enter, (world, port, work, args), nprocs=world, start_method="forkserver")


def _enter(
    rank: int, world: int, port: int, work: Callable[..., object], args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = Ranks.join()
    work(ranks, *args)
    ranks.close()
