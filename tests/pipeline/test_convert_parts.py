"""Conversion by parts: the same bytes however it is done, going on after a kill, several files."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

from c2s_rl.cells.sentence import write_sentence
from c2s_rl.config import validate
from c2s_rl.data.shards import read_cells, read_manifest
from c2s_rl.errors import ConfigError, DataError
from c2s_rl.pipeline import convert_part, convert_plan, convert_work
from c2s_rl.pipeline.convert import ConvertConfig, run
from c2s_rl.pipeline.convert_workers import InThreads, in_order
from tests.conftest import PROJECT

PART_ROWS = 7


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    for module in (convert_work, convert_plan):
        monkeypatch.setattr(module, "PART_ROWS", PART_ROWS)
    monkeypatch.setattr(convert_part, "GROUP_ROWS", 3)


def write_cells(path, counts, *, genes=None, ids=None, **obs):
    counts = np.asarray(counts, dtype=np.float32)
    frame = pd.DataFrame(obs, index=ids or [f"c{i}" for i in range(len(counts))])
    var = pd.DataFrame(index=genes or [f"G{i}" for i in range(counts.shape[1])])
    adata = anndata.AnnData(sparse.csr_matrix(counts), obs=frame, var=var)
    adata.write_h5ad(path, compression="gzip")
    return adata


@pytest.fixture
def source(tmp_path):
    """40 cells: 5 parts of 7 and one of 5."""
    counts = np.random.default_rng(0).poisson(0.8, size=(40, 30))
    counts[7:14] = 0  # nothing is left of the second part
    return write_cells(
        tmp_path / "a.h5ad", counts, kind=[["x", "y", None][i % 3] for i in range(40)]
    )


def config(tmp_path, **options):
    return ConvertConfig(path=str(tmp_path / "a.h5ad"), obs=("kind",), **options)


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def sentences(folder):
    manifest, cells = run_result(folder)
    return {
        cell: write_sentence(cells.genes_of(i), manifest.vocabulary)
        for i, cell in enumerate(cells.cell_ids)
    }


def run_result(folder, columns=()):
    return read_manifest(folder), read_cells(folder, list(columns))


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize("options", [{}, {"qc": {"min_counts_per_cell": 20}}, {"max_genes": 5}])
def test_threads_and_portions_change_no_byte(tmp_path, options):
    options = config(tmp_path, **options)
    run(options, tmp_path / "one", executor=in_order)
    run(options, tmp_path / "two", executor=InThreads(3), rows_at_once=2)
    one, two = bytes_of(tmp_path / "one"), bytes_of(tmp_path / "two")
    assert sorted(one) == ["hashes.json", "manifest.json"] + [
        f"part-0000{i}.parquet" for i in (0, 2, 3, 4, 5)
    ]
    assert one == two


@pytest.mark.usefixtures("source")
def test_parts_hold_the_cells_of_the_whole(tmp_path, monkeypatch):
    run(config(tmp_path), tmp_path / "parts")
    monkeypatch.setattr(convert_work, "PART_ROWS", 1000)
    monkeypatch.setattr(convert_plan, "PART_ROWS", 1000)
    run(config(tmp_path), tmp_path / "whole")
    parts, cells = run_result(tmp_path / "parts", ["kind"])
    whole, same = run_result(tmp_path / "whole", ["kind"])
    assert parts.model_copy(update={"parts": whole.parts}) == whole
    assert cells.cell_ids == same.cell_ids
    assert cells.obs["kind"].tolist() == same.obs["kind"].tolist()
    np.testing.assert_array_equal(cells.genes, same.genes)
    np.testing.assert_array_equal(cells.values, same.values)
    assert cells.source_rows.tolist() == [*range(7), *range(14, 40)]


@pytest.mark.usefixtures("source")
def test_the_shuffling_of_the_package_goes_on_from_part_to_part(tmp_path, monkeypatch):
    run(config(tmp_path, tie_break="c2s"), tmp_path / "parts", executor=InThreads(3))
    monkeypatch.setattr(convert_work, "PART_ROWS", 1000)
    run(config(tmp_path, tie_break="c2s"), tmp_path / "whole")
    assert sentences(tmp_path / "parts") == sentences(tmp_path / "whole")


KILLED = """
    import sys, time
    from pathlib import Path
    from c2s_rl.pipeline import convert_part, convert_plan, convert_work
    from c2s_rl.pipeline.convert import ConvertConfig, run
    from c2s_rl.pipeline.convert_workers import in_order

    convert_work.PART_ROWS = convert_plan.PART_ROWS = 7
    convert_part.GROUP_ROWS = 3
    folder = Path(sys.argv[1])

    def slowly(make_worker, tasks):
        for rows in in_order(make_worker, tasks):
            time.sleep(0.3)
            yield rows

    options = ConvertConfig(path=str(folder / "a.h5ad"), obs=("kind",))
    run(options, folder / "cells", executor=slowly)
