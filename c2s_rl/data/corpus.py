"""Cells in, prompts and targets out: labels, split, pairing, wording, in that order.

Labels of all cells are read first and all prompts are chosen from them; genes are read afterwards,
of the cells in prompts only and a block of prompts at a time. Everything is keyed by cell ids and
the seed, so that the same cells give the same corpus whatever their order. Left out: reading the
cells and writing the shards (`c2s_rl.pipeline.corpus`).

Shape suffixes: N genes of the vocabulary, K expressed genes of one cell.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from c2s_rl.data.cell_source import CellSource, gene_hashes
from c2s_rl.data.corpus_config import CorpusConfig, TargetForm
from c2s_rl.data.drafters import DRAFTERS
from c2s_rl.data.drafts import Draft, Material, limit_drafts
from c2s_rl.data.labels import LabelledCell, label_cells
from c2s_rl.data.leaks import check_leaks
from c2s_rl.data.prompt_set import ConditionCount
from c2s_rl.data.pseudobulk import MeanProfiles, rank_means
from c2s_rl.data.record_writer import PSEUDOBULK_TASKS, RecordWriter, population
from c2s_rl.data.tiers import ConditionParts, name_tiers
from c2s_rl.data.token_budget import TokenCounter, token_costs
from c2s_rl.data.wording import TemplateWording, Wording
from c2s_rl.errors import ConfigError, DataError
from c2s_rl.prompts.render import TemplateSet
from c2s_rl.types import IntArray, PromptRecord, Split, Task

# Cells whose genes are in memory together: some 5 kB each at 1,000 genes, 1 GB in all. Each block
# of prompts reads the shards once, so it is not to be small.
CELLS_PER_BLOCK = 200_000

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class CorpusPlan:
    """Which prompts a corpus has, before any is written."""

    drafts: tuple[Draft, ...]
    """Prompts in seeded shuffled order."""
    cells: tuple[LabelledCell, ...]
    """Cells that have every label, sorted by id."""
    tiers: Mapping[str, str]
    """Condition of the test side to its tier."""
    dropped: Mapping[Task | None, Counter[str]]
    """Per task (None: of the whole corpus) reason to number left out."""


@dataclass(eq=False)
class Tally:
    """What was counted while prompts were written."""

    num_prompts: Counter[tuple[Task, Split, str]] = field(default_factory=Counter)
    """(task, side, condition) to prompts."""
    ids: defaultdict[tuple[Split, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    """(side, condition) to the cells in its prompts."""
    num_short_targets: int = 0
    """Target sentences of fewer genes than asked for; they are kept."""
    num_shortened: Counter[Task] = field(default_factory=Counter)
    """Prompts whose sentences or cells were cut to the token budget."""
    dropped: defaultdict[Task, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Per task, what did not fit the token budget."""


@dataclass(frozen=True, eq=False)
class Corpus:
    """What `build_corpus` makes."""

    records: tuple[PromptRecord, ...]
    """Prompts in seeded shuffled order."""
    counts: tuple[ConditionCount, ...]
    """Per task, side and condition, sorted."""
    dropped: dict[str, int]
    """Reason to number left out, of cells or prompts; see `dropped_of`."""
    num_short_targets: int
    """Target sentences of fewer genes than asked for; they are kept."""


def plan_corpus(source: CellSource, config: CorpusConfig) -> CorpusPlan:
    """Choose all prompts of a corpus and prove that nothing crosses the held-out line.

    Files that the config names (questions, abstracts, gene sets) are read here.

    Raises:
        MissingFileError: If one of them is not there.
        ConfigError: If a task is not one that a corpus is made for.
        DataError: If a value that the config names does not occur, a task gets no prompt on a
            side that it should have, or something crosses the held-out line.
    """
    labels = source.labels
    labelled = label_cells(labels, config)
    cells = tuple(sorted(labelled.cells, key=lambda cell: cell.cell_id))
    dropped: dict[Task | None, Counter[str]] = {None: Counter(labelled.dropped)}
    material = Material(cells, labels.obs, source.vocabulary)
    drafts: list[Draft] = []
    for task in config.tasks:
        if task not in DRAFTERS:
            known = ", ".join(sorted(DRAFTERS))
            raise ConfigError(f"a task of a corpus must be one of {known}, got {task}")
        drafted = DRAFTERS[task].draft(material, task, config)
        drafts += drafted.drafts
        dropped[task] = drafted.dropped
        log.info("corpus: %d prompts for %s", len(drafted.drafts), task)
    _require_distinct(drafts)
    kept, num_over_limit = limit_drafts(drafts, config.limits, seed=config.seed)
    dropped[None]["over_limit"] += num_over_limit
    require_sides(((d.task, d.split) for d in kept), config, dropped)
    check_leaks(kept, labelled.held_out)
    return CorpusPlan(tuple(kept), cells, _tiers(kept, labelled.tier_names), dropped)


