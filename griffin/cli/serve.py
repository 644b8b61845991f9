"""`griffin serve`: the model behind OpenAI's interface, with sessions and a chat page."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from griffin.cli.shared.model_source import ModelSource, model_options, talker_option
from griffin.cli.shared.sampling import Drafts
from griffin.cli.shared.sizes import Size
from griffin.cli.shared.stores import open_store, server_store
from griffin.server.limits import Limits
from griffin.server.settings import Settings

if TYPE_CHECKING:
    from griffin.server.http.hosts import Hosts
    from griffin.server.http.keys import Keys

_ARGUMENTS = "griffin.cli.serve.arguments"
# The fields of Limits and Settings that have an option; a server sets the others itself.
_BOUNDS = {
    field.name: field
    for kind in (Limits, Settings)
    for field in dataclasses.fields(kind)
    if "help" in field.metadata
}


def _bounds(function: Any) -> Any:
    """Add an option for each bound of the server."""
    for name, field in reversed(_BOUNDS.items()):
        whole = isinstance(field.default, int)
        option = click.option(
            Limits.flag(name),
            name,
            type=click.IntRange(1) if whole else click.FloatRange(min=0, min_open=True),
            metavar="N" if whole else "SECONDS",
            default=field.default,
            show_default=True,
            help=field.metadata["help"],
        )
        function = option(function)
    return function


def _given(ctx: click.Context, kind: type[Limits | Settings]) -> dict[str, Any]:
    """Return those fields of a kind that the command line sets."""
    names = (field.name for field in dataclasses.fields(kind))
    return {
        name: ctx.params[name]
        for name in names
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }


class _Serve(click.Command):
    """A command that keeps its arguments as they were given: replicas are started with the same."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show the bounds apart: few need them."""
        shown: dict[str, list[tuple[str, str]]] = {"Options": [], "Bounds": []}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is not None:
                shown["Bounds" if param.name in _BOUNDS else "Options"].append(record)
        for title, records in shown.items():
            with formatter.section(title):
                formatter.write_dl(records)


