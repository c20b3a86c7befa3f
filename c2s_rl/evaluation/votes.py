"""Labels out of a policy's answers: majority of several samples, and how often it is right.

An answer is compared as `is_same_label` does: case, spaces, quotes and end marks aside. With a
closed set of labels an answer that is none of them counts as 'unknown': nothing is guessed.

Shape suffixes: C cells, L labels.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from c2s_rl.errors import ConfigError
from c2s_rl.evaluation.text_metrics import label_key

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Vote:
    """What several answers say together."""

    label: str
    """The majority; 'unknown' where that is of answers without a label."""
    share: float
    """Its share of the answers, in (0, 1]."""
    num_unknown: int
    """Answers that are no label."""


def label_index(labels: Sequence[str]) -> dict[str, str]:
    """Map what answers are compared by to the label as it is written.

    Raises:
        ConfigError: If two labels are the same to the comparison, or one is called 'unknown'.
    """
    index: dict[str, str] = {}
    for label in labels:
        key = label_key(label)
        if key in index or key in {"", UNKNOWN}:
            raise ConfigError(
                f"labels must differ in more than case and end marks, and none be {UNKNOWN!r} or "
                f"empty, got {label!r}" + (f" and {index[key]!r}" if key in index else "")
            )
        index[key] = label
    return index


def vote(answers: Sequence[str], index: Mapping[str, str] | None) -> Vote:
    """Take the majority of answers.

    Args:
        answers: At least one.
        index: Closed set of labels, from `label_index`; None lets every answer be a label, spelled
            as its first occurrence in one line, and only an empty one unknown.

    Returns:
        The label with the most answers; among equals a known one goes before 'unknown', and what
        was answered first before what came later.
    """
    labels: list[str] = []
    spelled: dict[str, str] = {}
    for answer in answers:
        key = label_key(answer)
        if index is not None:
            labels.append(index.get(key, UNKNOWN))
        elif key in {"", UNKNOWN}:
            labels.append(UNKNOWN)
        else:
            labels.append(spelled.setdefault(key, _written(answer)))
    counts = Counter(labels)
    best = max(counts, key=lambda label: (counts[label], label != UNKNOWN, -labels.index(label)))
    return Vote(best, counts[best] / len(labels), counts[UNKNOWN])


def _written(answer: str) -> str:
    """One line without control characters, which a policy may write and HDF5 does not take."""
    line = " ".join(answer.split())
    return "".join(c if c.isprintable() else "\ufffd" for c in line)


class LabelScore(BaseModel):
    """How well one label is found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_cells: int = Field(description="Cells with this label.")
    num_predicted: int = Field(description="Cells that were given it.")
    precision: float | None = Field(description="Share of those given it that have it.")
    recall: float = Field(description="Share of those that have it that were given it.")
    f1: float = Field(description="Harmonic mean of both; 0 where nothing is right.")


class AnnotationScore(BaseModel):
    """Predicted labels against known ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    accuracy: float = Field(description="Share of labelled cells that got their label.")
    macro_f1: float = Field(description="Mean F1 over the known labels; each weighs the same.")
    majority_baseline: float = Field(description="Accuracy of giving every cell the commonest.")
    num_cells: int = Field(description="Cells with a known label.")
    num_unknown: int = Field(description="Of those, cells whose majority was no label.")
    labels: dict[str, LabelScore] = Field(description="Known label to its score.")
    confusion: dict[str, dict[str, int]] = Field(description="Known label to predicted to cells.")


def score_annotation(known_C: Sequence[str], predicted_C: Sequence[str]) -> AnnotationScore:
    """Compare predictions with known labels.

    Args:
        known_C: [C] at least one; none is empty.
        predicted_C: [C] in the same order; a label that differs from a known one in case or end
            marks only counts as that one.
    """
    spelled = {label_key(label): label for label in sorted(set(known_C), reverse=True)}
    predicted = [spelled.get(label_key(label), label) for label in predicted_C]
    known = [spelled[label_key(label)] for label in known_C]
    pairs = Counter(zip(known, predicted, strict=True))
    num_known, num_predicted = Counter(known), Counter(predicted)
    scores = {
        label: _label_score(pairs[label, label], num_known[label], num_predicted[label])
        for label in sorted(num_known)
    }
    confusion: dict[str, dict[str, int]] = {label: {} for label in sorted(num_known)}
    for (truth, guess), num in sorted(pairs.items()):
        confusion[truth][guess] = num
    return AnnotationScore(
        accuracy=sum(pairs[label, label] for label in num_known) / len(known),
        macro_f1=float(np.mean([score.f1 for score in scores.values()])),
        majority_baseline=max(num_known.values()) / len(known),
        num_cells=len(known),
        num_unknown=num_predicted[UNKNOWN],
        labels=scores,
        confusion=confusion,
    )


def _label_score(num_right: int, num_known: int, num_predicted: int) -> LabelScore:
    return LabelScore(
        num_cells=num_known,
        num_predicted=num_predicted,
        precision=num_right / num_predicted if num_predicted else None,
        recall=num_right / num_known,
        f1=2 * num_right / (num_known + num_predicted),
    )