def iter_records(
    plan: CorpusPlan,
    source: CellSource,
    config: CorpusConfig,
    wording: Wording,
    counter: TokenCounter | None,
    tally: Tally,
) -> Iterator[PromptRecord]:
    """Write the prompts of a plan, in its order, and count them.

    Args:
        plan: What to write.
        source: Where genes are read from.
        config: As the plan was made with.
        wording: Writes the texts of every task of `config`.
        counter: Counts tokens; needed for a token budget that names a tokenizer.
        tally: Counts, complete when the last record is taken.
    """
    budget = config.token_budget
    writer = RecordWriter(
        config=config,
        wording=wording,
        vocabulary=source.vocabulary,
        pseudobulks=_pseudobulks(plan, source, config),
        tiers=plan.tiers,
        costs=None if budget is None else token_costs(budget, source.vocabulary, counter),
    )
    num_done = 0
    for block in _blocks(plan.drafts):
        genes = _genes_of(block, source)
        for draft in block:
            written = writer.write(draft, genes)
            if written is None:
                tally.dropped[draft.task]["over_token_budget"] += 1
                continue
            record = written.record
            key = (record.task, record.split, record.condition)
            tally.num_prompts[key] += 1
            tally.ids[key[1:]].update(record.context_ids, record.target_ids)
            tally.num_short_targets += written.num_short_sentences
            tally.num_shortened[record.task] += written.is_shortened
            if written.num_cells_left_out:
                reason = "cells_over_token_budget"
                tally.dropped[draft.task][reason] += written.num_cells_left_out
            yield record
        num_done += len(block)
        log.info("corpus: %d of %d prompts written", num_done, len(plan.drafts))


def build_corpus(
    source: CellSource,
    config: CorpusConfig,
    templates: Mapping[Task, TemplateSet],
    counter: TokenCounter | None = None,
) -> Corpus:
    """Make all prompts of a corpus, in memory, from templates of every task of `config`.

    Raises:
        MissingFileError: As `plan_corpus`.
        DataError: As `plan_corpus`, or if a task loses its prompts to the token budget.
    """
    plan, tally = plan_corpus(source, config), Tally()
    wording = TemplateWording(templates, source.organism, config.seed)
    records = tuple(iter_records(plan, source, config, wording, counter, tally))
    return Corpus(
        records=records,
        counts=count_conditions(plan, tally),
        dropped=all_dropped(plan, tally, config),
        num_short_targets=tally.num_short_targets,
    )


def count_conditions(plan: CorpusPlan, tally: Tally) -> tuple[ConditionCount, ...]:
    """Count prompts per task, side and condition, and the cells that there are of each."""
    num_cells = Counter((cell.split, cell.condition) for cell in plan.cells)
    return tuple(
        ConditionCount(
            task=task,
            split=split,
            condition=condition,
            num_prompts=num,
            # A condition of samples (a tissue, a study) has the cells that are in its prompts.
            num_cells=num_cells[split, condition] or len(tally.ids[split, condition]),
            tier=plan.tiers.get(condition, "") if split is Split.TEST else "",
        )
        for (task, split, condition), num in sorted(tally.num_prompts.items())
    )