"""


def kill_after_two_parts(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    records = tmp_path / ".cells.work" / "records"
    deadline = time.monotonic() + 120
    while len(list(records.glob("part-*.npz"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


class Counting:
    """An executor that notes what it was given."""

    def __init__(self):
        self.done = []

    def __call__(self, make_worker, tasks):
        self.done += [task.index for task in tasks]
        yield from in_order(make_worker, tasks)


@pytest.mark.usefixtures("source")
def test_a_killed_conversion_goes_on_and_ends_with_the_same_bytes(tmp_path):
    run(config(tmp_path), tmp_path / "uninterrupted")
    kill_after_two_parts(tmp_path)
    assert not (tmp_path / "cells").exists()
    counting = Counting()
    run(config(tmp_path), tmp_path / "cells", executor=counting)
    assert counting.done == list(range(6))[-len(counting.done) :]
    assert 1 <= len(counting.done) <= 4
    assert bytes_of(tmp_path / "cells") == bytes_of(tmp_path / "uninterrupted")
    assert not (tmp_path / ".cells.work").exists()


class Broken(RuntimeError):
    pass


def break_off(tmp_path, options, after=3):
    """Stop a conversion the way a full disk does: what is done stays."""

    def breaking(make_worker, tasks):
        for number, rows in enumerate(in_order(make_worker, tasks)):
            if number == after:
                raise Broken
            yield rows

    with pytest.raises(Broken):
        run(options, tmp_path / "cells", executor=breaking)


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize("damage", ["altered", "cut", "gone"])
def test_a_part_that_was_damaged_meanwhile_is_made_again(tmp_path, damage):
    break_off(tmp_path, config(tmp_path))
    part = tmp_path / ".cells.work" / "parts" / "part-00002.parquet"
    content = part.read_bytes()
    match damage:
        case "altered":
            part.write_bytes(content[:100] + b"x" + content[101:])
        case "cut":
            part.write_bytes(content[:-1])
        case "gone":
            part.unlink()
    counting = Counting()
    run(config(tmp_path), tmp_path / "cells", executor=counting)
    assert counting.done == [2, 4, 5]
    assert len(read_cells(tmp_path / "cells")) == 33


def test_another_config_or_another_file_starts_anew(tmp_path, source):
    break_off(tmp_path, config(tmp_path))
    counting = Counting()
    run(config(tmp_path, seed=1), tmp_path / "cells", executor=counting)
    assert counting.done == list(range(6))
    break_off(tmp_path, config(tmp_path))
    source.write_h5ad(tmp_path / "a.h5ad")
    counting = Counting()
    run(config(tmp_path), tmp_path / "cells", executor=counting)
    assert counting.done == list(range(6))


@pytest.mark.usefixtures("source")
def test_a_failed_conversion_keeps_the_earlier_output(tmp_path):
    run(config(tmp_path), tmp_path / "cells")
    before = bytes_of(tmp_path / "cells")
    with pytest.raises(DataError, match=r"at least one cell, got none from X of .*min_genes"):
        run(config(tmp_path, min_genes=31), tmp_path / "cells")
    assert bytes_of(tmp_path / "cells") == before
    assert not (tmp_path / ".cells.work").exists()


def test_a_source_that_changes_meanwhile_is_refused(tmp_path, source):
    def changing(make_worker, tasks):
        yield from in_order(make_worker, tasks)
        source.write_h5ad(tmp_path / "a.h5ad")

    with pytest.raises(DataError, match="must not change while it is converted, got another"):
        run(config(tmp_path), tmp_path / "cells", executor=changing)


def test_ids_that_repeat_in_another_part_are_named(tmp_path):
    counts = np.ones((20, 3))
    ids = [f"c{i}" for i in range(20)]
    ids[15] = "c2"
    write_cells(tmp_path / "a.h5ad", counts, ids=ids, kind=["x"] * 20)
    with pytest.raises(DataError, match="cell ids must be unique, got 'c2' more than once in X of"):
        run(config(tmp_path), tmp_path / "cells")


@pytest.fixture
def two_files(tmp_path):
    write_cells(tmp_path / "a.h5ad", [[1, 3], [2, 1]], genes=["A", "B"], kind=["x", "y"])
    write_cells(
        tmp_path / "b.h5ad", [[5, 1], [0, 4]], genes=["C", "B"], kind=["y", "x"], donor=["d", None]
    )
    return [{"dataset": name, "path": str(tmp_path / f"{name}.h5ad")} for name in ("a", "b")]


def test_several_files_make_one_corpus(tmp_path, two_files):
    options = {"files": two_files, "obs": ["kind", "donor"]}
    run(validate(ConvertConfig, options, "test"), tmp_path / "cells")
    manifest, cells = run_result(tmp_path / "cells", ["dataset", "kind", "donor"])
    assert manifest.symbols == ("A", "B", "C")
    assert sentences(tmp_path / "cells") == {
        "a/c0": "B A", "a/c1": "A B", "b/c0": "C B", "b/c1": "B",
    }  # fmt: skip
    assert cells.obs["dataset"].tolist() == ["a", "a", "b", "b"]
    assert cells.obs["kind"].tolist() == ["x", "y", "y", "x"]
    assert cells.obs["donor"].tolist() == ["", "", "d", ""]
    assert manifest.num_missing_obs == {"dataset": 0, "kind": 0, "donor": 3}
    assert [(s.dataset, s.num_rows, s.num_cells) for s in manifest.sources] == [
        ("a", 2, 2),
        ("b", 2, 2),
    ]
    assert all(len(s.sha256) == 64 for s in manifest.sources)


def test_files_joined_by_intersection_keep_what_they_share(tmp_path, two_files):
    options = {"files": two_files, "join": "intersection"}
    run(validate(ConvertConfig, options, "test"), tmp_path / "cells")
    manifest, cells = run_result(tmp_path / "cells")
    assert manifest.symbols == ("B",)
    # The library is the whole cell: log1p(10,000 * 3 / 4).
    np.testing.assert_allclose(cells.values[0], np.log1p(7500), rtol=1e-6)
    write_cells(tmp_path / "b.h5ad", [[1]], genes=["Z"])
    with pytest.raises(DataError, match="must share genes, got none that all 2 have"):
        run(validate(ConvertConfig, options, "test"), tmp_path / "cells")


def test_a_column_that_no_file_has_is_refused_with_the_nearest(tmp_path, two_files):
    options = validate(ConvertConfig, {"files": two_files, "obs": ["knd"]}, "test")
    with pytest.raises(DataError, match=r"one of 'kind', got 'knd' in .*a\.h5ad; did you mean"):
        run(options, tmp_path / "cells")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": [{"dataset": "a", "path": "x"}] * 2}, "datasets of their own, got 'a' twice"),
        ({"files": [{"dataset": "a b", "path": "x"}]}, "got 'a b' at 'files"),
        ({"path": "x", "files": [{"dataset": "a", "path": "x"}]}, "got path and files"),
        ({"files": [{"dataset": "a", "path": "x", "obs": ["dataset"]}]}, "made of the names"),
        ({"files": [{"dataset": "a", "path": "x", "mtrix": "X"}]}, "did you mean 'matrix'"),
        ({"path": "x", "values": "log1p", "qc": {}}, "min_counts_per_cell needs values: counts"),
        ({"path": "x", "tie_break": "c2s", "variable_genes": {}}, "must be null"),
        ({"path": "x", "scale": {"target_sum": 0}}, "got 0 at 'scale.target_sum'"),
    ],
)
def test_contradicting_options_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        validate(ConvertConfig, change, "test.yaml")


def test_logarithms_to_base_ten_and_another_library_size(tmp_path):
    write_cells(tmp_path / "a.h5ad", [[1, 3]], kind=["x"])
    options = config(tmp_path, scale={"target_sum": 100, "log": "log10"})
    manifest = run(options, tmp_path / "cells")
    # 3 and 1 of 4 are 75 and 25 of 100: log10(76), log10(26).
    np.testing.assert_allclose(read_cells(tmp_path / "cells").values, np.log10([76, 26]), rtol=1e-6)
    assert manifest.normalisation == "log10(1+CP100)"


def test_cells_without_values_keep_their_order(tmp_path, source):
    run(config(tmp_path), tmp_path / "with")
    run(config(tmp_path, write_values=False), tmp_path / "without")
    assert sentences(tmp_path / "with") == sentences(tmp_path / "without")
    assert (
        run_result(tmp_path / "with")[0].rank_model
        == run_result(tmp_path / "without")[0].rank_model
    )


def test_quality_control_and_variable_genes_are_those_of_scanpy(tmp_path):
    rng = np.random.default_rng(1)
    counts = rng.negative_binomial(0.5, 0.2, size=(60, 80)) * (rng.random(80) < 0.5)
    counts[:, :4] = 0
    counts[:2, 3] = 1  # in two cells only
    adata = write_cells(tmp_path / "a.h5ad", counts, kind=["x"] * 60)
    manifest = run(
        config(
            tmp_path,
            qc={"min_cells_per_gene": 3, "min_counts_per_cell": 50},
            variable_genes={"num_genes": 10},
        ),
        tmp_path / "cells",
        rows_at_once=4,
    )
    sc.pp.filter_cells(adata, min_counts=50)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.filter_genes(adata, min_cells=3)
    sc.pp.log1p(adata)
    num_after_qc = adata.n_vars
    sc.pp.highly_variable_genes(adata, n_top_genes=10)
    assert list(manifest.symbols) == list(adata.var_names[adata.var["highly_variable"]])
    assert manifest.num_dropped_qc == 60 - adata.n_obs
    assert manifest.num_dropped_qc_genes == 80 - num_after_qc
    assert manifest.num_dropped_variable_genes == num_after_qc - len(manifest.symbols)
    assert read_manifest(tmp_path / "cells").qc.min_counts_per_cell == 50
