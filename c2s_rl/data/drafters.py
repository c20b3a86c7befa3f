"""Which function drafts the prompts of which task: the one list of all families.

A new task is a line here, a rule in `c2s_rl/prompts/tasks.py`, a template file beside it, and where
it needs settings a section in `corpus_sections.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from c2s_rl.data.caption_drafts import draft_captions, draft_interpretations
from c2s_rl.data.cell_drafts import draft_cells, draft_labels, draft_responses, draft_types
from c2s_rl.data.corpus_config import CorpusConfig
from c2s_rl.data.drafts import Drafted, Material
from c2s_rl.data.gene_set_drafts import draft_gene_sets
from c2s_rl.data.interaction_drafts import draft_interactions
from c2s_rl.data.qa_drafts import draft_questions_of_file
from c2s_rl.data.sample_drafts import draft_samples
from c2s_rl.data.spatial_drafts import draft_spatial
from c2s_rl.data.split_config import SplitConfig
from c2s_rl.types import Task

DraftMaker = Callable[[Material, Task, CorpusConfig], Drafted]


@dataclass(frozen=True)
class Drafter:
    """How the prompts of a task are made."""

    draft: DraftMaker
    """Turns cells and config into drafts."""
    split_rules: Callable[[CorpusConfig], str]
    """Says by which rules the task should have test prompts; '' when it should have none."""
    hint: str = ""
    """What to think of when a side of it stays empty."""


def _cell_rules(config: CorpusConfig) -> str:
    return _rules(config.split)


def _qa_rules(config: CorpusConfig) -> str:
    return "" if config.qa is None else _rules(config.qa.split)


def _gene_set_rules(config: CorpusConfig) -> str:
    fraction = 0.0 if config.gene_sets is None else config.gene_sets.test_fraction
    return f"gene_sets.test_fraction {fraction}" if fraction else ""


def _rules(split: SplitConfig) -> str:
    if not split.has_rules:
        return ""
    drawn = {"per_perturbation": split.per_perturbation, "spatial_blocks": split.spatial_blocks}
    others = [f"{name}, " for name, rule in drawn.items() if rule is not None]
    return (
        f"holdout {dict(split.holdout)}, {len(split.tiers)} tiers, {''.join(others)}and "
        f"test_fraction {split.test_fraction}"
    )


def _interaction_rules(config: CorpusConfig) -> str:
    settings = config.gene_interactions
    fraction = 0.0 if settings is None else settings.test_fraction
    return f"gene_interactions.test_fraction {fraction}" if fraction else ""


_SAMPLES = Drafter(draft_samples, _cell_rules, "samples need cells_per_sample cells of a donor")
_GENE_SETS = Drafter(draft_gene_sets, _gene_set_rules)
_TISSUE = Drafter(draft_spatial, _cell_rules, "neighbours are of the same slide and side")
_INTERACTIONS = Drafter(draft_interactions, _interaction_rules)

DRAFTERS: Mapping[Task, Drafter] = MappingProxyType(
    {
        Task.SINGLE_CELL_LANGUAGE_MODELLING: Drafter(draft_cells, _cell_rules),
        Task.CELL_GENERATION: Drafter(draft_cells, _cell_rules),
        Task.CELL_TYPE_ANNOTATION: Drafter(draft_types, _cell_rules),
        Task.PERTURBATION_RESPONSE: Drafter(draft_responses, _cell_rules),
        Task.PERTURBATION_ANNOTATION: Drafter(draft_labels, _cell_rules),
        Task.MULTI_CELL_LANGUAGE_MODELLING: _SAMPLES,
        Task.TISSUE_ANNOTATION: _SAMPLES,
        Task.SAMPLE_CELL_TYPE_ANNOTATION: _SAMPLES,
        Task.TISSUE_SAMPLE_GENERATION: _SAMPLES,
        Task.CELL_TYPE_SAMPLE_GENERATION: _SAMPLES,
        Task.ABSTRACT_SAMPLE_GENERATION: _SAMPLES,
        Task.NATURAL_LANGUAGE_INTERPRETATION: _SAMPLES,
        Task.GENE_SET_ENUMERATION: _GENE_SETS,
        Task.GENE_SET_NAMING: _GENE_SETS,
        Task.NICHE_ANNOTATION: _TISSUE,
        Task.NEIGHBOUR_GENERATION: _TISSUE,
        Task.SAME_NEIGHBOURHOOD: _TISSUE,
        Task.SAME_NICHE: _TISSUE,
        Task.GENE_INTERACTION: _INTERACTIONS,
        Task.GENE_PARTNERS: _INTERACTIONS,
        Task.CLUSTER_CAPTIONING: Drafter(draft_captions, _cell_rules),
        Task.DATASET_INTERPRETATION: Drafter(draft_interpretations, _cell_rules),
        Task.QUESTION_ANSWERING: Drafter(
            draft_questions_of_file, _qa_rules, "test questions are shown cells of the test side"
        ),
    }
)
