"""Quality control and variable genes through the whole conversion, against scanpy's own steps."""

import anndata
import numpy as np
import pytest

from c2s_rl.config import validate
from c2s_rl.data.shards import read_manifest
from c2s_rl.errors import ConfigError
from c2s_rl.pipeline.convert import ConvertConfig
from c2s_rl.pipeline.convert import run as convert
from c2s_rl.pipeline.to_anndata import ToAnnDataConfig
from c2s_rl.pipeline.to_anndata import run as to_anndata


@pytest.mark.filterwarnings("ignore")
def test_real_cells_keep_the_cells_genes_and_values_that_scanpy_keeps(tmp_path, data_dir):
    import scanpy as sc

    path = data_dir / "kang" / "kang_ifnb_2000x13215.h5ad"
    config = ConvertConfig(
        path=str(path),
        matrix="layer:counts",
        qc={"min_counts_per_cell": 1500},
        variable_genes={"num_genes": 2000},
    )
    convert(config, tmp_path / "cells")
    to_anndata(ToAnnDataConfig(cells=tmp_path / "cells"), tmp_path / "cells.h5ad")
    ours = anndata.read_h5ad(tmp_path / "cells.h5ad")

    theirs = anndata.read_h5ad(path)
    theirs.X = theirs.layers["counts"].copy()
    sc.pp.filter_cells(theirs, min_counts=1500)
    sc.pp.normalize_total(theirs, target_sum=1e4)
    sc.pp.log1p(theirs)
    sc.pp.filter_genes(theirs, min_cells=3)
    num_genes_left = theirs.n_vars
    sc.pp.highly_variable_genes(theirs, n_top_genes=2000, subset=True)
    assert ours.obs_names.tolist() == theirs.obs_names.tolist()
    assert ours.var_names.tolist() == theirs.var_names.tolist()
    np.testing.assert_allclose(ours.X.toarray(), theirs.X.toarray(), rtol=1e-5)
    manifest = read_manifest(tmp_path / "cells")
    assert manifest.num_dropped_qc == 2000 - theirs.n_obs
    assert manifest.num_dropped_qc_genes == 13215 - num_genes_left
    assert manifest.num_dropped_variable_genes == num_genes_left - 2000


def test_rules_on_counts_are_refused_for_logarithms():
    options = {"path": "a.h5ad", "values": "log1p", "qc": {}}
    with pytest.raises(
        ConfigError, match="min_counts_per_cell needs values: counts, got 50 with va"
    ):
        validate(ConvertConfig, options, "test")
