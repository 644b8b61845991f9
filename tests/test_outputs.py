"""Where results are written: never in the place of a device, and to where a link leads."""

from __future__ import annotations

import os

import pytest
import torch

from griffin.checkpoints.staging import staged_file
from griffin.model import State
from griffin.outputs import file_to_write
from tests.support.toy_models import TOYS


def test_a_link_is_followed_and_what_is_no_file_is_refused(tmp_path):
    file, link, new = tmp_path / "file", tmp_path / "link", tmp_path / "new"
    file.write_text("old")
    link.symlink_to(file)
    assert file_to_write(link) == file and file_to_write(new) == new
    os.mkfifo(tmp_path / "pipe")
    for there, kind in ((tmp_path / "pipe", "a pipe"), (tmp_path, "a folder")):
        with pytest.raises(ValueError, match=f"is {kind}; name a file to write"):
            file_to_write(there)
    with pytest.raises(ValueError, match="is a device"):
        file_to_write("/dev/null")


@pytest.mark.parametrize("how", ["state", "staged"])
def test_whoever_writes_keeps_pipes_and_links(tmp_path, how):
    state = State.zeros(TOYS["griffin"], dtype=torch.float32, device="cpu")

    def write(path):
        if how == "state":
            state.save(path)
        else:
            with staged_file(path) as part:
                part.write_text("new")

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is a pipe"):
        write(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").stat().st_size
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "link", "file"}
