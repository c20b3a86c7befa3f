"""Real cells of conditions as vectors, each embedded once, and generated cells by the same path.

Which vectors is the embedder's affair; what is done with them is the caller's.

Shape suffixes: C cells, D embedding.
"""

from collections.abc import Sequence

from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.evaluation.material import RewardMaterial
from c2s_rl.evaluation.populations import draw_cells
from c2s_rl.models.cell_embedder import CellEmbedderConfig, load_cell_embedder
from c2s_rl.models.encoding_cache import EncodingCache, content_key
from c2s_rl.types import FloatArray, IntArray, ParsedCell, PromptRecord


class EmbeddedCells:
    """Embeds real cells through a cache and generated ones directly, all cut to one length."""

    def __init__(
        self,
        config: CellEmbedderConfig,
        vocabulary: Vocabulary,
        material: RewardMaterial,
        *,
        num_real: int,
    ) -> None:
        """Load the embedder; no cell is embedded yet.

        Args:
            config: Which embedding.
            vocabulary: Gene symbols by index.
            material: Real cells, cache folder and seed of the run.
            num_real: Real cells kept of a condition, drawn once by the seed where it has more.

        Raises:
            ConfigError: If a program is unknown.
            DataError: If the run has no cells, or the genes or files do not fit.
        """
        rank_model = material.reference.rank_model
        self._embedder = load_cell_embedder(
            config, vocabulary, rank_model, own_folder=material.embedder
        )
        self._cache = EncodingCache(folder=material.cache)
        self._material = material
        self._num_real = num_real
        # The name alone is no key: other genes or another rank model give other vectors.
        self._key = content_key(
            config.model_dump_json().encode(),
            self._embedder.name.encode(),
            repr(rank_model).encode(),
            *(symbol.encode() for symbol in vocabulary.symbols),
        ).encode()

    def is_of(self, material: RewardMaterial) -> bool:
        """Whether it was made from this material, which stays the same object for a whole run."""
        return self._material is material

    def treated(self, record: PromptRecord) -> FloatArray:
        """[C, D] real cells of the prompt's condition on its side; no rows where it has none."""
        return self._embedded(self._material.reference.treated(record), "treated", record)

    def controls(self, record: PromptRecord) -> FloatArray:
        """[C, D] control cells of the condition's prompts on its side; no rows without any."""
        return self._embedded(self._material.reference.controls(record), "controls", record)

    def generated(self, cells: Sequence[ParsedCell]) -> FloatArray:
        """[C, D] generated cells, in order; one without genes has a vector as well."""
        return self._embedder.embed(self._cut([cell.genes_K for cell in cells]))

    def reference(self, cells: Sequence[IntArray]) -> FloatArray:
        """[C, D] real cells given as rankings of any length, in order; kept in the cache."""
        cut = self._cut(cells)
        key = content_key(self._key, *(genes_K.tobytes() for genes_K in cut))
        return self._cache.shared(key, lambda: self._embedder.embed(cut))

    def _embedded(self, cells: Sequence[IntArray], kind: str, record: PromptRecord) -> FloatArray:
        name = f"{kind}|{record.split.value}|{record.condition}"
        return self.reference(draw_cells(cells, self._num_real, name, self._material.seed))

    def _cut(self, cells: Sequence[IntArray]) -> list[IntArray]:
        return [genes_K[: self._material.reference.num_genes] for genes_K in cells]
