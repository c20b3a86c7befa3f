from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from c2s_rl.models.answer_loss import answer_losses
from tests.sft_fixtures import record, write_inputs


def test_loss_is_the_mean_over_answer_and_end_token_whatever_the_batch(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path, number=4)
    records = [
        record(0, " G1 G2 G3"),
        record(1, " G4", prompt="A cell:"),
        record(2, " G5 G6 G7 G8 G9 G10", prompt="A cell of type T: G1 G2"),
    ]
    losses = answer_losses(inputs.base_model, records, dtype="float32", device="cpu")

    model = AutoModelForCausalLM.from_pretrained(inputs.base_model).eval()
    tokenizer = AutoTokenizer.from_pretrained(inputs.base_model)
    for one, loss in zip(records, losses, strict=True):
        prompt = tokenizer(one.prompt, add_special_tokens=False)["input_ids"]
        answer = [*tokenizer(one.target, add_special_tokens=False)["input_ids"], 0]  # <eos> is 0
        labels = torch.tensor([[-100] * len(prompt) + answer])
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([prompt + answer]), labels=labels).loss
        assert loss == pytest.approx(float(expected), abs=1e-5)

    alone = answer_losses(inputs.base_model, records, dtype="float32", device="cpu", batch_tokens=1)
    assert alone == pytest.approx(losses, abs=1e-5)
