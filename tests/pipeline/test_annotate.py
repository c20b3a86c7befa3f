"""The stage annotate with engines that answer at once."""

import json

import anndata as ad
import numpy as np
import pytest

from c2s_rl.data.corpus_config import CorpusConfig
from c2s_rl.data.prompt_set import read_prompts
from c2s_rl.errors import ConfigError, DataError, StageError
from c2s_rl.pipeline import annotate, corpus
from c2s_rl.pipeline.annotate import AnnotateConfig
from c2s_rl.pipeline.ask import AskFolders
from c2s_rl.types import Split, Task
from tests.pipeline.ask_cases import FakeEngines
from tests.pipeline.embed_cases import prepare

CLASSES = ["B cell", "T cell"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("annotate"))


def run(prepared, output, engines, *, corpus=None, **options):
    config = AnnotateConfig.model_validate({"num_genes": 10} | options)
    folders = AskFolders(prepared.policy, prepared.cells, output)
    return annotate.run(
        config, folders, engines.start, prompt_seed=0, corpus=corpus, chunk_prompts=8
    )


def knows(record, _seed):
    """Tells the types apart by the genes that are high in B cells; cell c3 gets it wrong."""
    is_b = int(record.context_id[1:]) % 2 == 0
    return " B cell." if is_b or record.context_id == "c3" else " t  cell"


def test_cells_are_asked_with_the_prompt_of_the_corpus_and_get_the_answer(prepared, tmp_path):
    engines = FakeEngines(knows)
    score = run(prepared, tmp_path / "a", engines, classes=CLASSES, known_column="cell_type")
    assert len(engines.requests) == 50
    assert engines.most_waiting == 16  # two chunks of 8
    assert (engines.sampling.temperature, engines.sampling.group_size) == (0.0, 1)
    record = engines.requests[3].record
    assert record.prompt_id == "cell_type_annotation/c3/0"
    genes = [word.strip(".,:") for word in record.prompt.split() if word.startswith("GENE")]
    assert len(genes) == 10
    adata = ad.read_h5ad(tmp_path / "a" / "annotations.h5ad")
    assert adata.obs_names.tolist() == [f"c{i}" for i in range(50)]
    predicted = adata.obs["predicted_cell_type"]
    assert predicted["c0"] == "B cell"
    assert predicted["c1"] == "T cell"  # in the spelling of the class
    assert json.loads(adata.obs.loc["c1", "answers"]) == [" t  cell"]  # word for word
    assert adata.obs.loc["c1", "donor"] == "d2"
    # 25 cells of each type, one T cell called B: 49 of 50
    assert score.accuracy == pytest.approx(0.98)
    assert score.confusion == {"B cell": {"B cell": 25}, "T cell": {"B cell": 1, "T cell": 24}}
    assert json.loads((tmp_path / "a" / "scores.json").read_text())["accuracy"] == 0.98


def test_several_answers_vote_and_what_is_no_class_is_unknown(prepared, tmp_path):
    first_seed = {}

    def answer(record, seed):
        number = seed - first_seed.setdefault(record.context_id, seed)
        if record.context_id == "c0":
            return ("B cell", "B cell", "T cell", "")[number]
        return ("Martian", "a B cell~", "T cell", "Martian")[number]

    engines = FakeEngines(answer)
    options = {"num_samples": 4, "temperature": 0.7, "classes_column": "cell_type"}
    score = run(prepared, tmp_path / "a", engines, **options)
    assert score is None
    assert engines.sampling.temperature == 0.7
    obs = ad.read_h5ad(tmp_path / "a" / "annotations.h5ad").obs
    assert obs.loc["c0", ["predicted_cell_type", "vote_share", "num_unknown"]].tolist() == [
        "B cell",
        0.5,
        1,
    ]
    assert obs.loc["c1", ["predicted_cell_type", "vote_share", "num_unknown"]].tolist() == [
        "unknown",
        0.75,
        3,
    ]
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert (manifest["num_cells"], manifest["num_unknown_cells"]) == (50, 49)
    assert manifest["num_truncated_answers"] == 49


def test_an_interrupted_stage_goes_on_and_a_finished_one_asks_nothing(prepared, tmp_path):
    whole = FakeEngines(knows)
    options = {"known_column": "cell_type"}
    score = run(prepared, tmp_path / "whole", whole, **options)
    with pytest.raises(KeyboardInterrupt):
        run(prepared, tmp_path / "cut", FakeEngines(knows, break_after=30), **options)
    kept = len(list((tmp_path / "cut").glob("part-*")))
    assert 0 < kept < 7
    rest = FakeEngines(knows)
    assert run(prepared, tmp_path / "cut", rest, **options) == score
    assert len(rest.requests) <= 50 - 8 * (kept - 1)
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "cut" / path.name).read_bytes() == path.read_bytes(), path.name
    again = FakeEngines(knows)
    assert run(prepared, tmp_path / "cut", again, **options) == score
    assert again.num_starts == 0


def test_seeds_are_the_cells_own(prepared, tmp_path):
    engines, some = FakeEngines(knows), FakeEngines(knows)
    run(prepared, tmp_path / "a", engines)
    run(prepared, tmp_path / "b", some, where={"donor": ["d1"]})
    seeds = {request.record.context_id: request.seed for request in engines.requests}
    assert len(set(seeds.values())) == 50
    assert len(some.requests) == 17  # 0, 3, ..., 48
    assert all(seeds[r.record.context_id] == r.seed for r in some.requests)
    prompts = {r.record.context_id: r.record.prompt for r in engines.requests}
    assert all(prompts[r.record.context_id] == r.record.prompt for r in some.requests)


