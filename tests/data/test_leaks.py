"""Every kind of leak across the held-out line."""

import re

import numpy as np
import pytest

from c2s_rl.data.leaks import HeldOut, check_leaks
from c2s_rl.errors import DataError
from c2s_rl.types import PromptRecord, Split, Task

NO_GENES = np.zeros(0, dtype=np.int32)


def record(
    split: Split, *, context: str = "", target: str = "", condition: str = "T | IFN"
) -> PromptRecord:
    return PromptRecord(
        prompt_id=f"{split}/{context}/{target}",
        prompt="p",
        target=" t",
        task=Task.PERTURBATION_RESPONSE,
        condition=condition,
        context_id=context,
        target_id=target,
        split=split,
        target_genes_K=NO_GENES,
        context_genes_K=NO_GENES,
    )


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ({"context": "c1"}, {"context": "c1"}, "a context cell, got 'c1'"),
        ({"target": "c1"}, {"target": "c1"}, "a target cell, got 'c1'"),
        ({"target": "c1"}, {"context": "c1"}, "a target cell and a context cell, got 'c1'"),
        ({"context": "c1"}, {"target": "c1"}, "a context cell and a target cell, got 'c1'"),
        ({"context": "held"}, {"context": "c2"}, "a held-out cell, got 'held'"),
        ({"target": "held"}, {"context": "c2"}, "a held-out cell, got 'held'"),
        ({"context": "d1-a"}, {"target": "d1-b"}, "a group of cells, got 'donor d1'"),
        ({"condition": "B | IFN"}, {"condition": "B | IFN"}, "a held-out condition, got 'B | IFN'"),
    ],
)
def test_leak_is_refused_by_name(train: dict[str, str], test: dict[str, str], message: str) -> None:
    records = [record(Split.TRAIN, **train), record(Split.TEST, **test)]
    with pytest.raises(DataError, match=re.escape(f"must not share {message}")):
        check_leaks(
            records,
            HeldOut(
                cells=frozenset({"held"}),
                conditions=frozenset({"B | IFN"}),
                groups={"d1-a": ("donor d1", "block 0,0"), "d1-b": ("donor d1",)},
            ),
        )


def test_condition_that_is_not_held_out_may_stand_on_both_sides() -> None:
    records = [
        record(Split.TRAIN, context="c1", target="t1"),
        record(Split.TRAIN, context="c1", target="t2"),
        record(Split.TEST, context="c2", target="t3"),
        record(Split.TEST),
        record(Split.TRAIN),
    ]
    check_leaks(records)
    records.append(record(Split.TEST, target="t1"))
    with pytest.raises(DataError, match="a target cell, got 't1'"):
        check_leaks(records)
