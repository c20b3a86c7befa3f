"""Shuffled answers: of other prompts, as frequent as they are right, never of the same gene set."""

from collections import Counter
from dataclasses import replace

from c2s_rl.evaluation.task_nulls import shuffled_answers
from c2s_rl.types import PromptRecord, Split, Task
from tests.sft_fixtures import record


def prompts(task: Task, targets: list[str], ids: list[str] | None = None) -> list[PromptRecord]:
    records = [record(i, t, split=Split.TEST, task=task) for i, t in enumerate(targets)]
    return [replace(r, prompt_id=p) for r, p in zip(records, ids, strict=True)] if ids else records


def test_a_label_is_drawn_as_often_as_it_is_right() -> None:
    records = prompts(Task.SAME_NICHE, [" Yes", " No"] * 50)
    drawn = shuffled_answers(records, num_draws=99, seed=0)
    # 99 other prompts of each: 49 with the same answer, 50 with the other.
    for one, answers in zip(records, drawn, strict=True):
        other = " No" if one.target == " Yes" else " Yes"
        assert Counter(answer.text for answer in answers) == {one.target: 49, other: 50}


def test_draws_of_one_gene_set_are_not_other_prompts() -> None:
    names = ["A", "A", "A", "B"]
    ids = [f"gene_set_enumeration/{name}/{draw}" for draw, name in enumerate(names)]
    records = prompts(Task.GENE_SET_ENUMERATION, [" G1 G2", " G2 G1", " G1", " G7"], ids)
    drawn = shuffled_answers(records, num_draws=2, seed=0)
    assert [[a.text for a in answers] for answers in drawn[:3]] == [[" G7"]] * 3
    assert len(drawn[3]) == 2
    assert shuffled_answers(records[:3], num_draws=2, seed=0) == [[], [], []]


def test_the_order_of_the_prompts_has_no_influence() -> None:
    records = prompts(Task.CELL_TYPE_ANNOTATION, [" a", " b", " c", " d", " e"])
    drawn = shuffled_answers(records, num_draws=2, seed=4)
    assert shuffled_answers(records[::-1], num_draws=2, seed=4) == drawn[::-1]