def test_a_file_of_cells_is_converted_first_and_its_copy_gets_the_results(prepared, tmp_path):
    source = {"path": str(prepared.h5ad), "obs": ["cell_type"]}
    engines = FakeEngines(knows)
    run(prepared, tmp_path / "a", engines, source=source, into=prepared.h5ad)
    copy = ad.read_h5ad(tmp_path / "a" / "cells.h5ad")
    assert copy.obs["predicted_cell_type"].tolist()[:4] == [
        "B cell.",
        "t cell",
        "B cell.",
        "B cell.",
    ]
    assert copy.obs.columns.tolist()[:2] == ["cell_type", "donor"]
    assert copy.shape == (50, 30)
    np.testing.assert_array_equal(copy.X.toarray(), ad.read_h5ad(prepared.h5ad).X.toarray())


def test_cells_that_were_not_asked_about_have_no_result_in_the_copy(prepared, tmp_path):
    some = {"where": {"donor": ["d1"]}, "into": prepared.h5ad}
    run(prepared, tmp_path / "a", FakeEngines(knows), **some)
    copy = ad.read_h5ad(tmp_path / "a" / "cells.h5ad")
    # Donors are d1, d2, d3, d1, ...: 17 of 50 cells are of d1.
    assert copy.obs["predicted_cell_type"].notna().sum() == 17
    assert copy.obs["predicted_cell_type"].iloc[:2].tolist() == ["B cell.", np.nan]
    assert copy.obs["vote_share"].iloc[:2].tolist() == [1.0, pytest.approx(np.nan, nan_ok=True)]
    assert copy.obs["answers"].iloc[:2].tolist() == ['[" B cell."]', ""]
    assert copy.obs["num_unknown"].iloc[0] == 0
    assert copy.obs["num_unknown"].isna().sum() == 33
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["num_without_result"] == 33


def test_a_file_that_cannot_take_results_is_found_out_before_anything_is_asked(prepared, tmp_path):
    adata = ad.read_h5ad(prepared.h5ad)
    adata.obs["answers"] = "mine"
    adata.write_h5ad(tmp_path / "taken.h5ad")
    del adata.obs["answers"]
    adata.obs_names = [f"stranger{i}" for i in range(50)]
    adata.write_h5ad(tmp_path / "others.h5ad")
    for name, message in (
        ("taken", "obs must have no 'answers' yet, got one in .*taken.h5ad"),
        ("others", "must hold cells that are asked about, got none of 50 in .*others.h5ad"),
    ):
        engines = FakeEngines(knows)
        with pytest.raises(DataError, match=message):
            run(prepared, tmp_path / name, engines, into=tmp_path / f"{name}.h5ad")
        assert (engines.num_starts, (tmp_path / name).exists()) == (0, False)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_genes": None}, ConfigError, "annotate.num_genes must be given"),
        ({"into": "x/annotations.h5ad"}, ConfigError, "another name than annotations.h5ad"),
        ({"where": {"donor": ["d9"]}}, DataError, "a label of donor must be one of 'd1', 'd2'"),
        (
            {"where": {"donor": ["d1"], "cell_type": ["T cell"]}, "known_column": "celltype"},
            DataError,
            "did you mean 'cell_type'",
        ),
        ({"classes": ["B cell", "b  cell"]}, ConfigError, "got 'b  cell' and 'B cell'"),
        ({"classes": ["Unknown"]}, ConfigError, "none be 'unknown'"),
    ],
)
def test_what_cannot_be_annotated_is_named(prepared, tmp_path, options, error, message):
    engines = FakeEngines(knows)
    with pytest.raises(error, match=message):
        run(prepared, tmp_path / "a", engines, **options)
    assert engines.num_starts == 0


def test_held_out_cells_are_asked_with_the_very_prompts_of_the_corpus(prepared, tmp_path):
    config = CorpusConfig(
        tasks=[Task.CELL_TYPE_ANNOTATION], num_genes=10, split={"test_fraction": 0.3}
    )
    corpus.run(config, prepared.cells, tmp_path / "corpus")
    held_out = read_prompts(tmp_path / "corpus", split=Split.TEST)
    engines = FakeEngines(knows)
    run(prepared, tmp_path / "a", engines, corpus=tmp_path / "corpus", side="test")
    asked = {r.record.context_id: r.record.prompt for r in engines.requests}
    assert asked == {record.context_id: record.prompt for record in held_out.records}
    assert 0 < len(asked) < 50
    with pytest.raises(ConfigError, match=r"annotate\.side needs a run with a corpus, got test"):
        run(prepared, tmp_path / "b", engines, side="test")


def test_it_does_not_go_on_with_other_settings(prepared, tmp_path):
    run(prepared, tmp_path / "a", FakeEngines(knows))
    with pytest.raises(StageError, match=r"another config: .*'num_genes': 10.*'num_genes': 9"):
        run(prepared, tmp_path / "a", FakeEngines(knows), num_genes=9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 3}, "num_samples must be 1 with temperature 0"),
        ({"classes": ["a"], "classes_column": "b"}, "without classes_column"),
        ({"cells": "a", "source": {"path": "b.h5ad"}}, "without source"),
        ({"cells": "a", "side": "test"}, "the run's own cells only, got test"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AnnotateConfig.model_validate(options)
