"""Real cells of a few conditions as the material of a reward, without shards on disk."""

from collections.abc import Mapping, Sequence

import numpy as np

from c2s_rl.cells.rank_model import RankForm, RankModel
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.data.cell_table import CellTable
from c2s_rl.evaluation.material import Reference, RewardMaterial
from c2s_rl.evaluation.real_cells import gather_real_cells
from c2s_rl.types import Completion, Group, ParsedCell, PromptRecord, Split, Task
from rewards.base import RewardBatch

NUM_SYMBOLS = 12
SYMBOLS = tuple(f"G{n}" for n in range(NUM_SYMBOLS))
VOCABULARY = Vocabulary(SYMBOLS, SYMBOLS)
NUM_GENES = 4
# Sentences of four genes have expression 4, 3, 2, 1.
RANK_MODEL = RankModel(form=RankForm.LINEAR, slope=-1.0, intercept=5.0, r2=1.0)

Cells = Sequence[Sequence[int]]


def int32(values: Sequence[int]) -> np.ndarray:
    return np.array(list(values), dtype=np.int32)


def make_record(
    condition: str = "a",
    *,
    target: Sequence[int] = (0, 1, 2, 3),
    control: Sequence[int] = (),
    split: Split = Split.TRAIN,
    target_id: str = "",
    context_id: str = "",
) -> PromptRecord:
    return PromptRecord(
        f"prompt of {condition}", "?", " !", Task.PERTURBATION_RESPONSE, condition, context_id,
        target_id, split, int32(target), int32(control),
    )  # fmt: skip


def make_material(
    treated: Mapping[str, Cells],
    controls: Mapping[str, Cells] | None = None,
    *,
    split: Split = Split.TRAIN,
    **options: object,
) -> RewardMaterial:
    """Cells by condition, all on one side; the first control goes with the first target, ..."""
    ids: list[str] = []
    ranked: list[Sequence[int]] = []
    records = []
    for condition, cells in treated.items():
        own_controls = (controls or {}).get(condition, ())
        for i in range(max(len(cells), len(own_controls))):
            target_id = f"{condition}-treated-{i:03d}" if i < len(cells) else ""
            context_id = f"{condition}-control-{i:03d}" if i < len(own_controls) else ""
            records.append(
                make_record(condition, split=split, target_id=target_id, context_id=context_id)
            )
            for cell_id, side in ((target_id, cells), (context_id, own_controls)):
                if cell_id:
                    ids.append(cell_id)
                    ranked.append(side[i])
    genes = int32([gene for cell in ranked for gene in cell])
    table = CellTable(
        cell_ids=tuple(ids),
        indptr=np.cumsum([0, *map(len, ranked)]),
        genes=genes,
        values=np.ones(len(genes), dtype=np.float32),
    )
    real = gather_real_cells(records, table, NUM_SYMBOLS)
    material = RewardMaterial(**options)
    # `reference` is read from shards when it is first asked for; here it is there already.
    vars(material)["reference"] = Reference(real, RANK_MODEL, NUM_GENES)
    return material


def make_group(cells: Cells, record: PromptRecord) -> Group:
    completions = tuple(Completion("", (1,), (0.0,), 0, is_truncated=False) for _ in cells)
    parsed = tuple(ParsedCell(int32(c), len(c), 0, (), is_truncated=False) for c in cells)
    return Group(record, (1,), completions, parsed)


def make_batch(material: RewardMaterial, *groups: Group) -> RewardBatch:
    return RewardBatch(groups, VOCABULARY, material)


def random_cells(seed: int, num: int, num_symbols: int = NUM_SYMBOLS) -> list[list[int]]:
    """Cells of four different genes out of the first `num_symbols`, low ones more likely."""
    rng = np.random.default_rng(seed)
    chances = np.arange(num_symbols, 0, -1) / np.arange(1, num_symbols + 1).sum()
    return [rng.choice(num_symbols, 4, replace=False, p=chances).tolist() for _ in range(num)]
