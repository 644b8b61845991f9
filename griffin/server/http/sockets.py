"""Sockets to listen at: bound once, early, and handed to whoever serves."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from pathlib import Path


class UnixListener(socket.socket):
    """A socket with a path, which goes when it is closed, unless another has it by then."""

    _file: tuple[Path, int, int] | None = None

    def bind_to(self, path: Path) -> None:
        """Bind to a path that only this user can reach."""
        self.bind(str(path))
        path.chmod(0o600)
        found = path.stat()
        self._file = path, found.st_dev, found.st_ino

    def close(self) -> None:
        """Take the path away, then close."""
        file, self._file = self._file, None
        if file is not None:
            path, *own = file
            with suppress(OSError):
                found = path.lstat()
                if [found.st_dev, found.st_ino] == own:
                    path.unlink()
        super().close()


def bound_to_path(path: Path) -> UnixListener:
    """Return a socket bound to a path of mode 0600, not listening yet.

    A socket that lies there from before makes room; OSError if somebody listens at it, ValueError
    for any other file.
    """
    if path.is_socket():
        if _listened_at(path):
            raise OSError(f"the server could not listen at {path}: another one listens there")
        path.unlink(missing_ok=True)
    elif path.exists():
        raise ValueError(f"{path} is there already, and is no socket; name another path for --uds")
    bound = UnixListener(socket.AF_UNIX)
    try:
        bound.bind_to(path)
    except BaseException:
        bound.close()
        raise
    return bound


def _listened_at(path: Path) -> bool:
    """Return whether somebody listens at a socket; one that is busy or another user's counts."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)
        try:
            asking.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except (BlockingIOError, PermissionError):
            return True
    return True


def bound(host: str, port: int, uds: Path | None) -> list[socket.socket]:
    """Return sockets bound to an address, not listening yet: one for each address that a name has.

    port 0: a free one, of the first address alone. Raises OSError, with the address, if it is
            taken.
    """
    if uds is not None:
        return [bound_to_path(uds)]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise OSError(f"the server could not listen at {host}:{port}: {error.strerror}") from None
    made: list[socket.socket] = []
    try:
        for family, kind, proto, _, address in dict.fromkeys(found if port else found[:1]):
            made.append(one := socket.socket(family, kind, proto))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
    except OSError as error:
        for one in made:
            one.close()
        hint = "; --port 0 takes a free one" if error.errno == errno.EADDRINUSE else ""
        raise OSError(
            f"the server could not listen at {host}:{port}: {error.strerror}{hint}"
        ) from None
    return made


def url_of(listener: socket.socket, tls: bool = False) -> str:
    """Return the address of a bound socket for people."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{name}"
    return f"http{'s' * tls}://{f'[{name[0]}]' if ':' in name[0] else name[0]}:{name[1]}"
