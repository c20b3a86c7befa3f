"""Packing and the CPU loss against plain transformers and TRL, for three kinds of model.

Gemma-2 stands for attention that is capped and, in every other layer, a sliding window.
"""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, PreTrainedModel
from trl.trainer.sft_config import SFTConfig as TrlConfig
from trl.trainer.sft_trainer import SFTTrainer

from c2s_rl.data.token_config import SftDataConfig
from c2s_rl.data.token_shards import open_token_rows
from c2s_rl.pipeline.sft_data import RowCollator
from c2s_rl.pipeline.sft_evaluation import EvalRows
from c2s_rl.pipeline.sft_loss import PolicyTrainer, WholeLogitsTrainer
from tests.sft_fixtures import model, records, tokenizer, write_tokens

MODELS = [("gpt_neox", "sdpa"), ("gpt_neox", "eager"), ("llama", "sdpa"), ("gemma2", "eager")]
NUM_SAMPLES = 12

Batch = dict[str, torch.Tensor]
MakeTrainer = Callable[..., SFTTrainer]


@pytest.fixture
def make_trainer(tmp_path: Path) -> MakeTrainer:
    def make(
        policy: PreTrainedModel, *, packing: bool, kind: type[SFTTrainer] = WholeLogitsTrainer
    ) -> SFTTrainer:
        config = SftDataConfig(max_length=64, packing=packing)
        folder = tmp_path / f"{kind.__name__}-{packing}"
        if not folder.is_dir():
            write_tokens(folder, records(NUM_SAMPLES), config)
        return kind(
            model=policy,
            args=TrlConfig(
                output_dir=str(tmp_path),
                use_cpu=True,
                bf16=False,
                report_to="none",
                max_length=None,
                dataset_kwargs={"skip_prepare_dataset": True},
                remove_unused_columns=False,
                gradient_checkpointing=False,
            ),
            train_dataset=open_token_rows(folder / "tokens"),
            processing_class=tokenizer(),
            data_collator=RowCollator(pad_id=1),
        )

    return make


def batch_of(trainer: SFTTrainer) -> Batch:
    """Return all training rows as one batch, as the trainer's data loader would make it."""
    return trainer.data_collator(list(trainer.train_dataset))


