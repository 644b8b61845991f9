"""A model on Ray Serve: any number of replicas, on any number of machines, over one folder of
sessions.

    serve run examples.ray_serve.app:app model=nano store=/shared/griffin replicas=2

Each replica is the server that `griffin serve` runs, its ASGI application answering what Ray's
proxy hands on. A session is opened for each request under a lease, so requests need no sticky
routing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import serve

import griffin
from griffin.server.app import App
from griffin.server.build import build
from griffin.server.http.hosts import Hosts
from griffin.server.http.keys import Keys

ARGUMENTS = {
    "model": "nano",  # folder, archive, Hub repository or bundled name
    "name": "",  # what clients call it; as it was loaded if empty
    "store": "",  # folder of sessions, the same on all machines; none are kept if empty
    "network": "no",  # yes: the folder lies on a network and several machines share it
    "key_file": "",  # API keys, one a line; every machine has the file
    "allow_host": "",  # names this service goes by besides localhost, parted by commas
    "replicas": "1",
    "cpus": "1",  # of each replica: Ray's share and the threads of its model
    "gpus": "0",
    "slots": "8",  # answers at a time, of each replica
    "max_waiting": "64",  # requests that wait in each replica; more get 429
}


def app(arguments: dict[str, str]) -> serve.Application:
    """Return the application for `serve run` and `serve deploy`. arguments: some of ARGUMENTS, as
    text."""
    unknown = sorted(arguments.keys() - ARGUMENTS.keys())
    if unknown:
        raise ValueError(
            f"there is no argument {', '.join(unknown)}; there are {', '.join(ARGUMENTS)}"
        )
    given = {**ARGUMENTS, **arguments}
    slots, waiting = int(given["slots"]), int(given["max_waiting"])

    def make() -> App:
        """Load the model, in a replica's process."""
        return load(given)

    @serve.deployment(
        name="Griffin",
        num_replicas=int(given["replicas"]),
        # What a replica cannot take at once waits in its own queue, which is fair and answers 429
        # when full.
        max_ongoing_requests=slots + waiting + 16,
        ray_actor_options={"num_cpus": float(given["cpus"]), "num_gpus": float(given["gpus"])},
        health_check_period_s=5,
        health_check_timeout_s=30,
        graceful_shutdown_timeout_s=60,
    )
    @serve.ingress(make)
    class Griffin:
        app: App  # what `make` returned: Ray's wrapper has it, and runs its start and its end

        def check_health(self) -> None:
            """Raise where GET /ready would say 503: Ray puts another replica in this one's
            place."""
            if self.app.service.broken:
                raise RuntimeError("the engine broke")

    return Griffin.bind()  # pyright: ignore[reportAttributeAccessIssue] a deployment by now


def load(given: dict[str, str]) -> App:
    """Return the ASGI application of one replica."""
    import torch

    if given["gpus"] == "0":
        torch.set_num_threads(max(1, int(float(given["cpus"]))))
    llm = griffin.load(given["model"], device="cpu" if given["gpus"] == "0" else "cuda")
    names = [name for name in given["allow_host"].split(",") if name]
    options: dict[str, Any] = (
        {"keys": Keys.read(Path(given["key_file"]))} if given["key_file"] else {}
    )
    service = build(
        llm,
        name=given["name"] or Path(given["model"]).name,
        slots=int(given["slots"]),
        max_waiting=int(given["max_waiting"]),
        store=Path(given["store"]) if given["store"] else None,
        store_network=given["network"] == "yes",
        hosts=Hosts.bound_to("localhost", names),
        **options,
    )
    # Clients see it in x-griffin-replica.
    service.replica = serve.get_replica_context().replica_id.unique_id
    return App(service)
