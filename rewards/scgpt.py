"""How near the generated cells come to real ones in the embedding space of scGPT."""

import math
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from pydantic import Field, JsonValue, field_validator
from scipy.spatial.distance import cdist

from c2s_rl.cells.rank import stable_hash
from c2s_rl.config import FrozenConfig
from c2s_rl.evaluation.material import Reference, RewardMaterial
from c2s_rl.models.cell_embedder import (
    CellEmbedder,
    CellEmbedderConfig,
    EmbedderKind,
    embed_once,
    load_cell_embedder,
)
from c2s_rl.models.encoding_cache import EncodingCache
from c2s_rl.types import FloatArray, Group
from rewards.base import RewardBatch, RewardResult, RewardScope
from rewards.info import RewardInfo

DoubleArray = npt.NDArray[np.float64]


class Distance(StrEnum):
    """How far two embeddings are apart."""

    MSE = "mse"
    """Mean of squared differences: the paper's; at most 4 / D for vectors of unit length."""
    SQUARED = "squared"
    """Sum of squared differences: D times as much, so that it does not shrink with the width."""
    COSINE = "cosine"
    """1 - cosine: 0 to 2."""


class Pairing(StrEnum):
    """Which real cells a completion is compared with."""

    RANDOM = "random"
    """Drawn ones, dealt out: the paper's way."""
    TRANSPORT = "transport"
    """Those that optimal transport of the whole group to the drawn cells brings it to."""


class ScGPTOptions(FrozenConfig):
    """Which embedding, and how cells are compared in it."""

    embedder: CellEmbedderConfig = Field(
        CellEmbedderConfig(kind=EmbedderKind.SCGPT),
        description="Embedding and gene programs; kind is scgpt unless given, folder null is the "
        "run's own scGPT",
    )
    distance: Distance = Field(Distance.MSE, description="mse, squared or cosine")
    pairing: Pairing = Field(Pairing.RANDOM, description="random, or transport")
    num_real: int | None = Field(
        None, ge=1, description="Real cells drawn a prompt; null: as many as completions"
    )

    @field_validator("embedder", mode="before")
    @classmethod
    def _is_scgpt(cls, value: JsonValue | CellEmbedderConfig) -> JsonValue | CellEmbedderConfig:
        return {"kind": EmbedderKind.SCGPT, **value} if isinstance(value, dict) else value


class ScGPTReward:
    """Scores completions by their distance to real cells of the same condition.

    reward_i = -d(e_i, r_i): e_i the embedding of completion i and r_i that of a real cell. Real
    cells are drawn for each prompt from those of its condition on its side of the split, without
    repeats as long as there are enough; the draw depends on seed and prompt alone.

    random: the drawn cells are dealt to the completions in turn; the mean where one gets several.
    transport: reward_i = -G sum_j P_ij d_ij, with P the plan of least cost between G completions
    and the drawn cells, equal masses on each side.

    A completion without a gene that the embedder sees scores as low as the lowest of its group,
    its own (empty) embedding included, so that writing nothing is never the best answer. A prompt
    whose condition has no real cells abstains. Real cells are embedded once a run. A group is
    embedded by itself: its scores are the same bits in any company.

    Source: C2S-Scale section 4.5.2 (mse, random).
    """

    info = RewardInfo(
        meaning="Lies close to real cells of its condition in scGPT's space",
        low=-math.inf,
        high=0.0,
        baseline="the report's copied control and shuffled cells",
        source="C2S-Scale 4.5.2",
    )
    scope = RewardScope.GROUP
    Options = ScGPTOptions

    def __init__(self, options: ScGPTOptions) -> None:
        self._options = options
        self._scene: _Scene | None = None

    def score(self, batch: RewardBatch) -> RewardResult:
        """Score every completion; see the class for the formula."""
        # By content: a batch may come from another process, with a copy of the material.
        if self._scene is None or self._scene.source != batch.material.source:
            self._scene = _Scene(self._options, batch)
        scores: list[float | None] = []
        num_seen: list[float] = []
        for group in batch.groups:
            group_scores, group_seen = self._scene.score(group)
            scores += group_scores
            num_seen += group_seen
        return RewardResult(tuple(scores), {"seen_genes": tuple(num_seen)})


