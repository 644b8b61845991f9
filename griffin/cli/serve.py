"""`griffin serve`: the model behind OpenAI's interface, with sessions and a chat page."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from griffin.cli.options import model_options, open_llm
from griffin.cli.sizes import Size
from griffin.cli.stores import default_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from griffin.llm import LLM
    from griffin.server.auth import Keys
    from griffin.server.service import Service

_ARGUMENTS = "griffin.cli.serve.arguments"
_SWITCH_SECONDS = 0.0005
_LIMITS = (
    *(
        "max_body_bytes",
        "max_json_values",
        "max_messages",
        "max_choices",
        "max_prompts",
        "max_rows",
    ),
    *(
        "max_prompt_tokens",
        "max_tokens",
        "default_max_tokens",
        "max_stop",
        "max_stop_chars",
        "max_stop_ids",
    ),
    *("max_logprobs", "max_logit_bias", "max_tools", "max_schema_bytes", "max_schema_depth"),
)
_SETTINGS = (
    *("deadline_seconds", "body_seconds", "header_seconds", "send_seconds", "keepalive_seconds"),
    *(
        "drain_seconds",
        "max_header_bytes",
        "max_buffered_bytes",
        "max_connections",
        "max_requests_per_key",
    ),
)


def _bounds(function: Any) -> Any:
    """Add an option for each of the server's limits; those of Limits have their names as flags."""
    for name in reversed((*_LIMITS, *_SETTINGS)):
        kind = (
            click.FloatRange(min=0, min_open=True)
            if name.endswith("_seconds")
            else click.IntRange(1)
        )
        function = click.option("--" + name.replace("_", "-"), name, type=kind, hidden=True)(
            function
        )
    return function


