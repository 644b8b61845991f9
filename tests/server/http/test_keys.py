"""Who may ask: API keys, and a server that others can reach without one."""

from __future__ import annotations

import hmac

import pytest
from click.testing import CliRunner

from griffin.cli import main
from griffin.cli.serve import command
from griffin.server.errors import ApiError
from griffin.server.http.hosts import is_loopback
from griffin.server.http.keys import Keys, check_exposure
from tests.support.live_server import ALICE, BOB


def test_the_default_is_this_machine_alone():
    host = next(param for param in command.params if param.name == "host")
    assert is_loopback(host.default)
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "127.9.9.9")] == [True] * 4
    assert not any(
        is_loopback(h) for h in ("0.0.0.0", "::", "192.168.1.5", "localhost.evil.example", "")
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "::", "example.org"])
def test_other_machines_need_a_key(host):
    """Said before the model is loaded, which may take minutes."""
    refused = CliRunner().invoke(main, ["serve", "--host", host, "--model", "/nowhere"])
    assert refused.exit_code == 2 and "no API key" in refused.output
    check_exposure(host, None, Keys([ALICE]), False)
    check_exposure(host, None, Keys(), True)


def test_keys_come_from_files_that_others_cannot_read(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# ours\n{ALICE}\n\n{BOB}\n")
    path.chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        Keys.read(path)
    path.chmod(0o600)
    keys = Keys.read(path)
    assert keys.namespace(bearer(ALICE)) != keys.namespace({"authorization": f"bearer {BOB}"})
    for wrong in ("short", "with space 0123456789", "ключ-0123456789-0123456789"):
        with pytest.raises(ValueError, match="key 1"):
            Keys([wrong])


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_other_clients_send_their_key_in_headers_of_their_own():
    keys = Keys([ALICE, BOB])
    alice = keys.namespace(bearer(ALICE))
    for sent in (
        *({"x-api-key": ALICE}, {"api-key": ALICE}, {"x-api-key": ALICE, "api-key": ALICE}),
        *({"x-api-key": ALICE} | bearer(ALICE), {"x-api-key": ALICE} | bearer("")),
        {"x-api-key": ALICE, "authorization": "Basic cHJveHk6cHJveHk="},
    ):
        assert keys.namespace(sent) == alice, sent
    for sent, why in (
        ({"x-api-key": ALICE} | bearer(BOB), "two different API keys"),
        ({"x-api-key": ALICE, "api-key": "x"}, "two different API keys"),
        ({"x-api-key": "x"}, "a wrong API key"),
        ({"x-api-key": f"Bearer {ALICE}"}, "a wrong API key"),
        ({"authorization": f"Basic {ALICE}"}, "a wrong API key"),
        ({"x-api-key": "", "api-key": ""}, "no API key"),
        ({}, "no API key"),
    ):
        with pytest.raises(ApiError, match=why) as caught:
            keys.namespace(sent)
        assert caught.value.status == 401
    assert Keys().namespace({"x-api-key": ALICE} | bearer(BOB)) == ""


def test_keys_are_compared_in_constant_time(monkeypatch):
    """All of them, whichever fits, by digests of one length."""
    keys, compared, compare = Keys([ALICE, BOB]), [], hmac.compare_digest

    def noted(a, b):
        compared.append((len(a), len(b)))
        return compare(a, b)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    keys.namespace(bearer(ALICE))
    with pytest.raises(ApiError):
        keys.namespace(bearer("x"))
    assert compared == [(32, 32)] * 4
    assert ALICE.encode() not in b"".join(keys._digests)


def test_keys_come_from_a_variable(monkeypatch):
    monkeypatch.setenv("OUR_KEYS", f"{ALICE} {BOB}")
    keys = Keys.from_environment("OUR_KEYS")
    assert keys.namespace(bearer(ALICE)) != keys.namespace(bearer(BOB))
    monkeypatch.setenv("OUR_KEYS", " ")
    with pytest.raises(ValueError, match="the environment variable OUR_KEYS holds no key"):
        Keys.from_environment("OUR_KEYS")
