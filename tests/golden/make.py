"""Make the golden checkpoints anew: `python -m tests.golden.make` (needs recurrentgemma and
transformers).

Each is written by the implementation it comes from, with that implementation's own writer and its
own logits: nothing of ours takes part, so they pin our readers and our model without the rivals
            being installed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

HERE = Path(__file__).parent
ROWS, STEPS, VOCAB, WINDOW = 2, 40, 61, 8
SHAPE = {"width": 32, "mlp_expanded_width": 48, "num_heads": 2, "lru_width": 24}


def official_config() -> object:
    from recurrentgemma import common

    r, a = common.TemporalBlockType.RECURRENT, common.TemporalBlockType.ATTENTION
    return common.GriffinConfig(
        vocab_size=VOCAB,
        block_types=(r, a, r),
        embeddings_scale_by_sqrt_dim=True,
        attention_window_size=WINDOW,
        logits_soft_cap=4.0,
        **SHAPE,
    )


def inputs() -> tuple[Tensor, Tensor]:
    """Tokens and positions: a document longer than three windows, and two packed ones."""
    tokens = torch.randint(VOCAB, (ROWS, STEPS), generator=torch.Generator().manual_seed(11))
    packed = torch.cat([torch.arange(13), torch.arange(STEPS - 13)])
    return tokens, torch.stack([torch.arange(STEPS), packed])


def shake(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Move biases and norms away from zero."""
    return tensor + 0.2 * torch.randn(tensor.shape, generator=generator)


def keep(folder: Path, logits: Tensor) -> None:
    tokens, positions = inputs()
    tensors = {
        "tokens": tokens,
        "positions": positions,
        "logits": logits.detach().float().contiguous(),
    }
    save_file(tensors, folder / "expected.safetensors")
    config = {
        "attention_window_size": WINDOW,
        "logits_soft_cap": 4.0,
        "scale_embeddings": True,
    }
    (folder / "config-given.json").write_text(json.dumps(config) + "\n", encoding="utf-8")


def make_torch(folder: Path) -> None:
    import recurrentgemma.torch as official

    model = official.Griffin(official_config(), device="cpu", dtype=torch.float32)
    generator = torch.Generator().manual_seed(5)
    model.load_state_dict({name: shake(t, generator) for name, t in model.state_dict().items()})
    torch.save(model.state_dict(), folder / "toy.pt")
    keep(folder, model(*inputs(), None)[0])


def make_flax(folder: Path) -> None:
    import jax
    import jax.numpy as jnp
    import orbax.checkpoint
    import recurrentgemma.jax as official

    model = official.Griffin(official_config(), dtype=jnp.float32)
    tokens, positions = (jnp.asarray(x.numpy()) for x in inputs())
    params = model.init(jax.random.key(3), tokens, positions)["params"]
    generator = torch.Generator().manual_seed(6)
    params = jax.tree.map(
        lambda x: jnp.asarray(shake(torch.tensor(x.tolist()), generator).numpy()), params
    )
    orbax.checkpoint.PyTreeCheckpointer().save(folder.absolute() / "toy", params)
    # Orbax notes the folder it wrote to, which is nobody else's business.
    (folder / "toy" / "commit_success.txt").write_text("Checkpoint commit was successful\n")
    logits, _ = model.apply({"params": params}, tokens, positions)
    keep(folder, torch.tensor(logits.tolist()))


def make_huggingface(folder: Path) -> None:
    from transformers import RecurrentGemmaConfig, RecurrentGemmaForCausalLM

    config = RecurrentGemmaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=96,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_hidden_layers=3,
        lru_width=32,
        attention_window_size=64,
        logits_soft_cap=4.0,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 700.0, "partial_rotary_factor": 0.5},
    )
    model = RecurrentGemmaForCausalLM(config)
    generator = torch.Generator().manual_seed(7)
    model.load_state_dict({name: shake(t, generator) for name, t in model.state_dict().items()})
    model.save_pretrained(folder)
    tokens, _ = inputs()
    keep(folder, model(tokens, use_cache=False).logits)


if __name__ == "__main__":
    for make in (make_torch, make_flax, make_huggingface):
        target = HERE / make.__name__.removeprefix("make_")
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        make(target)
