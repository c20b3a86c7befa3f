"""Template files: wording drawn by id and seed, broken placeholders refused."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from c2s_rl.data.drafters import DRAFTERS
from c2s_rl.errors import ConfigError, MissingFileError
from c2s_rl.prompts.render import load_all_templates, load_templates, render_target
from c2s_rl.prompts.tasks import TASK_RULES, PromptFacts
from c2s_rl.types import Task

FACTS = PromptFacts(
    num_genes=80,
    organism="Homo sapiens",
    sentences=("ISG15 B2M", "LYZ FTH1"),
    num_cells=2,
    words={
        "cell_type": "CD14 Mono",
        "perturbation": "IFN-beta",
        "question": "What are these?",
        "context": "Blood of one donor.",
        "labels": "cell type and perturbation",
        "tissue": "blood",
        "cell_types": "Cell 1: CD14 Mono\nCell 2: B",
        "abstract": "We measured blood.",
        "gene_set": "hallmark apoptosis",
        "genes": "BAX CASP3",
        "gene": "STAT1",
        "other_gene": "IRF9",
    },
)


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def generation(folder: Path, prompt: str) -> Path:
    return write(folder, f"task: cell_generation\nprompts:\n  - {prompt!r}\n")


@pytest.mark.parametrize("task", list(DRAFTERS))
def test_every_task_ships_six_phrasings_that_state_the_question(task: Task) -> None:
    templates = load_templates(task)
    assert len(templates.prompts) >= 6
    words = FACTS.as_words()
    for i in range(50):
        prompt = templates.render(FACTS, prompt_id=f"cell{i}", seed=0)
        assert all(words[name] in prompt for name in TASK_RULES[task].required)
        assert prompt == prompt.rstrip()
        assert "{" not in prompt


def test_a_question_without_a_context_leaves_no_empty_line() -> None:
    templates = load_templates(Task.QUESTION_ANSWERING)
    facts = replace(FACTS, words={**FACTS.words, "context": ""})
    for i in range(50):
        prompt = templates.render(facts, prompt_id=f"q{i}", seed=0)
        assert all(prompt.split("\n"))
        assert "Cell 1: ISG15 B2M\nCell 2: LYZ FTH1" in prompt


def test_a_question_template_must_have_a_place_for_the_context(tmp_path: Path) -> None:
    text = "task: question_answering\nprompts: ['{cell_sentences} {question}']\n"
    with pytest.raises(ConfigError, match=r"must hold \{context\}"):
        load_templates(Task.QUESTION_ANSWERING, write(tmp_path, text))


def test_annotation_prompts_never_show_the_answer() -> None:
    templates = load_templates(Task.CELL_TYPE_ANNOTATION)
    prompts = {templates.render(FACTS, prompt_id=f"cell{i}", seed=0) for i in range(100)}
    assert not any("CD14 Mono" in prompt for prompt in prompts)


def test_phrasing_depends_on_prompt_id_and_seed_only() -> None:
    templates = load_templates(Task.CELL_GENERATION)
    ids = [f"cell{i}" for i in range(200)]
    forward = {i: templates.render(FACTS, prompt_id=i, seed=3) for i in ids}
    backward = {i: templates.render(FACTS, prompt_id=i, seed=3) for i in reversed(ids)}
    assert forward == backward
    assert set(forward.values()) == {
        p.format_map(FACTS.as_words()) for p in templates.prompts
    }  # 200 draws of 6 phrasings leave one out with probability 6 (5/6)^200 < 1e-15
    other_seed = {i: templates.render(FACTS, prompt_id=i, seed=4) for i in ids}
    assert other_seed != forward


def test_facts_with_braces_are_not_read_as_placeholders(tmp_path: Path) -> None:
    templates = load_templates(Task.CELL_GENERATION, generation(tmp_path, "A {cell_type}:"))
    facts = PromptFacts(num_genes=1, organism="x", words={"cell_type": "{organism}"})
    assert templates.render(facts, prompt_id="a", seed=0) == "A {organism}:"


def test_target_starts_with_exactly_one_space() -> None:
    assert render_target("  ISG15 B2M\n") == " ISG15 B2M"


def test_block_text_loses_its_last_line_break(tmp_path: Path) -> None:
    text = "task: cell_generation\nprompts:\n  - |\n    Type: {cell_type}\n    Genes:\n"
    assert load_templates(Task.CELL_GENERATION, write(tmp_path, text)).prompts == (
        "Type: {cell_type}\nGenes:",
    )


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("A {cell_typ} and {cell_type}", "must be one of ['cell_type', 'num_genes', 'organism']"),
        ("A {cell_type} from {cell_sentence}", "got {cell_sentence} in"),
        ("A {cell_type.__class__}", "got {cell_type.__class__} in"),
        ("A {}", "got {} in"),
        ("A cell", "must hold {cell_type}, got 'A cell' in"),
        ("A {cell_type", "braces of a template must pair up"),
        ("A {cell_type!r}", "must be a plain {name}, got {cell_type} in"),
        ("A {cell_type:>9}", "must be a plain {name}, got {cell_type} in"),
        ("   ", "must hold text"),
    ],
)
def test_broken_template_is_refused_with_its_file(
    tmp_path: Path, prompt: str, message: str
) -> None:
    path = generation(tmp_path, prompt)
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        load_templates(Task.CELL_GENERATION, path)
    assert str(path) in str(error.value)


def test_repeated_phrasing_is_refused(tmp_path: Path) -> None:
    text = "task: cell_generation\nprompts: ['A {cell_type}', 'A {cell_type} ']\n"
    with pytest.raises(ConfigError, match=r"must differ, got 'A \{cell_type\}' twice"):
        load_templates(Task.CELL_GENERATION, write(tmp_path, text))


def test_template_file_of_another_task_is_refused(tmp_path: Path) -> None:
    path = generation(tmp_path, "A {cell_type}")
    with pytest.raises(ConfigError, match=r"must set it, got cell_generation in .*mine\.yaml"):
        load_templates(Task.CELL_TYPE_ANNOTATION, path)


def test_unknown_key_of_a_template_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "task: cell_generation\nprompt: ['A {cell_type}']\n")
    with pytest.raises(ConfigError, match=r"got 'prompt' in .*; did you mean 'prompts'"):
        load_templates(Task.CELL_GENERATION, path)


def test_missing_template_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"got .*none\.yaml"):
        load_templates(Task.CELL_GENERATION, tmp_path / "none.yaml")


def test_path_may_use_an_environment_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation(tmp_path, "A {cell_type}:")
    monkeypatch.setenv("TEMPLATES", str(tmp_path))
    path = Path("${TEMPLATES}/mine.yaml")
    assert load_templates(Task.CELL_GENERATION, path).prompts == ("A {cell_type}:",)


def test_own_file_replaces_the_shipped_one_for_its_task_only(tmp_path: Path) -> None:
    tasks = (Task.CELL_GENERATION, Task.CELL_TYPE_ANNOTATION)
    own = {Task.CELL_GENERATION: generation(tmp_path, "A {cell_type}:")}
    templates = load_all_templates(tasks, own)
    assert templates[Task.CELL_GENERATION].prompts == ("A {cell_type}:",)
    assert "shipped" in templates[Task.CELL_TYPE_ANNOTATION].source
