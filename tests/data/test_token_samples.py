from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

import c2s_rl.data.token_samples as module
from c2s_rl.data.token_config import SftDataConfig, TooLong
from c2s_rl.data.token_samples import Fate, SampleEncoder, SampleText
from c2s_rl.errors import DataError
from c2s_rl.models.tokenizer import train_bpe
from c2s_rl.types import Task
from tests.sft_fixtures import tokenizer

# Ids of tests/sft_fixtures.WORDS: <eos> 0, <pad> 1, A 2, cell 3, of 4, type 5, B: 6, G0 8, G1 9.
PROMPT = [2, 3, 4, 5, 6]
GENES = SampleText("p0", Task.CELL_GENERATION, "A cell of type B:", " G0 G1")
CUT_8 = SftDataConfig(max_length=8, too_long=TooLong.CUT)


def with_genes(number: int) -> SampleText:
    return replace(GENES, prompt_id=f"p{number}", target=" G0" * number)


@pytest.fixture(scope="module")
def bytes_only() -> PreTrainedTokenizerFast:
    """A token a byte but for a few merges, so that genes are several tokens."""
    return train_bpe(["ISG15 IFI6 and"] * 3, vocabulary_size=262, max_length=512)


def test_sample_is_prompt_target_and_end() -> None:
    sample = SampleEncoder(tokenizer(), SftDataConfig()).encode([GENES])[0]
    assert (sample.prompt_ids.tolist(), sample.target_ids.tolist()) == (PROMPT, [8, 9, 0])
    assert (sample.num_tokens, sample.fate) == (8, Fate.KEPT)


