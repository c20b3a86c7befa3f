"""What passes between the parts: records of prompts, completions and their scores.

All are frozen dataclasses without behaviour, so that they travel between processes as they are.
Shape suffixes: G completions of one prompt, K genes of one cell, T completion tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


class Task(StrEnum):
    """What a prompt asks for; `c2s_rl/prompts/tasks.py` says what goes in and what comes out."""

    SINGLE_CELL_LANGUAGE_MODELLING = "single_cell_language_modelling"
    CELL_TYPE_ANNOTATION = "cell_type_annotation"
    CELL_GENERATION = "cell_generation"
    MULTI_CELL_LANGUAGE_MODELLING = "multi_cell_language_modelling"
    TISSUE_ANNOTATION = "tissue_annotation"
    SAMPLE_CELL_TYPE_ANNOTATION = "sample_cell_type_annotation"
    TISSUE_SAMPLE_GENERATION = "tissue_sample_generation"
    CELL_TYPE_SAMPLE_GENERATION = "cell_type_sample_generation"
    ABSTRACT_SAMPLE_GENERATION = "abstract_sample_generation"
    NATURAL_LANGUAGE_INTERPRETATION = "natural_language_interpretation"
    GENE_SET_ENUMERATION = "gene_set_enumeration"
    GENE_SET_NAMING = "gene_set_naming"
    PERTURBATION_RESPONSE = "perturbation_response"
    PERTURBATION_ANNOTATION = "perturbation_annotation"
    QUESTION_ANSWERING = "question_answering"
    NICHE_ANNOTATION = "niche_annotation"
    NEIGHBOUR_GENERATION = "neighbour_generation"
    SAME_NEIGHBOURHOOD = "same_neighbourhood"
    SAME_NICHE = "same_niche"
    GENE_INTERACTION = "gene_interaction"
    GENE_PARTNERS = "gene_partners"
    CLUSTER_CAPTIONING = "cluster_captioning"
    DATASET_INTERPRETATION = "dataset_interpretation"


PRETRAINING_TASKS = tuple(Task)[:12]
"""The twelve of C2S-Scale's pretraining (Table 1), in its order: the first twelve of `Task`."""


class Split(StrEnum):
    """Which side of the held-out line a prompt stands on."""

    TRAIN = "train"
    TEST = "test"


@dataclass(frozen=True, eq=False)
class ParsedCell:
    """A completion read as a cell sentence, once, for every reward and metric."""

    genes_K: IntArray
    """[K] vocabulary indices in the order written, first occurrences only."""
    num_words: int
    """Whitespace-separated words of the completion; known + duplicates + unknown."""
    num_duplicates: int
    """Words that repeat a gene already written."""
    unknown: tuple[str, ...]
    """Words that are not symbols of the vocabulary, in order, repeats kept."""
    is_truncated: bool
    """The sampler stopped at its length limit, so the last word may be cut."""


@dataclass(frozen=True, eq=False)
class PromptRecord:
    """One row of a prompt shard."""

    prompt_id: str
    """Unique within the prompt set."""
    prompt: str
    """Text that the policy is given."""
    target: str
    """Text of a right answer; what SFT trains on. Several cells are one 'Cell 1: ...' a line."""
    task: Task
    condition: str
    """Group of real cells that the answer belongs to, for example 'CD14 Mono | IFN-beta'."""
    context_id: str
    """Cell id of the (first) cell shown in the prompt; '' when it shows no cell of the shards."""
    target_id: str
    """Cell id of the (first) real cell that the answer is; '' when there is none."""
    split: Split
    target_genes_K: IntArray
    """[K] all expressed genes of the target (one cell or pseudobulk), highest first; of a gene set,
    its known genes in the order written; empty for text and for several cells."""
    context_genes_K: IntArray
    """[K] all expressed genes of the (first) cell shown, highest first; empty without one."""
    tier: str = ""
    """How far a held-out prompt's condition is from training; '' on the training side."""
    keywords: tuple[str, ...] = ()
    """Words that a right free-text answer names; empty where the task has none."""
    context_ids: tuple[str, ...] = ()
    """Ids of all cells shown, `context_id` first; empty when it shows no cell of the shards."""
    target_ids: tuple[str, ...] = ()
    """Ids of all cells of the answer, `target_id` first; empty when it is none."""


@dataclass(frozen=True, eq=False)
class Completion:
    """One sampled answer with everything needed to learn from it."""

    text: str
    token_ids_T: tuple[int, ...]
    """[T] sampled tokens, end-of-sequence included when it was sampled."""
    rollout_logprobs_T: tuple[float, ...]
    """[T] natural-log probabilities under the sampler's own (processed) distribution."""
    policy_version: int
    """Number of optimiser steps behind the weights that sampled it."""
    is_truncated: bool
    """Stopped by the length limit instead of an end-of-sequence token."""


@dataclass(frozen=True, eq=False)
class Group:
    """The completions of one prompt, parsed."""

    record: PromptRecord
    prompt_token_ids: tuple[int, ...]
    completions_G: tuple[Completion, ...]
    cells_G: tuple[ParsedCell, ...]


@dataclass(frozen=True, eq=False)
class ScoredGroup:
    """A group with one reward per completion."""

    group: Group
    rewards_G: tuple[float | None, ...]
    """[G] weighted total; None where every reward abstained or one failed."""
    components: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    """Reward name to [G] unweighted scores."""
    diagnostics: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """'<reward>/<name>' to [G] figures that explain a score; never trained on."""
    failures: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    """Reward name to [G] what went wrong, '<kind>: <message>'; None where it did not. Rewards that
    never failed here are absent. A completion that a weighted reward failed on has no total."""
