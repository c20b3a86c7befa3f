"""Tasks on tissue, on a synthetic slide: who is shown beside whom, and what the answer is."""

import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from c2s_rl.data.cell_source import TableSource
from c2s_rl.data.corpus import Corpus, build_corpus
from c2s_rl.data.corpus_config import CorpusConfig
from c2s_rl.data.downstream_sections import SPATIAL_TASKS
from c2s_rl.errors import DataError
from c2s_rl.prompts.render import load_all_templates
from c2s_rl.types import PromptRecord, Split, Task

MakeSource = Callable[[Sequence[tuple[str, str, str, str]]], TableSource]
RADIUS = 1.5
"""Reaches the 8 cells around one on a grid of distance 1: the diagonal is 1.41 long."""


class Place(tuple[str, str, str, str, str]):
    """A cell of tissue: id, x, y, slide, niche; as obs columns hold them."""

    __slots__ = ()


def grid(width: int = 8, height: int = 6) -> list[Place]:
    """Two slides of cells at distance 1; niches in turn, row by row."""
    return [
        Place((f"{s}/{x},{y}", str(x), str(y), s, "central" if y % 2 else "portal"))
        for s in ("s1", "s2")
        for x in range(width)
        for y in range(height)
    ]


def tissue(source_of: MakeSource, places: Sequence[Place]) -> TableSource:
    source = source_of([(place[0], "hepatocyte", "", "") for place in places])
    columns = {
        name: np.array([place[i] for place in places])
        for i, name in enumerate(("x", "y", "slide", "niche"), start=1)
    }
    obs = {"cell_type": source.table.obs["cell_type"], **columns}
    return replace(source, table=replace(source.table, obs=obs))


def config(tasks: Sequence[Task], *, split: object = None, **spatial: object) -> CorpusConfig:
    data = {
        "tasks": list(tasks),
        "num_genes": 3,
        "spatial": {
            "sample_column": "slide",
            "niche_column": "niche",
            "radius": RADIUS,
            **spatial,
        },
        "split": split or {},
    }
    return CorpusConfig.model_validate(data)


def build(source: TableSource, settings: CorpusConfig) -> Corpus:
    return build_corpus(source, settings, load_all_templates(settings.tasks, {}))


def distance(a: str, b: str) -> float:
    """Distance of two cells of the grid by their ids; inf between slides."""
    slides, places = zip(*(cell.split("/") for cell in (a, b)), strict=True)
    (x1, y1), (x2, y2) = (map(float, place.split(",")) for place in places)
    return float(np.hypot(x1 - x2, y1 - y2)) if slides[0] == slides[1] else np.inf


def niches(places: Sequence[Place]) -> Mapping[str, str]:
    return {place[0]: place[4] for place in places}


def asked_about(record: PromptRecord) -> str:
    return "/".join(record.prompt_id.split("/")[1:3])


def test_a_niche_is_asked_of_a_cell_with_some_of_its_neighbours(source_of: MakeSource) -> None:
    places = grid()
    corpus = build(tissue(source_of, places), config([Task.NICHE_ANNOTATION], num_neighbours=5))
    assert len(corpus.records) == len(places)
    for record in corpus.records:
        cell, *others = record.context_ids
        assert cell == asked_about(record)
        assert record.target == f" {niches(places)[cell]}"
        assert record.condition == niches(places)[cell]
        assert all(distance(cell, other) <= RADIUS for other in others)
        # 3 neighbours at a corner, 5 or 8 elsewhere; five are shown.
        x, y = cell.split("/")[1].split(",")
        is_corner = x in {"0", "7"} and y in {"0", "5"}
        assert len(set(others)) == len(others) == (3 if is_corner else 5)
        assert f"Cell {len(others)}: " in record.prompt
        assert f"Cell {len(others) + 1}: " not in record.prompt


