"""An adapter as a value: its config and its tensors, by the names of the model's layers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from griffin.adapters.base_mark import BaseMark
from griffin.adapters.config import TARGETS, WHOLE, LoraConfig
from griffin.checkpoints import Checkpoint
from griffin.model import Griffin, GriffinConfig

A, B = ".lora_A", ".lora_B"


@dataclass(frozen=True)
class Adapter:
    """A LoRA for models of one shape.

    name:    what messages and requests call it.
    tensors: `LAYER.lora_A` (rank, I) and `LAYER.lora_B` (O, rank) of every target, and the
             parameters of modules that it keeps whole, under their own names.
    mark:    of the weights that it was trained on; None where nobody said.
    """

    name: str
    config: LoraConfig
    tensors: Mapping[str, Tensor]
    mark: BaseMark | None = None

    @classmethod
    def new(
        cls, name: str, config: LoraConfig, shape: GriffinConfig, generator: torch.Generator
    ) -> Adapter:
        """Return an adapter that changes nothing yet, in float32: A drawn as PEFT draws it
        (uniform within 1 / sqrt(I)), B zero.

        Modules kept whole are not in it: they begin as the model's (`adapt`).
        """
        tensors = {}
        for key, size in expected(config, shape).items():
            if key.endswith(A):
                bound = size[1] ** -0.5
                tensors[key] = torch.empty(size).uniform_(-bound, bound, generator=generator)
            elif key.endswith(B):
                tensors[key] = torch.zeros(size)
        return cls(name, config, tensors)

    def digest(self) -> str:
        """Return a hash of all that changes an answer; the name does not."""
        # Dropout is training's alone.
        settings = asdict(replace(self.config, dropout=0.0))
        total = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for key in sorted(self.tensors):
            tensor = self.tensors[key].detach().cpu().contiguous()
            total.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            total.update(tensor.view(torch.uint8).numpy().data)
        return total.hexdigest()

    def check(self, shape: GriffinConfig) -> None:
        """Raise ValueError, naming what does not fit, unless this is an adapter for a model."""
        wanted = expected(self.config, shape)
        if missing := [key for key in wanted if key not in self.tensors]:
            raise ValueError(f"adapter {self.name} lacks {_some(missing)}")
        if unknown := [key for key in self.tensors if key not in wanted]:
            raise ValueError(
                f"adapter {self.name} has {_some(unknown)}, which this model and the adapter's"
                " config do not have"
            )
        for key, size in wanted.items():
            tensor = self.tensors[key]
            if tuple(tensor.shape) != size:
                raise ValueError(
                    f"adapter {self.name}: {key} is {tuple(tensor.shape)}; for this model it must"
                    f" be {size}"
                )
            if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
                raise ValueError(
                    f"adapter {self.name}: {key} ({tensor.dtype}) is not all finite numbers"
                )


def expected(config: LoraConfig, shape: GriffinConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of an adapter for a model of a shape.

    Raises ValueError for a target or whole module that no block of the model has.
    """
    found: dict[str, tuple[int, ...]] = {}
    for name, parameters in _modules(shape):
        leaf = name.rpartition(".")[2]
        if leaf in config.targets:
            outputs, inputs = parameters["weight"]
            found[name + A], found[name + B] = (config.rank, inputs), (outputs, config.rank)
        elif leaf in config.whole:
            found |= {f"{name}.{key}": size for key, size in parameters.items()}
    if not found:
        wanted = ", ".join((*config.targets, *config.whole))
        raise ValueError(f"no layer of this model is one of the adapter's: {wanted}")
    return found


def check_base(adapters: Sequence[Adapter], source: Checkpoint, name: str) -> None:
    """Raise ValueError, naming both, for an adapter that was trained on other weights than these.

    name: what the checkpoint is called. Adapters without a mark, such as PEFT's, are passed over.
    """
    marked = [(adapter.name, adapter.mark) for adapter in adapters if adapter.mark is not None]
    here = BaseMark.of(source, name) if marked else None
    for adapter, mark in marked:
        assert here is not None
        if differing := mark.unlike(here):
            raise ValueError(
                f"adapter {adapter} was trained on {mark.name or 'other weights'}; {name} is"
                f" another model of the same shape (its {differing} differ). Load the model that"
                ' the adapter was trained on; docs/adapters.md, "Which base", says how to use it'
                " here all the same"
            )


@lru_cache(maxsize=4)
def _modules(shape: GriffinConfig) -> tuple[tuple[str, dict[str, tuple[int, ...]]], ...]:
    """Return the names of a model's layers that an adapter can change, each with the shapes of its
    parameters. Several adapters of one load ask, each more than once."""
    with torch.device("meta"):
        model = Griffin(shape)
    return tuple(
        (name, {key: tuple(parameter.shape) for key, parameter in module.named_parameters()})
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in (*TARGETS, *WHOLE)
    )


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more
