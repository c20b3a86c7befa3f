"""The installed cell2sentence's own prompts, equal to what its formatters write."""

import importlib
import random

import pytest

from c2s_rl.errors import ConfigError, MissingFileError
from c2s_rl.prompts import c2s_style
from c2s_rl.prompts.c2s_style import TEMPLATE_FILES, load_c2s_style, multi_cell_text
from c2s_rl.types import Task
from tests.benchmarks.peers import load_cell2sentence

CELLS = {
    "cell_name": ["c1", "c2", "c3"],
    "cell_sentence": ["ISG15 CD3D B2M", "CD3D B2M", "MALAT1 B2M CD3D ACTB"],
    "cell_type": ["T cell", "B cell", "CD14 monocyte"],
    "organism": ["Homo sapiens"] * 3,
}
NUM_GENES = 3


def formatter_of(name, task, seed):
    module = load_cell2sentence("prompt_formatter")
    return getattr(module, name)(task, top_k_genes=NUM_GENES, random_seed=seed)


def draws(style, num, seed=42):
    """The phrasings that the package draws from the global generator it has seeded."""
    generator = random.Random(seed)
    return [generator.choice(range(len(style.prompts))) for _ in range(num)]


@pytest.mark.parametrize("seed", [42, 7])
@pytest.mark.parametrize(
    ("task", "peer_task"),
    [
        (Task.CELL_TYPE_ANNOTATION, "cell_type_prediction"),
        (Task.CELL_GENERATION, "cell_type_generation"),
    ],
)
def test_single_cells_read_as_the_package_formats_them(task, peer_task, seed):
    datasets = importlib.import_module("datasets")
    style = load_c2s_style(task)
    formatter = formatter_of("C2SPromptFormatter", peer_task, seed)
    peer = formatter.format_hf_ds(datasets.Dataset.from_dict(CELLS))
    for cell, choice in enumerate(draws(style, 3, seed)):
        sentence = " ".join(CELLS["cell_sentence"][cell].split()[:NUM_GENES])
        facts = {
            "num_genes": NUM_GENES,
            "organism": "Homo sapiens",
            "cell_type": CELLS["cell_type"][cell],
            "cell_sentence": sentence,
        }
        ours = style.render(facts, choice=choice)
        assert ours.prompt == peer["model_input"][cell]
        assert ours.response == peer["response"][cell]


@pytest.mark.parametrize(
    ("task", "peer_task"),
    [
        ("tissue_annotation", "tissue_prediction"),
        ("tissue_sample_generation", "tissue_conditional_generation"),
        ("natural_language_interpretation", "natural_language_interpretation"),
    ],
)
def test_samples_of_several_cells_read_as_the_package_formats_them(task, peer_task):
    datasets = importlib.import_module("datasets")
    style = load_c2s_style(task)
    sample = {
        "multi_cell_groupings": [[0, 2], [1, 0, 2]],
        "organism": ["Homo sapiens"] * 2,
        "tissue": ["blood", "lung"],
        "abstract": ["Blood was drawn", "A lung was looked at"],
    }
    formatter = formatter_of("C2SMultiCellPromptFormatter", peer_task, 42)
    peer = formatter.format_hf_ds(
        datasets.Dataset.from_dict(CELLS), datasets.Dataset.from_dict(sample)
    )
    for row, choice in enumerate(draws(style, 2)):
        cells = sample["multi_cell_groupings"][row]
        sentences = [" ".join(CELLS["cell_sentence"][c].split()[:NUM_GENES]) for c in cells]
        facts = {
            "num_genes": NUM_GENES,
            "num_cells": len(cells),
            "organism": "Homo sapiens",
            "tissue": sample["tissue"][row],
            "abstract": sample["abstract"][row],
            "multi_cell_sentences": multi_cell_text(sentences),
        }
        ours = style.render(facts, choice=choice)
        assert ours.prompt == peer["model_input"][row]
        assert ours.response == peer["response"][row]


@pytest.mark.parametrize("task", list(TEMPLATE_FILES))
def test_a_phrasing_is_drawn_by_id_and_seed(task):
    style = load_c2s_style(task)
    picks = [style.pick(f"p{i}", 42) for i in range(200)]
    assert set(picks) == set(range(len(style.prompts)))
    assert picks == [style.pick(f"p{i}", 42) for i in range(200)]
    assert picks != [style.pick(f"p{i}", 43) for i in range(200)]


def test_a_task_that_the_package_does_not_know_is_refused():
    message = (
        "has prompts for cell_type_annotation, cell_generation, .* only, got perturbation_resp"
    )
    with pytest.raises(ConfigError, match=message):
        load_c2s_style(Task.PERTURBATION_RESPONSE)


def test_a_fact_that_is_missing_is_named():
    style = load_c2s_style(Task.CELL_TYPE_ANNOTATION)
    facts = {"num_genes": 3, "organism": "Homo sapiens", "cell_sentence": "A B C"}
    with pytest.raises(
        ConfigError, match="for cell_type_annotation need cell_type, got only num_g"
    ):
        style.render(facts, choice=0)


def test_without_the_package_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(c2s_style, "PACKAGE", "cell2sentence_that_is_not_there")
    with pytest.raises(MissingFileError, match=r"got none; install it \(pip install --no-deps"):
        load_c2s_style(Task.CELL_GENERATION)
