"""The command that installs the kernels fits how the package came."""

from __future__ import annotations

import json
from importlib import metadata

import pytest

from griffin.ops.installation import install_again

WORDS = "python -m pip install --no-cache-dir --force-reinstall --no-deps "


@pytest.mark.parametrize(
    ("came", "ends"),
    [
        (None, "griffin-lm"),
        ({"url": "file:///x/g.whl", "archive_info": {}}, "griffin-lm"),
        ({"url": "file:///my%20own/griffin", "dir_info": {}}, "'/my own/griffin'"),
        ({"url": "file:///own", "dir_info": {"editable": True}}, "--editable /own"),
        ({"url": "https://x.org/g.git", "vcs_info": {"vcs": "git"}}, "git+https://x.org/g.git"),
    ],
)
def test_it_installs_from_where_it_came(came, ends, monkeypatch):
    class Installed:
        def read_text(self, name: str) -> str | None:
            return None if came is None else json.dumps(came)

    monkeypatch.setattr(metadata, "distribution", lambda _name: Installed())
    assert install_again() == WORDS + ends
    assert install_again("-Cx=y") == f"{WORDS}-Cx=y {ends}"


def test_a_package_that_was_never_installed_has_its_name(monkeypatch):
    def lacking(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", lacking)
    assert install_again() == f"{WORDS}griffin-lm"
