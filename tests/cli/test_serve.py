"""`griffin serve` as a process: it says where it is, answers, and ends without an error when told
to."""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import subprocess
import sys
from types import SimpleNamespace

import httpx2
import pytest

from griffin.checkpoints.model_names import talker
from griffin.server.settings import Settings

# A model without adapters, for what only hands it on.
BARE = SimpleNamespace(model=SimpleNamespace(adapters=SimpleNamespace(alone=False)))


def start(folder, tmp_path, *arguments, **environment):
    command = [
        sys.executable,
        "-c",
        "import griffin.cli as c; c.main()",
        "serve",
        "--model",
        folder,
        "--store",
        tmp_path / "kept",
    ]
    process = subprocess.Popen(
        [str(part) for part in (*command, "--slots", "2", *arguments)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    line = process.stderr.readline()
    assert line.startswith("griffin serves toy at "), line + process.stderr.read()
    return process, line.split()[4].rstrip(",")


def test_a_taken_address_is_told_before_the_model_is_looked_for(run):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        done = run("serve", "--model", "nowhere", "--port", str(port))
    assert done.exit_code == 1
    taken = os.strerror(errno.EADDRINUSE)
    assert f"could not listen at 127.0.0.1:{port}: {taken}" in done.output


@pytest.mark.thorough
@pytest.mark.parametrize(
    "sig", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_it_serves_and_ends_well(folder, tmp_path, sig):
    process, url = start(folder, tmp_path, "--port", "0")
    try:
        body = {
            "messages": [{"role": "user", "content": "my secret owl"}],
            "max_tokens": 3,
            "session_id": "s",
        }
        answer = httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=60)
        assert answer.status_code == 200 and answer.json()["usage"]["completion_tokens"] <= 3
        body |= {"max_tokens": 400, "stream": True}
        with httpx2.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as stream:
            lines = stream.iter_lines()
            next(lines)
            process.send_signal(sig)
            assert list(lines)[-2] == "data: [DONE]"  # who is served is served to the end
        assert process.wait(60) == 0
        log = process.stderr.read()
    finally:
        process.kill()
    assert "POST /v1/chat/completions 200" in log and "owl" not in log and "Traceback" not in log


@pytest.mark.slow
def test_keys_from_the_environment_and_a_unix_socket(folder, tmp_path):
    path = tmp_path / "door"
    key = "a-key-of-some-length"
    process, where = start(folder, tmp_path, "--uds", path, "--key-env", "OUR_KEYS", OUR_KEYS=key)
    try:
        assert where == f"unix:{path}" and stat.S_IMODE(path.stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(60)
            sock.connect(str(path))
            head = f"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
            sock.sendall(f"{head}connection: close\r\n\r\n".encode())
            assert b"200 OK" in sock.recv(65536)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()


def test_misuse_is_told_before_the_model_is_loaded(run, tmp_path):
    for arguments, words in (
        (["--store", tmp_path, "--no-store"], "contradict"),
        (["--no-cache", "--exact-cache"], "contradict"),
        (["--key-env", "NOBODY_SETS_THIS"], "holds no key"),
        (["--allow-origin", "*"], "no wildcards"),
        (["--host", "0.0.0.0"], "no API key"),
        (["--max-tokens", "0"], "max-tokens"),
        (["--ssl-certfile", __file__], "no certificate and key for TLS"),
        (["--ssl-keyfile", __file__], "needs its certificate"),
        (["--root-path", "owl"], "no prefix of paths"),
        (["--forwarded-allow-ips", "proxy"], "no address of a proxy"),
    ):
        done = run("serve", "--model", "/nowhere", *arguments)
        assert done.exit_code == 2 and words in done.output, done.output
        assert "/nowhere" not in done.output, "it went to look for the model"


def test_bounds_reach_the_server_and_the_others_keep_their_defaults(run, monkeypatch):
    built = {}

    def build(llm, **options):
        built.update(options)
        raise ValueError("built")

    monkeypatch.setattr("griffin.cli.serve.ModelSource.llm", lambda source, **_: BARE)
    monkeypatch.setattr("griffin.server.build.build", build)
    done = run(
        *("serve", "--port", "0", "--patience-seconds", "0.5", "--max-stop", "16", "--no-store"),
        *("--exact-cache", "--chunk", "512"),
    )
    assert done.exit_code == 2 and "built" in done.output
    assert built["settings"] == Settings(patience_seconds=0.5)
    assert built["limits"] == {"max_stop": 16} and built["store"] is None
    assert built["exact_cache"] and built["chunk"] == 512


def test_names_reach_the_server(run, monkeypatch):
    built = {}

    def build(llm, **options):
        built.update(options)
        raise ValueError("built")

    monkeypatch.setattr("griffin.cli.serve.ModelSource.llm", lambda source, **_: BARE)
    monkeypatch.setattr("griffin.server.build.build", build)
    run("serve", "--port", "0", "--no-store", "--name", "owl", "--name", "gpt-4", "--any-name")
    assert (built["name"], built["aliases"], built["any_name"]) == ("owl", ["gpt-4"], True)
    run("serve", "--port", "0", "--no-store")
    assert (built["name"], built["aliases"], built["any_name"]) == (talker(), [], False)
