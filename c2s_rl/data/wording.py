"""Drafts and their sentences in, the two texts of a prompt out, in either of two styles.

The styles are this project's templates and, for models that were trained with it, the words of the
cell2sentence package. Both draw the phrasing by (seed, prompt id). Left out: which cells are in a
prompt and how long their sentences are (`record_writer.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from c2s_rl.data.drafts import Draft
from c2s_rl.prompts.c2s_style import C2SStyle, load_c2s_style, multi_cell_text
from c2s_rl.prompts.render import TemplateSet, render_target
from c2s_rl.prompts.tasks import TASK_RULES, PromptFacts, numbered
from c2s_rl.types import Task


@dataclass(frozen=True)
class Sentences:
    """The cell sentences of one draft."""

    shown: tuple[str, ...]
    """Of the cells in the prompt, in order."""
    asked: tuple[str, ...]
    """Of the cells that are the answer, in order."""
    num_genes: int
    """Their length that is asked for, in genes."""


@dataclass(frozen=True)
class Texts:
    """What is written of one draft."""

    prompt: str
    """Ends without whitespace."""
    target: str
    """Starts with exactly one space."""


class Wording(Protocol):
    """Writes the texts of a corpus."""

    def write(self, draft: Draft, sentences: Sentences) -> Texts:
        """Write prompt and target of a draft."""

    @property
    def phrasings(self) -> dict[Task, tuple[str, ...]]:
        """All phrasings, by task, for the manifest."""


@dataclass(frozen=True)
class TemplateWording:
    """Texts from this project's templates, or from files of the user's own."""

    templates: Mapping[Task, TemplateSet]
    """Phrasings of every task."""
    organism: str
    """Species, as prompts write it."""
    seed: int
    """Seed of the corpus."""

    @property
    def phrasings(self) -> dict[Task, tuple[str, ...]]:
        """All phrasings, by task."""
        return {task: templates.prompts for task, templates in self.templates.items()}

    def write(self, draft: Draft, sentences: Sentences) -> Texts:
        """Write prompt and target of a draft."""
        lines = {name: numbered(texts) for name, texts in draft.lines.items()}
        facts = PromptFacts(
            num_genes=sentences.num_genes,
            organism=self.organism,
            sentences=sentences.shown,
            num_cells=draft.num_cells,
            words={**draft.words, **lines},
        )
        prompt = self.templates[draft.task].render(facts, prompt_id=draft.prompt_id, seed=self.seed)
        return Texts(prompt, render_target(_answer(draft, sentences.asked)))


def _answer(draft: Draft, asked: Sequence[str]) -> str:
    if asked:
        return asked[0] if TASK_RULES[draft.task].is_cell_sentence else numbered(asked)
    return numbered(draft.answer_lines) if draft.answer_lines else draft.answer


ANSWER_NAMES: Mapping[Task, str] = MappingProxyType(
    {
        Task.CELL_TYPE_ANNOTATION: "cell_type",
        Task.TISSUE_ANNOTATION: "tissue",
        Task.NATURAL_LANGUAGE_INTERPRETATION: "abstract",
    }
)
"""What the package calls the answer of a task."""


@dataclass(frozen=True)
class C2SWording:
    """Texts in the words of the installed cell2sentence package.

    They are the package's own but for one thing: a line break at the end of a prompt is left off,
    since a prompt ends without whitespace here.
    """

    styles: Mapping[Task, C2SStyle]
    """The package's phrasings of every task."""
    organism: str
    """Species, as prompts write it."""
    seed: int
    """Seed of the corpus."""

    @property
    def phrasings(self) -> dict[Task, tuple[str, ...]]:
        """All phrasings, by task."""
        return {task: style.prompts for task, style in self.styles.items()}

    def write(self, draft: Draft, sentences: Sentences) -> Texts:
        """Write prompt and target of a draft."""
        style = self.styles[draft.task]
        cells = sentences.shown or sentences.asked
        facts: dict[str, str | int] = {
            **draft.words,
            "num_genes": sentences.num_genes,
            "num_cells": draft.num_cells,
            "organism": self.organism,
            "cell_sentence": cells[0],
            "multi_cell_sentences": multi_cell_text(cells),
        }
        if draft.task in ANSWER_NAMES:
            facts[ANSWER_NAMES[draft.task]] = draft.answer
        written = style.render(facts, choice=style.pick(draft.prompt_id, self.seed))
        return Texts(written.prompt.rstrip(), render_target(written.response))


def c2s_wording(tasks: Sequence[Task], *, organism: str, seed: int) -> C2SWording:
    """Read the package's phrasings of some tasks.

    Raises:
        ConfigError: If the package has no prompts for a task.
        MissingFileError: If the package is not installed.
        DataError: If its files do not hold phrasings.
    """
    return C2SWording({task: load_c2s_style(task) for task in tasks}, organism, seed)
