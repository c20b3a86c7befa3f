"""Base models in the programs that use them: transformers and vLLM, with real weights."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from c2s_rl.models.base_model import inspect, write_gpt_neox, write_smollm2
from c2s_rl.models.shape import GptNeoxShape
from c2s_rl.models.tokenizer import train_bpe

pytestmark = pytest.mark.integration

GENES = ("ISG15", "HLA-DRA", "B2M", "MT-CO1", "FTH1", "IFIT1")
PROMPTS = ("List the genes of a B cell:", "Control cell: B2M FTH1 MT-CO1\nPerturbed cell:")
NUM_NEW = 12

# vLLM runs in a process of its own: it patches transformers' GPT-NeoX class where it runs.
VLLM_SCRIPT = """
import json, sys
from vllm import LLM, SamplingParams
folder, prompts, num_new = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
llm = LLM(model=folder, dtype="float32", enforce_eager=True, max_model_len=256, max_num_seqs=4)
params = SamplingParams(temperature=0.0, max_tokens=num_new, ignore_eos=True)
outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], params)
print("RESULT" + json.dumps([list(o.outputs[0].token_ids) for o in outputs]))
"""


def test_vllm_and_transformers_decode_a_fresh_model_alike(tmp_path: Path) -> None:
    tokenizer = train_bpe(
        [PROMPTS[0], PROMPTS[1], " " + " ".join(GENES)] * 20, vocabulary_size=400, max_length=256
    )
    shape = GptNeoxShape(
        hidden_size=64, num_layers=2, num_heads=2, vocabulary_size=400, max_position=256
    )
    write_gpt_neox(tmp_path, tokenizer, shape=shape, seed=0)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]

    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
    }
    command = [sys.executable, "-c", VLLM_SCRIPT, str(tmp_path), json.dumps(ids), str(NUM_NEW)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    from_vllm = json.loads(result.removeprefix("RESULT"))

    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    from_transformers = []
    for prompt in ids:
        sequence = list(prompt)
        for _ in range(NUM_NEW):
            with torch.no_grad():
                logits = model(torch.tensor([sequence])).logits[0, -1]
            sequence.append(int(logits.argmax()))
        from_transformers.append(sequence[len(prompt) :])
    assert from_vllm == from_transformers
    assert len({token for sequence in from_vllm for token in sequence}) > 1


def test_smollm2_speaks_after_conversion(tmp_path: Path) -> None:
    write_smollm2(tmp_path)
    facts = inspect(tmp_path)
    # SmolLM2-135M: 49,152 x 576 tied embeddings + 30 layers + last norm = 134,515,008 parameters.
    assert (facts.architecture, facts.num_parameters) == ("LlamaForCausalLM", 134_515_008)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits
        answer = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    assert torch.isfinite(logits).all()
    assert "Paris" in tokenizer.decode(answer[0])
