"""What is embedded, as texts: single cells, or samples of several cells.

A source knows how many contexts there are and reads any range of them, so that workers share the
work and nobody holds everything. All cells get one wording: vectors are compared with each other,
and must differ by the cells alone. Texts of a file are read in `embed_texts.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from c2s_rl.cells.sentence import write_sentence
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.data.cell_groups import SampledRows
from c2s_rl.data.cell_reader import CellReader
from c2s_rl.data.cell_table import CellTable
from c2s_rl.pipeline.embed_config import ANNOTATION, SENTENCE
from c2s_rl.prompts.render import load_templates
from c2s_rl.prompts.tasks import PromptFacts
from c2s_rl.types import IntArray, Task

SAMPLE_SENTENCES = "{cell_sentences}"
CELL_SENTENCE = "{cell_sentence}"


@dataclass(frozen=True)
class Context:
    """One text to embed."""

    context_id: str
    """Unique id: of the cell, the sample or the text."""
    text: str
    """What the policy reads."""
    labels: tuple[str, ...]
    """In the order of the source's label names; '' where missing."""


class ContextSource(Protocol):
    """Texts to embed, by number; travels to other processes."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the labels that every context has."""

    def __len__(self) -> int:
        """Count the contexts."""

    def read(self, start: int, stop: int) -> list[Context]:
        """Read contexts start..stop-1."""


@dataclass(frozen=True)
class CellWording:
    """How cells become a text."""

    template: str
    """With places as `c2s_rl/prompts/tasks.py` names them."""
    num_genes: int
    """Genes of a sentence."""
    organism: str
    """Species, as prompts write it."""

    def cell(self, genes_K: IntArray, vocabulary: Vocabulary) -> str:
        """Write one cell."""
        return self._fill((write_sentence(genes_K, vocabulary, self.num_genes),))

    def sample(self, genes: Sequence[IntArray], vocabulary: Vocabulary) -> str:
        """Write several cells."""
        return self._fill(tuple(write_sentence(g, vocabulary, self.num_genes) for g in genes))

    def _fill(self, sentences: tuple[str, ...]) -> str:
        facts = PromptFacts(
            num_genes=self.num_genes,
            organism=self.organism,
            sentences=sentences,
            num_cells=len(sentences),
        )
        return self.template.format_map(facts.as_words()).strip()


def template_of(prompt: str, *, is_sample: bool) -> str:
    """Turn the option `prompt` into a template; own texts are their own."""
    if prompt == ANNOTATION:
        task = Task.SAMPLE_CELL_TYPE_ANNOTATION if is_sample else Task.CELL_TYPE_ANNOTATION
        return load_templates(task).prompts[0]
    if prompt == SENTENCE:
        return SAMPLE_SENTENCES if is_sample else CELL_SENTENCE
    return prompt


class SingleCells:
    """Every cell of a folder, in its order."""

    def __init__(
        self, cells: CellReader, wording: CellWording, label_names: tuple[str, ...]
    ) -> None:
        """Take the cells.

        Raises:
            DataError: If a label is not an obs column.
        """
        cells.require_columns(label_names)
        self._cells = cells
        self._wording = wording
        self._vocabulary = cells.manifest.vocabulary
        self.label_names = label_names

    def __len__(self) -> int:
        return len(self._cells)

    def read(self, start: int, stop: int) -> list[Context]:
        """Read cells start..stop-1."""
        table = self._cells.read(np.arange(start, stop), self.label_names)
        return [
            Context(
                table.cell_ids[i],
                self._wording.cell(table.genes_of(i), self._vocabulary),
                _labels_of(table, i, self.label_names),
            )
            for i in range(len(table))
        ]


class CellSamples:
    """Samples of several cells."""

    def __init__(
        self,
        cells: CellReader,
        wording: CellWording,
        label_names: tuple[str, ...],
        sampled: SampledRows,
    ) -> None:
        self._cells = cells
        self._wording = wording
        self._vocabulary = cells.manifest.vocabulary
        self._sampled = sampled
        self.label_names = label_names

    def __len__(self) -> int:
        return len(self._sampled.names)

    def read(self, start: int, stop: int) -> list[Context]:
        """Read samples start..stop-1."""
        rows_S_k = self._sampled.rows_S_k[start:stop]
        table = self._cells.read(rows_S_k.ravel())
        size = rows_S_k.shape[1]
        return [
            Context(
                self._sampled.names[start + s],
                self._wording.sample(
                    [table.genes_of(s * size + i) for i in range(size)], self._vocabulary
                ),
                self._sampled.labels[start + s],
            )
            for s in range(len(rows_S_k))
        ]


def _labels_of(table: CellTable, row: int, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(table.obs[name][row]) for name in names)
