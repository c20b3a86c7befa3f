"""Pseudobulks and their partners: who is paired with whom, and the number."""

import json

import anndata as ad
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from c2s_rl.data.cell_reader import CellReader
from c2s_rl.errors import DataError
from c2s_rl.evaluation.matching import foscttm
from c2s_rl.pipeline import convert, embed
from c2s_rl.pipeline.convert import ConvertConfig
from c2s_rl.pipeline.embed import EmbedConfig, EmbedFolders
from c2s_rl.pipeline.embed_config import IntegrationConfig
from c2s_rl.pipeline.embed_contexts import CellWording
from c2s_rl.pipeline.embed_shards import embed_here
from c2s_rl.pipeline.integration import make_views
from tests.pipeline.embed_cases import GENES, make_adata, prepare

BY = ("donor", "cell_type")
WORDING = CellWording("{cell_sentence}", 12, "Homo sapiens")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("integration"))


def write_bulk(folder, labels):
    """Bulk profiles: summed counts of the cells with the same labels."""
    adata = make_adata()
    sums = [
        adata.X[((adata.obs["donor"] == d) & (adata.obs["cell_type"] == t)).to_numpy()].sum(axis=0)
        for d, t in labels
    ]
    obs = pd.DataFrame(labels, columns=list(BY), index=[f"bulk{i}" for i in range(len(labels))])
    bulk = ad.AnnData(sp.csr_matrix(np.vstack(sums)), obs=obs, var=pd.DataFrame(index=list(GENES)))
    bulk.write_h5ad(folder / "bulk.h5ad")
    convert.run(ConvertConfig(path=str(folder / "bulk.h5ad"), obs=BY), folder / "bulk")
    return folder / "bulk"


def test_a_pseudobulk_is_the_ranked_mean_of_cells_that_share_its_labels(prepared):
    cells = CellReader(prepared.cells)
    views = make_views(IntegrationConfig(by=BY, cells=5), cells, WORDING, seed=0)
    assert views.labels == [
        (donor, cell_type) for donor in ("d1", "d2") for cell_type in ("B cell", "T cell")
    ]
    adata = make_adata()
    expression = np.log1p(adata.X.toarray() / adata.X.sum(axis=1) * 1e4)
    for place, context in enumerate(views.pseudobulks.contexts):
        drawn = [c.context_id for c in views.partners.contexts[place * 5 : place * 5 + 5]]
        assert len(set(drawn)) == 5
        rows = [int(name[1:]) for name in drawn]
        assert {tuple(adata.obs.iloc[row][list(BY)]) for row in rows} == {context.labels}
        mean = np.asarray(expression[rows].mean(axis=0)).ravel()
        written = [mean[GENES.index(symbol)] for symbol in context.text.split()]
        np.testing.assert_allclose(written, np.sort(mean)[::-1][:12], rtol=1e-5)
    other = make_views(IntegrationConfig(by=BY, cells=5), cells, WORDING, seed=1)
    assert other.partners != views.partners


def test_bulk_profiles_are_paired_by_label_and_the_rest_is_counted(prepared, tmp_path):
    bulk = write_bulk(tmp_path, [("d2", "T cell"), ("d1", "T cell"), ("d1", "B cell")])
    config = IntegrationConfig(by=BY, cells=9, bulk=bulk)
    views = make_views(config, CellReader(prepared.cells), WORDING, seed=0)
    # 9 cells are (d1, B) and 8 (d1, T): that group is too small, so one bulk profile has no
    # pseudobulk; (d2, B) has cells and no bulk profile
    assert [c.context_id for c in views.partners.contexts] == ["bulk2", "bulk0"]
    assert views.labels == [("d1", "B cell"), ("d2", "T cell")]
    assert (views.num_small, views.num_without_bulk, views.num_bulk_unused) == (1, 1, 1)
    twice = write_bulk(tmp_path, [("d2", "T cell"), ("d2", "T cell")])
    with pytest.raises(DataError, match=r"one bulk profile, got 2 with .* = d2 \| T cell"):
        make_views(
            IntegrationConfig(by=BY, bulk=twice, cells=3),
            CellReader(prepared.cells),
            WORDING,
            seed=0,
        )


def test_too_few_samples_are_an_error_that_says_why(prepared):
    config = IntegrationConfig(by=BY, cells=17)
    with pytest.raises(DataError, match=r"at least 2 samples .* got 1 .*3 groups are too small"):
        make_views(config, CellReader(prepared.cells), WORDING, seed=0)


def test_the_stage_reports_foscttm_of_what_it_embedded(prepared, tmp_path):
    config = EmbedConfig(
        num_genes=12, prompt="sentence", integration=IntegrationConfig(by=BY, cells=6)
    )
    folders = EmbedFolders(prepared.policy, prepared.cells, tmp_path / "embed")
    progress = []
    result = embed.run(
        config, folders, embed_here, on_progress=lambda done, total: progress.append((done, total))
    )
    assert progress == [(0, 78), (50, 78), (54, 78), (78, 78)]  # 50 cells, 4 samples, 4 x 6 cells

    def vectors(name):
        table = pq.read_table(tmp_path / "embed" / name / "part-00000.parquet")
        return table["context_id"].to_pylist(), np.stack(table["vector"].to_numpy())

    _, first = vectors("pseudobulks")
    ids, cells = vectors("partners")
    embedded = ad.read_h5ad(tmp_path / "embed" / "embeddings.h5ad")
    np.testing.assert_allclose(cells, embedded[ids].obsm["X_c2s"], atol=1e-6)
    second = cells.reshape(4, 6, -1).astype(np.float64).mean(axis=1)
    assert result.foscttm == pytest.approx(foscttm(first, second))
    assert result.num_samples == 4
    assert json.loads((tmp_path / "embed" / "integration.json").read_text()) == json.loads(
        result.model_dump_json()
    )
    page = (tmp_path / "embed" / "integration.html").read_text()
    assert f"{result.foscttm:.4f}" in page
    assert "<svg" in page
    again = embed.run(config, folders, embed_here)
    assert again == result
