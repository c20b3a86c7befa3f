"""Tasks about one cell: which cells are asked for, annotated, or paired with a control.

Left out: samples of several cells (`sample_drafts.py`).
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from c2s_rl.cells.rank import stable_hash
from c2s_rl.cells.vocabulary import shown
from c2s_rl.data.corpus_config import CorpusConfig
from c2s_rl.data.drafts import NO_WORDS, Draft, Drafted, Material
from c2s_rl.data.labels import LabelledCell
from c2s_rl.types import Split, Task

log = logging.getLogger(__name__)

PoolKey = tuple[str, str, tuple[str, ...], Split]
Pools = Mapping[PoolKey, Sequence[LabelledCell]]


def draft_cells(material: Material, task: Task, config: CorpusConfig) -> Drafted:
    """Ask for every cell: unconditionally, or by its type.

    A prompt that names a cell type and no perturbation asks for an untreated cell, so cell
    generation leaves out the others, counted as 'not_control'.
    """
    del config
    is_conditional = task is Task.CELL_GENERATION
    kept = [cell for cell in material.cells if cell.is_control or not is_conditional]
    drafts = [
        _draft(
            cell,
            task,
            answers=(cell,),
            words=_cell_words(cell) if is_conditional else NO_WORDS,
        )
        for cell in kept
    ]
    return Drafted(drafts, Counter({"not_control": len(material.cells) - len(kept)}))


def draft_types(material: Material, task: Task, config: CorpusConfig) -> Drafted:
    """Show every cell and ask for its type."""
    del config
    drafts = [_draft(cell, task, shown=(cell,), answer=cell.cell_type) for cell in material.cells]
    return Drafted(drafts, Counter())


def draft_responses(material: Material, task: Task, config: CorpusConfig) -> Drafted:
    """Show a control of each perturbed cell and ask for the perturbed one.

    What is left out is counted: 'no_control' (cells) and 'too_few_controls' (prompts).
    """
    pairs, dropped = _pair(material.cells, config.pairs_per_cell, config.seed)
    drafts = [
        _draft(
            cell,
            task,
            draw=draw,
            shown=(control,),
            answers=(cell,),
            words=_cell_words(cell),
        )
        for cell, control, draw in pairs
    ]
    return Drafted(drafts, dropped)


def draft_labels(material: Material, task: Task, config: CorpusConfig) -> Drafted:
    """Show every cell and ask for cell type, perturbation and exposure: the response, reversed.

    With a control beside it (`annotate_with_control`), treated cells only, each with the controls
    that the response task would draw. Without, untreated cells are asked about as well.
    """
    words = {"labels": _listed(list(_labels(material.cells[0], config)))}
    dropped: Counter[str] = Counter()
    shown_of: list[tuple[tuple[LabelledCell, ...], int]] = [((c,), 0) for c in material.cells]
    if config.annotate_with_control:
        pairs, dropped = _pair(material.cells, config.pairs_per_cell, config.seed)
        shown_of = [((cell, control), draw) for cell, control, draw in pairs]
    drafts = [
        _draft(
            cells[0],
            task,
            draw=draw,
            shown=cells,
            answer="; ".join(f"{name}: {text}" for name, text in _labels(cells[0], config).items()),
            words=words,
        )
        for cells, draw in shown_of
    ]
    return Drafted(drafts, dropped)


def _labels(cell: LabelledCell, config: CorpusConfig) -> dict[str, str]:
    """Name what there is to tell about a cell; an untreated one has no exposure."""
    labels = {"cell type": cell.cell_type, "perturbation": cell.perturbation}
    if config.exposure_column is not None:
        labels["exposure"] = cell.exposure or "none"
    return labels


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _cell_words(cell: LabelledCell) -> Mapping[str, str]:
    return _words(cell.cell_type, cell.treatment)


@cache
def _words(cell_type: str, treatment: str) -> Mapping[str, str]:
    """Make the words once for all cells of a condition."""
    return {"cell_type": cell_type, "perturbation": treatment}


def _draft(
    cell: LabelledCell,
    task: Task,
    *,
    draw: int = 0,
    shown: tuple[LabelledCell, ...] = (),
    answers: tuple[LabelledCell, ...] = (),
    answer: str = "",
    words: Mapping[str, str] = NO_WORDS,
) -> Draft:
    return Draft(
        prompt_id=f"{task}/{cell.cell_id}/{draw}",
        task=task,
        condition=cell.condition,
        split=cell.split,
        shown=shown,
        answers=answers,
        answer=answer,
        words=words,
        parts=cell.parts,
    )


def _pair(
    ordered: Sequence[LabelledCell], pairs_per_cell: int, seed: int
) -> tuple[list[tuple[LabelledCell, LabelledCell, int]], Counter[str]]:
    """Pair each perturbed cell with controls that match it, drawn without repeats.

    A control matches by cell type, donor, side, and the columns of control_match; a cell without a
    label in one of those matches none.

    Returns:
        Cell, control and number of the draw, in order of cells; and what was left out.
    """
    pools: defaultdict[PoolKey, list[LabelledCell]] = defaultdict(list)
    for cell in ordered:
        if cell.is_control and all(cell.match):
            pools[_pool_key(cell)].append(cell)
    pairs: list[tuple[LabelledCell, LabelledCell, int]] = []
    dropped: Counter[str] = Counter()
    lacking: Counter[str] = Counter()
    for cell in ordered:
        if cell.is_control:
            continue
        pool = pools.get(_pool_key(cell), [])
        if not pool:
            dropped["no_control"] += 1
            lacking[" | ".join((cell.condition, *cell.match)) + f" ({cell.split})"] += 1
            continue
        num = min(pairs_per_cell, len(pool))
        dropped["too_few_controls"] += pairs_per_cell - num
        generator = np.random.default_rng(stable_hash(f"pair|{cell.cell_id}", seed))
        picks = generator.choice(len(pool), size=num, replace=False).tolist()
        pairs += [(cell, pool[pick], draw) for draw, pick in enumerate(picks)]
    if lacking:
        names = shown([f"{name}: {num}" for name, num in sorted(lacking.items())])
        log.warning("left out perturbed cells that have no control cell: %s", names)
    return pairs, dropped


def _pool_key(cell: LabelledCell) -> PoolKey:
    return cell.cell_type, cell.donor, cell.match, cell.split
