"""An .h5ad file that grows is the file that anndata would have written at once."""

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from c2s_rl.data import h5ad_stream
from c2s_rl.data.h5ad_stream import H5adStream, new_file


def write(path, sizes, compression="gzip"):
    """Write cells in chunks of the given sizes; returns what they were made of."""
    rng = np.random.default_rng(0)
    num = sum(sizes)
    matrix = sparse.random(num, 9, density=0.4, format="csr", dtype=np.float32, rng=rng)
    labels = rng.choice(np.array(["b", "a", "", "c"], dtype=object), size=num)
    obs = {
        "label": labels,
        "score": rng.normal(size=num),
        "number": rng.integers(0, 9, size=num),
        "flag": rng.random(num) < 0.5,
    }
    stream = H5adStream(
        path, pd.DataFrame(index=[f"G{i}" for i in range(9)]), compression=compression
    )
    start = 0
    for size in sizes:
        part = slice(start, start + size)
        ids = [f"c{i}" for i in range(start, start + size)]
        stream.append(ids, matrix[part], {name: column[part] for name, column in obs.items()})
        start += size
    stream.finish({"about": {"slope": -1.5, "name": "x"}})
    return matrix, obs


@pytest.mark.parametrize("compression", ["gzip", "lzf", None])
@pytest.mark.parametrize("sizes", [(7,), (3, 4), (1, 0, 6)])
def test_the_file_holds_what_was_appended(tmp_path, sizes, compression):
    matrix, obs = write(tmp_path / "a.h5ad", sizes, compression)
    adata = anndata.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(adata.X.toarray(), matrix.toarray())
    assert adata.obs_names.tolist() == [f"c{i}" for i in range(7)]
    for name in ("score", "number", "flag"):
        np.testing.assert_array_equal(adata.obs[name], obs[name])
        assert adata.obs[name].dtype == obs[name].dtype
    assert adata.obs["label"].astype(object).fillna("").tolist() == obs["label"].tolist()
    categories = adata.obs["label"].cat.categories.tolist()
    assert categories == sorted(set(obs["label"]) - {""})
    assert adata.uns["about"] == {"slope": -1.5, "name": "x"}


def test_anndata_writes_the_same_layout(tmp_path):
    write(tmp_path / "ours.h5ad", (3, 4))
    anndata.read_h5ad(tmp_path / "ours.h5ad").write_h5ad(tmp_path / "theirs.h5ad")
    found = []
    for name in ("ours.h5ad", "theirs.h5ad"):
        with h5py.File(tmp_path / name) as file:
            places = {}
            file.visititems(
                lambda place, item, places=places: places.__setitem__(
                    place, (item.attrs.get("encoding-type"), item.attrs.get("encoding-version"))
                )
            )
            found.append(places)
    assert found[0] == found[1]


def test_bounds_get_64_bits_when_32_are_too_few(tmp_path, monkeypatch):
    monkeypatch.setattr(h5ad_stream, "MAX_32_BITS", 10)
    matrix, _ = write(tmp_path / "a.h5ad", (3, 4))
    with h5py.File(tmp_path / "a.h5ad") as file:
        assert file["X/indptr"].dtype == np.int64
    np.testing.assert_array_equal(
        anndata.read_h5ad(tmp_path / "a.h5ad").X.toarray(), matrix.toarray()
    )


def test_chunks_with_other_columns_are_a_bug_of_the_caller(tmp_path):
    stream = H5adStream(tmp_path / "a.h5ad", pd.DataFrame(index=["G"]), compression=None)
    rows = sparse.csr_matrix(np.ones((1, 1), dtype=np.float32))
    stream.append(["c0"], rows, {"a": np.zeros(1)})
    with pytest.raises(ValueError, match=r"all chunks must have obs \['a'\], got \['b'\]"):
        stream.append(["c1"], rows, {"b": np.zeros(1)})
    stream.close()


def fail_halfway(path):
    with new_file(path, overwrite=False) as partial:
        partial.write_text("half")
        raise RuntimeError


def test_a_file_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError):
        fail_halfway(tmp_path / "a.h5ad")
    assert list(tmp_path.iterdir()) == []
