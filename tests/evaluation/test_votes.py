"""Majorities of answers and scores of labels, by hand and against scikit-learn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from c2s_rl.errors import ConfigError
from c2s_rl.evaluation.votes import Vote, label_index, score_annotation, vote

INDEX = label_index(["B cell", "CD4+ T cell"])


@pytest.mark.parametrize(
    ("answers", "index", "expected"),
    [
        ([" b cell."], INDEX, Vote("B cell", 1.0, 0)),
        (["CD4 T cell"], INDEX, Vote("unknown", 1.0, 1)),  # a plus sign is part of a name
        (["B cell", "CD4+ T cell", "CD4+ T cell"], INDEX, Vote("CD4+ T cell", 2 / 3, 0)),
        (["CD4+ T cell", "B cell"], INDEX, Vote("CD4+ T cell", 0.5, 0)),  # the first of equals
        (["what", "B cell"], INDEX, Vote("B cell", 0.5, 1)),  # a label before no label
        (["what", "who", "B cell"], INDEX, Vote("unknown", 2 / 3, 2)),
        ([" NK cell", "nk  Cell.", "B cell"], None, Vote("NK cell", 2 / 3, 0)),
        ([" a\x00b \n c"], None, Vote("a\ufffdb c", 1.0, 0)),
        (["", "Unknown", "B"], None, Vote("unknown", 2 / 3, 2)),
    ],
)
def test_the_majority_of_answers(answers, index, expected):
    assert vote(answers, index) == expected


def test_labels_must_be_told_apart():
    with pytest.raises(ConfigError, match="got 'b cell' and 'B cell'"):
        label_index(["B cell", "b cell"])
    with pytest.raises(ConfigError, match="got ''"):
        label_index([""])


def test_scores_by_hand():
    # B: 2 of 3 right, nothing else called B -> precision 1, recall 2/3, F1 0.8.
    # T: 1 of 1 right, one B called T -> precision 1/2, recall 1, F1 2/3.
    # NK: never right -> precision without meaning, F1 0.
    score = score_annotation(["B", "B", "B", "T", "NK"], ["B", "b.", "T", "T", "unknown"])
    assert score.accuracy == pytest.approx(3 / 5)
    assert score.labels["B"].f1 == pytest.approx(0.8)
    assert score.labels["T"].f1 == pytest.approx(2 / 3)
    assert (score.labels["NK"].precision, score.labels["NK"].f1) == (None, 0.0)
    assert score.macro_f1 == pytest.approx((0.8 + 2 / 3) / 3)
    assert score.majority_baseline == pytest.approx(3 / 5)
    assert score.num_unknown == 1
    assert score.confusion == {"B": {"B": 2, "T": 1}, "NK": {"unknown": 1}, "T": {"T": 1}}


LABELS = st.sampled_from(["a", "b", "c"])


@given(st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=30))
def test_scores_are_those_of_scikit_learn(pairs):
    known, predicted = (list(side) for side in zip(*pairs, strict=True))
    score = score_annotation(known, predicted)
    assert score.accuracy == pytest.approx(accuracy_score(known, predicted))
    expected = f1_score(
        known, predicted, average="macro", labels=sorted(set(known)), zero_division=0
    )
    assert score.macro_f1 == pytest.approx(expected)