def test_a_neighbour_is_generated_from_its_neighbour(source_of: MakeSource) -> None:
    source = tissue(source_of, grid())
    corpus = build(source, config([Task.NEIGHBOUR_GENERATION]))
    row_of = {cell_id: row for row, cell_id in enumerate(source.table.cell_ids)}
    assert len(corpus.records) == 96
    for record in corpus.records:
        assert 0 < distance(record.context_id, record.target_id) <= RADIUS
        genes = source.table.genes_of(row_of[record.target_id])
        assert record.target == "".join(f" G{gene}" for gene in genes[:3])
        assert record.target_genes_K.tolist() == genes.tolist()
    # Not always the same side of the cell: neighbours are drawn.
    offsets = Counter(
        tuple(np.subtract(*(np.array(c.split("/")[1].split(","), int)
                            for c in (r.target_id, r.context_id))).tolist())
        for r in corpus.records
    )  # fmt: skip
    assert len(offsets) == 8


@settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32), num=st.integers(2, 4))
def test_yes_shows_neighbours_and_no_shows_cells_that_share_no_neighbourhood(
    source_of: MakeSource, seed: int, num: int
) -> None:
    asked = config([Task.SAME_NEIGHBOURHOOD], cells_per_question=num)
    corpus = build(tissue(source_of, grid()), asked.model_copy(update={"seed": seed}))
    assert Counter(record.target for record in corpus.records) == {" Yes": 96, " No": 96}
    for record in corpus.records:
        cell = asked_about(record)
        assert len(set(record.context_ids)) == num
        distances = [distance(cell, other) for other in record.context_ids if other != cell]
        assert len(distances) == num - 1
        if record.target == " Yes":
            assert max(distances) <= RADIUS
        else:
            assert min(distances) > 2 * RADIUS
            assert max(distances) < np.inf  # of the same slide
        assert record.condition == record.target.strip()


def test_the_cell_asked_about_is_not_always_shown_first(source_of: MakeSource) -> None:
    corpus = build(tissue(source_of, grid()), config([Task.SAME_NEIGHBOURHOOD, Task.SAME_NICHE]))
    places = Counter(r.context_ids.index(asked_about(r)) for r in corpus.records)
    # 384 prompts, each of three places as likely: 128 expected, standard deviation 9.
    assert all(80 < places[place] < 176 for place in range(3))


def test_same_niche_compares_labels_within_the_slide(source_of: MakeSource) -> None:
    places = grid()
    corpus = build(tissue(source_of, places), config([Task.SAME_NICHE]))
    assert Counter(record.target for record in corpus.records) == {" Yes": 96, " No": 96}
    for record in corpus.records:
        cell = asked_about(record)
        labels = {c: niches(places)[c] for c in record.context_ids}
        others = [label for c, label in labels.items() if c != cell]
        assert len(labels) == 3
        assert {c.split("/")[0] for c in labels} == {cell.split("/")[0]}
        assert [label == labels[cell] for label in others] == [record.target == " Yes"] * 2


def test_blocks_keep_neighbourhoods_apart(source_of: MakeSource) -> None:
    blocks = {"sample_column": "slide", "num": [2, 1], "fraction": 0.5, "buffer": RADIUS}
    split = {"spatial_blocks": blocks}
    corpus = build(tissue(source_of, grid(16, 6)), config(SPATIAL_TASKS, split=split))
    cells = {
        side: {c for r in corpus.records if r.split is side
               for c in (*r.context_ids, *r.target_ids)}
        for side in Split
    }  # fmt: skip
    assert {(r.task, r.split) for r in corpus.records} == {
        (task, side) for task in SPATIAL_TASKS for side in Split
    }
    assert min(distance(a, b) for a in cells[Split.TRAIN] for b in cells[Split.TEST]) > RADIUS
    # A strip of one column of 6 cells on each slide that has both sides.
    assert corpus.dropped["in_buffer"] in (0, 6, 12)
    for side in Split:
        answers = Counter(
            r.target for r in corpus.records
            if r.task is Task.SAME_NEIGHBOURHOOD and r.split is side
        )  # fmt: skip
        assert answers[" Yes"] == answers[" No"] > 0


@settings(
    deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.randoms(use_true_random=False))
