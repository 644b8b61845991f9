"""Packages of pinned versions, from which every text comes: fetched, checked, unpacked."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


class PackageError(ValueError):
    """A package is missing, of another version, or damaged. One line, with what mends it."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package as its archive has it.

    file:    the name of its file.
    licence: of what is read of it, as an SPDX name or in words.
    """

    name: str
    version: str
    kind: Literal["debian", "pypi"]
    file: str
    sha256: str
    licence: str

    @property
    def command(self) -> list[str]:
        """The command that fetches the file into the current folder."""
        if self.kind == "debian":
            return ["apt-get", "download", "-qq", f"{self.name}={self.version}"]
        wanted = f"{self.name}=={self.version}"
        return [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", wanted]


PACKAGES = {
    package.name: package
    for package in (
        Package(
            name="python3.11-doc",
            version="3.11.2-6+deb12u8",
            kind="debian",
            file="python3.11-doc_3.11.2-6+deb12u8_all.deb",
            sha256="50eb63e7f636c4281e9ce1b8f10386f1def42159eddce34fc1f41c46261df71b",
            licence="PSF-2.0",
        ),
        Package(
            name="wordnet-base",
            version="1:3.0-37",
            kind="debian",
            file="wordnet-base_1%3a3.0-37_all.deb",
            sha256="61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
            licence="WordNet-3.0",
        ),
        Package(
            name="dict-jargon",
            version="4.4.7-3.1",
            kind="debian",
            file="dict-jargon_4.4.7-3.1_all.deb",
            sha256="405f8168d7994ed2cb71407bb95493daec2e9aa66fc0461dafa74a9d6728a8c1",
            licence="public domain",
        ),
        Package(
            name="dict-devil",
            version="1.0-13.1",
            kind="debian",
            file="dict-devil_1.0-13.1_all.deb",
            sha256="6a535684def2a1f70cd42da16d12d43f0e9dc3e54e4a329178eebab3170e3154",
            licence="public domain",
        ),
        Package(
            name="toybox",
            version="0.8.9+dfsg-1",
            kind="debian",
            file="toybox_0.8.9+dfsg-1_amd64.deb",
            sha256="205566740aebc33d20cc061278da8ee444bfa4a93ce6225284851eb66e131ee5",
            licence="0BSD",
        ),
        Package(
            name="chatterbot-corpus",
            version="1.3.3",
            kind="pypi",
            file="chatterbot_corpus-1.3.3-py2.py3-none-any.whl",
            sha256="86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154",
            licence="BSD-3-Clause",
        ),
    )
}


def unpacked(package: Package, folder: Path) -> Path:
    """Return the folder of a package's files below `folder`, fetched and unpacked where it is not.

    A file that lies there already is not fetched again.
    Raises PackageError where it cannot be had, or is not the one that is pinned.
    """
    place = folder / package.name
    if place.is_dir():
        return place
    file = folder / package.file
    if not file.exists():
        _fetch(package, folder)
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != package.sha256:
        raise PackageError(
            f"{file} has SHA-256 {found[:16]}..., expected {package.sha256[:16]}... of"
            f" {package.name} {package.version}; remove it, and it is fetched again"
        )
    part = folder / f".{package.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    if package.kind == "debian":
        subprocess.run(["dpkg-deb", "-x", file, part], check=True)
    else:
        zipfile.ZipFile(file).extractall(part)
    part.rename(place)
    return place


def _fetch(package: Package, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    line = " ".join(package.command)
    try:
        ended = subprocess.run(package.command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        raise PackageError(f"{package.command[0]} is not here; fetch {package.file}") from None
    if not (folder / package.file).exists():
        why = (ended.stderr.strip().splitlines() or ["no such version"])[-1]
        raise PackageError(
            f"{package.name} {package.version} cannot be had ({why}); put {package.file} into"
            f" {folder}, or find out why this fails: {line}"
        )
