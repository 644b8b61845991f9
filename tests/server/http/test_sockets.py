"""Addresses: bound before anything else, told if they are taken, and left to whoever comes next."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading

import httpx2
import pytest

from griffin.server.build import build
from griffin.server.http.sockets import bound, bound_to_path
from griffin.server.run import Server
from tests.support.waiting import until


def test_an_address_that_is_taken_is_told_before_anything_starts():
    [holder] = bound("127.0.0.1", 0, None)
    holder.listen(1)
    with (
        holder,
        pytest.raises(
            OSError, match=f"127.0.0.1:{holder.getsockname()[1]}: {os.strerror(errno.EADDRINUSE)}"
        ),
    ):
        bound("127.0.0.1", holder.getsockname()[1], None)


def test_sockets_of_a_path_are_closed_to_others(tmp_path):
    path = tmp_path / "door"
    [first] = bound("ignored", 1, path)
    assert path.stat().st_mode & 0o777 == 0o600
    os.close(first.detach())  # as where its process was killed
    assert path.is_socket()
    [second] = bound("ignored", 1, path)  # the one that lay there made room
    with second:
        second.listen(1)
        with pytest.raises(OSError, match="door: another one listens there"):
            bound("ignored", 1, path)
        assert path.is_socket()
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(ValueError, match="is no socket"):
        bound("ignored", 1, path)
    assert path.read_text() == "mine"


def test_the_path_of_a_successor_stays(tmp_path):
    """Who begins while another ends may have taken the path already."""
    path = tmp_path / "door"
    [first] = bound("ignored", 1, path)  # and does not listen, so it makes room
    [second] = bound("ignored", 1, path)
    with second:
        second.listen(1)
        first.close()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_a_unix_socket_is_closed_to_others_before_anybody_can_connect(llm, tmp_path, monkeypatch):
    path, modes, listen = tmp_path / "door", [], socket.socket.listen

    def noted(self, *given):
        modes.append(path.stat().st_mode & 0o777)
        return listen(self, *given)

    monkeypatch.setattr(socket.socket, "listen", noted)
    server = Server(build(llm, name="toy", slots=1), [bound_to_path(path)])
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    until(lambda: server.started)
    try:
        with httpx2.Client(
            transport=httpx2.HTTPTransport(uds=str(path)), base_url="http://localhost"
        ) as http:
            assert http.get("/health").status_code == 200 and server.url == f"unix:{path}"
        with pytest.raises(OSError, match="another one listens there"):
            bound_to_path(path)
    finally:
        server.stop()
        thread.join(60)
    assert modes == [0o600]
