"""The tasks a prompt can set: which facts its templates may use and which they must.

Left out: the wording itself, which is data (`templates/*.yaml`), and how records are made
from cells (`c2s_rl.data.prompt_set`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from c2s_rl.types import Task


@dataclass(frozen=True)
class TaskRule:
    """What the templates of one task may say."""

    required: frozenset[str]
    """Placeholders without which the task cannot be solved."""
    allowed: frozenset[str]
    """All placeholders that are known for this task; holds `required`."""
    is_cell_sentence: bool
    """Whether the answer is a cell sentence; else it is free text."""


TASK_RULES: Mapping[Task, TaskRule] = MappingProxyType(
    {
        Task.CELL_GENERATION: TaskRule(
            required=frozenset({"cell_type"}),
            allowed=frozenset({"cell_type", "num_genes", "organism"}),
            is_cell_sentence=True,
        ),
        # The cell type is the answer here, so a template that shows it is an error.
        Task.CELL_TYPE_ANNOTATION: TaskRule(
            required=frozenset({"cell_sentence"}),
            allowed=frozenset({"cell_sentence", "num_genes", "organism"}),
            is_cell_sentence=False,
        ),
        Task.PERTURBATION_RESPONSE: TaskRule(
            required=frozenset({"cell_sentence", "perturbation"}),
            allowed=frozenset(
                {"cell_sentence", "perturbation", "cell_type", "num_genes", "organism"}
            ),
            is_cell_sentence=True,
        ),
        # The study's text is required too: a template without its place would drop it unseen.
        Task.QUESTION_ANSWERING: TaskRule(
            required=frozenset({"cell_sentences", "context", "question"}),
            allowed=frozenset(
                {"cell_sentences", "context", "question", "num_cells", "num_genes", "organism"}
            ),
            is_cell_sentence=False,
        ),
    }
)


@dataclass(frozen=True)
class PromptFacts:
    """What is known about one prompt; a template picks from it by placeholder name."""

    num_genes: int
    """Length of the cell sentences asked for, in genes."""
    organism: str
    """Species, for example 'Homo sapiens'."""
    cell_type: str = ""
    """Label of the target cell; of the control cell too, which shares it."""
    perturbation: str = ""
    """What the cell is exposed to, for example 'IFN-beta'; '' when the task has none."""
    cell_sentence: str = ""
    """The cell shown in the prompt: gene symbols, highest first, separated by spaces."""
    cell_sentences: tuple[str, ...] = ()
    """Several cells shown in the prompt, in the same form."""
    question: str = ""
    """What is asked about them."""
    context: str = ""
    """What is known of the study; '' when nothing is."""

    def as_words(self) -> dict[str, str]:
        """Return every placeholder's text by name."""
        return {
            "num_genes": str(self.num_genes),
            "organism": self.organism,
            "cell_type": self.cell_type,
            "perturbation": self.perturbation,
            "cell_sentence": self.cell_sentence,
            "cell_sentences": "\n".join(
                f"Cell {number}: {sentence}"
                for number, sentence in enumerate(self.cell_sentences, start=1)
            ),
            "num_cells": str(len(self.cell_sentences)),
            "question": self.question,
            # With its own line break, so that a prompt without a context has no empty line.
            "context": f"{self.context}\n" if self.context else "",
        }
