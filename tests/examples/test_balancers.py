"""The balancers' settings in docs/scaling_out.md are such that the balancers take them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "scaling_out.md"


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.slow
def test_nginx(tmp_path):
    if (nginx := shutil.which("nginx")) is None:
        pytest.skip("nginx is not installed")
    paths = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    frame = f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ access_log off; {paths}\n"
    (tmp_path / "nginx.conf").write_text(f"{frame}{block('nginx')}}}\n")
    done = subprocess.run(
        [nginx, "-t", "-p", tmp_path, "-c", tmp_path / "nginx.conf"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_haproxy(tmp_path):
    if (haproxy := shutil.which("haproxy")) is None:
        pytest.skip("haproxy is not installed")
    (tmp_path / "haproxy.cfg").write_text(block("haproxy"))
    done = subprocess.run(
        [haproxy, "-c", "-f", tmp_path / "haproxy.cfg"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_streams_need_is_said():
    for language, needed in (
        ("nginx", ("proxy_buffering off", "proxy_read_timeout 660s")),
        ("haproxy", ("option http-no-delay", "timeout server 660s")),
    ):
        assert all(setting in block(language) for setting in needed)
