"""The tasks a prompt can set: what templates may say of them, what an answer is, how it is judged.

Left out: the wording itself, which is data (`templates/*.yaml`), how records are made from cells
(`c2s_rl.data.drafters`), and the metrics (`c2s_rl.evaluation`).

Source: the twelve pretraining tasks and their metrics are C2S-Scale's (bioRxiv
2025.04.14.648850), Table 1; the others are its downstream tasks, section 4.6.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from c2s_rl.types import Task


class AnswerKind(StrEnum):
    """What the target of a task is."""

    CELL = "cell"
    """One cell sentence."""
    CELLS = "cells"
    """Several cell sentences, one 'Cell 1: ...' a line."""
    GENES = "genes"
    """Gene symbols in no order that means anything."""
    TEXT = "text"
    """Sentences of natural language."""
    LABEL = "label"
    """A short label, several of them, or yes or no."""


class TaskMetric(StrEnum):
    """What an evaluation of the task shows first."""

    OVERLAP = "overlap"
    """|generated and reference genes| / |reference genes|."""
    BERTSCORE = "bertscore"
    """F1 of BERTScore against the target."""
    ACCURACY = "accuracy"
    """Share of answers that are the target."""


class TaskScope(StrEnum):
    """What a prompt of the task is about."""

    CELL = "cell"
    """One cell, or one and its control."""
    SAMPLE = "sample"
    """Several cells."""
    GENE_SET = "gene_set"
    """Genes, without cells."""
    TEXT = "text"
    """A text with cells beside it."""


@dataclass(frozen=True)
class TaskRule:
    """What the templates of one task may say and what answers it."""

    required: frozenset[str]
    """Placeholders without which the task cannot be solved."""
    allowed: frozenset[str]
    """All placeholders that are known for this task; holds `required`."""
    answer: AnswerKind
    """What the target is."""
    metric: TaskMetric
    """The paper's metric."""
    scope: TaskScope
    """What it is about."""

    @property
    def is_cell_sentence(self) -> bool:
        """Whether the answer is one cell sentence."""
        return self.answer is AnswerKind.CELL


def _rule(
    required: str,
    optional: str,
    *,
    answer: AnswerKind,
    scope: TaskScope,
    metric: TaskMetric | None = None,
) -> TaskRule:
    """Write a rule from words; every template may name the organism and the number of genes."""
    usual = {
        AnswerKind.TEXT: TaskMetric.BERTSCORE,
        AnswerKind.LABEL: TaskMetric.BERTSCORE,
    }
    needed = frozenset(required.split())
    return TaskRule(
        required=needed,
        allowed=needed | set(optional.split()) | {"num_genes", "organism"},
        answer=answer,
        metric=metric or usual.get(answer, TaskMetric.OVERLAP),
        scope=scope,
    )


_CELL, _SAMPLE, _GENE_SET = TaskScope.CELL, TaskScope.SAMPLE, TaskScope.GENE_SET