def test_tokens_are_those_of_transformers_whatever_the_batch(
    bytes_only: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["", " ISG15 HLA-DRA", "µ-opioid: é", " IFI6" * 30, "\n Cell 2: ISG15"]
    expected = bytes_only(texts, add_special_tokens=False)["input_ids"]
    for characters in (1, 7, 10**6):
        monkeypatch.setattr(module, "CALL_CHARACTERS", characters)
        encoder = SampleEncoder(bytes_only, SftDataConfig())
        assert [ids.tolist() for ids in encoder.token_ids(texts)] == expected


def test_cutting_and_padding_that_a_tokenizer_was_saved_with_are_off() -> None:
    words = tokenizer()
    words.backend_tokenizer.enable_truncation(2)
    words.backend_tokenizer.enable_padding(length=4)
    sample = SampleEncoder(words, SftDataConfig()).encode([GENES])[0]
    assert (sample.prompt_ids.tolist(), sample.target_ids.tolist()) == (PROMPT, [8, 9, 0])


def test_too_long_sample_is_an_error_that_names_it_and_the_way_out() -> None:
    # 5 prompt tokens + genes + end: 7, 8 and 9 tokens.
    message = (
        r"at most data\.max_length = 7 tokens, got 9 in prompt 'p3' \(the longest of those read; "
        r"2 of the first 3 are too long\): raise data\.max_length.*data\.too_long to 'cut' or 'dr"
    )
    with pytest.raises(DataError, match=message):
        SampleEncoder(tokenizer(), SftDataConfig(max_length=7)).encode(
            [with_genes(1), with_genes(2), with_genes(3)]
        )


def test_too_long_sample_is_dropped_on_demand() -> None:
    config = SftDataConfig(max_length=8, too_long=TooLong.DROP)
    short, long = SampleEncoder(tokenizer(), config).encode([with_genes(2), with_genes(3)])
    assert (short.fate, short.is_in, long.fate, long.is_in) == (
        Fate.KEPT,
        True,
        Fate.TOO_LONG,
        False,
    )
    assert long.num_tokens == 9


def test_cut_answer_fills_the_row_and_has_no_end() -> None:
    sample = SampleEncoder(tokenizer(), CUT_8).encode([with_genes(5)])[0]
    # Room for 3 tokens behind the prompt: 3 genes; it does not end there, so no end token.
    assert sample.target_ids.tolist() == [8, 8, 8]
    assert (sample.fate, sample.num_tokens, sample.length) == (Fate.CUT, 11, 8)


def test_answer_in_words_is_not_cut_but_dropped() -> None:
    label = SampleText("p0", Task.CELL_TYPE_ANNOTATION, "A cell of type B:", " G0" * 5)
    assert SampleEncoder(tokenizer(), CUT_8).encode([label])[0].fate is Fate.TOO_LONG


def test_prompt_that_leaves_no_room_for_a_gene_is_dropped() -> None:
    for words in (8, 9):
        long = replace(GENES, prompt=" ".join(["cell"] * words))
        assert SampleEncoder(tokenizer(), CUT_8).encode([long])[0].fate is Fate.PROMPT_TOO_LONG


@given(st.integers(3, 60), st.lists(st.sampled_from(["ISG15", "IFI6", "B2M", "A"]), min_size=1))
def test_genes_are_never_cut_inside(
    bytes_only: PreTrainedTokenizerFast, limit: int, genes: list[str]
) -> None:
    text = SampleText("p0", Task.CELL_GENERATION, "B:", "".join(f" {gene}" for gene in genes))
    config = SftDataConfig(max_length=limit, too_long=TooLong.CUT)
    sample = SampleEncoder(bytes_only, config).encode([text])[0]
    if sample.fate is Fate.KEPT:
        assert bytes_only.decode(sample.target_ids[:-1]) == text.target
        return
    room = limit - len(sample.prompt_ids)
    kept = bytes_only.decode(sample.target_ids).split() if sample.is_in else []
    assert kept == genes[: len(kept)]
    assert len(sample.target_ids) <= room or not sample.is_in
    # And one gene more would not have fitted; where all did, the end token did not.
    more = "".join(f" {gene}" for gene in genes[: len(kept) + 1])
    num_more = len(bytes_only(more, add_special_tokens=False)["input_ids"])
    assert num_more + (len(kept) == len(genes)) > room


@pytest.mark.parametrize(
    ("room", "kept"),
    [
        # One token a character: ' Cell 1: A B' and the line break behind it are 13.
        (5, None),
        (8, None),
        (10, " Cell 1: A"),
        (11, " Cell 1: A"),
        (12, " Cell 1: A B"),
        (17, " Cell 1: A B"),  # ... 'Cell'
        (20, " Cell 1: A B"),  # ... 'Cell 2:'
        (21, " Cell 1: A B"),  # ... 'Cell 2: '
        (22, " Cell 1: A B\nCell 2: C"),
    ],
)
def test_sentence_of_which_no_gene_is_left_takes_its_label_along(
    room: int, kept: str | None
) -> None:
    characters = train_bpe(["x"], vocabulary_size=258, max_length=512)
    target = " Cell 1: A B\nCell 2: C D"
    text = SampleText("p0", Task.MULTI_CELL_LANGUAGE_MODELLING, "B:", target)
    config = SftDataConfig(max_length=2 + room, too_long=TooLong.CUT)
    sample = SampleEncoder(characters, config).encode([text])[0]
    assert (characters.decode(sample.target_ids) if sample.is_in else None) == kept


def test_gene_set_is_cut_after_a_whole_gene() -> None:
    genes = SampleText("p0", Task.GENE_SET_ENUMERATION, "A cell of type B:", " G0" * 9)
    sample = SampleEncoder(tokenizer(), CUT_8).encode([genes])[0]
    assert (sample.target_ids.tolist(), sample.fate) == ([8, 8, 8], Fate.CUT)


def test_tokenizer_without_end_is_an_error() -> None:
    endless = tokenizer()
    endless.eos_token = None
    with pytest.raises(DataError, match="must have an end token, got none"):
        SampleEncoder(endless, SftDataConfig())
