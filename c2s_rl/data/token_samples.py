"""Prompt and answer as token ids: tokenised apart, joined, and cut after a whole gene if asked to.

A sample is prompt + target + end token. Tokenised apart, the prompt's ids are a prefix of the
sample's ids whatever the tokenizer merges, which is what the policy sees when it is sampled from.
No begin token is added. An answer that was cut gets no end token: it does not end there, and the
policy must not learn to stop there. Left out: chat templates, slow tokenizers.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from c2s_rl.data.token_config import SftDataConfig, TooLong
from c2s_rl.errors import DataError
from c2s_rl.prompts.tasks import TASK_RULES, AnswerKind
from c2s_rl.types import IntArray, Task

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from transformers import PreTrainedTokenizerBase

# Characters given to the tokenizer at once. It keeps some 100 bytes a token until it returns, so
# this is some 150 MB; batches this large keep all its threads busy.
CALL_CHARACTERS = 4_000_000


class Fate(StrEnum):
    """What became of a sample."""

    KEPT = "kept"
    CUT = "cut"
    TOO_LONG = "too_long"
    """Dropped: too long, and `too_long` is drop, or the answer is not made of genes."""
    PROMPT_TOO_LONG = "prompt_too_long"
    """Dropped: no gene of the answer fits behind the prompt."""


@dataclass(frozen=True)
class SampleText:
    """A sample as the corpus has it."""

    prompt_id: str
    """Unique within the corpus."""
    task: Task
    """What it asks."""
    prompt: str
    """Text that the policy is given."""
    target: str
    """The right answer, with the space before it."""


@dataclass(frozen=True, eq=False)
class EncodedSample:
    """A sample as token ids."""

    prompt_ids: IntArray
    """Tokens of the prompt."""
    target_ids: IntArray
    """Tokens of the answer and the end token; without the latter if it was cut."""
    num_tokens: int
    """Tokens of the whole sample with its end token, before anything was cut."""
    fate: Fate
    """Whether it is in."""

    @property
    def is_in(self) -> bool:
        """Whether it is learnt from."""
        return self.fate in (Fate.KEPT, Fate.CUT)

    @property
    def length(self) -> int:
        """Tokens that are left."""
        return len(self.prompt_ids) + len(self.target_ids)


class SampleEncoder:
    """Tokenises samples with a fast tokenizer, many at a time on all of its threads."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", config: SftDataConfig) -> None:
        """Check and prepare a tokenizer.

        Args:
            tokenizer: The base model's.
            config: Longest sample, and what becomes of longer ones.

        Raises:
            DataError: If the tokenizer is a slow one, has no end token, or has ids that are no
                32-bit integers.
        """
        self._backend = fast_backend(tokenizer)
        eos = tokenizer.eos_token_id
        if eos is None:
            raise DataError("the base model's tokenizer must have an end token, got none")
        if len(tokenizer) >= 2**31:
            raise DataError(f"token ids must be 32-bit integers, got {len(tokenizer)} tokens")
        self._eos = int(eos)
        self._config = config
        self._num_seen = 0
        self._num_too_long = 0

    def encode(self, samples: Sequence[SampleText]) -> list[EncodedSample]:
        """Tokenise samples; the result of each depends on nothing but itself.

        Raises:
            DataError: If a sample is too long and `too_long` is 'error'; names the longest.
        """
        prompts = self.token_ids([sample.prompt for sample in samples])
        targets = self.token_ids([sample.target for sample in samples])
        encoded = [
            self._joined(prompt, target) for prompt, target in zip(prompts, targets, strict=True)
        ]
        self._num_seen += len(samples)
        long = [i for i, sample in enumerate(encoded) if sample.num_tokens > self._limit]
        self._num_too_long += len(long)
        if long and self._config.too_long is TooLong.ERROR:
            longest = max(long, key=lambda i: encoded[i].num_tokens)
            self._refuse(samples[longest], encoded[longest])
        for i, shortened in zip(long, self._shorten(samples, encoded, long), strict=True):
            encoded[i] = shortened
        return encoded

    def token_ids(self, texts: Sequence[str]) -> list[IntArray]:
        """Tokenise texts, without special tokens."""
        return [
            np.array(encoding.ids, dtype=np.int32)
            for chunk in _chunks(texts)
            for encoding in self._backend.encode_batch_fast(chunk, add_special_tokens=False)
        ]

    def pieces(self, ids: IntArray) -> tuple[str, ...]:
        """Text of each token by itself."""
        return tuple(self._backend.decode([i], skip_special_tokens=False) for i in ids.tolist())

    @property
    def _limit(self) -> int:
        return self._config.max_length

    def _joined(self, prompt: IntArray, target: IntArray) -> EncodedSample:
        whole = np.append(target, np.int32(self._eos))
        return EncodedSample(prompt, whole, len(prompt) + len(whole), Fate.KEPT)

    def _refuse(self, sample: SampleText, encoded: EncodedSample) -> None:
        raise DataError(
            f"prompt + target + end token must be at most data.max_length = {self._limit} tokens, "
            f"got {encoded.num_tokens} in prompt {sample.prompt_id!r} (the longest of those read; "
            f"{self._num_too_long} of the first {self._num_seen} are too long): raise "
            "data.max_length, make the corpus with fewer genes a cell, or set data.too_long to "
            "'cut' or 'drop'"
        )

    def _shorten(
        self, samples: Sequence[SampleText], encoded: Sequence[EncodedSample], long: Sequence[int]
    ) -> Iterator[EncodedSample]:
        """Cut or drop the samples at the places `long`, in that order."""
        can_cut = self._config.too_long is TooLong.CUT
        genes = [i for i in long if can_cut and is_made_of_genes(samples[i].task)]
        spaces = [max(0, self._limit - len(encoded[i].prompt_ids)) for i in genes]
        parts = self._cut([samples[i] for i in genes], spaces)
        cut = dict(zip(genes, parts, strict=True))
        for i in long:
            if i not in cut:
                yield replace(encoded[i], fate=Fate.TOO_LONG)
            elif len(cut[i]) == 0:
                yield replace(encoded[i], fate=Fate.PROMPT_TOO_LONG)
            else:
                yield replace(encoded[i], target_ids=cut[i], fate=Fate.CUT)

    def _cut(self, samples: Sequence[SampleText], spaces: Sequence[int]) -> list[IntArray]:
        """Tokenise the longest part of each answer that ends after a whole gene and fits.

        A part is tokenised for itself, as the policy would be given it; should that take more
        tokens than within the whole text, genes go one by one.

        Args:
            samples: Samples whose answers are made of genes.
            spaces: Most tokens of each answer.

        Returns:
            Token ids; none where not even one gene fits.
        """
        encodings = self._with_offsets([sample.target for sample in samples])
        parts = [
            _ends_with_gene(sample.target[: encoding.offsets[space - 1][1] if space else 0], sample)
            for sample, encoding, space in zip(samples, encodings, spaces, strict=True)
        ]
        ids = self.token_ids(parts)
        while over := [i for i, space in enumerate(spaces) if len(ids[i]) > space]:
            for i in over:
                parts[i] = _ends_with_gene(parts[i][:-1], samples[i])
            for i, fewer in zip(over, self.token_ids([parts[i] for i in over]), strict=True):
                ids[i] = fewer
        return ids

    def _with_offsets(self, texts: Sequence[str]) -> "Iterator[Encoding]":
        for chunk in _chunks(texts):
            yield from self._backend.encode_batch(chunk, add_special_tokens=False)