def losses_alone(policy: PreTrainedModel) -> list[torch.Tensor]:
    """Sum of -log p over target and end token, each sample by itself through plain transformers."""
    losses = []
    for sample in records(NUM_SAMPLES):
        words = tokenizer()
        prompt = words(sample.prompt)["input_ids"]
        target = [*words(sample.target)["input_ids"], words.eos_token_id]
        ids = torch.tensor([prompt + target])
        logits = policy(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        losses.append(cross_entropy(logits, torch.tensor(target), reduction="sum"))
    return losses


def num_learnt(batch: Batch) -> int:
    return int((batch["labels"] != -100).sum())


@pytest.mark.parametrize(("architecture", "attention"), MODELS)
@pytest.mark.parametrize("packing", [False, True])
def test_loss_is_the_same_alone_padded_and_packed(
    make_trainer: MakeTrainer, architecture: str, attention: str, packing: bool
) -> None:
    policy = model(architecture, attention)
    trainer = make_trainer(policy, packing=packing)
    batch = batch_of(trainer)
    assert (len(batch["input_ids"]) < NUM_SAMPLES) == packing
    alone = torch.stack(losses_alone(policy)).sum() / num_learnt(batch)
    loss = trainer.compute_loss(trainer.model, batch)
    assert loss.item() == pytest.approx(alone.item(), rel=1e-5)


@pytest.mark.parametrize(("architecture", "attention"), MODELS)
def test_gradient_is_the_same_alone_and_packed(
    make_trainer: MakeTrainer, architecture: str, attention: str
) -> None:
    policy = model(architecture, attention)
    trainer = make_trainer(policy, packing=True)
    batch = batch_of(trainer)
    (torch.stack(losses_alone(policy)).sum() / num_learnt(batch)).backward()
    alone = {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}
    policy.zero_grad()
    trainer.compute_loss(trainer.model, batch).backward()
    for name, parameter in policy.named_parameters():
        torch.testing.assert_close(parameter.grad, alone[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("architecture", "attention"), MODELS)
def test_a_sample_does_not_see_its_neighbours_in_the_row(
    make_trainer: MakeTrainer, architecture: str, attention: str
) -> None:
    policy = model(architecture, attention)
    trainer = make_trainer(policy, packing=True)
    batch = batch_of(trainer)
    # Only the last sample of the first row is learnt, then every token before it is replaced.
    lengths = trainer.train_dataset[0]["seq_lengths"]
    assert len(lengths) > 1
    start = sum(lengths[:-1])
    row = {name: tensor[:1].clone() for name, tensor in batch.items()}
    row["labels"][:, :start] = -100
    before = trainer.compute_loss(trainer.model, row).item()
    row["input_ids"][:, :start] = 9
    assert trainer.compute_loss(trainer.model, row).item() == pytest.approx(before, rel=1e-6)
    # The test can fail: with positions that run on, the neighbours are seen.
    row["position_ids"] = torch.arange(row["input_ids"].shape[1]).unsqueeze(0)
    assert trainer.compute_loss(trainer.model, row).item() != pytest.approx(before, rel=1e-3)


@pytest.mark.parametrize("packing", [False, True])
def test_loss_equals_that_of_trl(make_trainer: MakeTrainer, packing: bool) -> None:
    ours = make_trainer(model("gpt_neox", "sdpa"), packing=packing)
    theirs = make_trainer(model("gpt_neox", "sdpa"), packing=packing, kind=SFTTrainer)
    batch = batch_of(ours)
    num_items = torch.tensor(2 * num_learnt(batch))  # as if half of the step's tokens were here
    for number in (None, num_items):
        loss = ours.compute_loss(ours.model, dict(batch), num_items_in_batch=number)
        expected = theirs.compute_loss(theirs.model, dict(batch), num_items_in_batch=number)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_batch_without_learnt_tokens_costs_nothing(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(model("gpt_neox", "sdpa"), packing=False)
    batch = batch_of(trainer)
    batch["labels"].fill_(-100)
    assert math.isclose(trainer.compute_loss(trainer.model, batch).item(), 0.0)


def test_prompt_tokens_are_not_learnt(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(model("gpt_neox", "sdpa"), packing=False)
    row = trainer.data_collator([trainer.train_dataset[0]])
    # 'A cell of type B:' is 5 tokens.
    assert row["labels"][0, :5].tolist() == [-100] * 5
    assert torch.equal(row["labels"][0, 5:], row["input_ids"][0, 5:])


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("kind", [PolicyTrainer, WholeLogitsTrainer])
def test_eval_loss_is_the_mean_over_learnt_tokens_on_both_kinds_of_device(
    make_trainer: MakeTrainer, kind: type[PolicyTrainer]
) -> None:
    trainer = make_trainer(model("gpt_neox", "sdpa"), packing=False, kind=kind)
    rows = trainer.train_dataset
    # Samples differ in length: a mean of batch means would be another number.
    trainer.eval_rows = EvalRows({"cell_generation": rows}, 5, trainer.data_collator)
    figures = trainer.evaluate()
    learnt = [num_learnt(trainer.data_collator([row])) for row in rows]
    alone = torch.stack(losses_alone(trainer.model)).tolist()
    assert figures["eval_loss"] == pytest.approx(sum(alone) / sum(learnt), rel=1e-5)
    assert not trainer.model.training


@pytest.mark.parametrize("is_tied", [True, False])
def test_tied_weight_is_saved_once(
    make_trainer: MakeTrainer, tmp_path: Path, is_tied: bool
) -> None:
    policy = model("llama", "sdpa")
    policy.config.tie_word_embeddings = is_tied
    reloaded = type(policy)(policy.config)  # ties as its config says
    trainer = make_trainer(reloaded, packing=False)
    # DeepSpeed hands the weights over as copies, in which a tie cannot be seen.
    copies = {name: tensor.clone() for name, tensor in reloaded.state_dict().items()}
    trainer._save(str(tmp_path / "saved"), state_dict=copies)
    names = load_file(tmp_path / "saved/model.safetensors").keys()
    assert ("lm_head.weight" in names) == (not is_tied)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in copies.items())
