"""`convert` on Ray Data: the bytes of one process, and errors of workers as they are."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from actors.convert_job import OnRay
from actors.session import RayConfig, ray_session
from c2s_rl.errors import DataError
from c2s_rl.pipeline import convert_work
from c2s_rl.pipeline.convert import ConvertConfig, run

pytestmark = pytest.mark.integration


def write_cells(path, counts):
    obs = pd.DataFrame({"kind": ["x"] * len(counts)}, index=[f"c{i}" for i in range(len(counts))])
    var = pd.DataFrame(index=[f"G{i}" for i in range(counts.shape[1])])
    anndata.AnnData(sparse.csr_matrix(counts), obs=obs, var=var).write_h5ad(path)


def test_workers_write_what_one_process_writes_and_their_errors_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(convert_work, "PART_ROWS", 50)
    counts = np.random.default_rng(0).poisson(0.8, size=(180, 30)).astype(np.float32)
    write_cells(tmp_path / "good.h5ad", counts)
    counts[170, 3] = 0.5
    write_cells(tmp_path / "bad.h5ad", counts)
    monkeypatch.chdir(tmp_path)
    good, bad = (ConvertConfig(path=f"{name}.h5ad", obs=("kind",)) for name in ("good", "bad"))
    run(good, tmp_path / "here")
    with ray_session(RayConfig(address="local"), num_cpus=2):
        executor = OnRay(2, 1.0)
        run(good, tmp_path / "there", executor=executor)
        with pytest.raises(DataError, match=r"must be whole numbers, got 0\.5 at cell 'c170'"):
            run(bad, tmp_path / "bad", executor=executor)
    names = sorted(path.name for path in (tmp_path / "here").iterdir())
    assert len(names) == 6  # 50 + 50 + 50 + 30 cells, manifest and hashes
    for name in names:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
    assert not (tmp_path / "bad").exists()
    assert not list(tmp_path.glob(".*.work"))
