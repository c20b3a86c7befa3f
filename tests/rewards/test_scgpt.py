"""The scGPT reward: distances and pairings by hand, real cells embedded once."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from c2s_rl.cells.parse import parse_cell
from c2s_rl.cells.rank_model import RankForm, RankModel
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.data.cell_table import CellTable
from c2s_rl.errors import ConfigError
from c2s_rl.evaluation.material import Reference
from c2s_rl.evaluation.real_cells import gather_real_cells
from c2s_rl.models.cell_embedder import CellEmbedderConfig, load_cell_embedder
from c2s_rl.models.scgpt_embedder import ScGPTEmbedder
from c2s_rl.types import Completion, Group, PromptRecord, Split, Task
from rewards import load_reward
from rewards.base import RewardBatch
from rewards.scgpt import Distance, dealt_cost, pairwise_distance, transport_cost
from tests.models.scgpt_folders import SYMBOLS, int32, write_published

VOCABULARY = Vocabulary((*SYMBOLS, "UNKNOWN"), (*SYMBOLS, "UNKNOWN"))
RANK_MODEL = RankModel(RankForm.LOG_RANK, slope=-0.7, intercept=2.7, r2=0.9)
NUM_REAL, NUM_GENES = 7, 10


def make_record(name="p1", condition="B cell", split=Split.TRAIN, target_id=""):
    return PromptRecord(
        name, "?", " !", Task.CELL_GENERATION, condition, "", target_id, split, int32(), int32()
    )


def make_group(*texts, **record):
    completions = tuple(Completion(t, (1,), (0.0,), 0, is_truncated=False) for t in texts)
    cells = tuple(parse_cell(t, VOCABULARY, is_truncated=False) for t in texts)
    return Group(make_record(**record), (1,), completions, cells)


def make_reference():
    """Seven B cells of 12 genes in prompts of the training side."""
    rng = np.random.default_rng(0)
    rankings = [rng.permutation(30)[:12].astype(np.int32) for _ in range(NUM_REAL)]
    ids = tuple(f"cell{i}" for i in range(NUM_REAL))
    table = CellTable(
        ids,
        np.arange(0, 12 * NUM_REAL + 1, 12),
        np.concatenate(rankings),
        np.ones(12 * NUM_REAL, dtype=np.float32),
    )
    records = [make_record(name=f"p{name}", target_id=name) for name in ids]
    return Reference(gather_real_cells(records, table, len(VOCABULARY)), RANK_MODEL, NUM_GENES)


@dataclass
class FakeMaterial:
    """A run's real cells without its files."""

    embedder: Path | None
    cache: Path | None = None
    seed: int = 0

    def __post_init__(self):
        self.reference = make_reference()
        self.source = (self.embedder, self.cache, self.seed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_published(tmp_path_factory.mktemp("scgpt"))


@pytest.fixture
def score(folder):
    """Scores of groups by a new reward."""

    def score(*groups, seed=0, cache=None, **options):
        batch = RewardBatch(groups, VOCABULARY, FakeMaterial(folder, cache, seed))
        return list(load_reward("scgpt", options).score(batch).scores)

    return score


@pytest.fixture
def embedded(folder):
    """Embeddings of rankings, and those of the real cells."""
    config = CellEmbedderConfig(kind="scgpt", folder=folder)
    embedder = load_cell_embedder(config, VOCABULARY, RANK_MODEL)
    real = embedder.embed(make_reference().treated(make_record()))
    return embedder, real


TEXTS = ("G1 G2 G3", "G9 G8 G7 G6", "G20 G1 G11")


def test_random_pairing_takes_other_real_cells_for_every_completion(score, embedded):
    embedder, real = embedded
    answers = embedder.embed([int32(1, 2, 3), int32(9, 8, 7, 6), int32(20, 1, 11)])
    mse = ((answers[:, None] - real[None]) ** 2).mean(axis=2)
    scores = score(make_group(*TEXTS))
    # each score is the distance to one real cell, and no cell is used twice
    partners = [int(np.abs(row + s).argmin()) for row, s in zip(mse, scores, strict=True)]
    assert scores == pytest.approx([-mse[i, j] for i, j in enumerate(partners)], rel=1e-5)
    assert len(set(partners)) == 3


def test_the_draw_depends_on_seed_and_prompt_alone(score):
    first = score(make_group(*TEXTS))
    assert score(make_group(*TEXTS)) == first
    assert score(make_group(*TEXTS), seed=1) != first
    assert score(make_group(*TEXTS, name="p2")) != first


def test_scores_are_the_same_bits_in_any_company(score):
    one, two = make_group(*TEXTS), make_group("G4 G5", " ".join(SYMBOLS), name="p2")
    assert score(one, two) == score(one) + score(two)
    assert score(two, one) == score(two) + score(one)


def test_all_real_cells_are_shared_out_where_all_are_drawn(score, embedded):
    embedder, real = embedded
    # One completion gets all seven cells: the mean distance, whatever the draw.
    answer = embedder.embed([int32(1, 2, 3)])
    expected = -((answer - real) ** 2).sum(axis=1).mean()
    for seed in (0, 1):
        scores = score(make_group("G1 G2 G3"), num_real=7, distance="squared", seed=seed)
        assert scores == [pytest.approx(expected, rel=1e-5)]


def test_a_copy_of_a_real_cell_scores_zero_where_transport_finds_it(score):
    cells = make_reference().treated(make_record())
    texts = [" ".join(SYMBOLS[gene] for gene in cell.tolist()) for cell in cells]
    # All seven are drawn, in an order of their own: only transport pairs each with itself.
    optimal = score(make_group(*texts), pairing="transport", distance="squared")
    assert optimal == pytest.approx([0.0] * 7, abs=1e-6)
    assert min(score(make_group(*texts), distance="squared")) < -0.01


def test_cells_are_cut_to_the_length_of_sentences(score):
    long = " ".join(SYMBOLS[:NUM_GENES])
    scores = score(make_group(long, f"{long} {' '.join(SYMBOLS[NUM_GENES:])}"), num_real=1)
    assert scores[0] == scores[1]


def test_an_empty_answer_is_never_better_than_the_worst(score):
    for num_real in (1, 3):
        *others, nothing, unknown = score(
            make_group(*TEXTS, "", "UNKNOWN foo"), num_real=num_real, distance="cosine"
        )
        assert nothing == unknown <= min(others)
    # with nothing but empty answers there is nothing to choose
    assert len(set(score(make_group("", "foo", "UNKNOWN")))) == 1


def test_no_real_cell_of_the_condition_abstains(score):
    assert score(make_group(*TEXTS, condition="T cell")) == [None] * 3
    assert score(make_group(*TEXTS, split=Split.TEST)) == [None] * 3


def test_more_completions_than_real_cells_go_round(score):
    scores = score(make_group(*[f"G{i} G{i + 1}" for i in range(20)]))
    assert all(-4 / 16 <= s < 0 for s in scores)


def test_real_cells_are_embedded_once_for_all_workers(folder, tmp_path, monkeypatch):
    calls = []
    embed = ScGPTEmbedder.embed
    monkeypatch.setattr(
        ScGPTEmbedder, "embed", lambda self, cells: calls.append(len(cells)) or embed(self, cells)
    )
    groups = (make_group(*TEXTS), make_group("G1", "G2", name="p2"))
    for first in ([NUM_REAL, 3, 2], [3, 2]):  # the second worker finds the real cells
        reward = load_reward("scgpt", {})
        for expected in (first, [3, 2]):
            calls.clear()
            material = FakeMaterial(folder, tmp_path / "cache")
            reward.score(RewardBatch(groups, VOCABULARY, material))
            assert calls == expected


def test_the_genes_that_count_are_told(folder, tmp_path):
    (tmp_path / "sets.gmt").write_text("ODD\t-\tG1\tG3\tG5\n")
    reward = load_reward("scgpt", {"embedder": {"programs": [f"{tmp_path / 'sets.gmt'}:ODD"]}})
    batch = RewardBatch((make_group("G1 G2 G3", "G2"),), VOCABULARY, FakeMaterial(folder))
    assert reward.score(batch).diagnostics == {"seen_genes": (2.0, 0.0)}


def test_expression_is_an_embedding_as_well(score):
    options = {"embedder": {"kind": "expression"}, "distance": "cosine"}
    scores = score(make_group("", *TEXTS), **options)
    assert scores[0] == min(scores)
    assert -2 <= min(scores) <= max(scores) < 0


def test_no_folder_is_an_error():
    reward = load_reward("scgpt", {})
    with pytest.raises(ConfigError, match="must name its folder, or the run must train one"):
        reward.score(RewardBatch((make_group("G1"),), VOCABULARY, FakeMaterial(None)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distance": "l1"}, "'mse', 'squared' or 'cosine'.* at 'distance' in options of reward"),
        ({"num_real": 0}, "greater than or equal to 1, got 0 at 'num_real'"),
        ({"pairing_": "random"}, "did you mean 'pairing'"),
        ({"embedder": {"fold": "x"}}, "did you mean 'folder'"),
    ],
)
def test_wrong_options_are_an_error(options, message):
    with pytest.raises(ConfigError, match=message):
        load_reward("scgpt", options)


def test_distances_by_hand():
    a = np.array([[3.0, 0.0], [0.0, 0.0]], dtype=np.float32)
    b = np.array([[0.0, 4.0], [3.0, 0.0]], dtype=np.float32)
    # squared: 9 + 16 and 0; 16 and 9
    assert pairwise_distance(a, b, Distance.SQUARED).tolist() == [[25, 0], [16, 9]]
    assert pairwise_distance(a, b, Distance.MSE).tolist() == [[12.5, 0], [8, 4.5]]
    # at right angles and alike; zeros have no direction
    assert pairwise_distance(a, b, Distance.COSINE).tolist() == [[1, 0], [1, 1]]


def test_real_cells_are_dealt_in_turn():
    cost = np.arange(15.0).reshape(3, 5)
    # row 0 gets columns 0 and 3, row 1 columns 1 and 4, row 2 column 2
    assert dealt_cost(cost).tolist() == [(0 + 3) / 2, (6 + 9) / 2, 12]
    # fewer columns than rows: 0, 1, 0
    assert dealt_cost(cost[:, :2]).tolist() == [0, 6, 10]


def test_transport_is_the_best_assignment_where_both_are_as_many():
    cost = np.random.default_rng(0).random((6, 6))
    rows, columns = linear_sum_assignment(cost)
    np.testing.assert_allclose(transport_cost(cost), cost[rows, columns])


def test_transport_splits_masses_where_they_are_not():
    # Two rows of mass 1/2, one column: all of each row goes there.
    assert transport_cost(np.array([[2.0], [4.0]])).tolist() == pytest.approx([2, 4])
    # One row, two columns of mass 1/2: the mean.
    assert transport_cost(np.array([[2.0, 4.0]])).tolist() == pytest.approx([3])
