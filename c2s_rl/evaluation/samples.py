"""Sample sentences for the report: what a policy wrote, word by word, with its faults marked."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum

from c2s_rl.cells.sentence import write_sentence
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.types import Group, PromptRecord

MAX_WORDS = 80  # shown of one sentence
PROMPT_HEAD, PROMPT_TAIL = 220, 120  # characters kept of a long prompt


class Mark(StrEnum):
    """What a word is; doubles as its CSS class."""

    PLAIN = "plain"
    PROGRAM = "program"
    """A gene of the program, named for the first time."""
    DUPLICATE = "duplicate"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class MarkedWord:
    """One word of a sentence."""

    text: str
    """As written."""
    mark: Mark
    """What it is."""


@dataclass(frozen=True)
class MarkedSentence:
    """One line of a sample."""

    origin: str
    """'real' or the policy's name."""
    words: tuple[MarkedWord, ...]
    """The first MAX_WORDS words."""
    num_more: int
    """Words that are not shown."""


@dataclass(frozen=True)
class Sample:
    """A held-out prompt with the real answer and one answer a policy."""

    condition: str
    """Group of real cells that the answer belongs to."""
    prompt: str
    """Shortened in its middle."""
    sentences: tuple[MarkedSentence, ...]
    """Real first, then the policies in order."""


def make_samples(
    groups_by_policy: Mapping[str, Sequence[Group]],
    vocabulary: Vocabulary,
    program: AbstractSet[int],
    *,
    num_genes: int,
    num_samples: int,
) -> list[Sample]:
    """Take the first prompt of each of the first conditions, and the first answer to it.

    Nothing is picked for its looks: the order is that of the evaluation.

    Args:
        groups_by_policy: Policy to its groups, all in the same order of prompts.
        vocabulary: Known symbols.
        program: Vocabulary indices to highlight.
        num_genes: Words shown of the real cell at most, like a sentence asked for.
        num_samples: Conditions to show.
    """
    first = next(iter(groups_by_policy.values()))
    picked: dict[str, int] = {}
    for index, group in enumerate(first):
        picked.setdefault(group.record.condition, index)
    samples = []
    for index in itertools.islice(picked.values(), num_samples):
        record = first[index].record
        texts = {"real": write_sentence(record.target_genes_K, vocabulary, num_genes)}
        texts |= {
            name: groups[index].completions_G[0].text for name, groups in groups_by_policy.items()
        }
        samples.append(_sample(record, texts, vocabulary, program))
    return samples


def mark_words(
    text: str, vocabulary: Vocabulary, program: AbstractSet[int]
) -> Iterator[MarkedWord]:
    """Classify every word as the parser does; a full stop at the end belongs to no symbol."""
    seen: set[int] = set()
    words = text.split()
    if words and vocabulary.index_of(words[-1]) is None:
        words[-1] = words[-1].removesuffix(".")
    for word in filter(None, words):
        index = vocabulary.index_of(word)
        if index is None:
            mark = Mark.UNKNOWN
        elif index in seen:
            mark = Mark.DUPLICATE
        else:
            mark = Mark.PROGRAM if index in program else Mark.PLAIN
            seen.add(index)
        yield MarkedWord(word, mark)


def shorten(prompt: str) -> str:
    """Cut the middle out of a long prompt, at spaces."""
    if len(prompt) <= PROMPT_HEAD + PROMPT_TAIL + 20:
        return prompt
    head = prompt[:PROMPT_HEAD].rsplit(" ", 1)[0]
    tail = prompt[-PROMPT_TAIL:].split(" ", 1)[-1]
    num_words = len(prompt.split()) - len(head.split()) - len(tail.split())
    return f"{head} … ({num_words} words) … {tail}"


def _sample(
    record: PromptRecord,
    texts: Mapping[str, str],
    vocabulary: Vocabulary,
    program: AbstractSet[int],
) -> Sample:
    sentences = []
    for origin, text in texts.items():
        words = tuple(mark_words(text, vocabulary, program))
        shown = words[:MAX_WORDS]
        sentences.append(MarkedSentence(origin, shown, len(words) - len(shown)))
    return Sample(record.condition, shorten(record.prompt), tuple(sentences))
