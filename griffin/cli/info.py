"""`griffin info`: a model's shape, size, state and kernels, without reading its weights."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

import click

from griffin.cli.shared.devices import memory_of
from griffin.cli.shared.model_source import ModelSource

if TYPE_CHECKING:
    import torch

    from griffin.model import GriffinConfig

_LIBRARIES = ("torch", "numpy", "safetensors", "tokenizers", "huggingface-hub")


@click.command("info")
@click.argument("model", default="nano")
@click.option(
    "--preset", is_flag=True, help="MODEL names a shape, such as recurrentgemma-2b, not weights."
)
@click.option("--revision", help="Branch, tag or commit of a Hub repository.")
@click.option("--tensors", is_flag=True, help="List every tensor.")
@click.option(
    "--adapter", metavar="[NAME=]FOLDER", multiple=True, help="A LoRA beside it. Repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    model: str,
    preset: bool,
    revision: str | None,
    tensors: bool,
    adapter: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show what MODEL is: its shape, parameters, bytes of weights and of state, kernels and
    versions.

    MODEL is a folder, an archive, a Hub repository or a bundled name [nano]; its weights are not
    read.
    """
    facts = _of_preset(model) if preset else _of_checkpoint(model, revision)
    if adapter:
        facts["adapters"] = _adapters(ModelSource(model=model, adapter=adapter), facts)
    facts |= {"kernels": _kernels(), "decode_on_a_gpu": _decode(facts)}
    facts |= {"memory": _memory(), "versions": _versions()}
    if as_json:
        click.echo(json.dumps(facts))
    else:
        _print(facts, tensors)


def _memory() -> dict[str, int]:
    """Return the bytes that models may lie in: of this machine, and free on each of its GPUs."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    places = ["cpu", *(f"cuda:{index}" for index in range(gpus))]
    return {memory.name: memory.nbytes for memory in map(memory_of, places)}


def _adapters(source: ModelSource, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what adapters take in a model of the type that most of the weights have."""
    from griffin.cli.shared.adapters import adapter_facts
    from griffin.model import GriffinConfig

    config = GriffinConfig.from_dict(facts["config"])
    return adapter_facts(source.adapters, config, _dtype(facts))


def _of_preset(name: str) -> dict[str, Any]:
    import torch

    from griffin.model import Griffin, GriffinConfig

    config = GriffinConfig.preset(name)
    with torch.device("meta"):
        model = Griffin(config)
    shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    count = sum(tensor.numel() for tensor in model.state_dict().values())
    return _facts(name, config, shapes, 2 * count, {"bfloat16": count}, "preset", [])


def _of_checkpoint(model: str, revision: str | None) -> dict[str, Any]:
    source = ModelSource(model=model, revision=revision).checkpoint()
    shapes = {name: list(source.shape(name)) for name in source.names()}
    dtypes: Counter[str] = Counter()
    for name, shape in shapes.items():
        packed = source.quantization if source.is_packed(name) else None
        dtypes[packed.format if packed else str(source.dtype(name)).removeprefix("torch.")] += (
            _product(shape)
        )
    facts = _facts(
        model, source.config, shapes, source.nbytes, dtypes, source.layout, list(source.notes)
    )
    return facts | {"files": [str(file) for file in source.files], "digest": source.digest()}


def _facts(
    name: str,
    config: GriffinConfig,
    shapes: Mapping[str, list[int]],
    weight_bytes: int,
    dtypes: Mapping[str, int],
    layout: str,
    notes: list[str],
) -> dict[str, Any]:
    import torch

    total = sum(_product(shape) for shape in shapes.values())
    embedding = _product(shapes["model.embed_tokens.weight"])
    stored = max(dtypes, key=lambda dtype: dtypes[dtype])
    return {
        "model": name,
        "layout": layout,
        "config": config.to_dict(),
        "parameters": {"total": total, "embedding": embedding, "other": total - embedding},
        "weights": {"bytes": weight_bytes, "dtypes": dict(dtypes)},
        "state": state_bytes(
            config, torch.float32 if stored in ("float32", "float64") else torch.bfloat16
        ),
        "notes": notes,
        "tensors": dict(shapes),
    }


