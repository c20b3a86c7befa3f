"""Where `convert` runs: here, unless a cluster is named or several workers are asked for."""

import anndata
import numpy as np
import pandas as pd
import pytest

from actors import convert_job
from actors.session import RayConfig
from c2s_rl.data.shards import read_manifest
from c2s_rl.pipeline.convert import ConvertConfig


class NoCluster(RuntimeError):
    pass


@pytest.fixture
def source(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise NoCluster

    monkeypatch.setattr(convert_job, "ray_session", refuse)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    path = tmp_path / "a.h5ad"
    anndata.AnnData(
        np.array([[1, 2], [3, 0]], dtype=np.float32), var=pd.DataFrame(index=["A", "B"])
    ).write_h5ad(path)
    return str(path)


def test_without_a_cluster_it_stays_in_this_process(tmp_path, source):
    convert_job.run_convert(ConvertConfig(path=source), tmp_path / "cells", RayConfig())
    assert read_manifest(tmp_path / "cells").num_cells == 2


def test_one_worker_stays_in_this_process_even_beside_a_cluster(tmp_path, source, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    config = ConvertConfig(path=source, workers={"num_workers": 1})
    convert_job.run_convert(config, tmp_path / "cells", RayConfig())
    assert read_manifest(tmp_path / "cells").num_cells == 2


@pytest.mark.parametrize(
    ("workers", "address"), [({"num_workers": 2}, None), ({}, "127.0.0.1:1"), ({}, "local")]
)
def test_several_workers_or_a_named_cluster_take_ray(tmp_path, source, workers, address):
    config = ConvertConfig(path=source, workers=workers)
    with pytest.raises(NoCluster):
        convert_job.run_convert(config, tmp_path / "cells", RayConfig(address=address))
