"""Tensors in a folder of safetensors files, written and read by any number of ranks.

torch's distributed checkpoint has the say, in the one of its formats that holds no pickles. Where a
part of a tensor lies stands in the file's own header, so ranks that are more or fewer than those
that wrote find theirs; a file without such a header holds whole tensors.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from griffin.train.scale.ranks import Ranks

# A file's bytes are put together in memory before they are written.
FILE_BYTES = 2**28


def write_tensors(folder: Path, tensors: Mapping[str, Tensor], ranks: Ranks) -> None:
    """Write tensors, split or the same on every rank, into a folder; flushed to the disk.

    All ranks must call it; each writes its own parts. Raises OSError, on every rank, if one could
    not.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    writer = HuggingFaceStorageWriter(
        str(folder), fqn_to_index_mapping=_files(tensors), save_distributed=True
    )
    try:
        with _collective(ranks):
            save(
                dict(tensors),
                storage_writer=writer,
                no_dist=ranks.mesh is None,
                process_group=ranks.patient,
            )
    except ValueError as error:
        raise OSError(f"could not write {folder}: {error}") from error


def read_tensors(folder: Path, tensors: Mapping[str, Tensor], ranks: Ranks) -> None:
    """Fill tensors, split or not, with what a folder holds under their names.

    All ranks must call it. Raises ValueError, on every rank, if a file cannot be read, or a tensor
    is not there, is not there in full, or has another shape.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = HuggingFaceStorageReader(str(folder))
    wrong = _look(reader, tensors)
    if ranks.any(bool(wrong)):
        raise ValueError(f"{folder}{wrong or ' could not be read by another rank'}")
    with _collective(ranks):
        load(
            dict(tensors),
            storage_reader=reader,
            no_dist=ranks.mesh is None,
            process_group=ranks.patient,
        )


def _look(reader: Any, tensors: Mapping[str, Tensor]) -> str:
    """Return what is wrong with a folder, as it continues its path; nothing if all is there."""
    try:
        found = reader.read_metadata().state_dict_metadata
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        return f" is not a readable checkpoint ({error})"
    for name, tensor in tensors.items():
        seen = "nothing"
        if name in found:
            size, chunks = tuple(found[name].size), found[name].chunks
            whole = sum(math.prod(chunk.sizes) for chunk in chunks) == math.prod(size)
            if whole and size == tuple(tensor.shape):
                continue
            seen = str(size) if whole else f"{size} with parts missing"
        return f": {name} should have shape {tuple(tensor.shape)}, found {seen}"
    return ""


def _files(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the number of the file that each tensor goes to, from 1 on."""
    files, number, size = dict[str, int](), 1, 0
    for name, tensor in tensors.items():
        nbytes = tensor.numel() * tensor.element_size()
        if size and size + nbytes > FILE_BYTES:
            number, size = number + 1, 0
        files[name], size = number, size + nbytes
    return files


@contextlib.contextmanager
def _collective(ranks: Ranks) -> Iterator[None]:
    """Turn what torch gathers of the ranks' failures into one ValueError."""
    from torch.distributed.checkpoint.api import CheckpointException

    with warnings.catch_warnings(), ranks.watched():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        try:
            yield
        except CheckpointException as error:
            rank, (first, _) = next(iter(sorted(error.failures.items())))
            where = f"rank {rank}: " if ranks.world > 1 else ""
            raise ValueError(f"{where}{first}") from error
