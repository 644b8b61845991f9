"""Make trl_losses.json anew: `python -m tests.golden.make_trl` (needs trl 1.16, transformers).

Its numbers are those of TRL's trainers, from log-probabilities, lengths and rewards that are drawn
here: the trainers' own code runs, over a model that hands back what was drawn. Nothing of ours
takes part.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

FILE = Path(__file__).parent / "trl_losses.json"
COMMAND = "python -m tests.golden.make_trl"
KINDS = ("sigmoid", "ipo", "sigmoid_norm")
# What a trainer's `_generate` returns, of samples of one token.
_GENERATED: dict[str, Any] = {
    "rloo": lambda count: ([[1]] * count, [[2]] * count, [""] * count),
    "grpo": lambda count: ([[1]] * count, [[2]] * count, None, [""] * count, *[None] * 4),
}
MISSING = None  # a reward of NaN, which JSON does not have
REWARDS = [
    *([0.5, 0.25, 1.0, -2.0], [0.0, 0.0, 0.0, 1.0], [2.0, 2.0, 2.0, 2.0]),
    *([1.0, MISSING, 3.0, 0.5], [MISSING, MISSING, MISSING, 1.0]),
]


def draw(seed: int) -> dict[str, Any]:
    """Return log-probabilities of eight answers of one to six tokens, by three models, and more.

    Those of the policy are of `targets` among 11 words by `logits`.
    """
    random = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 7, (8,), generator=random)
    mask = torch.arange(6) < lengths[:, None]
    logits = 2 * torch.randn(8, 6, 11, generator=random)
    targets = torch.randint(11, (8, 6), generator=random)
    policy = logits.log_softmax(-1).gather(-1, targets[..., None]).squeeze(-1) * mask
    near = [policy + 0.3 * torch.randn(8, 6, generator=random) * mask for _ in range(2)]
    return {
        "logits": logits,
        "targets": targets,
        "policy": policy,
        "old": near[0],
        "reference": near[1],
        "mask": mask,
        "advantages": torch.randn(8, generator=random),
    }


def theirs(case: dict[str, Any], beta: float, kl: float, clip: float) -> dict[str, Any]:
    """Return TRL's losses of a drawn batch, and their gradients by the policy's tokens.

    Of preferences the first four answers are the chosen ones, the others the rejected.
    """
    losses = {f"dpo {kind}": lambda p, kind=kind: _dpo(p, case, beta, kind) for kind in KINDS}
    losses["sft nll"] = lambda p: _sft(p, case)
    losses["grpo grpo"] = lambda p: _grpo(p, case, 0.0, clip)
    losses["grpo grpo kl"] = lambda p: _grpo(p, case, kl, clip)
    losses["rloo"] = lambda p: _rloo(p, case, clip)
    found = {}
    for name, loss in losses.items():
        policy = case["policy"].clone().requires_grad_()
        value = loss(policy)
        [gradient] = torch.autograd.grad(value, policy)
        found[name] = {"loss": value.item(), "gradient": gradient}
    return found


def _dpo(policy: Tensor, case: dict[str, Any], beta: float, kind: str) -> Tensor:
    from trl.trainer.dpo_trainer import DPOTrainer  # pyright: ignore[reportMissingImports]

    mask = torch.cat([torch.zeros(8, 1), case["mask"]], dim=1).long()  # one token of a prompt
    chosen, rejected = (case["reference"] * case["mask"]).sum(1).chunk(2)
    trainer = _trainer(
        loss_types=[kind],
        loss_weights=[1.0],
        beta=beta,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        use_weighting=False,
    )
    inputs = {
        "input_ids": torch.ones_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "ref_chosen_logps": chosen,
        "ref_rejected_logps": rejected,
    }
    said = SimpleNamespace(
        log_probs=policy * case["mask"],
        entropy=torch.zeros_like(policy),
        mean_logits=torch.zeros_like(policy),
        is_top1=torch.zeros_like(case["mask"]),
    )
    return DPOTrainer._compute_loss(trainer, lambda **_: said, inputs, False)


def _sft(policy: Tensor, case: dict[str, Any]) -> Tensor:
    from trl.trainer.sft_trainer import SFTTrainer  # pyright: ignore[reportMissingImports]

    args = SimpleNamespace(loss_type="nll", average_tokens_across_devices=False)
    trainer = _trainer(compute_loss_func=None, label_smoother=None, args=args)
    said = SimpleNamespace(
        log_probs=policy * case["mask"],
        label_mask=case["mask"],
        entropy=torch.zeros_like(policy),
        is_top1=torch.zeros_like(case["mask"]),
    )
    labels = torch.ones(8, 7).long()
    inputs = {"input_ids": labels, "labels": labels, "attention_mask": labels}
    return SFTTrainer.compute_loss(trainer, lambda **_: said, inputs)


def _grpo(policy: Tensor, case: dict[str, Any], kl: float, clip: float) -> Tensor:
    from trl.trainer.grpo_trainer import GRPOTrainer  # pyright: ignore[reportMissingImports]

    trainer = _trainer(
        loss_type="grpo",
        beta=kl,
        epsilon_low=clip,
        epsilon_high=clip,
        importance_sampling_level="token",
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None),
        _get_per_token_logps_and_entropies=lambda *_, **__: (policy, policy.detach(), None),
    )
    inputs = _samples(case) | {
        "old_per_token_logps": case["old"],
        "ref_per_token_logps": case["reference"],
    }
    return GRPOTrainer._compute_loss(trainer, None, inputs)


def _rloo(policy: Tensor, case: dict[str, Any], clip: float) -> Tensor:
    from trl.trainer.rloo_trainer import RLOOTrainer  # pyright: ignore[reportMissingImports]

    trainer = _trainer(
        epsilon_low=clip,
        epsilon_high=clip,
        _get_per_token_logps_and_entropies=lambda *_, **__: (policy, policy.detach(), None),
    )
    inputs = _samples(case) | {"old_logps": (case["old"] * case["mask"]).sum(1)}
    return RLOOTrainer._compute_loss(trainer, None, inputs)


def advantages(kind: str, kl: float = 0.0) -> Tensor:
    """Return TRL's advantages of `REWARDS`, (5, 4): of "grpo", or of "rloo" with the divergence of
    the drawn batches' samples, `old` from `reference`, taken from the rewards."""
    from trl.trainer import grpo_trainer, rloo_trainer  # pyright: ignore[reportMissingImports]

    rewards = torch.tensor([[r if r is not None else torch.nan for r in g] for g in REWARDS])
    count, group = rewards.numel(), rewards.shape[1]
    said = {"old": _drifts(count), "reference": torch.zeros(count, 1)}
    trainer = _trainer(
        args=SimpleNamespace(
            per_device_train_batch_size=count,
            gradient_checkpointing_kwargs=None,
            steps_per_generation=1,
            gradient_accumulation_steps=1,
        ),
        beta=kl,
        ref_model="reference",
        num_generations=group,
        num_iterations=1,
        scale_rewards="group",
        normalize_advantages=False,
        multi_objective_aggregation="sum_then_normalize",
        reward_clip_range=None,
        reward_weights=torch.ones(1),
        reward_func_names=["reward"],
        mask_truncated_completions=False,
        pad_to_multiple_of=None,
        eos_token_ids=[0],
        use_vllm=False,
        tools=None,
        environment_factories=None,
        environments=None,
        log_multimodal=False,
        _tokenizer=SimpleNamespace(pad_token_id=0),
        processing_class=SimpleNamespace(batch_decode=lambda ids, **_: [""] * len(ids)),
        _pending_extra_logs={},
        _pending_metrics={},
        _logs=defaultdict(list) | {"rewards": defaultdict(list)},
        _generate=lambda prompts: _GENERATED[kind](count),
        _calculate_rewards=lambda *_: rewards.reshape(-1, 1),
        _get_per_token_logps_and_entropies=lambda model, *_, **__: (
            said["reference" if model == "reference" else "old"],
            None,
            None,
        ),
    )
    kinds = {"grpo": grpo_trainer.GRPOTrainer, "rloo": rloo_trainer.RLOOTrainer}
    inputs = [{"prompt": "p"}] * count
    found = kinds[kind]._generate_and_score_completions(trainer, inputs)["advantages"]
    return found.reshape(rewards.shape)


