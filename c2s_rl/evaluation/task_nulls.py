"""What answers by task are compared with: right answers of other prompts of the same task.

They are fluent and on topic, but know nothing of the cells and genes that are asked about. Prompts
are drawn, not answers, so that a label comes as often as it is right: guessing 'Yes' and 'No' by
their frequency is right about half of the time, and a model must be better than that. Left out:
baselines of free texts (`text_methods.py`), which never draw the right answer itself.

Shape suffix: P prompts of one task.
"""

from collections.abc import Sequence

import numpy as np

from c2s_rl.cells.rank import stable_hash
from c2s_rl.evaluation.text_methods import Answer
from c2s_rl.prompts.tasks import TASK_RULES, TaskScope
from c2s_rl.types import PromptRecord


def shuffled_answers(
    records_P: Sequence[PromptRecord], *, num_draws: int, seed: int
) -> list[list[Answer]]:
    """Draw right answers of other prompts for every prompt.

    Args:
        records_P: [P] held-out prompts of one task.
        num_draws: Answers of a prompt, as many as a policy gives; fewer where there are no more
            other prompts.
        seed: Seeds the draws, each prompt by itself.

    Returns:
        [P] answers; none for a prompt that has no other beside it.
    """
    subjects_P = [_subject(record) for record in records_P]
    answers_P: list[list[Answer]] = []
    for record, subject in zip(records_P, subjects_P, strict=True):
        others = sorted(
            (other.prompt_id, other.target)
            for other, theirs in zip(records_P, subjects_P, strict=True)
            if theirs != subject
        )
        rng = np.random.default_rng(stable_hash(f"task draw|{record.prompt_id}", seed))
        picks = rng.permutation(len(others))[:num_draws].tolist()
        answers_P.append([Answer(others[pick][1]) for pick in picks])
    return answers_P


def _subject(record: PromptRecord) -> str:
    """What a prompt is about: prompts about one gene set end their ids with numbers of draws."""
    if TASK_RULES[record.task].scope is TaskScope.GENE_SET:
        return record.prompt_id.rpartition("/")[0] or record.prompt_id
    return record.prompt_id
