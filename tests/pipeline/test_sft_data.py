from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from c2s_rl.errors import DataError
from c2s_rl.pipeline.sft_data import (
    RowCollator,
    SftDataConfig,
    TokenRow,
    TooLong,
    build_dataset,
    split_validation,
)
from tests.sft_fixtures import record, tokenizer

# Ids of tests/sft_fixtures.WORDS: <eos> 0, <pad> 1, A 2, cell 3, of 4, type 5, B: 6, G0 8, G1 9.
PROMPT = [2, 3, 4, 5, 6]


def test_sample_is_prompt_target_and_end_and_only_the_latter_two_are_learnt() -> None:
    rows = build_dataset([record(0, " G0 G1")], tokenizer(), SftDataConfig()).rows
    assert rows[0]["input_ids"] == [*PROMPT, 8, 9, 0]
    assert rows[0]["completion_mask"] == [0, 0, 0, 0, 0, 1, 1, 1]


def test_too_long_sample_is_an_error_that_names_it_and_the_way_out() -> None:
    samples = [record(0, " G0"), record(1, " G0 G1"), record(2, " G0 G1 G2")]
    # 5 prompt tokens + genes + end: 7, 8 and 9 tokens.
    message = (
        r"at most data\.max_length = 7 tokens, got 9 in prompt 'p2' \(the longest; 2 of 3 are "
        r"too long\): raise data\.max_length.*data\.too_long to 'drop'"
    )
    with pytest.raises(DataError, match=message):
        build_dataset(samples, tokenizer(), SftDataConfig(max_length=7))


def test_too_long_sample_is_dropped_and_counted_on_demand() -> None:
    samples = [record(0, " G0"), record(1, " G0 G1"), record(2, " G0 G1 G2")]
    config = SftDataConfig(max_length=8, too_long=TooLong.DROP)
    built = build_dataset(samples, tokenizer(), config)
    assert (built.num_samples, built.num_too_long, built.longest) == (2, 1, 8)
    assert [len(row) for row in built.rows["input_ids"]] == [7, 8]


def test_dropping_every_sample_is_an_error() -> None:
    config = SftDataConfig(max_length=3, too_long=TooLong.DROP)
    with pytest.raises(DataError, match="got 1 samples and none of them that short"):
        build_dataset([record(0, " G0")], tokenizer(), config)


def test_tokenizer_without_end_is_an_error() -> None:
    endless = tokenizer()
    endless.eos_token = None
    with pytest.raises(DataError, match="must have an end token, got none"):
        build_dataset([record(0, " G0")], endless, SftDataConfig())


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=30))
def test_packing_keeps_every_sample_whole(num_genes: list[int]) -> None:
    samples = [record(i, " " + " ".join(["G0"] * n)) for i, n in enumerate(num_genes)]
    config = SftDataConfig(max_length=20, packing=True)
    rows = build_dataset(samples, tokenizer(), config).rows
    found = []
    for row in rows:
        assert len(row["input_ids"]) == sum(row["seq_lengths"]) <= 20
        start = 0
        for length in row["seq_lengths"]:
            found.append(
                (
                    tuple(row["input_ids"][start : start + length]),
                    tuple(row["completion_mask"][start : start + length]),
                )
            )
            start += length
    expected = [((*PROMPT, *[8] * n, 0), (*[0] * 5, *[1] * (n + 1))) for n in num_genes]
    assert Counter(found) == Counter(expected)


def test_collator_restarts_positions_at_every_sample_and_lets_padding_run_on() -> None:
    rows: list[TokenRow] = [
        {"input_ids": [5, 6, 7, 8, 9], "labels": [5, 6, -100, 8, 9], "seq_lengths": [2, 3]},
        {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "seq_lengths": [3]},
    ]
    batch = RowCollator(pad_id=1)(rows)
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1, 2], [0, 1, 2, 3, 4]]
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9], [5, 6, 7, 1, 1]]
    # First tokens (5; 7 was ignored already) and padding are not learnt.
    assert batch["labels"].tolist() == [[-100, 6, -100, 8, 9], [-100, 6, 7, -100, -100]]
    assert "attention_mask" not in batch


def test_collator_takes_rows_that_are_not_packed() -> None:
    batch = RowCollator(pad_id=1)([{"input_ids": [5, 6], "labels": [-100, 6]}])
    assert torch.equal(batch["position_ids"], torch.tensor([[0, 1]]))


def test_validation_split_depends_on_cell_and_seed_only() -> None:
    samples = [record(i, " G0") for i in range(400)]
    learnt, kept_out = split_validation(samples, fraction=0.25, seed=3)
    again_learnt, again_out = split_validation(samples[::-1], fraction=0.25, seed=3)
    assert [r.prompt_id for r in kept_out] == [r.prompt_id for r in again_out[::-1]]
    assert [r.prompt_id for r in learnt] == [r.prompt_id for r in again_learnt[::-1]]
    # Binomial(400, 0.25): mean 100, standard deviation 8.7; five of them either way.
    assert 57 <= len(kept_out) <= 143
    other = split_validation(samples, fraction=0.25, seed=4)[1]
    assert {r.prompt_id for r in other} != {r.prompt_id for r in kept_out}


def test_all_prompts_of_a_cell_are_on_one_side() -> None:
    samples = [record(i, " G0") for i in range(60)] + [record(i, " G1") for i in range(60)]
    learnt, kept_out = split_validation(samples, fraction=0.5, seed=0)
    assert {r.target_id for r in learnt}.isdisjoint({r.target_id for r in kept_out})


def test_nothing_is_kept_out_at_fraction_zero() -> None:
    samples = [record(0, " G0"), record(1, " G1")]
    assert split_validation(samples, fraction=0.0, seed=0) == (samples, [])
