"""Two parts of the held-out prompts: one that chooses a checkpoint, one that judges the choice.

Choosing the best of several checkpoints on the prompts that are reported afterwards would make the
report too good: the best of ten equal policies looks better than the average one. So a quarter of
the held-out prompts (validation) is answered during training and picks the checkpoint, and only
the others (test) are reported. A prompt's part follows from the cell that its text shows, its
control cell, or from its target cell where it shows none: no text and no control is in both.

What it leaves: with `reward_target: pseudobulk` both parts of a condition are compared with the
same mean of real cells, and a target cell may be paired with controls of both parts, so what is
chosen can still fit the noise of those cells. Choosing on conditions of their own would need more
of them than most data sets hold out.
"""

from enum import StrEnum

from c2s_rl.cells.sentence import stable_hash
from c2s_rl.types import PromptRecord

VALIDATION_SHARE = 0.25


class HeldOutPart(StrEnum):
    """What a held-out prompt is for."""

    VALIDATION = "validation"
    """Answered during training; chooses the best checkpoint."""
    TEST = "test"
    """Answered afterwards; what is reported."""


class HeldOutPrompts(StrEnum):
    """Which held-out prompts are evaluated on."""

    ALL = "all"
    TEST = "test"
    """Those that choose no checkpoint during training."""


def part_of(record: PromptRecord, seed: int) -> HeldOutPart:
    """Return the part that a held-out prompt belongs to.

    Args:
        record: The prompt; its side of the split is not looked at.
        seed: The corpus's seed, so that the parts are the same in every stage of a run.
    """
    unit = record.context_id or record.target_id or record.prompt_id
    # A 64-bit hash below share x 2^64 is a coin of that bias, tossed once per cell.
    is_validation = stable_hash(f"part|{unit}", seed) < int(VALIDATION_SHARE * 2**64)
    return HeldOutPart.VALIDATION if is_validation else HeldOutPart.TEST