def state_bytes(config: GriffinConfig, dtype: torch.dtype) -> dict[str, int]:
    """Return the bytes of a sequence's state without its position, in a model of this type.

    fixed:     recurrent layers, whatever the length.
    per_token: attention layers, for each of the first `window` tokens.
    most:      fixed + window * per_token: what it takes in memory, and what a saved one never
               exceeds.
    """
    from griffin.engine.pieces import recurrent_bytes, span_bytes

    fixed, per_token = recurrent_bytes(config, dtype), span_bytes(config, dtype)
    window = config.attention_window_size if per_token else 0
    return {
        "fixed": fixed,
        "per_token": per_token,
        "window": window,
        "most": fixed + window * per_token,
    }


def _kernels() -> dict[str, str]:
    from griffin import ops

    return ops.describe()


def _decode(facts: Mapping[str, Any]) -> str:
    """Return what would move the model's sequences on here on a GPU, and why that."""
    from griffin.model import GriffinConfig
    from griffin.model.step_kernels import why_no_kernels

    config = GriffinConfig.from_dict(facts["config"])
    why = why_no_kernels(config, _dtype(facts), "cuda", bool(facts.get("adapters")))
    return "by graphs" if why is None else f"a call of the model a token: {why}"


def _dtype(facts: Mapping[str, Any]) -> torch.dtype:
    """Return the type of a model most of whose weights are stored so."""
    import torch

    stored = max(facts["weights"]["dtypes"], key=facts["weights"]["dtypes"].get)
    return torch.float32 if stored.startswith("float") else torch.bfloat16


def _compile_more() -> str | None:
    """Return the command that compiles the kernels that this installation lacks, if it does."""
    from griffin.ops import native
    from griffin.ops.installation import NEEDS, install_again

    if not native.built():
        return f"{NEEDS}: {install_again()}"
    if native.not_compiled():
        return install_again("-Ccmake.define.GRIFFIN_KERNELS=all")
    return None


def _versions() -> dict[str, str]:
    import griffin

    found = {"griffin": griffin.__version__, "python": platform.python_version()}
    return found | {name: metadata.version(name) for name in _LIBRARIES}


def _print(facts: dict[str, Any], tensors: bool) -> None:
    config, state = facts["config"], facts["state"]
    kinds = Counter(config["block_types"])
    rows = {
        "model": f"{facts['model']} ({facts['layout']})",
        "layers": ", ".join(f"{count} {kind}" for kind, count in kinds.items()),
        **{key: str(value) for key, value in config.items() if key != "block_types"},
        "parameters": "{total:,} = {embedding:,} embedding + {other:,}".format(
            **facts["parameters"]
        ),
        "weights": f"{facts['weights']['bytes']:,} bytes, {', '.join(facts['weights']['dtypes'])}",
        "state": f"{state['most']:,} bytes a sequence in memory",
        "saved state": (
            f"{state['fixed']:,} + {state['per_token']:,} x min(tokens, {state['window']:,}) bytes"
            if state["window"]
            else f"{state['fixed']:,} bytes"
        ),
        "memory": ", ".join(f"{name}: {size:,} bytes" for name, size in facts["memory"].items()),
        "kernels": ", ".join(f"{op}: {name}" for op, name in facts["kernels"].items()),
        "decode on a GPU": facts["decode_on_a_gpu"],
        "versions": ", ".join(f"{name} {version}" for name, version in facts["versions"].items()),
    }
    if (mends := _compile_more()) is not None:
        rows["to compile them"] = mends
    if "digest" in facts:
        rows["digest"] = facts["digest"]
    for one in facts.get("adapters", ()):
        targets = ", ".join((*one["targets"], *one["whole"]))
        rows[f"adapter {one['name']}"] = f"{one['bytes']:,} bytes, rank {one['rank']}: {targets}"
    for number, note in enumerate(facts["notes"]):
        rows[f"note {number + 1}"] = note
    for key, value in rows.items():
        click.echo(f"{key:<24}{value}")
    click.echo(f"\n{'shape':<24}{'count':<8}tensor")
    for name, (shape, count) in _grouped(facts["tensors"], tensors).items():
        click.echo(f"{' x '.join(map(str, shape)):<24}{count:<8}{name}")


def _grouped(shapes: Mapping[str, list[int]], every: bool) -> dict[str, tuple[list[int], int]]:
    """Return name -> (shape, count); unless `every`, tensors that differ only in their layer are
    one line."""
    out: dict[str, tuple[list[int], int]] = {}
    for name, shape in shapes.items():
        parts = name.split(".")
        if not every and parts[:2] == ["model", "layers"]:
            parts[2] = "*"
        key = ".".join(parts)
        out[key] = (shape, out[key][1] + 1 if key in out else 1)
    return out


def _product(shape: list[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