class _Serve(click.Command):
    """A command that keeps its arguments as they were given: replicas are started with the same."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)


@click.command("serve", cls=_Serve)
@model_options
@click.option(
    "--replicas",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes that serve, each with a model and slots of its own. --threads is for each.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: a free one."
)
@click.option(
    "--uds", type=click.Path(path_type=Path), metavar="PATH", help="A Unix socket instead."
)
@click.option("--name", help="What clients call the model [default: as it was loaded].")
@click.option(
    "--key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="API keys, one a line.",
)
@click.option(
    "--key-env", metavar="NAME", help="Environment variable that holds API keys, parted by spaces."
)
@click.option("--insecure-no-auth", is_flag=True, help="Serve other machines without a key.")
@click.option(
    "--allow-host", multiple=True, metavar="NAME", help="A name this server goes by. Repeatable."
)
@click.option(
    "--allow-origin", multiple=True, metavar="URL", help="A web page that may use it. Repeatable."
)
@click.option(
    "--slots", type=click.IntRange(1), default=8, show_default=True, help="Answers at a time."
)
@click.option(
    "--max-waiting", type=click.IntRange(1), default=64, show_default=True, help="That may wait."
)
@click.option(
    "--chunk", type=click.IntRange(1), default=64, show_default=True, help="Prompt tokens a call."
)
@click.option(
    "--cache-bytes",
    type=Size(),
    default="256M",
    show_default=True,
    help="For prompts known already.",
)
@click.option("--no-cache", is_flag=True, help="Read every prompt from its beginning.")
@click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder of sessions [default: griffin/server in the user's data folder].",
)
@click.option("--store-bytes", type=Size(), default="16G", show_default=True, help="For sessions.")
@click.option("--store-network", is_flag=True, help="The folder is shared by several machines.")
@click.option("--no-store", is_flag=True, help="Keep no sessions.")
@click.option("--place", hidden=True, help="Given to replicas by the process that starts them.")
@_bounds
@click.pass_context
def command(
    ctx: click.Context,
    model: str,
    tokenizer: str | None,
    revision: str | None,
    dtype: str | None,
    quantize: str | None,
    device: str | None,
    threads: int | None,
    replicas: int,
    host: str,
    port: int,
    uds: Path | None,
    name: str | None,
    key_file: Path | None,
    key_env: str | None,
    insecure_no_auth: bool,
    allow_host: tuple[str, ...],
    allow_origin: tuple[str, ...],
    slots: int,
    max_waiting: int,
    chunk: int,
    cache_bytes: int,
    no_cache: bool,
    store: Path | None,
    store_bytes: int,
    store_network: bool,
    no_store: bool,
    place: str | None,
    **bounds: Any,
) -> None:
    """Serve a model over HTTP until it is told to stop.

    It listens to this machine alone unless keys are given. The limits on requests (docs/serving.md)
    have options of their names: --max-tokens, --max-body-bytes, --deadline-seconds ...
    """
    from griffin.server.door import bound, check_open_door
    from griffin.server.hosts import Hosts
    from griffin.server.place import Link, Place

    own = None if place is None else Place.from_json(place)
    link = (
        None if own is None else Link(own)
    )  # first of all: from here on it ends with who started it
    keys = _keys(key_file, key_env)
    check_open_door(host, uds, keys, insecure_no_auth)
    hosts = Hosts(None, allow_origin) if uds else Hosts.bound_to(host, allow_host, allow_origin)
    if no_store and (store is not None or store_network):
        other = "--store-network" if store is None else "--store"
        raise click.UsageError(f"{other} and --no-store contradict each other")
    name = name or (Path(model).name if Path(model).exists() else model)
    guarded = (
        "with API keys"
        if keys
        else "WITHOUT API KEYS"
        if insecure_no_auth
        else "for this machine only"
    )
    room = f"{replicas} replicas of {slots} slots" if replicas > 1 else f"{slots} slots"

    def announce(where: str) -> None:
        click.echo(f"griffin serves {name} at {where}, {guarded}; {room}", err=True)

    if own is None and replicas > 1:
        ctx.exit(
            _supervise(ctx, replicas, host, port, uds, threads, bounds["drain_seconds"], announce)
        )

    from griffin.server.run import Server
    from griffin.server.service import Settings

    settings = Settings(**_given(bounds, _SETTINGS))
    limits = _given(bounds, _LIMITS)
    cache_bytes = 0 if no_cache else cache_bytes
    folder = None if no_store else store or default_store().parent / "server"
    if own is not None and own.first:
        from griffin.cli.room import check_room

        check_room(
            own.of,
            model=model,
            revision=revision,
            dtype=dtype,
            quantize=quantize,
            device=device,
            slots=slots,
            chunk=chunk,
            cache_bytes=cache_bytes,
        )
    listeners = (
        () if own is not None else bound(host, port, uds)
    )  # a taken address is told before the wait
    llm = open_llm(model, tokenizer, revision, dtype, quantize, device, threads)
    service = build(
        llm,
        name=name,
        slots=slots,
        max_waiting=max_waiting,
        chunk=chunk,
        cache_bytes=cache_bytes,
        store=folder,
        store_bytes=store_bytes,
        store_network=store_network,
        limits=limits,
        keys=keys,
        hosts=hosts,
        settings=settings,
    )
    # How long the engine's thread may keep the others waiting, where a small model is mostly
    # Python.
    sys.setswitchinterval(_SWITCH_SECONDS)
    if own is None:
        server = Server(service, listeners, log=True, announce=announce)
    else:
        server = Server(service, log=True, place=own, link=link)
    server.run()
    if not server.started:
        raise OSError("the server did not start; the lines above say why")


def build(
    llm: LLM,
    *,
    name: str,
    slots: int = 8,
    max_waiting: int = 64,
    chunk: int = 64,
    cache_bytes: int = 256 << 20,
    store: Path | None = None,
    store_bytes: int | None = None,
    store_network: bool = False,
    limits: dict[str, int] | None = None,
    **service: Any,
) -> Service:
    """Return the service of a loaded model, with its engine and store. service: its other
    arguments."""
    from griffin import __version__
    from griffin.conversation import fingerprint_of
    from griffin.engine import Engine
    from griffin.engine.prefix_cache import PrefixCache
    from griffin.server.limits import Limits
    from griffin.server.service import Service
    from griffin.sessions import Store

    asked = {"max_choices": min(Limits.max_choices, slots), **(limits or {})}
    fingerprint = fingerprint_of(llm)
    cache = None
    if cache_bytes:
        config, dtype = llm.model.config, llm.model.dtype
        cache = PrefixCache(fingerprint.digest, config, dtype, max_bytes=cache_bytes)
    bounds = dataclasses.replace(Limits(vocab_size=llm.tokenizer.vocab_size), **asked)
    engine = Engine(llm.model, slots, chunk=chunk, max_waiting=max_waiting, prefix_cache=cache)
    return Service(
        llm,
        engine,
        name=name,
        fingerprint=fingerprint,
        version=__version__,
        limits=bounds,
        store=None
        if store is None
        else Store(store, quota_bytes=store_bytes, network=store_network),
        **service,
    )


def _supervise(
    ctx: click.Context,
    replicas: int,
    host: str,
    port: int,
    uds: Path | None,
    threads: int | None,
    drain_seconds: float | None,
    announce: Callable[[str], None],
) -> int:
    """Serve with several processes; return the exit code. This one loads no model and no torch."""
    from griffin.server.door import bound, url_of
    from griffin.server.logs import log_to_stderr
    from griffin.server.place import Place
    from griffin.server.replicas import DRAIN_SECONDS, Supervisor, cores, ourselves, share

    arguments = ctx.meta[_ARGUMENTS]

    def command(place: Place) -> list[str]:
        own = threads or share(cores(), place.of, place.number)
        return ourselves(["serve", *arguments, "--threads", str(own), "--place", place.to_json()])

    log_to_stderr()
    listeners = bound(host, port, uds)
    where = url_of(listeners[0])
    supervisor = Supervisor(
        replicas,
        command,
        listeners,
        drain_seconds=drain_seconds or DRAIN_SECONDS,
        announce=lambda: announce(where),
    )
    try:
        return supervisor.run()
    finally:
        if uds is not None:
            uds.unlink(missing_ok=True)


def _keys(path: Path | None, variable: str | None) -> Keys:
    """Read the API keys from a file or an environment variable; a command line can be seen by
    all."""
    from griffin.server.auth import Keys

    if path is not None and variable is not None:
        raise click.UsageError("give --key-file or --key-env, not both")
    if path is not None:
        return Keys.read(path)
    if variable is None:
        return Keys()
    found = os.environ.get(variable, "").split()
    if not found:
        raise ValueError(f"the environment variable {variable} holds no key")
    return Keys(found)


def _given(options: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: options[name] for name in names if options[name] is not None}