def all_dropped(plan: CorpusPlan, tally: Tally, config: CorpusConfig) -> dict[str, int]:
    """Add up what was left out, by reason.

    Raises:
        DataError: If a task has lost all its prompts of a side to the token budget.
    """
    by_task = {task: Counter(counter) for task, counter in plan.dropped.items()}
    for task, counter in tally.dropped.items():
        by_task[task].update(counter)
    require_sides(((task, split) for task, split, _ in tally.num_prompts), config, by_task)
    total: Counter[str] = Counter()
    for counter in by_task.values():
        total.update(counter)
    for reason, num in sorted(total.items()):
        if num:
            log.info("left out of the corpus: %d %s", num, reason)
    return dict(sorted(total.items()))


def require_sides(
    present: Iterator[tuple[Task, Split]],
    config: CorpusConfig,
    dropped: Mapping[Task | None, Counter[str]],
) -> None:
    """Refuse a corpus in which a task lacks training prompts, or test prompts that were asked for.

    Raises:
        DataError: Naming the task, the side and what was left out.
    """
    sides = set(present)
    for task in config.tasks:
        rules = DRAFTERS[task].split_rules(config)
        for side in (Split.TRAIN, Split.TEST) if rules else (Split.TRAIN,):
            if (task, side) not in sides:
                reasons = [f"{num} {why}" for why, num in sorted(dropped[task].items()) if num]
                left_out = f"; left out: {', '.join(reasons)}" if reasons else ""
                hint = f"; {DRAFTERS[task].hint}" if DRAFTERS[task].hint else ""
                raise DataError(
                    f"a task must have prompts on the {side} side, got none for {task} with "
                    f"{rules or 'no held-out side'}{left_out}{hint}"
                )


def _require_distinct(drafts: Sequence[Draft]) -> None:
    """Prove that ids differ: labels are joined in them, and could hold the joint."""
    seen: set[str] = set()
    for draft in drafts:
        if draft.prompt_id in seen:
            raise DataError(f"ids of prompts must differ, got {draft.prompt_id!r} twice")
        seen.add(draft.prompt_id)


def _tiers(drafts: Sequence[Draft], own_names: Mapping[str, str]) -> dict[str, str]:
    """Condition of a test prompt to its tier, seen from training; not of samples or questions."""
    sides: dict[Split, set[ConditionParts]] = {split: set() for split in Split}
    for draft in drafts:
        if draft.parts is not None:
            sides[draft.split].add(draft.parts)
    return name_tiers(sides[Split.TEST], sides[Split.TRAIN], own_names)


def _blocks(drafts: Sequence[Draft]) -> Iterator[list[Draft]]:
    """Cut the drafts into runs of no more than `CELLS_PER_BLOCK` different cells."""
    block: list[Draft] = []
    rows: set[int] = set()
    for draft in drafts:
        block.append(draft)
        rows.update(cell.row for cell in (*draft.shown, *draft.answers))
        if len(rows) >= CELLS_PER_BLOCK:
            yield block
            block, rows = [], set()
    if block:
        yield block


def _genes_of(block: Sequence[Draft], source: CellSource) -> dict[int, IntArray]:
    """Read the genes of all cells of a block."""
    rows = sorted({cell.row for draft in block for cell in (*draft.shown, *draft.answers)})
    genes: dict[int, IntArray] = {}
    for portion in source.portions(np.array(rows, dtype=np.int64), with_values=False):
        for i, row in enumerate(portion.rows.tolist()):
            genes[row] = portion.table.genes_of(i)
    return genes


def _pseudobulks(plan: CorpusPlan, source: CellSource, config: CorpusConfig) -> dict[str, IntArray]:
    """Rank the mean of every condition that is asked for, over all its cells on the same side."""
    if TargetForm.PSEUDOBULK not in (config.target, config.reward_target):
        return {}
    wanted = {population(d.answers[0]) for d in plan.drafts if d.task in PSEUDOBULK_TASKS}
    names = {cell.row: name for cell in plan.cells if (name := population(cell)) in wanted}
    means = MeanProfiles(len(source.vocabulary))
    for portion in source.portions(np.array(sorted(names), dtype=np.int64), with_values=True):
        means.add(portion.table, [names[row] for row in portion.rows.tolist()])
    return rank_means(means.means(), gene_hashes=gene_hashes(source), seed=source.seed)