def is_made_of_genes(task: Task) -> bool:
    """Whether the answer is one cell sentence or several, or a list of genes."""
    return TASK_RULES[task].answer in (AnswerKind.CELL, AnswerKind.CELLS, AnswerKind.GENES)


def fast_backend(tokenizer: "PreTrainedTokenizerBase") -> "Tokenizer":
    """Get the Rust tokenizer of a fast tokenizer, set to neither cut nor pad.

    Raises:
        DataError: If it is a slow one.
    """
    from transformers import PreTrainedTokenizerFast

    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise DataError(
            "the base model's tokenizer must be a fast one (with a tokenizer.json), "
            f"got {type(tokenizer).__name__}"
        )
    backend: Tokenizer = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return backend


def _ends_with_gene(part: str, sample: SampleText) -> str:
    """Shorten the first part of an answer until it ends with a whole gene.

    Args:
        part: The first characters of the sample's target.
        sample: The sample.

    Returns:
        The part up to its last gene; '' if there is none.
    """
    rest = sample.target[len(part) :]
    if rest and not rest[0].isspace():
        part = re.sub(r"\S+$", "", part)  # the start of the word that goes on in `rest`
    part = part.rstrip()
    if TASK_RULES[sample.task].answer is AnswerKind.CELLS:
        # What is left of a cell that has lost all its genes: 'Cell', or 'Cell 3:'.
        part = re.sub(r"(^|\n)\s*\S+( \d+:)?$", "", part)
    return part


def _chunks(texts: Sequence[str]) -> Iterator[list[str]]:
    """Divide texts into runs of some `CALL_CHARACTERS` characters."""
    ends = np.cumsum([len(text) for text in texts])
    for _, run in itertools.groupby(
        zip(texts, ends.tolist(), strict=True), key=lambda pair: pair[1] // CALL_CHARACTERS
    ):
        yield [text for text, _ in run]
