"""Where prompts and completions lie in a packed row, and which blocks of attention that leaves.

Plain numbers only: a layout is made beside the cluster, travels to it, and is a key of caches.
Shape suffix: L packed tokens.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import groupby


@dataclass(frozen=True)
class PartShape:
    """Lengths of one prompt and of the completions packed behind it."""

    prompt_length: int
    """At least 1: the last prompt token predicts the first token of every completion."""
    completion_lengths: tuple[int, ...]
    """In packed order; 0 is allowed."""

    def __post_init__(self) -> None:
        if self.prompt_length < 1 or min(self.completion_lengths, default=0) < 0:
            raise ValueError(
                "a part must have a prompt of at least 1 token and completions of at least 0, "
                f"got {self.prompt_length} and {self.completion_lengths}"
            )

    @property
    def num_tokens(self) -> int:
        """Prompt plus all completions."""
        return self.prompt_length + sum(self.completion_lengths)


class PieceKind(StrEnum):
    """What meets what in a block of the attention matrix."""

    PROMPT = "prompt"
    """A prompt with itself, causally."""
    COMPLETIONS_ON_PROMPT = "completions_on_prompt"
    """All completions of a part with their prompt, of which nothing is hidden from them."""
    COMPLETIONS = "completions"
    """Equally long completions, each with itself, causally."""


@dataclass(frozen=True)
class Piece:
    """One block of the attention matrix: some queries on some keys of the same row."""

    kind: PieceKind
    query_start: int
    """Index of the first query in the row."""
    query_length: int
    """Queries of one sequence."""
    key_start: int
    """Index of the first key in the row."""
    key_length: int
    """Keys of one sequence."""
    num_sequences: int = 1
    """Sequences that lie behind one another and do not see each other."""

    @property
    def is_causal(self) -> bool:
        """Queries and keys are the same tokens, and each sees those up to itself."""
        return self.kind is not PieceKind.COMPLETIONS_ON_PROMPT

    @property
    def opens_queries(self) -> bool:
        """No earlier piece has these queries."""
        return self.kind is not PieceKind.COMPLETIONS

    @property
    def opens_keys(self) -> bool:
        """No earlier piece has these keys."""
        return self.kind is not PieceKind.COMPLETIONS_ON_PROMPT


@dataclass(frozen=True)
class SharedPromptLayout:
    """Parts of a packed row, each a prompt and then its completions, without gaps."""

    parts: tuple[PartShape, ...]
    """In packed order."""

    @property
    def num_tokens(self) -> int:
        """L."""
        return sum(part.num_tokens for part in self.parts)

    @property
    def longest_sequence(self) -> int:
        """Tokens of the longest prompt plus completion; a wider sliding window hides nothing."""
        return max(p.prompt_length + max(p.completion_lengths, default=0) for p in self.parts)

    @cached_property
    def position_ids_L(self) -> tuple[int, ...]:
        """[L]: 0..P-1 for a prompt, P..P+C-1 for each of its completions."""
        return tuple(
            position
            for part in self.parts
            for start, length in (
                (0, part.prompt_length),
                *((part.prompt_length, length) for length in part.completion_lengths),
            )
            for position in range(start, start + length)
        )

    @cached_property
    def sequence_ids_L(self) -> tuple[tuple[int, int], ...]:
        """[L]: (part, completion) of each token; completion is -1 for the prompt."""
        return tuple(
            (index, completion)
            for index, part in enumerate(self.parts)
            for completion, length in enumerate((part.prompt_length, *part.completion_lengths), -1)
            for _ in range(length)
        )

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """The blocks of attention that hold anything; see `Piece.opens_queries` for their order."""
        pieces: list[Piece] = []
        start = 0
        for part in self.parts:
            prompt, first = part.prompt_length, start + part.prompt_length
            pieces.append(Piece(PieceKind.PROMPT, start, prompt, start, prompt))
            num_answer = part.num_tokens - prompt
            if num_answer:
                kind = PieceKind.COMPLETIONS_ON_PROMPT
                pieces.append(Piece(kind, first, num_answer, start, prompt))
            for length, run in groupby(part.completion_lengths):
                count = len(list(run))
                if length:
                    kind = PieceKind.COMPLETIONS
                    pieces.append(Piece(kind, first, length, first, length, count))
                first += count * length
            start += part.num_tokens
        return tuple(pieces)
