"""Cells in, prompts and targets out: labels, split, pairing, wording, in that order.

Everything is keyed by cell ids and the seed, so that the same cells give the same corpus whatever
their order. Left out: reading the cells and writing the shards (`c2s_rl.pipeline.corpus`).

Shape suffixes: N genes of the vocabulary, K expressed genes of one cell.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from c2s_rl.cells.rank import UIntArray, stable_hash
from c2s_rl.cells.sentence import write_sentence
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.data.cell_table import CellTable
from c2s_rl.data.corpus_config import CorpusConfig, TargetForm
from c2s_rl.data.drafts import Draft, Placed, draft_prompts, limit_drafts
from c2s_rl.data.labels import LabelledCell, label_cells
from c2s_rl.data.leaks import check_leaks
from c2s_rl.data.prompt_set import ConditionCount
from c2s_rl.data.pseudobulk import rank_pseudobulks
from c2s_rl.data.qa_drafts import QaDraft, draft_questions
from c2s_rl.data.qa_file import read_questions
from c2s_rl.data.tiers import ConditionParts, name_tiers
from c2s_rl.errors import DataError
from c2s_rl.prompts.render import TemplateSet, render_target
from c2s_rl.prompts.tasks import TASK_RULES, PromptFacts
from c2s_rl.types import IntArray, PromptRecord, Split, Task

NO_GENES: IntArray = np.zeros(0, dtype=np.int32)

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class CellSource:
    """The cells that a corpus is made of."""

    table: CellTable
    """Ranked cells; obs holds the columns that the config names."""
    vocabulary: Vocabulary
    """Symbols of the gene indices."""
    organism: str
    """Species, as prompts write it."""
    seed: int
    """Seed of the tie-break that ranked the cells; pseudobulks use it too."""

    @cached_property
    def gene_hashes_N(self) -> UIntArray:
        """[N] tie-break hash of each symbol."""
        hashes = [stable_hash(symbol, self.seed) for symbol in self.vocabulary.symbols]
        return np.array(hashes, dtype=np.uint64)


@dataclass(frozen=True, eq=False)
class Corpus:
    """What `build_corpus` makes."""

    records: tuple[PromptRecord, ...]
    """Prompts in seeded shuffled order."""
    counts: tuple[ConditionCount, ...]
    """Per task, side and condition, sorted."""
    dropped: dict[str, int]
    """Reason to number left out: cells ('no_label'; per task 'no_control', 'not_control') and
    prompts ('too_few_controls', 'over_limit')."""
    num_short_targets: int
    """Target sentences of fewer genes than asked for; they are kept."""


def build_corpus(
    source: CellSource, config: CorpusConfig, templates: Mapping[Task, TemplateSet]
) -> Corpus:
    """Make all prompts of a corpus.

    Args:
        source: The cells.
        config: Tasks, columns, targets and the held-out line; the file of questions that it may
            name is read here.
        templates: Phrasings of every task of `config`.

    Raises:
        MissingFileError: If there is no file of questions.
        DataError: If a value that the config names does not occur, a task gets no prompt on a
            side that it should have, or something crosses the held-out line.
    """
    labelled = label_cells(source.table, config)
    dropped = Counter(labelled.dropped)
    drafts: list[Draft | QaDraft] = []
    for task in config.tasks:
        made, left_out = _draft_task(labelled.cells, task, config)
        drafts += made
        dropped.update(left_out)
    kept, dropped["over_limit"] = limit_drafts(drafts, config.limits, seed=config.seed)
    _require_sides(kept, config)
    tiers = _tiers(kept, labelled.tier_names)
    writer = _Writer(source, config, templates, labelled.cells, tiers)
    records = tuple(writer.write(draft) for draft in kept)
    check_leaks(records, labelled.held_out)
    for reason, num in sorted(dropped.items()):
        if num:
            log.info("left out of the corpus: %d %s", num, reason)
    return Corpus(
        records=records,
        counts=_count(kept, labelled.cells, tiers),
        dropped=dict(sorted(dropped.items())),
        num_short_targets=sum(
            len(record.target.split()) < config.num_genes
            for record in records
            if TASK_RULES[record.task].is_cell_sentence
        ),
    )


def _draft_task(
    cells: Sequence[LabelledCell], task: Task, config: CorpusConfig
) -> tuple[Sequence[Draft | QaDraft], Counter[str]]:
    if config.qa is not None and task is Task.QUESTION_ANSWERING:
        return draft_questions(read_questions(config.qa.path), cells, config.qa, seed=config.seed)
    return draft_prompts(cells, task, pairs_per_cell=config.pairs_per_cell, seed=config.seed)


class _Writer:
    """Turns drafts into records; holds the pseudobulk of each condition and side."""

    def __init__(
        self,
        source: CellSource,
        config: CorpusConfig,
        templates: Mapping[Task, TemplateSet],
        cells: Sequence[LabelledCell],
        tiers: Mapping[str, str],
    ) -> None:
        self._tiers = tiers
        self._source = source
        self._config = config
        self._templates = templates
        self._pseudobulks: dict[str, IntArray] = {}
        if TargetForm.PSEUDOBULK in (config.target, config.reward_target):
            rows_of: defaultdict[str, list[int]] = defaultdict(list)
            for cell in cells:
                rows_of[_population(cell)].append(cell.row)
            self._pseudobulks = rank_pseudobulks(
                source.table, rows_of, gene_hashes=source.gene_hashes_N, seed=source.seed
            )

    def write(self, draft: Draft | QaDraft) -> PromptRecord:
        """Write one prompt with its target."""
        return self._question(draft) if isinstance(draft, QaDraft) else self._cell(draft)

    def _question(self, draft: QaDraft) -> PromptRecord:
        item = draft.item
        genes = [self._source.table.genes_of(cell.row) for cell in draft.cells]
        facts = PromptFacts(
            num_genes=self._config.num_genes,
            organism=self._source.organism,
            cell_sentences=item.sentences or tuple(map(self._sentence, genes)),
            question=item.question,
            context=item.context,
        )
        return PromptRecord(
            prompt_id=draft.prompt_id,
            prompt=self._templates[draft.task].render(
                facts, prompt_id=draft.prompt_id, seed=self._config.seed
            ),
            target=render_target(item.answer),
            task=draft.task,
            condition=draft.condition,
            context_id=draft.cells[0].cell_id if draft.cells else "",
            target_id="",
            split=draft.split,
            target_genes_K=NO_GENES,
            context_genes_K=genes[0] if genes else NO_GENES,
            keywords=item.keywords,
        )

    def _cell(self, draft: Draft) -> PromptRecord:
        is_annotation = draft.task is Task.CELL_TYPE_ANNOTATION
        shown = draft.cell if is_annotation else draft.control
        shown_genes = NO_GENES if shown is None else self._source.table.genes_of(shown.row)
        facts = PromptFacts(
            num_genes=self._config.num_genes,
            organism=self._source.organism,
            cell_type=draft.cell.cell_type,
            perturbation=draft.cell.treatment,
            cell_sentence=self._sentence(shown_genes),
        )
        prompt = self._templates[draft.task].render(
            facts, prompt_id=draft.prompt_id, seed=self._config.seed
        )
        if is_annotation:
            answer, target_genes = draft.cell.cell_type, NO_GENES
        else:
            answer = self._sentence(self._genes(draft.cell, self._config.target))
            target_genes = self._genes(draft.cell, self._config.reward_target)
        return PromptRecord(
            prompt_id=draft.prompt_id,
            prompt=prompt,
            target=render_target(answer),
            task=draft.task,
            condition=draft.cell.condition,
            context_id="" if shown is None else shown.cell_id,
            target_id="" if is_annotation else draft.cell.cell_id,
            split=draft.cell.split,
            target_genes_K=target_genes,
            context_genes_K=shown_genes,
            tier=_tier(draft.cell, self._tiers),
        )

    def _sentence(self, genes_K: IntArray) -> str:
        return write_sentence(genes_K, self._source.vocabulary, self._config.num_genes)

    def _genes(self, cell: LabelledCell, form: TargetForm) -> IntArray:
        if form is TargetForm.PSEUDOBULK:
            return self._pseudobulks[_population(cell)]
        return self._source.table.genes_of(cell.row)


def _population(cell: LabelledCell) -> str:
    """Name the cells whose mean stands for this one: its condition, on its side only."""
    return f"{cell.condition} | {cell.split}"


def _require_sides(drafts: Sequence[Placed], config: CorpusConfig) -> None:
    """Refuse a corpus in which a task lacks training prompts, or test prompts that were asked for.

    Raises:
        DataError: Naming the task and the side.
    """
    present = {(draft.task, draft.split) for draft in drafts}
    for task in config.tasks:
        is_qa = config.qa is not None and task is Task.QUESTION_ANSWERING
        rules = config.qa.split if config.qa is not None and is_qa else config.split
        for side in (Split.TRAIN, Split.TEST) if rules.has_rules else (Split.TRAIN,):
            if (task, side) not in present:
                hint = "; test questions are shown cells of the test side" if is_qa else ""
                raise DataError(
                    f"a task must have prompts on the {side} side, got none for {task} with "
                    f"holdout {dict(rules.holdout)}, {len(rules.tiers)} tiers and "
                    f"test_fraction {rules.test_fraction}{hint}"
                )


def _tiers(drafts: Sequence[Draft | QaDraft], own_names: Mapping[str, str]) -> dict[str, str]:
    """Condition of a test prompt to its tier, seen from training; questions have none."""
    sides: dict[Split, set[ConditionParts]] = {split: set() for split in Split}
    for draft in drafts:
        if isinstance(draft, Draft):
            sides[draft.cell.split].add(draft.cell.parts)
    return name_tiers(sides[Split.TEST], sides[Split.TRAIN], own_names)


def _tier(cell: LabelledCell, tiers: Mapping[str, str]) -> str:
    return tiers[cell.condition] if cell.split is Split.TEST else ""


def _count(
    drafts: Sequence[Placed], cells: Sequence[LabelledCell], tiers: Mapping[str, str]
) -> tuple[ConditionCount, ...]:
    num_cells = Counter((cell.split, cell.condition) for cell in cells)
    num_prompts = Counter((d.task, d.split, d.condition) for d in drafts)
    return tuple(
        ConditionCount(
            task=task,
            split=split,
            condition=condition,
            num_prompts=num,
            num_cells=num_cells[split, condition],
            tier=tiers.get(condition, "") if split is Split.TEST else "",
        )
        for (task, split, condition), num in sorted(num_prompts.items())
    )
