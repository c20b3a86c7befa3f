"""Tasks on tissue: the niche of a cell, its neighbours, and whether cells belong together.

    niche_annotation      a cell with some of its neighbours -> the cell's niche
    neighbour_generation  a cell -> one of its neighbours
    same_neighbourhood    cells -> are they of one neighbourhood? each 'Yes' has its 'No'
    same_niche            cells -> are they of one niche? each 'Yes' has its 'No'

Source: C2S-Scale, section 4.6. Slides and sides of the split never mix. A 'No' of
same_neighbourhood shows cells of the same slide that are more than twice the radius away from the
first drawn, so that no neighbourhood holds both. Left out: cells without coordinates.

Shape suffix: C cells.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from c2s_rl.cells.rank import IndexArray, stable_hash
from c2s_rl.data.coordinates import PositionArray, read_positions, rows_by_slide
from c2s_rl.data.corpus_config import CorpusConfig
from c2s_rl.data.downstream_sections import SpatialConfig
from c2s_rl.data.drafts import Draft, Drafted, Material
from c2s_rl.data.labels import LabelledCell
from c2s_rl.data.neighbourhoods import Neighbourhoods, find_neighbours, kept_neighbours
from c2s_rl.errors import ConfigError
from c2s_rl.types import Split, Task

YES, NO = "Yes", "No"

# Draws of a distant cell before all of the slide are measured: where most are distant, as on a
# real slide, the second is hardly ever needed.
QUICK_DRAWS = 50


@dataclass(frozen=True, eq=False)
class Tissue:
    """The cells of a corpus as they lie on their slides."""

    cells: tuple[LabelledCell, ...]
    """[C] all cells, sorted by id."""
    positions_C: PositionArray
    """[C, 2] nan for cells without coordinates."""
    niche_C: tuple[str, ...]
    """[C] '' where the niche is not known."""
    pools: dict[tuple[str, Split], IndexArray]
    """Slide and side to the rows of their cells, rising."""
    settings: SpatialConfig
    seed: int
    """Seed of the corpus."""

    def generator(self, task: Task, cell: int, what: str = "") -> np.random.Generator:
        """Return the generator of the draws about one cell."""
        key = f"{task}|{what}|{self.cells[cell].cell_id}"
        return np.random.default_rng(stable_hash(key, self.seed))

    def asked_about(
        self, task: Task, rows: Sequence[int], dropped: Counter[str]
    ) -> Iterator[tuple[int, IndexArray]]:
        """Yield the cells that the task asks about, each with all cells of its slide and side.

        Those beyond `cells_per_slide`, by a hash of their ids, are counted in `dropped`.
        """
        wanted = set(rows)
        limit = self.settings.cells_per_slide
        for _, pool in sorted(self.pools.items()):
            asked = [row for row in pool.tolist() if row in wanted]
            if limit is not None and len(asked) > limit:
                ids = {r: f"spatial|{task}|{self.cells[r].cell_id}" for r in asked}
                order = sorted(asked, key=lambda row: stable_hash(ids[row], self.seed))
                asked = sorted(order[:limit])
                dropped["over_cells_per_slide"] += len(order) - limit
            for row in asked:
                yield row, pool


def draft_spatial(material: Material, task: Task, config: CorpusConfig) -> Drafted:
    """Draw the prompts of one task on tissue, one a cell, or a 'Yes' and a 'No' a cell.

    Left out and counted: 'no_position', 'no_niche', 'too_few_neighbours', 'no_distant_cell',
    'too_few_cells_of_niche' and 'over_cells_per_slide' (cells).

    Raises:
        DataError: If coordinates are no numbers, no cell has a neighbour, or almost all have all.
    """
    settings = config.spatial
    if settings is None:
        raise ConfigError(f"{task} needs section spatial, got None")
    tissue = _tissue(material, settings, config.seed)
    dropped: Counter[str] = Counter()
    dropped["no_position"] = int(np.isnan(tissue.positions_C[:, 0]).sum())
    makers: dict[Task, Callable[[Tissue, Counter[str]], list[Draft]]] = {
        Task.NICHE_ANNOTATION: _niches,
        Task.NEIGHBOUR_GENERATION: _neighbours,
        Task.SAME_NEIGHBOURHOOD: _same_neighbourhood,
        Task.SAME_NICHE: _same_niche,
    }
    return Drafted(makers[task](tissue, dropped), dropped)


def _tissue(material: Material, settings: SpatialConfig, seed: int) -> Tissue:
    cells = material.cells
    rows = [cell.row for cell in cells]
    obs = {column: material.obs[column][rows] for column in settings.columns}
    positions = read_positions(obs, settings.x, settings.y, [cell.cell_id for cell in cells])
    slide = None if settings.sample_column is None else obs[settings.sample_column]
    is_test = _is_test(cells)
    pools: dict[tuple[str, Split], IndexArray] = {}
    for name, of_slide in rows_by_slide(slide, positions).items():
        for side, is_side in ((Split.TRAIN, ~is_test), (Split.TEST, is_test)):
            pools[name, side] = of_slide[is_side[of_slide]]
    return Tissue(
        cells=cells,
        positions_C=positions,
        niche_C=tuple(material.value(cell, settings.niche_column) for cell in cells),
        pools=pools,
        settings=settings,
        seed=seed,
    )


def _is_test(cells: Sequence[LabelledCell]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.array([cell.split is Split.TEST for cell in cells], dtype=bool)


def _with_neighbours(
    tissue: Tissue, least: int, dropped: Counter[str]
) -> tuple[Neighbourhoods, list[int]]:
    """Find neighbours of the same slide and side, and the cells that have enough of them."""
    slides: dict[str, list[IndexArray]] = {}
    for (name, _), rows in sorted(tissue.pools.items()):
        slides.setdefault(name, []).append(rows)
    whole = {name: np.sort(np.concatenate(parts)) for name, parts in slides.items()}
    hoods = find_neighbours(tissue.positions_C, whole, tissue.settings.radius)
    hoods = kept_neighbours(hoods, _is_test(tissue.cells))
    enough = np.flatnonzero(hoods.num_C >= least).tolist()
    num_placed = sum(len(rows) for rows in tissue.pools.values())
    dropped["too_few_neighbours"] += num_placed - len(enough)
    return hoods, enough


def _of_known_niche(tissue: Tissue, rows: Sequence[int], dropped: Counter[str]) -> list[int]:
    known = [row for row in rows if tissue.niche_C[row]]
    dropped["no_niche"] += len(rows) - len(known)
    return known


def _niches(tissue: Tissue, dropped: Counter[str]) -> list[Draft]:
    task = Task.NICHE_ANNOTATION
    hoods, enough = _with_neighbours(tissue, 1, dropped)
    known = _of_known_niche(tissue, enough, dropped)
    drafts: list[Draft] = []
    for row, _ in tissue.asked_about(task, known, dropped):
        around = hoods.of(row)
        num = min(tissue.settings.num_neighbours, len(around))
        picked = tissue.generator(task, row).choice(around, size=num, replace=False).tolist()
        cell = tissue.cells[row]
        drafts.append(
            Draft(
                prompt_id=f"{task}/{cell.cell_id}",
                task=task,
                condition=tissue.niche_C[row],
                split=cell.split,
                shown=(cell, *(tissue.cells[other] for other in picked)),
                answer=tissue.niche_C[row],
                is_sample=True,
            )
        )
    return drafts


def _neighbours(tissue: Tissue, dropped: Counter[str]) -> list[Draft]:
    task = Task.NEIGHBOUR_GENERATION
    hoods, enough = _with_neighbours(tissue, 1, dropped)
    drafts: list[Draft] = []
    for row, _ in tissue.asked_about(task, enough, dropped):
        cell = tissue.cells[row]
        neighbour = tissue.cells[int(tissue.generator(task, row).choice(hoods.of(row)))]
        drafts.append(
            Draft(
                prompt_id=f"{task}/{cell.cell_id}",
                task=task,
                condition=neighbour.condition,
                split=cell.split,
                shown=(cell,),
                answers=(neighbour,),
                parts=neighbour.parts,
            )
        )
    return drafts


def _same_neighbourhood(tissue: Tissue, dropped: Counter[str]) -> list[Draft]:
    task = Task.SAME_NEIGHBOURHOOD
    num_others = tissue.settings.cells_per_question - 1
    hoods, enough = _with_neighbours(tissue, num_others, dropped)
    drafts: list[Draft] = []
    for row, pool in tissue.asked_about(task, enough, dropped):
        distant = _distant(tissue, row, pool, num_others)
        if distant is None:
            dropped["no_distant_cell"] += 1
            continue
        near = tissue.generator(task, row, YES).choice(hoods.of(row), num_others, replace=False)
        drafts += [
            _question(tissue, task, row, near, YES),
            _question(tissue, task, row, distant, NO),
        ]
    return drafts


def _distant(tissue: Tissue, row: int, pool: IndexArray, num: int) -> IndexArray | None:
    """Draw cells of the pool that share no neighbourhood with a cell; None if there are too few."""
    generator = tissue.generator(Task.SAME_NEIGHBOURHOOD, row, NO)
    farther = 2 * tissue.settings.radius

    def are_distant(rows: IndexArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        offsets = tissue.positions_C[rows] - tissue.positions_C[row]
        return np.asarray(np.hypot(offsets[:, 0], offsets[:, 1]) > farther)

    drawn = pool[generator.integers(len(pool), size=QUICK_DRAWS)]
    found = list(dict.fromkeys(drawn[are_distant(drawn)].tolist()))
    if len(found) >= num:
        return np.array(found[:num])
    all_distant = pool[are_distant(pool)]
    if len(all_distant) < num:
        return None
    return generator.choice(all_distant, size=num, replace=False)


def _same_niche(tissue: Tissue, dropped: Counter[str]) -> list[Draft]:
    task = Task.SAME_NICHE
    num_others = tissue.settings.cells_per_question - 1
    placed = [row for rows in tissue.pools.values() for row in rows.tolist()]
    known = _of_known_niche(tissue, placed, dropped)
    niche_C = np.array(tissue.niche_C, dtype=np.str_)
    of_niche: dict[tuple[int, str], tuple[IndexArray, IndexArray]] = {}
    drafts: list[Draft] = []
    for row, pool in tissue.asked_about(task, known, dropped):
        key = (int(pool[0]), tissue.niche_C[row])  # a pool is known by its first cell
        if key not in of_niche:
            is_same = niche_C[pool] == key[1]
            of_niche[key] = pool[is_same], pool[~is_same & (niche_C[pool] != "")]
        own, foreign = of_niche[key]
        if len(own) <= num_others or len(foreign) < num_others:
            dropped["too_few_cells_of_niche"] += 1
            continue
        generator = tissue.generator(task, row)
        # The cell itself is left out of the draw: places at and behind its own move up by one.
        places = generator.choice(len(own) - 1, size=num_others, replace=False)
        same = own[places + (places >= np.searchsorted(own, row))]
        other = generator.choice(foreign, size=num_others, replace=False)
        drafts += [_question(tissue, task, row, same, YES), _question(tissue, task, row, other, NO)]
    return drafts


def _question(tissue: Tissue, task: Task, row: int, others: IndexArray, answer: str) -> Draft:
    """Show a cell and others in drawn order: the first is not always the one asked about."""
    cell = tissue.cells[row]
    rows = np.array([row, *others.tolist()])
    order = tissue.generator(task, row, f"order of {answer}").permutation(rows).tolist()
    return Draft(
        prompt_id=f"{task}/{cell.cell_id}/{answer.lower()}",
        task=task,
        condition=answer,
        split=cell.split,
        shown=tuple(tissue.cells[place] for place in order),
        answer=answer,
    )
