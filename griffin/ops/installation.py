"""How this package was installed, and the command that installs its kernels."""

from __future__ import annotations

import json
import shlex
from importlib import metadata
from urllib.parse import unquote, urlsplit

_NAME = "griffin-lm"
NEEDS = "with a C++17 compiler and Python's headers"


def install_again(*options: str) -> str:
    """Return the command that installs this package again, and compiles it, from where it came.

    options: further words for pip. The cache is passed over, for it keeps what was built without a
    compiler.
    """
    words = ["python", "-m", "pip", "install", "--no-cache-dir", "--force-reinstall", "--no-deps"]
    return shlex.join([*words, *options, *_source()])


def _source() -> list[str]:
    """Return what pip is to install: a checkout, a repository, or the package by its name."""
    try:
        came = json.loads(metadata.distribution(_NAME).read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        return [_NAME]
    if "dir_info" in came:
        folder = unquote(urlsplit(came["url"]).path)
        return ["--editable", folder] if came["dir_info"].get("editable") else [folder]
    if "vcs_info" in came:
        return [f"{came['vcs_info']['vcs']}+{came['url']}"]
    return [_NAME]
