"""Which tokenizers and lists a trie is built from, and what is refused with which words."""

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.decoding.constraint import GeneConstraint, GeneMode, gene_trie_for, read_gene_list
from c2s_rl.errors import ConfigError, DataError, MissingFileError
from c2s_rl.models.base_model import find_smollm2
from c2s_rl.models.tokenizer import train_bpe
from c2s_rl.types import Task

SYMBOLS = ("HLA-A", "HLA-DRA", "ISG15", "CD3D", "CD3", "7SK", "C1orf112", "RP11-206L10.9", "TNF")
VOCABULARY = Vocabulary(SYMBOLS, SYMBOLS)
ON = GeneConstraint(mode=GeneMode.ON)


def metaspace(*, prefix):
    """A tokenizer of the Gemma (no prefix) or Llama-2 kind: spaces are letters of the alphabet."""
    tokenizer = Tokenizer(BPE(unk_token="<unk>"))
    parts = [normalizers.Replace(" ", "\u2581")]
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581")] * prefix + parts)
    tokenizer.decoder = decoders.Replace("\u2581", " ")
    trainer = BpeTrainer(vocab_size=80, special_tokens=["<eos>", "<unk>"], show_progress=False)
    tokenizer.train_from_iterator([" " + " ".join(SYMBOLS)], trainer=trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


def smollm2():
    gguf = find_smollm2()
    return AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)


TOKENIZERS = {
    "our BPE, whole genes": lambda: train_bpe(
        [" " + " ".join(SYMBOLS)], vocabulary_size=400, max_length=64
    ),
    "our BPE, cut genes": lambda: train_bpe(["x"], vocabulary_size=258, max_length=64),
    "GPT-2 kind": smollm2,
    "Gemma kind": lambda: PreTrainedTokenizerFast(
        tokenizer_object=gemma_kind(), eos_token="<eos>", clean_up_tokenization_spaces=False
    ),
}


def gemma_kind():
    tokenizer = metaspace(prefix=False).backend_tokenizer
    # its vocabulary has no token with a space inside: without such merges genes stay apart
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    tokenizer.model = BPE(unk_token="<unk>")
    trainer = BpeTrainer(vocab_size=80, special_tokens=["<eos>", "<unk>"], show_progress=False)
    tokenizer.train_from_iterator([" " + " ".join(SYMBOLS)], trainer=trainer)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    return tokenizer


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_sampled_tokens_are_the_tokens_of_the_sentence(kind):
    tokenizer = TOKENIZERS[kind]()
    trie = gene_trie_for(tokenizer, VOCABULARY, ON)
    rng = np.random.default_rng(0)
    for _ in range(20):
        walk, tokens = trie.walk(400), []
        while not walk.is_done:
            tokens.append(int(rng.choice(walk.allowed())))
            walk.advance(tokens[-1])
        sentence = "".join(f" {SYMBOLS[gene]}" for gene in walk.genes)
        # what SFT trains on is what the trie lets through, and it reads back
        assert tokenizer(sentence, add_special_tokens=False)["input_ids"] == tokens[:-1]
        assert tokenizer.decode(tokens[:-1]).split() == sentence.split()
        assert tokens[-1] == tokenizer.eos_token_id


def test_a_tokenizer_that_writes_a_space_of_its_own_is_refused():
    with pytest.raises(
        DataError, match=r"' A B' as ' A' and then ' B', .*set sampling.genes.mode to off"
    ):
        gene_trie_for(metaspace(prefix=True), VOCABULARY, ON)


def test_a_tokenizer_that_joins_two_genes_in_one_token_is_refused():
    # trained without borders between words, it has learned tokens like 'A HLA-'
    with pytest.raises(DataError, match="encodes ' A B' as ' A' and then ' B'"):
        gene_trie_for(metaspace(prefix=False), VOCABULARY, ON)


def test_symbols_that_the_tokenizer_does_not_know_apart_are_refused():
    tokenizer = TOKENIZERS["Gemma kind"]()
    symbols = ("TNF", "\u03b1", "\u03b2")  # both Greek letters are <unk>
    with pytest.raises(DataError, match=r"different tokens, got .* for both '\u03b1' and '\u03b2'"):
        gene_trie_for(tokenizer, Vocabulary(symbols, symbols), ON)


def test_a_symbol_that_is_not_read_back_is_refused():
    tokenizer = TOKENIZERS["Gemma kind"]()
    symbols = ("TNF", "\u03b1")
    with pytest.raises(DataError, match="reads back every symbol, got '<unk>' for '\u03b1'"):
        gene_trie_for(tokenizer, Vocabulary(symbols, symbols), ON)


def test_only_listed_genes_can_be_sampled(tmp_path):
    path = tmp_path / "landmarks.txt"
    path.write_text("TNF\n\nCD3D\n")
    constraint = ON.model_copy(update={"gene_list": path})
    trie = gene_trie_for(TOKENIZERS["our BPE, whole genes"](), VOCABULARY, constraint)
    assert trie.symbols == ("CD3D", "TNF")  # in the order of the vocabulary


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("TNF\nFOO1\nBAR\n", r"one of the 9 symbols .*, got 'FOO1', 'BAR'.* in .*list.txt"),
        ("TNF\nCD3\nTNF\n", r"genes once each, got 'TNF' in .*list.txt"),
        ("\n", r"genes once each, got none in .*list.txt"),
    ],
)
def test_a_wrong_gene_list_is_an_error_that_names_what_and_where(tmp_path, text, message):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_gene_list(tmp_path / "list.txt", VOCABULARY)


def test_a_gene_list_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(MissingFileError, match="gene_list must be a file that exists, got"):
        read_gene_list(tmp_path / "none.txt", VOCABULARY)


@pytest.mark.parametrize(
    ("mode", "task", "decided"),
    [
        ("auto", Task.CELL_GENERATION, GeneMode.ON),
        ("auto", Task.PERTURBATION_RESPONSE, GeneMode.ON),
        ("auto", Task.CELL_TYPE_ANNOTATION, GeneMode.OFF),
        ("off", Task.CELL_GENERATION, GeneMode.OFF),
        ("off", Task.CELL_TYPE_ANNOTATION, GeneMode.OFF),
        ("on", Task.CELL_GENERATION, GeneMode.ON),
    ],
)
def test_the_task_decides_whether_auto_is_on(mode, task, decided):
    assert GeneConstraint(mode=mode).for_task(task).mode is decided


def test_free_text_cannot_be_held_to_genes():
    with pytest.raises(ConfigError, match="answer is a cell sentence, got cell_type_annotation"):
        ON.for_task(Task.CELL_TYPE_ANNOTATION)


def test_a_mode_that_no_task_has_decided_is_refused():
    tokenizer = TOKENIZERS["our BPE, cut genes"]()
    with pytest.raises(ConfigError, match=r"must be decided by the task .*, got 'auto'"):
        gene_trie_for(tokenizer, VOCABULARY, GeneConstraint())
    assert gene_trie_for(tokenizer, VOCABULARY, GeneConstraint(mode=GeneMode.OFF)) is None


def test_the_path_of_a_list_is_found_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("LISTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for text in ("${LISTS}/hvg.txt", "hvg.txt"):
        constraint = GeneConstraint(gene_list=text).for_task(Task.CELL_GENERATION)
        assert constraint.gene_list == tmp_path / "hvg.txt"


def test_limits_that_contradict_are_refused():
    with pytest.raises(ValueError, match="min_genes must be at most max_genes=3, got 4"):
        GeneConstraint(min_genes=4, max_genes=3)
