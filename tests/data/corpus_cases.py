"""Configs and helpers of the corpus tests."""

from collections.abc import Callable, Sequence

import numpy as np

from c2s_rl.data.cell_source import TableSource
from c2s_rl.data.corpus import Corpus, build_corpus
from c2s_rl.data.corpus_config import CorpusConfig
from c2s_rl.data.split_config import SplitConfig
from c2s_rl.prompts.render import load_all_templates
from c2s_rl.types import PromptRecord, Task

Cells = Sequence[tuple[str, str, str, str]]
MakeSource = Callable[[Cells], TableSource]

PERTURBATION = CorpusConfig(
    tasks=(Task.PERTURBATION_RESPONSE,),
    condition_column="condition",
    control="control",
    num_genes=4,
)
# Samples, gene sets and questions: test_sample_drafts.py, test_gene_set_drafts.py, test_qa.py.
CELL_TASKS = [
    Task.CELL_GENERATION,
    Task.CELL_TYPE_ANNOTATION,
    Task.PERTURBATION_RESPONSE,
    Task.PERTURBATION_ANNOTATION,
    Task.SINGLE_CELL_LANGUAGE_MODELLING,
]
HELD_OUT = PERTURBATION.model_copy(
    update={"split": SplitConfig(holdout={"cell_type": ("B cell",)}, test_fraction=0.3)}
)


def changed(config: CorpusConfig, **update: object) -> CorpusConfig:
    """Return a checked copy with some fields changed."""
    return CorpusConfig.model_validate({**config.model_dump(), **update})


def build(source: TableSource, config: CorpusConfig) -> Corpus:
    return build_corpus(source, config, load_all_templates(config.tasks, config.templates))


def plain(records: Sequence[PromptRecord]) -> list[tuple[object, ...]]:
    return [
        tuple(v.tolist() if isinstance(v, np.ndarray) else v for v in vars(record).values())
        for record in records
    ]
