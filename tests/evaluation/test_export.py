"""Files for cell-eval: labels, values and what it checks itself."""

from dataclasses import replace

import anndata
import numpy as np
import pytest
from scipy import sparse

from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.data.cell_table import CellTable
from c2s_rl.errors import StageError
from c2s_rl.evaluation.export import CONTROL_LABEL, ExportColumns, export_cells
from c2s_rl.evaluation.real_cells import gather_real_cells

VOCABULARY = Vocabulary(tuple(f"G{i}" for i in range(10)), tuple(f"G{i}" for i in range(10)))
COLUMNS = ExportColumns("cell_type", "drug", "dose")


@pytest.fixture
def cells():
    """Two treated cells and two controls of B, one treated cell of T; five genes in each."""
    genes = [[0, 1, 2, 3, 4], [1, 0, 2, 3, 5], [9, 8, 7, 6, 5], [8, 9, 7, 6, 4], [3, 2, 1, 0, 9]]
    return CellTable(
        ("b1", "b2", "bc1", "bc2", "t1"),
        np.arange(0, 30, 5),
        np.array(genes, dtype=np.int32).ravel(),
        np.ones(25, dtype=np.float32),
        {
            "cell_type": np.array(["B", "B", "B", "B", "T"]),
            "drug": np.array(["X", "X", "none", "none", "X"]),
            "dose": np.array(["high", "high", "", "", "low"]),
        },
    )


@pytest.fixture
def groups(record, answer, group):
    prompts = [
        record("p1", "B | X | high", target_id="b1", context_id="bc1", tier="seen condition"),
        record("p2", "B | X | high", target_id="b2", context_id="bc2", tier="seen condition"),
        record("p3", "T | X | low", target_id="t1", context_id="bc1", tier="unseen exposure"),
    ]
    answers = (("x", answer(0, 1, 2, 3, 4)), ("y", answer()))
    return {name: [group(p, *answers) for p in prompts] for name in ("SFT", "my GRPO")}


def export(folder, groups, cells, yardstick, columns=COLUMNS):
    records = [g.record for g in next(iter(groups.values()))]
    real = gather_real_cells(records, cells, 10)
    return export_cells(folder, groups, real, yardstick, columns, VOCABULARY)


def test_real_and_predicted_cells_come_back_with_labels_and_values(
    groups, cells, yardstick, tmp_path
):
    files = export(tmp_path / "export", groups, cells, yardstick)
    assert [f.name for f in files] == ["real.h5ad", "pred_SFT.h5ad", "pred_my_GRPO.h5ad"]
    real, predicted = anndata.read_h5ad(files[0]), anndata.read_h5ad(files[1])
    assert list(real.obs_names) == ["b1", "b2", "t1", "bc1", "bc2"]
    assert list(real.obs["target_gene"]) == ["X, high", "X, high", "X, low", *[CONTROL_LABEL] * 2]
    assert list(real.obs["celltype"]) == ["B", "B", "T", "B", "B"]
    assert list(real.obs["tier"])[:3] == ["seen condition", "seen condition", "unseen exposure"]
    # Sentences of four genes with expression 4, 3, 2, 1: the fifth gene is cut, in real cells too.
    assert real["b2"].X.toarray().tolist() == [[3, 4, 2, 1, 0, 0, 0, 0, 0, 0]]
    assert predicted["p1#0"].X.toarray().tolist() == [[4, 3, 2, 1, 0, 0, 0, 0, 0, 0]]
    assert predicted["p3#1"].X.sum() == 0
    assert list(predicted.obs_names)[-2:] == ["bc1", "bc2"]
    assert list(real.var_names) == list(predicted.var_names) == list(VOCABULARY.symbols)


def test_the_files_keep_the_rules_that_cell_eval_checks(groups, cells, yardstick, tmp_path):
    # PerturbationAnndataPair: the same genes in the same order, the same perturbations on both
    # sides, the control on both; a matrix that it knows as sparse, log-normalised below 15.
    real, *predicted = (anndata.read_h5ad(f) for f in export(tmp_path, groups, cells, yardstick))
    for other in predicted:
        assert set(other.obs["target_gene"]) == set(real.obs["target_gene"])
        assert CONTROL_LABEL in set(other.obs["target_gene"])
        assert isinstance(other.X, sparse.csr_matrix)
        assert other.X.max() < 15


def test_cell_eval_reads_the_files(groups, cells, yardstick, tmp_path):
    types = pytest.importorskip("cell_eval._types", reason="cell-eval is not installed")
    real, predicted, _ = (anndata.read_h5ad(f) for f in export(tmp_path, groups, cells, yardstick))
    pair = types.PerturbationAnndataPair(real, predicted, "target_gene", CONTROL_LABEL)
    assert pair.perts.tolist() == ["X, high", "X, low"]


def test_without_controls_nothing_is_written(groups, cells, yardstick, tmp_path):
    for columns in (COLUMNS, ExportColumns("cell_type", None, None)):
        own = groups
        if columns is COLUMNS:
            own = {"SFT": [_without_control(g) for g in groups["SFT"]]}
        with pytest.raises(StageError, match="needs held-out prompts with control cells, got none"):
            export(tmp_path / "export", own, cells, yardstick, columns)
    assert not (tmp_path / "export").exists()


def _without_control(group):
    return replace(group, record=replace(group.record, context_id=""))


def test_policies_must_not_share_a_file(groups, cells, yardstick, tmp_path):
    twice = {"a b": groups["SFT"], "a_b": groups["SFT"]}
    with pytest.raises(StageError, match="must have file names of their own, got"):
        export(tmp_path, twice, cells, yardstick)