# What a task asks for is no placeholder of it: a template that shows the answer is an error.
TASK_RULES: Mapping[Task, TaskRule] = MappingProxyType(
    {
        Task.SINGLE_CELL_LANGUAGE_MODELLING: _rule("", "", answer=AnswerKind.CELL, scope=_CELL),
        Task.CELL_TYPE_ANNOTATION: _rule("cell_sentence", "", answer=AnswerKind.LABEL, scope=_CELL),
        Task.CELL_GENERATION: _rule("cell_type", "", answer=AnswerKind.CELL, scope=_CELL),
        Task.MULTI_CELL_LANGUAGE_MODELLING: _rule(
            "num_cells", "", answer=AnswerKind.CELLS, scope=_SAMPLE
        ),
        Task.TISSUE_ANNOTATION: _rule(
            "cell_sentences", "num_cells", answer=AnswerKind.LABEL, scope=_SAMPLE
        ),
        Task.SAMPLE_CELL_TYPE_ANNOTATION: _rule(
            "cell_sentences", "num_cells", answer=AnswerKind.LABEL, scope=_SAMPLE
        ),
        Task.TISSUE_SAMPLE_GENERATION: _rule(
            "tissue num_cells", "", answer=AnswerKind.CELLS, scope=_SAMPLE
        ),
        Task.CELL_TYPE_SAMPLE_GENERATION: _rule(
            "cell_types", "num_cells", answer=AnswerKind.CELLS, scope=_SAMPLE
        ),
        Task.ABSTRACT_SAMPLE_GENERATION: _rule(
            "abstract num_cells", "", answer=AnswerKind.CELLS, scope=_SAMPLE
        ),
        Task.NATURAL_LANGUAGE_INTERPRETATION: _rule(
            "cell_sentences", "num_cells", answer=AnswerKind.TEXT, scope=_SAMPLE
        ),
        Task.GENE_SET_ENUMERATION: _rule("gene_set", "", answer=AnswerKind.GENES, scope=_GENE_SET),
        Task.GENE_SET_NAMING: _rule("genes", "", answer=AnswerKind.LABEL, scope=_GENE_SET),
        Task.PERTURBATION_RESPONSE: _rule(
            "cell_sentence perturbation", "cell_type", answer=AnswerKind.CELL, scope=_CELL
        ),
        # {control} is a line of its own where a control cell is shown, and nothing elsewhere.
        Task.PERTURBATION_ANNOTATION: _rule(
            "cell_sentence control", "labels", answer=AnswerKind.LABEL, scope=_CELL
        ),
        # The study's text is required too: a template without its place would drop it unseen.
        Task.QUESTION_ANSWERING: _rule(
            "cell_sentences context question",
            "num_cells",
            answer=AnswerKind.TEXT,
            scope=TaskScope.TEXT,
        ),
        Task.NICHE_ANNOTATION: _rule(
            "cell_sentence other_sentences",
            "num_others",
            answer=AnswerKind.LABEL,
            metric=TaskMetric.ACCURACY,
            scope=_SAMPLE,
        ),
        Task.NEIGHBOUR_GENERATION: _rule("cell_sentence", "", answer=AnswerKind.CELL, scope=_CELL),
        Task.SAME_NEIGHBOURHOOD: _rule(
            "cell_sentences",
            "num_cells",
            answer=AnswerKind.LABEL,
            metric=TaskMetric.ACCURACY,
            scope=_SAMPLE,
        ),
        Task.SAME_NICHE: _rule(
            "cell_sentences",
            "num_cells",
            answer=AnswerKind.LABEL,
            metric=TaskMetric.ACCURACY,
            scope=_SAMPLE,
        ),
        Task.GENE_INTERACTION: _rule(
            "gene other_gene",
            "",
            answer=AnswerKind.LABEL,
            metric=TaskMetric.ACCURACY,
            scope=_GENE_SET,
        ),
        Task.GENE_PARTNERS: _rule("gene", "", answer=AnswerKind.GENES, scope=_GENE_SET),
        Task.CLUSTER_CAPTIONING: _rule(
            "cell_sentences", "num_cells", answer=AnswerKind.TEXT, scope=_SAMPLE
        ),
        Task.DATASET_INTERPRETATION: _rule(
            "cell_sentences", "num_cells", answer=AnswerKind.TEXT, scope=_SAMPLE
        ),
    }
)


def numbered(texts: Sequence[str]) -> str:
    """Write a text per cell, one a line: 'Cell 1: ...'."""
    return "\n".join(f"Cell {number}: {text}" for number, text in enumerate(texts, start=1))


@dataclass(frozen=True)
class PromptFacts:
    """What is known about one prompt; a template picks from it by placeholder name."""

    num_genes: int
    """Length of the cell sentences asked for, in genes."""
    organism: str
    """Species, for example 'Homo sapiens'."""
    sentences: tuple[str, ...] = ()
    """Cells shown in the prompt: gene symbols, highest first, separated by spaces."""
    num_cells: int = 0
    """Cells asked for or shown."""
    words: Mapping[str, str] = field(default_factory=dict)
    """Placeholder to its text, for all that cells do not give: 'cell_type', 'tissue', ..."""

    def as_words(self) -> dict[str, str]:
        """Return every placeholder's text by name.

        'cell_sentence' is the first cell shown, 'cell_sentences' all of them in numbered lines,
        'other_sentences' those after the first, and 'control' the second as a line of its own.
        """
        others = self.sentences[1:]
        # Optional lines bring their own line break, so that a prompt without them has no gap.
        context = self.words.get("context", "")
        return {
            "num_genes": str(self.num_genes),
            "organism": self.organism,
            "cell_sentence": self.sentences[0] if self.sentences else "",
            "cell_sentences": numbered(self.sentences),
            "other_sentences": numbered(others),
            "num_others": str(len(others)),
            "control": f"Control cell: {others[0]}\n" if others else "",
            "num_cells": str(self.num_cells),
            **self.words,
            "context": f"{context}\n" if context else "",
        }