def test_order_of_cells_changes_no_prompt(source_of: MakeSource, shuffler: random.Random) -> None:
    split = {"spatial_blocks": {"sample_column": "slide", "num": [2, 2], "buffer": RADIUS}}
    asked = config(SPATIAL_TASKS, split=split, cells_per_slide=10)
    shuffled = grid()
    shuffler.shuffle(shuffled)
    first, again = (build(tissue(source_of, places), asked) for places in (grid(), shuffled))
    assert [(r.prompt, r.target, r.split) for r in first.records] == [
        (r.prompt, r.target, r.split) for r in again.records
    ]
    assert first.dropped == again.dropped


def test_cells_that_a_task_cannot_ask_about_are_counted(source_of: MakeSource) -> None:
    # A pair of neighbours, a cell far away, one without niche beside it, one without a place.
    places = [
        Place(("s/0,0", "0", "0", "s", "portal")),
        Place(("s/1,0", "1", "0", "s", "portal")),
        Place(("s/40,0", "40", "0", "s", "central")),
        Place(("s/41,0", "41", "0", "s", "")),
        Place(("dissociated", "", "", "", "portal")),
        Place(("s/90,0", "90", "0", "s", "central")),
    ]
    source = tissue(source_of, places)
    niche = build(source, config([Task.NICHE_ANNOTATION]))
    assert {r.context_id for r in niche.records} == {"s/0,0", "s/1,0", "s/40,0"}
    assert niche.dropped["no_position"] == 1
    assert niche.dropped["no_niche"] == 1
    assert niche.dropped["too_few_neighbours"] == 1  # the cell at 90
    pairs = build(source, config([Task.SAME_NEIGHBOURHOOD], cells_per_question=2))
    assert len(pairs.records) == 2 * 4
    # With three to show, no cell has enough neighbours.
    with pytest.raises(DataError, match=r"got none for same_neighbourhood .*5 too_few_neighbours"):
        build(source, config([Task.SAME_NEIGHBOURHOOD]))
    same = build(source, config([Task.SAME_NICHE], cells_per_question=2))
    assert len(same.records) == 2 * 4
    assert same.dropped["no_niche"] == 1
    with pytest.raises(DataError, match="4 too_few_cells_of_niche"):
        build(source, config([Task.SAME_NICHE]))


def test_a_slide_without_distant_cells_gives_no_questions(source_of: MakeSource) -> None:
    # Slide s1 is 8 wide, s2 so small that all lie within twice the radius.
    small = [
        place for place in grid() if place[3] == "s1" or (place[1] in "01" and place[2] in "01")
    ]
    corpus = build(tissue(source_of, small), config([Task.SAME_NEIGHBOURHOOD]))
    assert {asked_about(r).split("/")[0] for r in corpus.records} == {"s1"}
    assert corpus.dropped["no_distant_cell"] == 4


def test_cells_per_slide_are_drawn_on_each_side(source_of: MakeSource) -> None:
    asked = config(SPATIAL_TASKS, cells_per_slide=7)
    corpus = build(tissue(source_of, grid()), asked)
    for task, per_cell in zip(SPATIAL_TASKS, (1, 1, 2, 2), strict=True):
        records = [r for r in corpus.records if r.task is task]
        assert len(records) == 2 * 7 * per_cell
        assert Counter(r.context_ids[0].split("/")[0] for r in records) == {
            "s1": 7 * per_cell, "s2": 7 * per_cell
        }  # fmt: skip
    assert corpus.dropped["over_cells_per_slide"] == 4 * 2 * (48 - 7)
    other = build(tissue(source_of, grid()), asked.model_copy(update={"seed": 1}))
    assert {asked_about(r) for r in other.records} != {asked_about(r) for r in corpus.records}


def test_coordinates_in_another_unit_are_an_error_that_says_so(source_of: MakeSource) -> None:
    source = tissue(source_of, grid())
    message = "got none within 0.02 on 2 slides; the nearest two are 1 apart"
    with pytest.raises(DataError, match=re.escape(message)):
        build(source, config([Task.NEIGHBOUR_GENERATION], radius=0.02))
