"""Which cells each question is asked about, and on which side of the held-out line it stands.

A question goes to the side that `qa.split` gives it; without a rule there, to the side of the cells
that it names. It is only shown cells of its own side, so that a test prompt is new in its question
and in its cells. Left out: wording (`corpus.py`).
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from c2s_rl.cells.rank import stable_hash
from c2s_rl.cells.vocabulary import unknown_name
from c2s_rl.data.corpus_config import CorpusConfig, QaConfig
from c2s_rl.data.drafts import Draft, Drafted, Material
from c2s_rl.data.labels import LabelledCell
from c2s_rl.data.qa_file import QaItem, read_questions
from c2s_rl.data.splits import require_value, split_cells
from c2s_rl.errors import ConfigError, DataError
from c2s_rl.types import Split, Task


def draft_questions_of_file(material: Material, task: Task, config: CorpusConfig) -> Drafted:
    """Read the file of questions that the config names and choose the cells of each.

    Raises:
        MissingFileError: If there is no such file.
        ConfigError: If `qa.split` names a column that the file lacks.
        DataError: As `read_questions` and `draft_questions`.
    """
    if config.qa is None:
        raise ConfigError(f"{task} needs section qa, got None")
    items = read_questions(config.qa.path)
    drafts, dropped = draft_questions(items, material.cells, config.qa, seed=config.seed)
    return Drafted(drafts, dropped)


def draft_questions(
    items: Sequence[QaItem], cells: Sequence[LabelledCell], config: QaConfig, *, seed: int
) -> tuple[list[Draft], Counter[str]]:
    """Choose side and cells of every question.

    Args:
        items: The questions.
        cells: All cells of the corpus, with their sides.
        config: How many cells are drawn, and which questions are held out.
        seed: Seed of both draws; the order of questions and cells has no influence.

    Returns:
        Drafts in order of the questions, and prompts left out: 'cells_of_both_sides' (named cells
        that are not all on the question's side), 'too_few_cells' (of the type on that side).

    Raises:
        DataError: If a cell or a cell type is not in the corpus, a held-out value does not occur,
            or a question stands with the same answer on both sides.
    """
    sides = _sides(items, config, seed)
    by_id = {cell.cell_id: cell for cell in cells}
    pools: defaultdict[tuple[str, Split], list[LabelledCell]] = defaultdict(list)
    for cell in sorted(cells, key=lambda cell: cell.cell_id):
        pools[cell.cell_type, cell.split].append(cell)
    _check_types(items, cells)
    drafts: list[Draft] = []
    dropped: Counter[str] = Counter()
    for item in items:
        if item.cells:
            named = _named(item, by_id)
            side = sides.get(item.question_id, named[0].split)
            if any(cell.split is not side for cell in named):
                dropped["cells_of_both_sides"] += 1
                continue
            drafts.append(_draft(item, 0, named, side))
            continue
        side = sides.get(item.question_id, Split.TRAIN)
        if item.sentences:
            drafts.append(_draft(item, 0, (), side))
            continue
        pool = pools.get((item.cell_type, side), [])
        if len(pool) < config.cells_per_question:
            dropped["too_few_cells"] += config.draws
            continue
        drafts += [_draw(item, draw, pool, side, config, seed) for draw in range(config.draws)]
    _check_leaks(drafts)
    return drafts, dropped


def _sides(items: Sequence[QaItem], config: QaConfig, seed: int) -> Mapping[str, Split]:
    """Side of every question by the rules of `qa.split`; empty without rules."""
    rules = config.split
    if not rules.holdout and not rules.test_fraction:
        return {}
    ids = [item.question_id for item in items]
    obs: dict[str, np.ndarray[tuple[int], np.dtype[np.str_]]] = {}
    known = sorted({name for item in items for name in item.columns})
    wanted = [*rules.holdout, *([rules.group_column] if rules.group_column else [])]
    for name in wanted or ["question"]:
        if name not in known:
            raise ConfigError(unknown_name("a column of qa.split", name, known, "the questions"))
        obs[name] = np.array([item.columns.get(name, "") for item in items])
    split = split_cells(ids, obs, rules, seed=seed)
    return {
        question: Split.TEST if is_test else Split.TRAIN
        for question, is_test in zip(ids, split.is_test_C.tolist(), strict=True)
    }


def _check_types(items: Sequence[QaItem], cells: Sequence[LabelledCell]) -> None:
    types = np.array([cell.cell_type for cell in cells])
    for cell_type in sorted({item.cell_type for item in items} - {""}):
        require_value(types, cell_type, "cell_type of a question")


def _named(item: QaItem, by_id: Mapping[str, LabelledCell]) -> tuple[LabelledCell, ...]:
    missing = [cell_id for cell_id in item.cells if cell_id not in by_id]
    if missing:
        raise DataError(
            f"cells of a question must be in the cell shards with all labels, got no "
            f"{missing[0]!r} for question {item.question_id!r}"
        )
    return tuple(by_id[cell_id] for cell_id in item.cells)


def _draw(
    item: QaItem,
    draw: int,
    pool: Sequence[LabelledCell],
    side: Split,
    config: QaConfig,
    seed: int,
) -> Draft:
    generator = np.random.default_rng(stable_hash(f"qa|{item.question_id}|{draw}", seed))
    picked = generator.choice(len(pool), size=config.cells_per_question, replace=False)
    return _draft(item, draw, tuple(pool[pick] for pick in picked.tolist()), side)


def _draft(item: QaItem, draw: int, cells: tuple[LabelledCell, ...], side: Split) -> Draft:
    return Draft(
        prompt_id=f"{Task.QUESTION_ANSWERING}/{item.question_id}/{draw}",
        task=Task.QUESTION_ANSWERING,
        condition=item.condition,
        split=side,
        shown=cells,
        sentences=item.sentences,
        words={"question": item.question, "context": item.context},
        answer=item.answer,
        keywords=item.keywords,
    )


def _check_leaks(drafts: Sequence[Draft]) -> None:
    """Prove that no question with its answer, and no cell, is on both sides."""
    asked: dict[Split, set[str]] = {side: set() for side in Split}
    shown: dict[Split, set[str]] = {side: set() for side in Split}
    for draft in drafts:
        asked[draft.split].add(f"{draft.words['question']} -> {draft.answer}")
        shown[draft.split] |= set(draft.context_ids)
    for what, by_side in (("a question with its answer", asked), ("a cell of a question", shown)):
        shared = sorted(by_side[Split.TRAIN] & by_side[Split.TEST])
        if shared:
            raise DataError(
                f"training and test prompts must not share {what}, got {shared[0]!r} "
                f"and {len(shared) - 1} more"
            )
