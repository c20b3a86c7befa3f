import torch

from c2s_rl.pipeline.sft_data import RowCollator, TokenRow


def test_collator_restarts_positions_at_every_sample_and_lets_padding_run_on() -> None:
    rows: list[TokenRow] = [
        {"input_ids": [5, 6, 7, 8, 9], "seq_lengths": [2, 3], "prompt_lengths": [0, 2]},
        {"input_ids": [5, 6, 7], "seq_lengths": [3], "prompt_lengths": [1]},
    ]
    batch = RowCollator(pad_id=1)(rows)
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1, 2], [0, 1, 2, 3, 4]]
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9], [5, 6, 7, 1, 1]]
    # Not learnt: 5, the first of its sample though no prompt; 7 and 8, a prompt; 5; padding.
    assert batch["labels"].tolist() == [[-100, 6, -100, -100, 9], [-100, 6, 7, -100, -100]]
    assert "attention_mask" not in batch


def test_collator_takes_rows_of_one_sample() -> None:
    row: TokenRow = {"input_ids": [5, 6], "seq_lengths": [2], "prompt_lengths": [1], "tasks": [0]}
    batch = RowCollator(pad_id=1)([row])
    assert torch.equal(batch["position_ids"], torch.tensor([[0, 1]]))
