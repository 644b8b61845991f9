"""Make the golden adapter anew: `python -m tests.golden.make_adapter` (needs peft, transformers).

PEFT puts it on the golden checkpoint in transformers, writes it, and gives the logits: nothing of
ours takes part.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
TARGETS = [
    *("linear_x", "linear_y", "linear_out", "q_proj", "k_proj", "v_proj", "o_proj"),
    *("gate_proj", "up_proj", "down_proj"),
]


def make(folder: Path) -> None:
    """Write an adapter of PEFT, and the logits that it gives there, into a folder of that name."""
    import peft  # pyright: ignore[reportMissingImports]
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    base: Any = AutoModelForCausalLM.from_pretrained(HERE / "huggingface", dtype=torch.float32)
    lora = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=2,
        lora_alpha=3,
        use_rslora=True,
        lora_dropout=0.1,
        target_modules=TARGETS,
        modules_to_save=["rg_lru"],
        init_lora_weights=False,
    )
    model = peft.get_peft_model(base, lora).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    # Within the window: beyond it transformers shows a token one key fewer.
    tokens = torch.randint(base.config.vocab_size, (2, 8))
    shutil.rmtree(folder, ignore_errors=True)
    # A folder of this machine is no name that others have.
    model.peft_config["default"].base_model_name_or_path = "tests/golden/huggingface"
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    with torch.no_grad():
        expected = {"tokens": tokens, "logits": model(tokens, use_cache=False).logits}
    save_file(expected, folder / "expected.safetensors")


if __name__ == "__main__":
    make(HERE / "adapter")