def _drifts(count: int) -> Tensor:
    return torch.randn(count, 1, generator=torch.Generator().manual_seed(5))


def _samples(case: dict[str, Any]) -> dict[str, Any]:
    ids = torch.ones(8, 6).long()
    return {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1],
        "completion_ids": ids,
        "completion_mask": case["mask"].long(),
        "advantages": case["advantages"],
    }


def _trainer(**given: Any) -> Any:
    """Return what stands for a trainer on one process, so that its method can be asked alone."""
    same = SimpleNamespace(
        device=torch.device("cpu"),
        gather=lambda x: x,
        gather_for_metrics=lambda x: x,
        reduce=lambda x, reduction: x,
        num_processes=1,
        process_index=0,
        parallelism_config=None,
    )
    return SimpleNamespace(
        model=SimpleNamespace(training=True, is_gradient_checkpointing=False),
        accelerator=same,
        aux_loss_enabled=False,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
        **given,
    )


def main() -> None:
    import trl  # pyright: ignore[reportMissingImports]

    settings = {"beta": 0.1, "kl": 0.04, "clip": 0.2}
    case = draw(0)
    found = theirs(case, **settings)
    values = {
        "trl": trl.__version__,
        "command": COMMAND,
        "settings": settings,
        "case": {name: tensor.tolist() for name, tensor in case.items()},
        "losses": {
            name: {"loss": each["loss"], "gradient": each["gradient"].tolist()}
            for name, each in found.items()
        },
        "rewards": REWARDS,
        "drifts": _drifts(len(REWARDS) * 4).reshape(-1, 4).tolist(),
        "advantages": {
            "grpo": advantages("grpo").tolist(),
            "rloo": advantages("rloo").tolist(),
            "rloo kl": advantages("rloo", settings["kl"]).tolist(),
        },
    }
    FILE.write_text(json.dumps(values) + "\n")


if __name__ == "__main__":
    main()
