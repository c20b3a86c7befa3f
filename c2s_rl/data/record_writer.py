"""Drafts and genes in, prompt records out: sentences, wording and target of every prompt.

Left out: which cells make a prompt (`drafts.py`) and where genes come from (`cell_source.py`).

Shape suffix: K expressed genes of one cell.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from c2s_rl.cells.sentence import write_sentence
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.data.corpus_config import CorpusConfig, PromptStyle, TargetForm
from c2s_rl.data.drafts import Draft
from c2s_rl.data.labels import LabelledCell
from c2s_rl.data.token_budget import SampleSize, TokenCosts, fit_sample
from c2s_rl.data.wording import Sentences, Texts, Wording
from c2s_rl.prompts.tasks import TASK_RULES
from c2s_rl.types import IntArray, PromptRecord, Split, Task

NO_GENES: IntArray = np.zeros(0, dtype=np.int32)
PSEUDOBULK_TASKS = (Task.CELL_GENERATION, Task.PERTURBATION_RESPONSE)
"""Tasks that ask for a condition, which a mean can answer; the others ask for a certain cell."""

Genes = Mapping[int, IntArray]
"""Row of a cell to [K] all its expressed genes, highest first."""


@dataclass(frozen=True, eq=False)
class WrittenPrompt:
    """A record and how it came to its length."""

    record: PromptRecord
    num_short_sentences: int
    """Target sentences of fewer genes than asked for: the cells express no more."""
    is_shortened: bool
    """Sentences or cells were left out to fit the token budget."""
    num_cells_left_out: int
    """Cells of the sample that did not fit."""


@dataclass(frozen=True, eq=False)
class RecordWriter:
    """Writes the prompts of one corpus."""

    config: CorpusConfig
    """Lengths and targets."""
    wording: Wording
    """Writes the texts."""
    vocabulary: Vocabulary
    """Symbols of the genes."""
    pseudobulks: Mapping[str, IntArray]
    """Population to [K] the ranking of its mean; empty unless a target is one."""
    tiers: Mapping[str, str]
    """Condition of the test side to its tier."""
    costs: TokenCosts | None
    """What genes and texts cost; None without a token budget."""

    def write(self, draft: Draft, genes: Genes) -> WrittenPrompt | None:
        """Write one prompt with its target.

        Args:
            draft: What to write.
            genes: Genes of all its cells.

        Returns:
            The record; None when it does not fit the token budget.
        """
        size = self._fit(draft, genes)
        if size is None:
            return None
        num_left_out = draft.num_cells - size.num_cells
        if num_left_out:
            draft = draft.first_cells(size.num_cells)
        record = self._record(draft, genes, size.num_genes)
        lengths = [len(g) for g in self._answer_genes(draft, genes, self.config.target)]
        return WrittenPrompt(
            record=record,
            num_short_sentences=sum(length < size.num_genes for length in lengths),
            is_shortened=size.num_genes < self.config.num_genes or num_left_out > 0,
            num_cells_left_out=num_left_out,
        )

    def _record(self, draft: Draft, genes: Genes, num_genes: int) -> PromptRecord:
        form = self.config.reward_target
        rewarded = self._answer_genes(draft, genes, form)
        is_cell = TASK_RULES[draft.task].is_cell_sentence
        texts = self._texts(draft, genes, num_genes)
        tier = self.tiers.get(draft.condition, "") if draft.parts is not None else ""
        return PromptRecord(
            prompt_id=draft.prompt_id,
            prompt=texts.prompt,
            target=texts.target,
            task=draft.task,
            condition=draft.condition,
            context_id=draft.context_id,
            target_id=draft.target_id,
            split=draft.split,
            target_genes_K=rewarded[0] if is_cell else np.array(draft.target_genes, dtype=np.int32),
            context_genes_K=genes[draft.shown[0].row] if draft.shown else NO_GENES,
            tier=tier if draft.split is Split.TEST else "",
            keywords=draft.keywords,
            context_ids=draft.context_ids,
            target_ids=draft.target_ids,
        )

    def _texts(self, draft: Draft, genes: Genes, num_genes: int) -> Texts:
        shown = tuple(self._sentence(genes[cell.row], num_genes) for cell in draft.shown)
        answers = self._answer_genes(draft, genes, self.config.target)
        asked = tuple(self._sentence(one, num_genes) for one in answers)
        return self.wording.write(draft, Sentences(draft.sentences or shown, asked, num_genes))

    def _sentence(self, genes_K: IntArray, num_genes: int) -> str:
        return write_sentence(genes_K, self.vocabulary, num_genes)

    def _answer_genes(self, draft: Draft, genes: Genes, form: TargetForm) -> list[IntArray]:
        if form is TargetForm.PSEUDOBULK and draft.task in PSEUDOBULK_TASKS:
            return [self.pseudobulks[population(cell)] for cell in draft.answers]
        return [genes[cell.row] for cell in draft.answers]

    def _fit(self, draft: Draft, genes: Genes) -> SampleSize | None:
        budget, costs = self.config.token_budget, self.costs
        if budget is None or costs is None:  # both or neither
            return SampleSize(draft.num_cells, self.config.num_genes)
        shown = [[genes[cell.row]] for cell in draft.shown]
        asked = [[one] for one in self._answer_genes(draft, genes, self.config.target)]
        # A cell of a sample is shown or asked for; a control and its response are one unit.
        cells = [*shown, *asked] if draft.is_sample else [[one[0] for one in (*shown, *asked)]]
        if not draft.num_cells or draft.sentences:
            cells = []

        def text_tokens(num_cells: int) -> int:
            part = draft.first_cells(num_cells) if draft.is_sample else draft
            blank = Sentences(
                draft.sentences or ("",) * len(part.shown),
                ("",) * len(part.answers),
                self.config.num_genes,
            )
            texts = self.wording.write(part, blank)
            return costs.count_text(texts.prompt) + costs.count_text(texts.target) + 1

        size = fit_sample(
            cells,
            text_tokens,
            budget,
            costs,
            num_genes=self.config.num_genes,
            is_sample=draft.is_sample,
        )
        if size is not None and self.config.style is PromptStyle.CELL2SENTENCE:
            size = self._shortened(draft, genes, size, costs)
        if size is None or draft.is_sample:
            return size
        return SampleSize(draft.num_cells, size.num_genes)

    def _shortened(
        self, draft: Draft, genes: Genes, size: SampleSize, costs: TokenCosts
    ) -> SampleSize | None:
        """Drop genes until the texts as written fit.

        The package begins a sentence on a line of its own and ends it with a full stop: there its
        first and last gene cost more than they do between two spaces.
        """
        budget = self.config.token_budget
        assert budget is not None
        part = draft.first_cells(size.num_cells) if draft.is_sample else draft
        fewest = min(budget.min_genes, self.config.num_genes)
        for num_genes in range(size.num_genes, fewest - 1, -1):
            texts = self._texts(part, genes, num_genes)
            num_tokens = costs.count_text(texts.prompt) + costs.count_text(texts.target) + 1
            if num_tokens <= budget.max_tokens:
                return SampleSize(size.num_cells, num_genes)
        return None


def population(cell: LabelledCell) -> str:
    """Name the cells whose mean stands for this one: its condition, on its side only."""
    return f"{cell.condition} | {cell.split}"
