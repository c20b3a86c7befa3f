"""The stage generate with engines that answer at once."""

import json

import anndata as ad
import numpy as np
import pytest

from c2s_rl.data.shards import read_cells, read_manifest
from c2s_rl.decoding.constraint import GeneMode
from c2s_rl.errors import ConfigError, DataError
from c2s_rl.pipeline import generate
from c2s_rl.pipeline.ask import AskFolders
from c2s_rl.pipeline.generate import GenerateConfig
from tests.pipeline.ask_cases import FakeEngines
from tests.pipeline.embed_cases import GENES, prepare

# Donors stand for conditions: d1 is untreated.
CONTROLS = {"condition_column": "donor", "control": "d1"}
CONDITIONS = [
    {"num_cells": 5},
    {"cell_type": "B cell", "num_cells": 7},
    {"cell_type": "B cell", "perturbation": "heat", "num_cells": 11},
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("generate"))


def answer(_record, seed):
    """Three to seven genes that depend on the seed; every fourth one repeats and invents."""
    genes = np.random.default_rng(seed).permutation(30)[: 3 + seed % 5]
    words = [GENES[gene] for gene in genes]
    return " " + " ".join([*words, words[0], "GENIUS"] if seed % 4 == 0 else words)


def run(prepared, output, engines, **options):
    config = GenerateConfig.model_validate(
        {"num_genes": 8, "max_tokens": 40, "conditions": CONDITIONS, "controls": CONTROLS} | options
    )
    folders = AskFolders(prepared.policy, prepared.cells, output)
    return generate.run(config, folders, engines.start, chunk_prompts=6)


def test_cells_are_written_with_expression_by_rank(prepared, tmp_path):
    engines = FakeEngines(answer)
    counts = run(prepared, tmp_path / "g", engines)
    adata = ad.read_h5ad(tmp_path / "g" / "generated.h5ad")
    assert adata.shape == (23, 30)
    assert adata.var_names.tolist() == list(GENES)
    assert adata.obs["condition"].value_counts().to_dict() == {
        "any cell": 5,
        "B cell": 7,
        "B cell | heat": 11,
    }
    model = read_manifest(prepared.cells).rank_model
    for request in engines.requests:
        row = adata[request.record.prompt_id]
        words = answer(None, request.seed).split()
        known = [word for word in dict.fromkeys(words) if word != "GENIUS"]
        expected = np.zeros(30, dtype=np.float32)
        expected[[GENES.index(word) for word in known]] = model.expression(len(known))
        np.testing.assert_array_equal(row.X.toarray()[0], expected)
        obs = row.obs.iloc[0]
        assert obs["prompt"] == request.record.prompt
        assert (obs["num_words"], obs["num_genes"]) == (len(words), len(known))
        has_extra = request.seed % 4 == 0
        assert (obs["num_duplicates"], obs["num_unknown"]) == (has_extra, has_extra)
    heat = counts.conditions["B cell | heat"]
    assert (heat.num_cells, heat.num_empty, heat.num_truncated) == (11, 0, 0)
    assert 1 < heat.num_distinct <= 11
    assert counts == generate.GenerateCounts.read(tmp_path / "g")
    assert adata.uns["c2s_rl"]["rank_model"]["slope"] == model.slope
    assert json.loads(adata.uns["c2s_rl"]["made_from"])["config"]["num_genes"] == 8


def test_perturbations_show_control_cells_of_the_type(prepared, tmp_path):
    engines = FakeEngines(answer)
    run(prepared, tmp_path / "g", engines)
    cells = read_cells(prepared.cells, ["cell_type", "donor"])
    shown = [r.record for r in engines.requests if r.record.condition == "B cell | heat"]
    ids = [record.context_id for record in shown]
    # (d1, B) are 0, 6, ..., 48: nine cells; the first two are shown again, for 11 are asked for
    assert sorted(set(ids)) == sorted(f"c{i}" for i in range(0, 50, 6))
    assert ids[9:] == ids[:2]
    symbols = read_manifest(prepared.cells).symbols
    for record in shown:
        genes = cells.genes_of(cells.cell_ids.index(record.context_id))[:8]
        assert " ".join(symbols[gene] for gene in genes) in record.prompt
        assert "heat" in record.prompt
    assert shown[0].prompt != shown[9].prompt or ids[0] != ids[9]
    assert len({r.seed for r in engines.requests}) == 23
    plain = [r.record for r in engines.requests if r.record.condition == "any cell"]
    assert all("GENE" not in record.prompt and record.context_id == "" for record in plain)


