"""A state that was learnt: what a model has read before a text's first words, without any text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from griffin.model.config import GriffinConfig
from griffin.model.griffin import Griffin
from griffin.model.state import AttentionState, LayerState, RecurrentState, State


@dataclass(frozen=True, eq=False, kw_only=True)
class TunedState:
    """The state that stands for the first token of every text, BOS.

    A text behind it is read from its second token on, at position n: position 0, where every layer
    forgets, is never met. Of R recurrent and A attention layers, in the model's order:

    lru:     (R, E) float32 (float64 of a float64 model), h of each.
    conv:    (R, W-1, E), the last inputs of each convolution, oldest first.
    k, v:    (A, n, K, H), keys and values of the positions 0 to n - 1, keys already rotated. n is
             at least 1 and, where there is attention, at most its window.
    config:  of the model that it was learnt on.
    weights: digest of that model's weights. adapter: of the adapter that read, "" for none.
    name:    what that model was called, for people.
    """

    config: GriffinConfig
    weights: str
    adapter: str = ""
    name: str = ""
    lru: Tensor
    conv: Tensor
    k: Tensor
    v: Tensor

    @classmethod
    def begin(
        cls,
        model: Griffin,
        ids: Sequence[int],
        *,
        weights: str,
        adapter: str = "",
        name: str = "",
    ) -> TunedState:
        """Return the state of which nothing was learnt yet: the one that these ids lead to, to the
        bit, with a key for each. After BOS alone it equals no state at all.

        ids: BOS, and what else is to have been read at first, as by the model's first adapter.
        Raises ValueError for no ids, and for more than the window holds.
        """
        config, n = model.config, len(ids)
        _check_keys(n, config)
        with torch.no_grad():
            _, state = model.trunk(torch.tensor([list(ids)], device=model.device))
        recurrent = [layer for layer in state.layers if isinstance(layer, RecurrentState)]
        rings = [layer for layer in state.layers if isinstance(layer, AttentionState)]
        parts = {
            "lru": [layer.lru[0] for layer in recurrent],
            "conv": [layer.conv[0] for layer in recurrent],
            "k": [ring.k[0, :n] for ring in rings],
            "v": [ring.v[0, :n] for ring in rings],
        }
        nothing = model.model.final_norm.weight.detach()
        tensors = {
            name: torch.stack(part) if part else nothing.new_zeros(tuned_shapes(config, n)[name])
            for name, part in parts.items()
        }
        return cls(config=config, weights=weights, adapter=adapter, name=name, **tensors)

    @property
    def keys(self) -> int:
        """n, the position at which the text goes on."""
        return self.k.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors: 468,992 at 2B in bfloat16 with one key, 8,192 more for each."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by their names."""
        return {"lru": self.lru, "conv": self.conv, "k": self.k, "v": self.v}

    def as_state(
        self,
        batch: int = 1,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> State:
        """Return the state of `batch` texts that begin with it, each with its own memory.

        dtype: the model's; if omitted, that of `conv`. device: where they lie if omitted.
        Gradients flow into its tensors.
        """
        dtype = dtype or self.conv.dtype
        wide = torch.promote_types(dtype, torch.float32)
        slots = self.config.attention_window_size - self.keys

        def rows(tensor: Tensor, dtype: torch.dtype) -> Tensor:
            # Narrowed last: what the texts' gradients add up to is not rounded on the way.
            return tensor.to(device).expand(batch, *tensor.shape).to(dtype, copy=True)

        def layers() -> Iterator[LayerState]:
            recurrent, attention = iter(range(len(self.lru))), iter(range(len(self.k)))
            for kind in self.config.block_types:
                if kind == "recurrent":
                    at = next(recurrent)
                    yield RecurrentState(rows(self.conv[at], dtype), rows(self.lru[at], wide))
                else:
                    at = next(attention)
                    ring = (rows(part[at], dtype) for part in (self.k, self.v))
                    yield AttentionState(
                        *(torch.nn.functional.pad(t, (0, 0, 0, 0, 0, slots)) for t in ring)
                    )

        found = tuple(layers())
        pos = torch.full((batch,), self.keys, dtype=torch.int64, device=found[0][0].device)
        return State(pos, found)

    def to(self, dtype: torch.dtype) -> TunedState:
        """Return it in a model's type; h stays float32 or wider."""
        wide = torch.promote_types(dtype, torch.float32)
        kinds = {name: wide if name == "lru" else dtype for name in self.tensors()}
        moved = {name: t.detach().to("cpu", kinds[name]) for name, t in self.tensors().items()}
        return replace(self, **moved)

    def digest(self) -> str:
        """Return a hash of its numbers, by which what was read behind it is known."""
        total = hashlib.sha256()
        for name, tensor in self.tensors().items():
            tensor = tensor.detach().cpu().contiguous()
            total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            total.update(tensor.flatten().view(torch.uint8).numpy().data)
        return total.hexdigest()

    def check(self, config: GriffinConfig, weights: str, adapter: str = "") -> None:
        """Raise ValueError, naming what does not fit, unless this is a state for such a model."""
        if config != self.config:
            own, given = self.config.to_dict(), config.to_dict()
            unlike = [
                f"{name} {own[name]!r:.60}, {given[name]!r:.60} here"
                for name in own
                if own[name] != given[name]
            ]
            raise ValueError(
                f"the tuned state was learnt on a model of another shape ({'; '.join(unlike)})"
            )
        if weights != self.weights:
            raise ValueError(
                f"the tuned state was learnt on other weights ({self.weights[:12]}..., here"
                f" {weights[:12]}...); load the model that it was learnt on, or learn it again"
            )
        if adapter != self.adapter:
            raise ValueError(
                f"the tuned state was learnt with {_named(self.adapter)}, and the model reads with"
                f" {_named(adapter)}"
            )
        self.check_tensors()

    def check_tensors(self) -> None:
        """Raise ValueError unless the tensors are those of its config, all finite numbers."""
        _check_keys(self.k.shape[1] if self.k.dim() == 4 else 0, self.config)
        for name, shape in tuned_shapes(self.config, self.keys).items():
            tensor = self.tensors()[name]
            if tuple(tensor.shape) != shape:
                raise ValueError(f"the tuned state's {name} is {tuple(tensor.shape)}, not {shape}")
            if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
                raise ValueError(
                    f"the tuned state's {name} ({tensor.dtype}) is not all finite numbers"
                )


def tuned_shapes(config: GriffinConfig, n: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a tuned state's tensors with n keys, by their names."""
    recurrent, attention = (config.block_types.count(kind) for kind in ("recurrent", "attention"))
    ring = (attention, n, config.num_kv_heads, config.head_dim)
    conv = (recurrent, config.conv_width - 1, config.lru_width)
    return {"lru": (recurrent, config.lru_width), "conv": conv, "k": ring, "v": ring}


def _check_keys(n: int, config: GriffinConfig) -> None:
    if n < 1:
        raise ValueError(
            f"a tuned state has n = {n} keys; it needs at least 1, because it stands at position n"
            " and at position 0 every layer forgets"
        )
    if "attention" in config.block_types and n > config.attention_window_size:
        raise ValueError(
            f"a tuned state has n = {n} keys; this model's window holds"
            f" {config.attention_window_size}"
        )


def _named(adapter: str) -> str:
    return f"the adapter {adapter[:12]}..." if adapter else "no adapter"
