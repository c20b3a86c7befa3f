"""What text answers are compared with: null baselines that need no model, and the right answer.

- most common: the most frequent answer of the training prompts, whatever is asked. Beaten by
  whoever reads the question.
- shuffled: right answers to other held-out questions, of other conditions where there are any.
  Fluent and on topic, but without knowledge of these cells and this question.
- right answer: the target itself. Its BERTScore is 1 by definition; its keyword recall and length
  say how far those can go.

Shape suffix: P prompts.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from c2s_rl.cells.rank import stable_hash
from c2s_rl.evaluation.result import MethodKind
from c2s_rl.types import Group, PromptRecord

MOST_COMMON = "most common"
SHUFFLED = "shuffled"
RIGHT_ANSWER = "right answer"

ABSENT_REASONS: Mapping[str, str] = {
    MOST_COMMON: "the corpus has no training prompt of this task",
    SHUFFLED: "no other held-out question has another answer",
}


@dataclass(frozen=True)
class Answer:
    """One answer."""

    text: str
    """As written."""
    is_truncated: bool = False
    """It hit the sampler's length limit."""


@dataclass(frozen=True, eq=False)
class TextMethod:
    """One way to answer questions."""

    name: str
    """Heading of its column."""
    kind: MethodKind
    """Null baseline, policy or ceiling."""
    definition: str
    """How its answers are made, in one sentence."""
    answers_P: Sequence[Sequence[Answer]]
    """[P] its answers to each prompt; an empty one has no value there."""

    @property
    def absent_reason(self) -> str:
        """Why it has no answer at all; '' when it has."""
        return "" if any(self.answers_P) else ABSENT_REASONS[self.name]


def policy_answers(name: str, groups_P: Sequence[Group]) -> TextMethod:
    """Take a policy's sampled answers."""
    answers_P = [
        [Answer(completion.text, completion.is_truncated) for completion in group.completions_G]
        for group in groups_P
    ]
    return TextMethod(name, MethodKind.POLICY, f"Answers sampled from the {name} model.", answers_P)


def text_baselines(
    records_P: Sequence[PromptRecord],
    train: Sequence[PromptRecord],
    *,
    num_draws: int,
    seed: int,
) -> list[TextMethod]:
    """Most common and shuffled answers to every prompt.

    Args:
        records_P: [P] held-out prompts.
        train: Training prompts of the same task.
        num_draws: Answers drawn a prompt, as many as a policy gives.
        seed: Seeds the draws, each prompt by itself.
    """
    counts = Counter(record.target for record in train)
    # Among equally frequent answers the first in the alphabet.
    common = [Answer(min(counts, key=lambda text: (-counts[text], text)))] if counts else []
    return [
        TextMethod(
            MOST_COMMON,
            MethodKind.NULL,
            "The most frequent answer of the training prompts, to every question.",
            [common] * len(records_P),
        ),
        TextMethod(
            SHUFFLED,
            MethodKind.NULL,
            "Right answers to other held-out questions, about other cells.",
            [_draw(record, records_P, num_draws, seed) for record in records_P],
        ),
    ]


def right_answers(records_P: Sequence[PromptRecord]) -> TextMethod:
    """The targets themselves."""
    return TextMethod(
        RIGHT_ANSWER,
        MethodKind.CEILING,
        "Ceiling: the answer that the others are scored against.",
        [[Answer(record.target)] for record in records_P],
    )


def _draw(
    record: PromptRecord, records_P: Sequence[PromptRecord], num_draws: int, seed: int
) -> list[Answer]:
    """Draw different right answers that are not this prompt's own."""
    others = [other for other in records_P if other.target != record.target]
    elsewhere = [other for other in others if other.condition != record.condition]
    pool = sorted({other.target for other in elsewhere or others})
    rng = np.random.default_rng(stable_hash(f"draw|{record.prompt_id}", seed))
    return [Answer(pool[pick]) for pick in rng.permutation(len(pool))[:num_draws].tolist()]
