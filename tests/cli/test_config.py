"""`griffin config`: one's own defaults."""

from __future__ import annotations

import json

import pytest

from griffin.cli.shared.config import config_path


@pytest.fixture(autouse=True)
def _own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_what_is_set_is_used_and_an_option_wins(run, folder, tmp_path):
    told = run("config", "set", "model", folder)
    assert told.exit_code == 0 and str(config_path()) in told.stdout
    asked = ("generate", "x", "--temperature", 0, "-n", 5)
    expected = run(*asked, "-m", folder).stdout
    assert run(*asked).stdout == expected != run(*asked, "--model", "nano").stdout
    assert str(folder) in run("generate", "--help").stdout.replace("\n", "").replace(" ", "")
    assert run("config", "unset", "model").exit_code == 0
    assert run(*asked).stdout != expected and not config_path().exists()


def test_the_store_and_the_threads(run, folder, tmp_path):
    for key, value in {"store": tmp_path / "kept", "threads": 1, "model": folder}.items():
        assert run("config", "set", key, value).exit_code == 0
    assert run("chat", "--max-tokens", 3, "--session", "one", stdin="x\n").exit_code == 0
    assert "one" in run("state", "ls").stdout and (tmp_path / "kept").is_dir()
    shown = json.loads(run("config", "--json").stdout)
    assert shown["threads"] == 1 and shown["store"] == str(tmp_path / "kept")
    for asked in (("config",), ("--show-config",)):
        assert f'"{tmp_path / "kept"}"' in run(*asked).stdout


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (("set", "modl", "x"), "did you mean model?"),
        (("set", "colour", "x"), "there are model, quantize"),
        (("set", "threads", "many"), "at least 1"),
        (("set", "threads", "0"), "at least 1"),
        (("set", "model", ""), "must be a text"),
        (("set", "quantize", "int3"), "no format 'int3'"),
        (("set", "store", __file__), "must be a folder"),
        (("set", "model", "a\nb"), "cannot be written"),
        (("set", "store", b"a\xff".decode(errors="surrogateescape")), "cannot be written"),
    ],
)
def test_what_is_no_setting(run, command, hint):
    told = run("config", *command)
    assert told.exit_code == 2 and hint in told.stderr and not config_path().exists()


@pytest.mark.parametrize("text", ["model = ", "modell = 'x'", "threads = true", "\x00"])
def test_a_file_that_is_wrong_is_named(run, text):
    config_path().parent.mkdir(parents=True)
    config_path().write_text(text)
    told = run("generate", "x")
    assert told.exit_code == 2 and str(config_path()) in told.stderr.replace("\n", "")
    assert "`griffin --help`" in told.stderr
    shown = run("--show-config")
    assert shown.exit_code == 2 and str(config_path()) in shown.stderr.replace("\n", "")
    assert run("info", "nano").exit_code == 0


@pytest.mark.parametrize("name", ["küche", "\N{OWL} owls", 'a "b" \\c'])
def test_any_name_is_read_as_it_was_set(run, name):
    assert run("config", "set", "store", name).exit_code == 0
    assert json.loads(run("config", "--json").stdout)["store"] == name
