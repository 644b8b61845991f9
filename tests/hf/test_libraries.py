"""PEFT, TRL and lm-eval on our trunk, each in a process of its own where ours is registered.

They need an environment of their own, in which griffin can be imported:
pip install torch==2.13.0 'transformers==5.23.0' peft trl lm-eval pytest click rich
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.toy_folder import write_toy

MISSING = [name for name in ("peft", "trl", "lm_eval", "datasets") if find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)}: see the top of the file"),
]
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/transformers.md"
NAME = "google/recurrentgemma-2b"

BEGIN = """
import json, sys
from pathlib import Path
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
import griffin, griffin.hf

torch.set_num_threads(1)
griffin.hf.register()
folder = Path(sys.argv[1])
def fresh():
    model = AutoModelForCausalLM.from_pretrained(folder / "toy")
    assert type(model) is griffin.hf.RecurrentGemmaForCausalLM
    return model
tokenizer = AutoTokenizer.from_pretrained(folder / "toy")
plain = griffin.load_model(folder / "toy")
ids = torch.tensor([tokenizer("import json").input_ids])
"""

PEFT = """
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model

for target in ("all-linear", ["q_proj", "linear_x", "lm_head"]):
    lora = LoraConfig(
        task_type="CAUSAL_LM", r=4, target_modules=target, init_lora_weights=False
    )
    tuned = get_peft_model(fresh(), lora).eval()
    with torch.no_grad():
        expected = tuned(ids).logits
        assert not torch.equal(expected, plain(ids)[0])
        with tuned.disable_adapter():
            assert torch.equal(tuned(ids).logits, plain(ids)[0])
    tuned.save_pretrained(folder / "adapter")
    again = PeftModel.from_pretrained(fresh(), folder / "adapter").eval()
    found = AutoPeftModelForCausalLM.from_pretrained(folder / "adapter").eval()
    with torch.no_grad():
        assert torch.equal(again(ids).logits, expected)
        assert torch.equal(found(ids).logits, expected)
    assert again.generate(ids, max_new_tokens=5).shape == (1, ids.shape[1] + 5)
    if target == "all-linear":
        # Of the name that it has on transformers' own class.
        query = "base_model.model.model.layers.2.temporal_block.q_proj"
        again.get_parameter(f"{query}.lora_A.default.weight")
        again.merge_and_unload().save_pretrained(folder / "merged")
        merged = griffin.load_model(folder / "merged")
        torch.testing.assert_close(merged(ids)[0], expected, atol=1e-4, rtol=1e-4)
"""

SFT = """
from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

texts = [f"def f(x):\\n    return x + {n}" + "\\n    y = x" * (n % 5) for n in range(64)]

def losses(model, texts=texts, peft_config=None, **arguments):
    arguments = {"max_steps": 10, "learning_rate": 1e-2} | arguments
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"text": texts}),
        peft_config=peft_config,
        args=SFTConfig(
            str(folder / "sft"), report_to=[], use_cpu=True, bf16=False, logging_steps=1,
            per_device_train_batch_size=4, disable_tqdm=True, **arguments,
        ),
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], trainer

def near(found, expected):
    assert len(found) == len(expected)
    assert all(abs(a - b) < 1e-3 for a, b in zip(found, expected)), (found, expected)

usual, _ = losses(fresh())
assert len(usual) == 10 and usual[-1] < usual[0] / 4
# The first is what our own logits say of these texts.
nats = count = 0
for text in texts[:4]:
    row = torch.tensor([[*tokenizer(text).input_ids, tokenizer.eos_token_id]])
    logits = plain(row)[0][0, :-1]
    nats += torch.nn.functional.cross_entropy(logits, row[0, 1:], reduction="sum").item()
    count += row.shape[1] - 1
near(losses(fresh(), texts[:4], max_steps=1)[0], [nats / count])
# However rows are laid, the steps are the same.
near(losses(fresh(), padding_free=True, max_length=None)[0], usual)
near(losses(fresh(), activation_checkpointing=True)[0], usual)
packed, _ = losses(fresh(), packing=True, max_length=64)
assert packed[-1] < packed[0] / 4
# From a path, TRL asks transformers by the name of the class; with an adapter.
adapted, trainer = losses(
    str(folder / "toy"), peft_config=LoraConfig(r=4, target_modules="all-linear")
)
assert type(trainer.model.base_model.model) is griffin.hf.RecurrentGemmaForCausalLM
assert adapted[-1] < adapted[0] / 2
trainer.save_model(folder / "adapter")
assert (folder / "adapter/adapter_model.safetensors").is_file()
"""

DPO = """
from datasets import Dataset
from peft import LoraConfig
from trl import DPOConfig, DPOTrainer

