"""Runs side by side: gains by hand, seeds together, and what is said when runs do not fit."""

import io
import re

import pytest
from rich.console import Console

from c2s_rl.errors import ConfigError, DataError, MissingFileError
from c2s_rl.evaluation.compare import compare_runs
from c2s_rl.evaluation.compare_page import render_comparison
from c2s_rl.evaluation.compare_table import compare_blocks, compare_table

NBSP = "\N{NO-BREAK SPACE}"


@pytest.fixture
def write_run(tmp_path, evaluation, method, difference):
    """Writes a run folder whose policies have these values of program tau and of repeats."""

    def write(name, *, sft=0.3, grpo=0.4, seed=0, lr=1e-4, config=True, half=0.02, **changes):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        methods = (
            method("SFT", "policy", sft, duplicate_rate=0.1),
            method("GRPO", "policy", grpo, duplicate_rate=0.05),
        )
        gain = difference(half, program_tau=grpo - sft, duplicate_rate=-0.05)
        found = evaluation.model_copy(
            update={"methods": methods, "difference": gain, "seed": seed} | changes
        )
        (folder / "evaluation.json").write_text(found.model_dump_json())
        if config:
            text = f"name: {name}\nruns_dir: {folder}\nseed: {seed}\n"
            text += f"learner: {{lr: {lr}}}\nevaluate: {{seed: {seed}}}\n"
            (folder / "config.yaml").write_text(text)
        return folder

    return write


def rows_of(comparison, metric):
    (block,) = [block for block in compare_blocks(comparison) if block.metric == metric]
    return block.rows


def test_a_gain_is_in_percent_of_where_it_started(write_run):
    comparison = compare_runs([write_run("a", sft=0.25, grpo=0.3)])
    (row,) = rows_of(comparison, "program_tau")
    assert (row.baseline.value, row.baseline.ends) == ("0.250", "0.230 to 0.270")
    assert (row.candidate.value, row.difference.value) == ("0.300", "+0.050")
    # 0.05 of 0.25; the paired interval is 0.03 to 0.07
    assert (row.percent.value, row.percent.ends) == (f"+20.0{NBSP}%", "+12.0 to +28.0")
    assert row.percent.look == "good"


def test_less_of_what_should_not_be_there_is_a_gain_below_zero_that_is_good(write_run):
    (row,) = rows_of(compare_runs([write_run("a")]), "duplicate_rate")
    assert row.difference.value == "-5.0 points"
    assert (row.percent.value, row.percent.look) == (f"-50.0{NBSP}%", "good")


def test_an_interval_that_holds_zero_is_neither_good_nor_bad(write_run):
    (row,) = rows_of(compare_runs([write_run("a", sft=0.3, grpo=0.31, half=0.05)]), "program_tau")
    assert row.percent.look == ""


def test_a_start_of_zero_has_no_percent(write_run):
    (row,) = rows_of(compare_runs([write_run("a", sft=0.0, grpo=0.3)]), "program_tau")
    assert (row.difference.value, row.percent.value) == ("+0.300", "-")


def test_runs_that_differ_by_seed_alone_are_a_mean_with_its_range(write_run):
    folders = [
        write_run("a-0", sft=0.2, grpo=0.3, seed=0),
        write_run("b", sft=0.1, grpo=0.1, lr=1e-3),
        write_run("a-1", sft=0.2, grpo=0.24, seed=1),
        write_run("a-2", sft=0.3, grpo=0.42, seed=2),
    ]
    comparison = compare_runs(folders)
    assert [len(group.runs) for group in comparison.groups] == [3, 1]
    seeds, single = rows_of(comparison, "program_tau")
    assert seeds.label == "a-0 and 2 more seeds"
    assert (seeds.candidate.value, seeds.candidate.ends) == ("0.320", "0.240 to 0.420")
    # +50, +20 and +40 percent
    assert (seeds.percent.value, seeds.percent.ends) == (f"+36.7{NBSP}%", "+20.0 to +50.0")
    assert single.label == "b"
    assert any("mean and range over 3 runs that differ by seed" in s for s in comparison.statements)


def test_a_run_without_config_stands_alone(write_run):
    folders = [write_run("a"), write_run("b", config=False), write_run("c", config=False)]
    assert [len(group.runs) for group in compare_runs(folders).groups] == [1, 1, 1]


def test_a_metric_that_a_run_lacks_is_a_dash(write_run, method):
    whole, partial = write_run("a"), write_run("b", lr=1.0)
    text = (partial / "evaluation.json").read_text()
    text = re.sub(r'"all_pearson":\{"mean":[^,]*,', '"all_pearson":{"mean":null,', text)
    (partial / "evaluation.json").write_text(text)
    first, second = rows_of(compare_runs([whole, partial]), "all_pearson")
    assert first.candidate.value == "0.000"
    assert (second.candidate.value, second.percent.value) == ("-", "-")


def test_different_programs_conditions_and_prompts_are_said(write_run):
    folders = [write_run("a"), write_run("b", program="OTHER", num_genes=80, lr=1.0)]
    statements = " ".join(compare_runs(folders).statements)
    assert "different gene programs, so compare with care: MY_PROGRAM in a; OTHER in b" in (
        statements
    )
    assert "different lengths of cell sentences" in statements
    assert "held-out conditions" not in statements


def test_a_run_with_one_policy_is_said_to_have_no_gain(write_run):
    comparison = compare_runs([write_run("a", difference=None)])
    assert "a compared no two policies, so it has no gain." in comparison.statements
    assert "No picture" in render_comparison(comparison)


def test_metrics_asked_for_are_the_ones_shown_and_drawn(write_run):
    comparison = compare_runs([write_run("a")], ["gene_overlap"])
    assert comparison.metrics == comparison.headline == ("gene_overlap",)


def test_an_unknown_metric_names_the_nearest(write_run):
    with pytest.raises(ConfigError, match=r"got 'program_tua'; did you mean 'program_tau'"):
        compare_runs([write_run("a")], ["program_tua"])


def test_a_folder_without_result_is_named(tmp_path, write_run):
    with pytest.raises(MissingFileError, match=r"must hold evaluation.json, got none in .*empty"):
        compare_runs([write_run("a"), tmp_path / "empty"])


def test_a_result_of_another_form_is_named(write_run):
    folder = write_run("a")
    (folder / "evaluation.json").write_text('{"program": "X"}')
    with pytest.raises(DataError, match=r"must have schema_version 2, got None in"):
        compare_runs([folder])


def test_the_terminal_table_holds_runs_numbers_and_statements(write_run):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(compare_table(compare_runs([write_run("a"), write_run("b", program="OTHER")])))
    text = console.export_text()
    assert "Program tau (higher is better)" in text
    assert f"+33.3{NBSP}%" in text
    assert "different gene programs" in text


def test_the_page_is_whole_escaped_and_refers_to_nothing_outside(write_run):
    hostile = "<script>alert('x')</script>"
    page = render_comparison(compare_runs([write_run("a", program=hostile)]))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", page)
    assert f">+33.3{NBSP}%</text>" in page
    assert '<table id="metric-1">' in page


def test_runs_of_one_name_are_told_apart_by_their_path(write_run):
    folders = [write_run("x/run"), write_run("y/run", lr=1.0)]
    labels = [group.label for group in compare_runs(folders).groups]
    assert labels == [str(folder) for folder in folders]
