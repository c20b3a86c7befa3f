"""A byte-level BPE that keeps genes whole, and the rules that any base model's tokenizer must obey.

A gene symbol with the space before it is one pre-token, so that with enough merges it becomes one
token; the usual GPT-2 splitting would cut 'HLA-DRA' and 'ISG15' at the hyphen and the digits.
Left out: chat templates and special tokens beyond end-of-sequence and padding.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from c2s_rl.errors import DataError

EOS = "<|endoftext|>"
PAD = "<|pad|>"
# Tokens that published tokenizers carry for padding, or never use, in order of preference.
PAD_CANDIDATES = (PAD, "<pad>", "<|padding|>", "[PAD]", "<|finetune_right_pad_id|>", EOS)

# A word takes the space before it; punctuation at its end stands apart, so that 'Mono.' and 'Mono'
# share a token while 'HLA-DRA' and 'RP11-206L10.9' stay whole; then trailing and other whitespace.
WORD_PATTERN = r" ?[^\s]+?(?=[.,:;?!]*(?:\s|$))|[.,:;?!]+|\s+(?!\S)|\s+"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GeneTokenCounts:
    """How finely a tokenizer cuts gene symbols."""

    num_genes: int
    """Distinct symbols counted."""
    mean_tokens: float
    """Tokens per distinct symbol."""
    mean_tokens_weighted: float
    """Tokens per written symbol: common genes weigh more."""
    whole_share: float
    """Share of distinct symbols that are a single token, in [0, 1]."""


def train_bpe(
    texts: Iterable[str], *, vocabulary_size: int, max_length: int
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on texts; the result does not depend on their order.

    Args:
        texts: Prompts and targets, the latter with their leading space.
        vocabulary_size: Most tokens, special ones included.
        max_length: Recorded as the tokenizer's `model_max_length`, in tokens.

    Returns:
        A tokenizer with EOS as its end (and begin) token and PAD as its padding; it adds no
        special token by itself.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[EOS, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token=EOS,
        bos_token=EOS,
        pad_token=PAD,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,  # else decoding eats the space before punctuation
    )


def ensure_pad(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a tokenizer a padding token other than its end token, in place.

    An end token that is also padding would be masked out of the loss, and the policy would never
    learn to stop. An unused token of the tokenizer is taken where there is one, else PAD is added.

    Raises:
        DataError: If the tokenizer has no end token.
    """
    if tokenizer.eos_token_id is None:
        raise DataError(f"a base model's tokenizer must have an end token, got {_name(tokenizer)}")
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        return
    known = tokenizer.get_vocab()
    unused = [t for t in PAD_CANDIDATES if t in known and known[t] != tokenizer.eos_token_id]
    pad = unused[0] if unused else PAD
    tokenizer.add_special_tokens({"pad_token": pad})
    log.info("padding is %s (id %d) from now on", pad, tokenizer.pad_token_id)


def count_gene_tokens(
    tokenizer: PreTrainedTokenizerBase, sentences: Sequence[str]
) -> GeneTokenCounts:
    """Measure how many tokens the genes of cell sentences take, each with the space before it.

    Args:
        tokenizer: The tokenizer.
        sentences: Cell sentences: symbols separated by whitespace.

    Returns:
        The counts; all 0 when there is no word at all.
    """
    uses = Counter(symbol for sentence in sentences for symbol in sentence.split())
    if not uses:
        return GeneTokenCounts(0, 0.0, 0.0, 0.0)
    symbols = sorted(uses)
    encoded = tokenizer([f" {symbol}" for symbol in symbols], add_special_tokens=False)
    lengths = [len(ids) for ids in encoded["input_ids"]]
    written = sum(uses.values())
    return GeneTokenCounts(
        num_genes=len(symbols),
        mean_tokens=sum(lengths) / len(symbols),
        mean_tokens_weighted=sum(n * uses[s] for s, n in zip(symbols, lengths, strict=True))
        / written,
        whole_share=lengths.count(1) / len(symbols),
    )


def _name(tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.name_or_path) or type(tokenizer).__name__
