"""The gene-keeping BPE, and end and padding tokens."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from c2s_rl.errors import DataError
from c2s_rl.models.tokenizer import EOS, PAD, count_gene_tokens, ensure_pad, train_bpe

GENES = ("ISG15", "HLA-DRA", "B2M", "RP11-206L10.9", "MT-CO1", "FTH1", "IFIT1", "IFIT3")
PROMPT = "Which genes does a CD14 Mono cell express?\nAnswer:"


def texts(num: int = 200) -> list[str]:
    generator = random.Random(0)
    sentences = [" " + " ".join(generator.sample(GENES, len(GENES))) for _ in range(num)]
    return [text for sentence in sentences for text in (PROMPT, sentence)]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_bpe(texts(), vocabulary_size=400, max_length=64)


def test_genes_with_hyphen_digits_and_dot_become_one_token(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    assert [tokenizer.tokenize(f" {gene}") for gene in GENES] == [[f"Ġ{gene}"] for gene in GENES]
    counts = count_gene_tokens(tokenizer, [" ISG15 B2M"])
    assert (counts.num_genes, counts.mean_tokens, counts.whole_share) == (2, 1.0, 1.0)


def test_gene_token_counts_weigh_distinct_and_written_genes_apart() -> None:
    # Bytes only: ' AB' is 3 tokens and ' C' is 2. Distinct: (3 + 2) / 2; written: (3 + 2 + 2) / 3.
    bare = train_bpe([], vocabulary_size=258, max_length=8)
    counts = count_gene_tokens(bare, ["AB C", "C"])
    assert counts.num_genes == 2
    assert counts.mean_tokens == pytest.approx(2.5)
    assert counts.mean_tokens_weighted == pytest.approx(7 / 3)
    assert counts.whole_share == 0.0


def test_punctuation_at_the_end_of_a_word_stands_apart(tokenizer: PreTrainedTokenizerFast) -> None:
    words = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("of CD14 Mono.\nHLA-DRA: x")
    assert [word for word, _ in words] == ["of", "ĠCD14", "ĠMono", ".", "Ċ", "HLA-DRA", ":", "Ġx"]


def test_prompt_and_target_tokenised_apart_equal_the_joined_text(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    target = " ISG15 HLA-DRA NEW1"
    apart = tokenizer(PROMPT)["input_ids"] + tokenizer(target)["input_ids"]
    assert apart == tokenizer(PROMPT + target)["input_ids"]


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer(text, split_special_tokens=True)["input_ids"]
    assert tokenizer.decode(ids) == text


def test_order_of_texts_does_not_matter() -> None:
    some = texts(50)
    shuffled = random.Random(1).sample(some, len(some))
    first = train_bpe(some, vocabulary_size=300, max_length=64).backend_tokenizer.to_str()
    assert train_bpe(shuffled, vocabulary_size=300, max_length=64).backend_tokenizer.to_str() == (
        first
    )


def test_special_tokens_survive_saving(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert (loaded.eos_token, loaded.pad_token) == (EOS, PAD)
    assert loaded.pad_token_id != loaded.eos_token_id
    assert loaded.model_max_length == 64
    assert loaded(" ISG15 HLA-DRA")["input_ids"] == tokenizer(" ISG15 HLA-DRA")["input_ids"]
    assert loaded.decode(loaded(" ISG15 , B2M .")["input_ids"]) == " ISG15 , B2M ."


def test_padding_that_is_the_end_token_is_replaced(tokenizer: PreTrainedTokenizerFast) -> None:
    ends = train_bpe(texts(5), vocabulary_size=300, max_length=64)
    num_tokens = len(ends)
    ends.pad_token = EOS
    ensure_pad(ends)
    # PAD is in the vocabulary already, so nothing is added.
    assert (ends.pad_token, len(ends)) == (PAD, num_tokens)
    ensure_pad(ends)
    assert ends.pad_token == PAD


def test_tokenizer_without_end_token_is_refused() -> None:
    endless = train_bpe(texts(5), vocabulary_size=300, max_length=64)
    endless.eos_token = None
    with pytest.raises(DataError, match="must have an end token"):
        ensure_pad(endless)
