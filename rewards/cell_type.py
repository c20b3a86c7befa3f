"""Would a classifier of real cells take a completion for a cell of the prompt's kind?

The classifier sees training cells only, as vectors of a configured embedding.

Shape suffixes: G completions of one prompt, L labels.
"""

from enum import StrEnum

import numpy as np
import numpy.typing as npt
from pydantic import Field

from c2s_rl.config import FrozenConfig
from c2s_rl.errors import DataError
from c2s_rl.evaluation.cell_labels import (
    CellLabels,
    Examples,
    label_cells,
    training_examples,
)
from c2s_rl.evaluation.embedded_cells import EmbeddedCells
from c2s_rl.models.cell_embedder import CellEmbedderConfig
from c2s_rl.types import FloatArray
from rewards.base import RewardBatch, RewardResult, RewardScope
from rewards.info import RewardInfo


class ClassifierKind(StrEnum):
    """How a cell is classified."""

    KNN = "knn"
    """By its nearest training cells; probability = share of them."""
    CENTROID = "centroid"
    """By the nearest mean of a label; probability by scaled distances."""


class AgreementForm(StrEnum):
    """What is rewarded."""

    PROBABILITY = "probability"
    HIT = "hit"
    """1 where the label is the most probable one, else 0."""


class CellTypeOptions(FrozenConfig):
    """Which classifier, of which labels."""

    embedder: CellEmbedderConfig = Field(
        CellEmbedderConfig(), description="How cells become vectors; expression of all genes"
    )
    label: str | None = Field(
        None, description="obs column of the labels, for example cell_type; none: the condition"
    )
    classifier: ClassifierKind = Field(ClassifierKind.KNN, description="knn, or centroid")
    form: AgreementForm = Field(
        AgreementForm.PROBABILITY, description="probability of the label, or hit: 0 or 1"
    )
    num_neighbours: int = Field(15, ge=1, description="Nearest training cells of knn")
    num_per_label: int = Field(
        100, ge=2, description="Training cells of a label, drawn once by the run's seed"
    )


class CellTypeReward:
    """Scores whether a completion is taken for a cell of the prompt's label.

    reward = p(label of the prompt | completion) of a classifier of real training cells, in [0, 1];
    form `hit`: 1 where no label is more probable, else 0. Control cells are a label of their own
    where labels are conditions, so copying the control does not pass. The label of a prompt is its
    condition, or the obs entry of its target cell. A completion without genes scores 0. Prompts
    whose label no training cell has (an unseen condition) abstain, as do those whose answer is
    text.

    Source: k nearest neighbours as in the cell generation benchmark of C2S (Levine et al. 2024,
        Cell2Sentence, arXiv:2303.11464).
    """

    info = RewardInfo(
        meaning="A classifier of real cells takes the completion for the prompt's kind",
        low=0.0,
        high=1.0,
        baseline="1 / number of labels; the copied control near 0 with conditions as labels",
        source="C2S, arXiv:2303.11464",
    )
    scope = RewardScope.GROUP
    Options = CellTypeOptions

    def __init__(self, options: CellTypeOptions) -> None:
        self._options = options
        self._ready: tuple[EmbeddedCells, CellLabels, _Classifier] | None = None

    def score(self, batch: RewardBatch) -> RewardResult:
        """Score every completion; see the class for the formula."""
        cells, labels, classifier = self._load(batch)
        scores: list[float | None] = []
        for group in batch.groups:
            label = labels.of_prompt(group.record)
            is_text = not len(group.record.target_genes_K)
            if is_text or label is None or label not in classifier.labels:
                scores += [None] * len(group.cells_G)
                continue
            agreement_G = classifier.agreement(
                cells.generated(group.cells_G), label, self._options.form
            )
            scores += [
                float(value) if len(cell.genes_K) else 0.0
                for value, cell in zip(agreement_G, group.cells_G, strict=True)
            ]
        return RewardResult(tuple(scores))

    def _load(self, batch: RewardBatch) -> tuple[EmbeddedCells, CellLabels, "_Classifier"]:
        """Embed the training cells and fit the classifier, once a run."""
        if self._ready is None or not self._ready[0].is_of(batch.material):
            options, material = self._options, batch.material
            num = options.num_per_label
            cells = EmbeddedCells(options.embedder, batch.vocabulary, material, num_real=num)
            labels = label_cells(material, options.label)
            examples = training_examples(labels, num_per_label=num, seed=material.seed)
            self._ready = (cells, labels, _Classifier(cells, examples, options))
        return self._ready


class _Classifier:
    """Probability of every label for embedded cells."""

    def __init__(self, cells: EmbeddedCells, examples: Examples, options: CellTypeOptions) -> None:
        from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

        self.labels = sorted(set(examples.labels))
        if len(self.labels) < 2 or len(examples.labels) <= len(self.labels):
            raise DataError(
                "a classifier needs at least 2 labels and more training cells than labels, "
                f"got {len(examples.labels)} cells of {len(self.labels)} labels"
            )
        vectors = cells.reference(examples.cells)
        # Genes that no training cell expresses tell nothing, and have no spread to scale by.
        self._is_kept_D = np.ptp(vectors, axis=0) > 0
        if options.classifier is ClassifierKind.KNN:
            num = min(options.num_neighbours, len(vectors))
            self._model = KNeighborsClassifier(n_neighbors=num, algorithm="brute")
        else:
            self._model = NearestCentroid()
        self._model.fit(vectors[:, self._is_kept_D], examples.labels)

    def agreement(
        self, vectors_G_D: FloatArray, label: str, form: AgreementForm
    ) -> npt.NDArray[np.float64]:
        """[G] probability of a label, or whether none is more probable."""
        probability_G_L = self._model.predict_proba(vectors_G_D[:, self._is_kept_D])
        own_G = probability_G_L[:, list(self._model.classes_).index(label)]
        if form is AgreementForm.HIT:
            return np.asarray(own_G >= probability_G_L.max(axis=1), dtype=np.float64)
        return np.asarray(own_G, dtype=np.float64)