pairs = Dataset.from_dict({
    "prompt": [f"def f{n}(" for n in range(32)],
    "chosen": ["x):\\n    return x"] * 32,
    "rejected": ["y = 1"] * 32,
})
for adapter in (None, LoraConfig(r=4, target_modules="all-linear")):
    trainer = DPOTrainer(
        model=fresh(),
        processing_class=tokenizer,
        train_dataset=pairs,
        peft_config=adapter,
        args=DPOConfig(
            str(folder / "dpo"), max_steps=10, learning_rate=1e-3, report_to=[], use_cpu=True,
            bf16=False, logging_steps=1, per_device_train_batch_size=4, disable_tqdm=True,
        ),
    )
    if adapter is None:
        assert type(trainer.ref_model) is griffin.hf.RecurrentGemmaForCausalLM
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    # The reference is the same model to rounding: nothing is preferred yet.
    assert abs(steps[0]["loss"] - 0.693147) < 1e-4 and abs(steps[0]["rewards/margins"]) < 1e-4
    assert len(steps) == 10 and steps[-1]["loss"] < 0.6 and steps[-1]["rewards/accuracies"] == 1
"""

EVAL = """
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

questions = ["def f(x):", "class A:", "import json", "x ="]
choices = [" pass", " return x"]
with (folder / "owls.jsonl").open("w") as file:
    for number, question in enumerate(questions):
        line = {"question": question, "choices": choices, "answer": number % 2}
        print(json.dumps(line), file=file)
common = f'''
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/owls.jsonl}}}}
test_split: test
doc_to_text: "{{{{question}}}}"
target_delimiter: ""
'''
(folder / "owls.yaml").write_text(common + '''
task: owls
output_type: multiple_choice
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}]
''')
(folder / "says.yaml").write_text(common + '''
task: says
output_type: generate_until
doc_to_target: "x"
generation_kwargs: {until: ["</never>"], max_gen_toks: 8, do_sample: false}
metric_list: [{metric: exact_match}]
''')
tasks = {"tasks": ["owls", "says"], "task_manager": TaskManager(include_path=str(folder))}
llm = griffin.load(folder / "toy")
given = HFLM(griffin.hf.from_griffin(llm), tokenizer=tokenizer, batch_size=4, add_bos_token=True)
path = {"model": "hf", "model_args": f"pretrained={folder}/toy,dtype=auto,add_bos_token=True"}
for run in ({"model": given}, {**path, "batch_size": 4, "device": "cpu"}):
    samples = simple_evaluate(**run, **tasks, log_samples=True)["samples"]
    for sample in samples["owls"]:
        for choice, (score, likeliest) in zip(choices, sample["filtered_resps"], strict=True):
            context = llm.tokenizer.encode(sample["doc"]["question"])
            whole = llm.tokenizer.encode(sample["doc"]["question"] + choice)
            assert whole[: len(context)] == context
            expected = sum(llm.score(whole).logprobs[len(context) - 1 :])
            assert abs(score - expected) < 1e-3, (sample["doc"], score, expected)
    for sample in samples["says"]:
        ids = llm.tokenizer.encode(sample["doc"]["question"])
        answer = llm.generate(ids, temperature=0, max_tokens=8).ids
        # as lm-eval decodes: only what follows
        assert sample["resps"][0][0] == tokenizer.decode(answer, skip_special_tokens=True)
"""


def run(script, folder, **environment):
    """Run a script in a process and a folder of its own."""
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment,
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize("script", [PEFT, SFT, DPO, EVAL], ids=["peft", "sft", "dpo", "lm-eval"])
def test_it_runs_on_our_trunk(script, tmp_path):
    write_toy(tmp_path / "toy", vocab_size=480)
    run(BEGIN + script, tmp_path)


def blocks():
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("block", blocks(), ids=range(len(blocks())))
def test_the_page_runs_as_printed(block, tmp_path):
    """With a toy in the Hub's cache under the printed name, and a task of lm-eval's on the disk."""
    cache = tmp_path / "hub" / f"models--{NAME.replace('/', '--')}"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs/main").write_text("0" * 40)
    write_toy(cache / "snapshots" / ("0" * 40), vocab_size=480)
    assert NAME in block
    script = "import torch; torch.set_num_threads(1)\n" + block
    if "lambada_openai" in block:
        (tmp_path / "data.jsonl").write_text(json.dumps({"text": "def f(x): return x"}))
        (tmp_path / "task.yaml").write_text(
            f"task: lambada_openai\ndataset_path: json\n"
            f"dataset_kwargs: {{data_files: {{test: {tmp_path}/data.jsonl}}}}\n"
            'test_split: test\noutput_type: loglikelihood\ndoc_to_text: "{{text}}"\n'
            'doc_to_target: " more"\nmetric_list: [{metric: acc}]\n'
        )
        script = script.replace(
            'tasks=["lambada_openai"]', 'tasks=["lambada_openai"], task_manager=tm'
        )
        script = (
            "from lm_eval.tasks import TaskManager\n"
            f"tm = TaskManager(include_path={str(tmp_path)!r}, include_defaults=False)\n{script}"
        )
    offline = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    run(script, tmp_path, **offline)