class _Scene:
    """Embedder, real cells and their embeddings for one run's material."""

    def __init__(self, options: ScGPTOptions, batch: RewardBatch) -> None:
        material: RewardMaterial = batch.material
        self.source = material.source
        self._seed = material.seed
        self._options = options
        self._reference: Reference = material.reference
        self._embedder: CellEmbedder = load_cell_embedder(
            options.embedder,
            batch.vocabulary,
            self._reference.rank_model,
            own_folder=material.embedder,
        )
        self._cache = EncodingCache(folder=material.cache)

    def score(self, group: Group) -> tuple[list[float | None], list[float]]:
        """[G] scores, and [G] genes that the embedder sees of each completion."""
        cells = [cell.genes_K[: self._reference.num_genes] for cell in group.cells_G]
        num_seen = [float(self._embedder.num_seen(genes_K)) for genes_K in cells]
        real_cells = self._reference.treated(group.record)
        if not real_cells:
            return [None] * len(cells), num_seen
        real_R_D = embed_once(self._embedder, real_cells, self._cache)
        drawn = self._draw(len(real_cells), len(cells), group.record.prompt_id)
        cost_G_R = pairwise_distance(
            self._embedder.embed(cells), real_R_D[drawn], self._options.distance
        )
        if self._options.pairing is Pairing.TRANSPORT:
            far_G = transport_cost(cost_G_R)
        else:
            far_G = dealt_cost(cost_G_R)
        is_empty_G = np.array(num_seen) == 0
        far_G[is_empty_G] = far_G.max()
        return (-far_G).tolist(), num_seen

    def _draw(self, num_cells: int, group_size: int, prompt_id: str) -> npt.NDArray[np.int64]:
        """Rows of the real cells of a prompt; every cell once before one comes twice."""
        num = self._options.num_real or group_size
        rng = np.random.default_rng(stable_hash(f"scgpt/{prompt_id}", self._seed))
        rounds = [rng.permutation(num_cells) for _ in range(-(-num // num_cells))]
        return np.concatenate(rounds)[:num]


def pairwise_distance(a_G_D: FloatArray, b_R_D: FloatArray, distance: Distance) -> DoubleArray:
    """[G, R] distances between two sets of embeddings.

    By cosine an embedding of zeros, which has no direction, is at 1 from every other.
    """
    if distance is Distance.COSINE:
        return np.nan_to_num(cdist(a_G_D, b_R_D, "cosine"), nan=1.0)
    squared_G_R: DoubleArray = cdist(a_G_D, b_R_D, "sqeuclidean")
    return squared_G_R / a_G_D.shape[1] if distance is Distance.MSE else squared_G_R


def dealt_cost(cost_G_R: DoubleArray) -> DoubleArray:
    """[G] cost of each row where columns are dealt to rows in turn, a short pack going round.

    Row i gets columns i, i + G, i + 2G ...; with fewer columns than rows, column i mod R.
    """
    num_rows, num_columns = cost_G_R.shape
    dealt = [range(i % num_columns, num_columns, num_rows) for i in range(num_rows)]
    return np.array([cost_G_R[i, list(columns)].mean() for i, columns in enumerate(dealt)])


def transport_cost(cost_G_R: DoubleArray) -> DoubleArray:
    """[G] mean cost of each row's part of the optimal plan between rows and columns.

    min_P sum_ij P_ij d_ij with row sums 1/G and column sums 1/R; row i costs G sum_j P_ij d_ij.

    Source: Peyre and Cuturi, Computational Optimal Transport (2019), equation 2.11; solved by POT.
    """
    import ot

    masses = [np.full(size, 1.0 / size) for size in cost_G_R.shape]
    plan_G_R: DoubleArray = ot.emd(*masses, cost_G_R)
    cost_G: DoubleArray = (plan_G_R * cost_G_R).sum(axis=1)
    return len(cost_G_R) * cost_G
