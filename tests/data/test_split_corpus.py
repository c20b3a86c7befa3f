"""Rules of the split seen through whole corpora: what trains, what is tested, what it is called."""

from collections.abc import Callable, Sequence

import numpy as np

from c2s_rl.data.corpus import CellSource, build_corpus
from c2s_rl.data.corpus_config import CorpusConfig
from c2s_rl.prompts.render import load_all_templates
from c2s_rl.types import PromptRecord, Split, Task

MakeSource = Callable[[Sequence[tuple[str, str, str, str]]], CellSource]


def prompts(source: CellSource, config: CorpusConfig) -> tuple[PromptRecord, ...]:
    return build_corpus(source, config, load_all_templates(config.tasks, {})).records


def test_tiers_drawn_as_in_the_paper_are_named_after_what_training_lacks(
    source_of: MakeSource,
) -> None:
    cells = [
        (f"{cell_type}-{cytokine}-{exposure}-{i}", cell_type, cytokine, exposure)
        for cell_type in ("B", "NK", "T")
        for cytokine in ("control", "IL4", "IL6", "TNF", "IL4 + IL6")
        for exposure in ("acute", "chronic")
        for i in range(6)
    ]
    config = CorpusConfig.model_validate(
        {
            "tasks": [Task.PERTURBATION_RESPONSE],
            "condition_column": "condition",
            "control": "control",
            "exposure_column": "donor",  # the toy cells' fourth column
            "num_genes": 4,
            "split": {
                "tiers": [
                    {"draw": {"kind": kind}}
                    for kind in ("exposure", "per_cell_type", "combination")
                ],
                "control_fraction": 0.5,
            },
        }
    )
    records = prompts(source_of(cells), config)
    tiers = {r.condition: r.tier for r in records if r.split is Split.TEST}
    num = {tier: list(tiers.values()).count(tier) for tier in set(tiers.values())}
    # 3 cell types: the pair in both exposures, one cytokine in both, another in one.
    assert num == {"unseen combination": 6, "unseen per cell type": 6, "unseen exposure": 3}
    # 3 x 4 x 2 perturbed conditions, and no cell of a held-out one trains.
    assert len({r.condition for r in records if r.split is Split.TRAIN}) == 24 - 15
    assert len(records) == 3 * 4 * 2 * 6


def test_lines_of_a_perturbation_are_tested_with_controls_of_the_same_line(
    source_of: MakeSource,
) -> None:
    wells = [
        (f"{line}-{drug}-{i}", line, drug, "p1")
        for line in ("A375", "MCF7", "PC3", "VCAP")
        for drug in ("DMSO", "torin", "taxol", "brefeldin", "dasatinib", "foretinib")
        for i in range(8)
    ]
    config = CorpusConfig.model_validate(
        {
            "tasks": [Task.PERTURBATION_RESPONSE],
            "condition_column": "condition",
            "control": "DMSO",
            "num_genes": 4,
            "split": {"per_perturbation": {"column": "cell_type"}, "control_fraction": 0.5},
        }
    )
    records = prompts(source_of(wells), config)
    test = [r for r in records if r.split is Split.TEST]
    # 5 drugs x 2 of 4 lines x 8 wells on either side.
    assert (len(test), len(records)) == (80, 160)
    for record in records:
        assert record.context_id.split("-")[:2] == [record.target_id.split("-")[0], "DMSO"]
    shown = {split: {r.context_id for r in records if r.split is split} for split in Split}
    assert not shown[Split.TRAIN] & shown[Split.TEST]
    assert {r.tier for r in test} == {"unseen per cell type"}


def test_cells_of_the_strip_around_tested_blocks_are_left_out_and_counted(
    source_of: MakeSource,
) -> None:
    # A line of 40 cells, 1 apart, in 4 blocks; the fourth toy column is the coordinate.
    cells = [(f"c{i}", "T", "0", str(i)) for i in range(40)]
    blocks = {"x": "donor", "y": "condition", "size": 10, "fraction": 0.25, "buffer": 2.0}
    config = CorpusConfig.model_validate({"num_genes": 4, "split": {"spatial_blocks": blocks}})
    corpus = build_corpus(source_of(cells), config, load_all_templates(config.tasks, {}))
    tested = sorted(int(r.target_id[1:]) for r in corpus.records if r.split is Split.TEST)
    trained = sorted(int(r.target_id[1:]) for r in corpus.records if r.split is Split.TRAIN)
    assert tested == list(range(tested[0], tested[0] + 10))
    assert tested[0] % 10 == 0
    # Two cells on each side of the block that has cells there.
    assert corpus.dropped["in_buffer"] == 2 * ((tested[0] > 0) + (tested[-1] < 39))
    assert len(trained) == 40 - 10 - corpus.dropped["in_buffer"]
    assert np.min(np.abs(np.subtract.outer(trained, tested))) == 3