def test_sampling_is_held_to_genes_and_to_the_length_asked_for(prepared, tmp_path):
    engines = FakeEngines(answer)
    run(prepared, tmp_path / "g", engines, temperature=0.3)
    assert engines.sampling.genes.mode is GeneMode.ON
    assert engines.sampling.genes.max_genes == 8
    assert (engines.sampling.temperature, engines.sampling.max_tokens) == (0.3, 40)
    run(prepared, tmp_path / "free", engines, genes={"mode": "off"})
    assert engines.sampling.genes.mode is GeneMode.OFF


def test_an_interrupted_stage_goes_on_to_the_same_bytes(prepared, tmp_path):
    counts = run(prepared, tmp_path / "whole", FakeEngines(answer))
    with pytest.raises(KeyboardInterrupt):
        run(prepared, tmp_path / "cut", FakeEngines(answer, break_after=15))
    assert list((tmp_path / "cut").glob("part-*"))
    assert run(prepared, tmp_path / "cut", FakeEngines(answer)) == counts
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "cut" / path.name).read_bytes() == path.read_bytes(), path.name
    again = FakeEngines(answer)
    assert run(prepared, tmp_path / "cut", again) == counts
    assert again.num_starts == 0


def test_a_cell_does_not_depend_on_the_other_conditions(prepared, tmp_path):
    engines, alone = FakeEngines(answer), FakeEngines(answer)
    run(prepared, tmp_path / "g", engines)
    run(prepared, tmp_path / "h", alone, conditions=CONDITIONS[2:])
    asked = {r.record.prompt_id: (r.seed, r.record.prompt) for r in engines.requests}
    assert len(alone.requests) == 11
    assert all(asked[r.record.prompt_id] == (r.seed, r.record.prompt) for r in alone.requests)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_genes": None}, ConfigError, "generate.num_genes must be given"),
        ({"max_tokens": None}, ConfigError, "generate.max_tokens must be given"),
        ({"controls": None}, ConfigError, "generate.controls must be given .*'B cell | heat'"),
        (
            {"conditions": [{"cell_type": "B-cell", "perturbation": "heat"}]},
            DataError,
            "did you mean 'B cell'",
        ),
        ({"controls": CONTROLS | {"control": "d3"}}, DataError, "a label of donor .* got 'd3'"),
    ],
)
def test_what_cannot_be_generated_is_named(prepared, tmp_path, options, error, message):
    engines = FakeEngines(answer)
    with pytest.raises(error, match=message):
        run(prepared, tmp_path / "g", engines, **options)
    assert engines.num_starts == 0
    assert not (tmp_path / "g").exists()


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ([{"perturbation": "heat"}], "needs the cell_type"),
        ([{"num_cells": 1}, {"num_cells": 2}], "must differ, got 'any cell' twice"),
        ([], "at least 1"),
    ],
)
def test_conditions_that_say_nothing_are_refused(conditions, message):
    with pytest.raises(ValueError, match=message):
        GenerateConfig(conditions=conditions)


def test_labels_that_no_cell_has_are_named_and_asked_for_all_the_same(prepared, tmp_path, caplog):
    conditions = [
        {"cell_type": "B cel", "num_cells": 1},
        {"cell_type": "B cell", "perturbation": "d2, acute", "num_cells": 1},
        {"cell_type": "B cell", "perturbation": "heat", "num_cells": 1},
    ]
    counts = run(prepared, tmp_path / "g", FakeEngines(answer), conditions=conditions)
    assert len(counts.conditions) == 3
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    # 'd2' is a label of a perturbation here, and 'acute' its exposure.
    assert len(warnings) == 2
    assert (
        "is labelled 'B cel', which is asked for all the same; labels: 'B cell', 'T" in warnings[0]
    )
    assert "is labelled 'heat'" in warnings[1]
