"""What is compared: policies, the null baselines that they must beat, and real cells as the limit.

Everything but a policy is made of real cells, written as `ParsedCell`s that go through the same
metrics, cut to the same number of genes as a policy is asked for:

- mean cell: the mean of all training cells, one sentence for every prompt. Beaten by whoever
  knows anything about the condition.
- shuffled: real cells of *other* conditions, of either side of the split, as if labels had been
  shuffled: realistic cells without knowledge of the condition.
- copy control: the control cell of the prompt as the answer. Beaten by whoever knows a response.
- real cell: the ceiling, real against real: other real cells of the same condition, held out like
  the target. How well one real cell stands for another.
- real mean: the mean of those cells. A policy that answers with the typical cell of its condition
  can pass a single real cell, which carries noise of its own; this is how far that leads.

Shape suffixes: P prompts, V vocabulary, K genes of one cell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from c2s_rl.cells.sentence import stable_hash
from c2s_rl.evaluation.rank import DoubleArray
from c2s_rl.evaluation.real_cells import RealCells
from c2s_rl.evaluation.result import MethodKind
from c2s_rl.types import Group, IntArray, ParsedCell, PromptRecord

MEAN_CELL = "mean cell"
SHUFFLED = "shuffled"
COPY_CONTROL = "copy control"
REAL_CELL = "real cell"
REAL_MEAN = "real mean"

ABSENT_REASONS: Mapping[str, str] = {
    MEAN_CELL: "the prompts were read without their training side",
    SHUFFLED: "the corpus has no other condition",
    COPY_CONTROL: "these prompts hold no control cell to copy",
    REAL_CELL: "no condition has a second real held-out cell",
    REAL_MEAN: "no condition has a second real held-out cell",
}


@dataclass(frozen=True, eq=False)
class Method:
    """One way to answer prompts."""

    name: str
    """Heading of its column."""
    kind: MethodKind
    """Null baseline, policy or ceiling."""
    definition: str
    """How its answers are made, in one sentence."""
    answers_P: Sequence[Sequence[ParsedCell]]
    """[P] its answers to each prompt; an empty one has no value there."""

    @property
    def absent_reason(self) -> str:
        """Why it has no answer at all; '' when it has."""
        return "" if any(self.answers_P) else ABSENT_REASONS[self.name]


@dataclass(frozen=True)
class Drawing:
    """How real cells become answers."""

    num_genes: int
    """Length of their sentences in genes."""
    num_draws: int
    """Cells drawn a prompt, as many as a policy gives answers."""
    seed: int
    """Seeds the draws, each prompt by itself."""


def policy_method(name: str, groups_P: Sequence[Group]) -> Method:
    """Take a policy's sampled answers as they were parsed."""
    definition = f"Answers sampled from the {name} model."
    return Method(name, MethodKind.POLICY, definition, [group.cells_G for group in groups_P])


def null_baselines(
    records_P: Sequence[PromptRecord], real: RealCells, drawing: Drawing
) -> list[Method]:
    """Mean cell, shuffled and copy control, each answering every prompt that it can."""
    mean_genes_K = _order(real.mean(real.train_rows))
    mean_P = [_as_answers([mean_genes_K], drawing) for _ in records_P]
    shuffled_P = [_draw(record, real, real.other_rows(record), drawing) for record in records_P]
    control_P = [_as_answers([record.context_genes_K], drawing) for record in records_P]
    null = MethodKind.NULL
    return [
        Method(MEAN_CELL, null, "The mean of all training cells, the same everywhere.", mean_P),
        Method(SHUFFLED, null, "Real cells of other conditions.", shuffled_P),
        Method(COPY_CONTROL, null, "The prompt's control cell, unchanged.", control_P),
    ]


def ceilings(records_P: Sequence[PromptRecord], real: RealCells, drawing: Drawing) -> list[Method]:
    """Real cell and real mean: cells of the target's own condition against the target."""
    single_P, mean_P = [], []
    for record in records_P:
        rows = real.sibling_rows(record)
        single_P.append(_draw(record, real, rows, drawing))
        mean_P.append(_as_answers([_order(real.mean(rows))], drawing))
    return [
        Method(
            REAL_CELL,
            MethodKind.CEILING,
            "Ceiling: other single real held-out cells of the same condition. How well one real "
            "cell stands for another.",
            single_P,
        ),
        Method(
            REAL_MEAN,
            MethodKind.CEILING,
            "Ceiling for typical cells: the mean of the condition's other real held-out cells. "
            "Averaging removes the noise of single cells, so it can pass 'real cell'.",
            mean_P,
        ),
    ]


def _draw(
    record: PromptRecord, real: RealCells, rows: Sequence[int], drawing: Drawing
) -> tuple[ParsedCell, ...]:
    """Draw different cells, by a generator of this prompt alone."""
    rng = np.random.default_rng(stable_hash(f"draw|{record.prompt_id}", drawing.seed))
    picked = rng.permutation(len(rows))[: drawing.num_draws]
    return _as_answers([real.cells.genes_of(rows[pick]) for pick in picked.tolist()], drawing)


def _order(mean_V: DoubleArray) -> IntArray:
    """[K] expressed genes, highest mean first; ties by index."""
    order_V = np.argsort(-mean_V, kind="stable")
    return order_V[mean_V[order_V] > 0].astype(np.int32)


def _as_answers(cells: Sequence[IntArray], drawing: Drawing) -> tuple[ParsedCell, ...]:
    """Write real cells as if they had been generated; a cell without genes is no answer."""
    cut = [genes_K[: drawing.num_genes] for genes_K in cells if len(genes_K)]
    return tuple(
        ParsedCell(
            genes_K=genes_K,
            num_words=len(genes_K),
            num_duplicates=0,
            unknown=(),
            is_truncated=False,
        )
        for genes_K in cut
    )
