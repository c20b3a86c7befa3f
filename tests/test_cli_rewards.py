"""`c2s-rl rewards list|show|score` through the command line."""

import re
import sys

import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from c2s_rl.cli import main
from rewards import REWARDS
from tests.reward_run import NORMALISED, SPECS, make_prompts, train


@pytest.fixture
def end_of(capsys, monkeypatch):
    """Run the command line in this process: exit code, output, errors."""

    def run(*arguments):
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["c2s-rl", "rewards", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run


@pytest.fixture
def config(tmp_path):
    """A finished alignment: corpus, completions and the file that describes it."""
    content = {
        "name": "x",
        "runs_dir": str(tmp_path),
        "align": {"task": "cell_generation", "num_steps": 10},
        "rewards": [spec.model_dump(mode="json", exclude_defaults=True) for spec in SPECS],
        "composite": NORMALISED.model_dump(mode="json"),
    }
    prompts = make_prompts(tmp_path / "x" / "corpus")
    train(tmp_path / "x" / "align" / "completions", prompts, NORMALISED)
    path = tmp_path / "run.yaml"
    with path.open("w") as file:
        YAML(typ="safe", pure=True).dump(content, file)
    return path


def test_list_names_every_reward_with_scope_range_and_baseline(end_of):
    code, out, _ = end_of("list")
    assert code == 0
    for name in REWARDS:
        (line,) = [line for line in out.splitlines() if line.split()[:1] == [name]]
        assert re.search(r" (group|condition) +[\[(][-\d.inf]+, [-\d.inf]+[\])] +\w", line), line
        assert line.split()[-2:] == ["built", "in"]


def test_show_tells_options_source_and_an_example(end_of):
    code, out, _ = end_of("show", "kendall")
    assert code == 0
    for text in ("C2S-Scale section 4.5.2", "[-2, 2]", "tau(ranks generated", "num_genes"):
        assert text in out
    assert re.search(r"variant +a \| b +b +b corrects for ties", out)
    assert "- name: kendall\n" in out


def test_show_of_an_unknown_reward_is_one_line(end_of):
    code, _, err = end_of("show", "kendal")
    assert code == 2
    assert err.startswith("error: a reward must be known")
    assert "did you mean 'kendall'?" in err


def test_score_reproduces_the_training_scores(end_of, config, tmp_path):
    output = tmp_path / "again.parquet"
    code, out, _ = end_of("score", "--config", config, "--output", output, "--max-difference", "0")
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines() if "exact" in line}
    assert list(rows) == ["kendall", "validity", "total"]
    assert all(re.search(r" 36 +36 +0 +-?[\d.e-]+ +0 \(exact\)", row) for row in rows.values())
    again = pq.read_table(output)
    files = sorted((tmp_path / "x" / "align" / "completions").iterdir())
    before = [row for path in files for row in pq.read_table(path)["reward"].to_pylist()]
    assert again["reward"].to_pylist() == before


def test_score_of_one_file_with_other_weights_shows_and_may_refuse_the_difference(end_of, config):
    file = config.parent / "x" / "align" / "completions" / "step-00001.parquet"
    options = ("score", "--config", config, "--completions", file)
    options = (*options, "--set", "composite.aggregation=sum_then_normalise")
    code, out, _ = end_of(*options)
    assert code == 0
    (total,) = [line for line in out.splitlines() if line.startswith("total")]
    assert total.split()[1] == "12"
    assert "exact" not in total
    code, _, err = end_of(*options, "--max-difference", "1e-6")
    assert code == 2
    assert "scores must differ by at most 1e-06 from those in the file, got" in err
    assert "for 'total'" in err


def test_score_with_another_reward_takes_its_options(end_of, config):
    options = ("score", "--config", config, "--reward", "validity", "--set")
    code, out, _ = end_of(*options, "num_genes=8")
    assert code == 0
    assert "largest difference" not in out
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["validity", "total"]
    code, _, err = end_of(*options, "num_gene=8")
    assert code == 2
    assert "did you mean 'num_genes'?" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--completions", "nowhere"), "completions must be a file or a folder of them, got now"),
        (("--set", "name=y"), "completions must be a file or a folder of them, got"),
        (("--set", "rewards=[]"), "align needs at least one entry in rewards"),
        (("--set", "composite.aggregation=max"), "'sum_then_normalise' or 'normalise_then_sum'"),
    ],
)
def test_what_cannot_be_scored_is_one_line(end_of, config, arguments, message):
    code, _, err = end_of("score", "--config", config, *arguments)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert message in err
