"""The tensors of a model: their Hugging Face names and their shapes, from the config alone."""

from __future__ import annotations

from griffin.model import GriffinConfig

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


def tensor_shapes(config: GriffinConfig) -> dict[str, tuple[int, ...]]:
    """Return every parameter's shape by its name in the state dict, in the order of the layers."""
    width, lru, mlp = config.width, config.lru_width, config.mlp_width
    kv_width = config.num_kv_heads * config.head_dim
    gates = config.num_gate_blocks
    block = lru // gates
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (config.vocab_size, width)}
    for number, kind in enumerate(config.block_types):
        layer = f"model.layers.{number}."
        shapes[layer + "temporal_pre_norm.weight"] = (width,)
        temporal = layer + "temporal_block."
        if kind == "recurrent":
            for branch in ("linear_x", "linear_y"):
                shapes[f"{temporal}{branch}.weight"] = (lru, width)
                shapes[f"{temporal}{branch}.bias"] = (lru,)
            shapes[temporal + "conv_1d.weight"] = (lru, 1, config.conv_width)
            shapes[temporal + "conv_1d.bias"] = (lru,)
            shapes[temporal + "rg_lru.recurrent_param"] = (lru,)
            for gate in ("input_gate", "recurrent_gate"):
                shapes[f"{temporal}rg_lru.{gate}_weight"] = (gates, block, block)
                shapes[f"{temporal}rg_lru.{gate}_bias"] = (gates, block)
            shapes[temporal + "linear_out.weight"] = (width, lru)
            shapes[temporal + "linear_out.bias"] = (width,)
        else:
            for projection, out in (("q_proj", width), ("k_proj", kv_width), ("v_proj", kv_width)):
                shapes[f"{temporal}{projection}.weight"] = (out, width)
                if config.attention_bias:
                    shapes[f"{temporal}{projection}.bias"] = (out,)
            shapes[temporal + "o_proj.weight"] = (width, width)
            shapes[temporal + "o_proj.bias"] = (width,)
        shapes[layer + "channel_pre_norm.weight"] = (width,)
        for projection in ("gate_proj", "up_proj"):
            shapes[f"{layer}mlp_block.{projection}.weight"] = (mlp, width)
            shapes[f"{layer}mlp_block.{projection}.bias"] = (mlp,)
        shapes[layer + "mlp_block.down_proj.weight"] = (width, mlp)
        shapes[layer + "mlp_block.down_proj.bias"] = (width,)
    shapes["model.final_norm.weight"] = (width,)
    if not config.tie_embeddings:
        shapes[HEAD] = (config.vocab_size, width)
    return shapes


def head_name(config: GriffinConfig) -> str:
    """Return the name of the matrix that gives the logits."""
    return EMBEDDING if config.tie_embeddings else HEAD


def matrix_names(config: GriffinConfig) -> list[str]:
    """Return the names of what quantization packs: weights of linear layers, embedding and head."""
    return [
        name
        for name, shape in tensor_shapes(config).items()
        if len(shape) == 2 and name.endswith(".weight")
    ]