@click.command("serve", cls=_Serve)
@model_options
@talker_option
@click.option(
    "--replicas",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes that serve, each with a model and slots of its own; GPUs in turn. --threads is"
    " for each.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: a free one."
)
@click.option(
    "--uds", type=click.Path(path_type=Path), metavar="PATH", help="A Unix socket instead."
)
@click.option(
    "--name",
    "names",
    multiple=True,
    help="What clients call the model [default: as it was loaded]. Repeatable: all mean the same.",
)
@click.option("--any-name", is_flag=True, help="Answer whatever clients call the model.")
@click.option(
    "--key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="API keys, one a line.",
)
@click.option(
    "--key-env", metavar="NAME", help="Environment variable that holds API keys, parted by spaces."
)
@click.option(
    "--insecure-no-auth",
    is_flag=True,
    help="Serve other machines without a key; then --allow-host is needed.",
)
@click.option(
    "--allow-host", multiple=True, metavar="NAME", help="A name this server goes by. Repeatable."
)
@click.option(
    "--allow-origin",
    multiple=True,
    metavar="ORIGIN",
    help="A web page or extension that may use it: https://NAME, app://NAME. Repeatable.",
)
@click.option(
    "--ssl-certfile",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Speak TLS with this certificate (PEM, with its chain).",
)
@click.option(
    "--ssl-keyfile",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Its key, if that is not in the same file.",
)
@click.option(
    "--ssl-keyfile-password",
    metavar="TEXT",
    help="Of an encrypted key. All users of a machine can see it in the list of processes.",
)
@click.option(
    "--root-path",
    default="",
    metavar="PATH",
    help="What stands before every path, where a proxy serves this below one: /griffin.",
)
@click.option(
    "--forwarded-allow-ips",
    multiple=True,
    metavar="ADDRESS",
    help="A proxy whose X-Forwarded-For and -Proto are believed: an address, a network, or * for"
    " everybody. Repeatable, or parted by commas.",
)
@click.option(
    "--slots", type=click.IntRange(1), default=8, show_default=True, help="Answers at a time."
)
@click.option(
    "--max-waiting", type=click.IntRange(1), default=64, show_default=True, help="That may wait."
)
@click.option(
    "--chunk", type=click.IntRange(1), help="Prompt tokens a call [default: 64, on a GPU 4096]."
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
    "--exact-cache",
    is_flag=True,
    help="Go on only where a --chunk ended: to the bit as without a cache, also on a GPU.",
)
@click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder of sessions [default: griffin/server in the user's data folder].",
)
@click.option("--store-bytes", type=Size(), default="16G", show_default=True, help="For sessions.")
@click.option("--store-network", is_flag=True, help="The folder is shared by several machines.")
@click.option(
    "--allow-state-data",
    is_flag=True,
    help="Take states with requests and give them with answers: a server that keeps nothing.",
)
@click.option("--no-store", is_flag=True, help="Keep no sessions.")
@click.option(
    "--draft",
    type=Drafts(),
    default="auto",
    show_default=True,
    help="Tokens guessed and read in one call, where a request does not say; no answer changes.",
)
@click.option("--replica-config", hidden=True, help="Given by the process that starts replicas.")
@_bounds
@click.pass_context
def command(
    ctx: click.Context,
    source: ModelSource,
    replicas: int,
    host: str,
    port: int,
    uds: Path | None,
    names: tuple[str, ...],
    any_name: bool,
    key_file: Path | None,
    key_env: str | None,
    insecure_no_auth: bool,
    allow_host: tuple[str, ...],
    allow_origin: tuple[str, ...],
    ssl_certfile: Path | None,
    ssl_keyfile: Path | None,
    ssl_keyfile_password: str | None,
    root_path: str,
    forwarded_allow_ips: tuple[str, ...],
    slots: int,
    max_waiting: int,
    chunk: int | None,
    cache_bytes: int,
    no_cache: bool,
    exact_cache: bool,
    store: Path | None,
    store_bytes: int,
    store_network: bool,
    allow_state_data: bool,
    no_store: bool,
    draft: str | int,
    replica_config: str | None,
    **_: Any,  # the bounds, which `_given` finds
) -> None:
    """Serve a model over HTTP until it is told to stop.

    It listens to this machine alone unless keys are given. docs/serving.md says more of the bounds.
    """
    from griffin.server.fleet.replica import Link, ReplicaConfig
    from griffin.server.http.front import check_root, check_trusted, tls_context
    from griffin.server.http.sockets import bound, url_of

    own = None if replica_config is None else ReplicaConfig.from_json(replica_config)
    link = None if own is None else Link(own)  # first of all: it ends with who started it
    keys, hosts = _guards(host, uds, key_file, key_env, insecure_no_auth, allow_host, allow_origin)
    tls = tls_context(ssl_certfile, ssl_keyfile, ssl_keyfile_password)
    root_path, trusted = check_root(root_path), check_trusted(forwarded_allow_ips)
    if no_store and (store is not None or store_network):
        other = "--store-network" if store is None else "--store"
        raise click.UsageError(f"{other} and --no-store contradict each other")
    if no_cache and exact_cache:
        raise click.UsageError("--no-cache and --exact-cache contradict each other")
    own_name = Path(source.model).name if Path(source.model).exists() else source.model
    name, *aliases = names or (own_name,)
    folders = source.adapters
    roots = {name: own_name} | {each: Path(at).resolve().name for each, at in folders.items()}
    called = ", ".join((name, *folders))
    settings = Settings(**_given(ctx, Settings))
    cache_bytes = 0 if no_cache else cache_bytes
    folder = None if no_store else store or server_store()

    def announce(where: str) -> None:
        guarded = "for this machine only"
        if keys or insecure_no_auth:
            guarded = "with API keys" if keys else "WITHOUT API KEYS"
        room = f"{replicas} replicas of {slots} slots" if replicas > 1 else f"{slots} slots"
        click.echo(f"griffin serves {called} at {where}{root_path}, {guarded}; {room}", err=True)

    # A taken address is told before the model is loaded.
    listeners = [] if own is not None else bound(host, port, uds)
    for listener in listeners:
        ctx.with_resource(listener)
    if own is None and replicas > 1:
        from griffin.server.fleet.command import replica_command
        from griffin.server.fleet.supervisor import Supervisor
        from griffin.server.logs import log_to_stderr

        log_to_stderr()
        supervisor = Supervisor(
            replicas,
            replica_command(["serve", *ctx.meta[_ARGUMENTS]], source.threads),
            listeners,
            drain_seconds=settings.drain_seconds,
            announce=lambda: announce(url_of(listeners[0], tls is not None)),
        )
        ctx.exit(supervisor.run())
    from griffin.cli.shared.devices import place_of, place_of_replica
    from griffin.cli.shared.memory import check_memory
    from griffin.cli.shared.progress import CaptureBar

    # Who is alone is looked at on a GPU, where too much is an error; the system makes room itself.
    if own.first if own is not None else place_of(source.device).startswith("cuda"):
        of = 1 if own is None else own.of
        check_memory(of, source, slots=slots, chunk=chunk, cache_bytes=cache_bytes)
    if own is not None:
        place = place_of_replica(source.device, own.number)
        source = dataclasses.replace(source, device=place)
    # What is not installed or cannot be written is told before the model is loaded.
    from griffin.server.build import build
    from griffin.server.run import Server

    if folder is not None:
        open_store(folder, network=store_network).close()
    llm = source.llm(say=own is None or own.first, several=True)
    if draft != "auto":
        llm.defaults = llm.defaults.replace(draft=draft)
        llm.chat_defaults = llm.chat_defaults.replace(draft=draft)
    if llm.model.adapters.alone:
        called = llm.adapter
        if names:
            raise click.UsageError(
                f"--name names the model itself, which is not served: adapter {called} changes it"
                " for all. Name the adapter: --adapter NAME=FOLDER"
            )
    with CaptureBar(own is None or own.first) as capturing:
        service = build(
            llm,
            name=name,
            aliases=aliases,
            roots=roots,
            any_name=any_name,
            root_path=root_path,
            state_data=allow_state_data,
            slots=slots,
            max_waiting=max_waiting,
            chunk=chunk,
            cache_bytes=cache_bytes,
            exact_cache=exact_cache,
            store=folder,
            store_bytes=store_bytes,
            store_network=store_network,
            limits=_given(ctx, Limits),
            settings=settings,
            keys=keys,
            hosts=hosts,
            capturing=capturing,
        )
    service.warm_up()
    if own is None:
        server = Server(service, listeners, log=True, announce=announce, tls=tls, trusted=trusted)
    else:
        server = Server(service, log=True, tls=tls, trusted=trusted, replica=own, link=link)
    server.run()
    if not server.started:
        raise OSError("the server did not start; the lines above say why")


def _guards(
    host: str,
    uds: Path | None,
    key_file: Path | None,
    key_env: str | None,
    insecure: bool,
    names: tuple[str, ...],
    origins: tuple[str, ...],
) -> tuple[Keys, Hosts]:
    """Return who may ask. Keys come from a file or the environment: all can see a command line."""
    from griffin.server.http.hosts import Hosts
    from griffin.server.http.keys import Keys, check_exposure

    if key_file is not None and key_env is not None:
        raise click.UsageError("give --key-file or --key-env, not both")
    keys = Keys()
    if key_file is not None:
        keys = Keys.read(key_file)
    elif key_env is not None:
        keys = Keys.from_environment(key_env)
    check_exposure(host, uds, keys, insecure, names)
    return keys, Hosts(None, origins) if uds else Hosts.bound_to(host, names, origins)
