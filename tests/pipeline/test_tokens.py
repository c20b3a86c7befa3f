"""Token shards end to end, with a corpus of several files and shards of a few rows."""

import json
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import c2s_rl.data.token_source as source_module
from c2s_rl.checkpoint import verify
from c2s_rl.data import prompt_set
from c2s_rl.data.token_config import Learn, SftDataConfig, TooLong
from c2s_rl.data.token_file import FilePass
from c2s_rl.data.token_shards import (
    TokenManifest,
    open_eval_rows,
    open_token_rows,
)
from c2s_rl.data.token_source import is_kept_out
from c2s_rl.data.token_statistics import TokenSide
from c2s_rl.errors import StageError
from c2s_rl.pipeline.token_writing import TokenProgress
from c2s_rl.pipeline.tokens import Sizes, TokenInputs, write_token_shards
from c2s_rl.types import PromptRecord, Split, Task
from tests.sft_fixtures import record, tokenizer, write_corpus

CELL, TYPE = Task.CELL_GENERATION, Task.CELL_TYPE_ANNOTATION
PROMPT = [2, 3, 4, 5, 6]  # 'A cell of type B:' in ids of tests/sft_fixtures.WORDS; G0 is 8, end 0
SMALL = Sizes(run_tokens=300, shard_tokens=120)


def with_genes(index: int, number: int, **changes: object) -> PromptRecord:
    return replace(record(index, " G0" * number), **changes)


def mixed(num_cells: int, num_types: int) -> list[PromptRecord]:
    """Cells of 1 to 9 genes; types are answered by G1, whose id is 9."""
    cells = [with_genes(i, 1 + i % 9) for i in range(num_cells)]
    types = [replace(record(1000 + i, " G1"), task=TYPE) for i in range(num_types)]
    return [*cells, *types]


def inputs_of(folder: Path, samples: list[PromptRecord], *, per_file: int = 10) -> TokenInputs:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompt_set, "ROWS_PER_FILE", per_file)
        corpus = write_corpus(folder / "corpus", samples)
    tokenizer().save_pretrained(folder / "words")
    return TokenInputs(corpus, folder / "words")


def samples_of(rows: Iterable[dict[str, list[int]]]) -> list[tuple[tuple[int, ...], int, int]]:
    """(token ids, prompt length, task code) of every sample, row by row."""
    found = []
    for row in rows:
        assert len(row["input_ids"]) == sum(row["seq_lengths"])
        start = 0
        for length, num_prompt, task in zip(
            row["seq_lengths"], row["prompt_lengths"], row["tasks"], strict=True
        ):
            found.append((tuple(row["input_ids"][start : start + length]), num_prompt, task))
            start += length
    return found


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=15)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.booleans(), st.sampled_from(Learn))
def test_every_sample_is_in_the_rows_once_and_whole(
    tmp_path_factory: pytest.TempPathFactory, num_genes: list[int], packing: bool, learn: Learn
) -> None:
    folder = tmp_path_factory.mktemp("tokens")
    inputs = inputs_of(folder, [with_genes(i, n) for i, n in enumerate(num_genes)])
    config = SftDataConfig(max_length=20, packing=packing, learn=learn)
    manifest = write_token_shards(inputs, config, folder / "t", seed=0, sizes=SMALL)
    rows = open_token_rows(folder / "t")
    assert all(len(row["input_ids"]) <= 20 for row in rows)
    num_prompt = 5 if learn is Learn.COMPLETION else 0
    expected = [((*PROMPT, *[8] * n, 0), num_prompt, 0) for n in num_genes]
    assert Counter(samples_of(rows)) == Counter(expected)
    assert packing or len(rows) == len(num_genes)
    assert (manifest.num_rows(TokenSide.TRAIN), manifest.num_samples(TokenSide.TRAIN)) == (
        len(rows),
        len(num_genes),
    )
    # Prompt and end are 6 tokens.
    num_tokens = sum(n + 6 for n in num_genes)
    assert manifest.efficiency(TokenSide.TRAIN) == pytest.approx(num_tokens / (20 * len(rows)))


def test_only_the_training_side_and_the_tasks_named_are_read(tmp_path: Path) -> None:
    samples = [*mixed(3, 2), with_genes(5, 4, split=Split.TEST)]
    config = SftDataConfig(tasks=(TYPE,))
    write_token_shards(inputs_of(tmp_path, samples), config, tmp_path / "t", seed=0)
    assert samples_of(open_token_rows(tmp_path / "t")) == [((*PROMPT, 9, 0), 5, 0)] * 2


CONFIG = SftDataConfig(
    max_length=20, packing=True, eval_fraction=0.3, mixture={CELL: 1, TYPE: 1}, max_repeats=4
)


@pytest.fixture
def whole(tmp_path: Path) -> tuple[TokenInputs, dict[str, bytes]]:
    """A corpus of five files, and the shards that an undisturbed run makes of it."""
    inputs = inputs_of(tmp_path, mixed(30, 15))
    write_token_shards(inputs, CONFIG, tmp_path / "whole", seed=1, sizes=SMALL)
    return inputs, content(tmp_path / "whole")


def test_bytes_do_not_depend_on_batches_or_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: tuple[TokenInputs, dict[str, bytes]]
) -> None:
    inputs, expected = whole
    assert sum(name.startswith("train") for name in expected) > 1
    monkeypatch.setattr(source_module, "ROWS_AT_ONCE", 3)
    sizes = replace(SMALL, run_tokens=1)
    write_token_shards(inputs, CONFIG, tmp_path / "again", seed=1, sizes=sizes)
    assert content(tmp_path / "again") == expected


def test_rows_do_not_depend_on_the_order_of_the_corpus(
    tmp_path: Path, whole: tuple[TokenInputs, dict[str, bytes]]
) -> None:
    _, expected = whole
    inputs = inputs_of(tmp_path / "back", mixed(30, 15)[::-1], per_file=7)
    write_token_shards(inputs, CONFIG, tmp_path / "again", seed=1, sizes=SMALL)
    found = content(tmp_path / "again")
    for name in expected:
        if name.endswith(".arrow"):
            assert found[name] == expected[name]


def test_another_seed_gives_another_order(
    tmp_path: Path, whole: tuple[TokenInputs, dict[str, bytes]]
) -> None:
    inputs, expected = whole
    write_token_shards(inputs, CONFIG, tmp_path / "other", seed=2, sizes=SMALL)
    assert content(tmp_path / "other")["train-00000.arrow"] != expected["train-00000.arrow"]


@pytest.mark.parametrize("num_done", [1, 4, 5, 6, 9])
def test_killed_run_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: tuple[TokenInputs, dict[str, bytes]],
    num_done: int,
) -> None:
    inputs, expected = whole
    output, steps = tmp_path / "killed", []

    def die(progress: TokenProgress) -> None:
        steps.append(progress)
        if len(steps) == num_done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_token_shards(inputs, CONFIG, output, seed=1, on_progress=die, sizes=SMALL)
    assert not output.exists()
    tokenised = []
    samples = FilePass._samples
    monkeypatch.setattr(
        FilePass, "_samples", lambda self, path, t: tokenised.append(path) or samples(self, path, t)
    )
    write_token_shards(inputs, CONFIG, output, seed=1, sizes=SMALL)
    assert content(output) == expected
    assert len(tokenised) == max(0, 5 - num_done)  # five files, none of them twice
    assert {path.name for path in tmp_path.iterdir()} == {"corpus", "words", "whole", "killed"}


def test_run_killed_while_it_puts_the_folder_in_place_goes_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: tuple[TokenInputs, dict[str, bytes]],
) -> None:
    inputs, expected = whole

    def die(*_: object, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise KeyboardInterrupt

    for place in ("c2s_rl.checkpoint._move_into_place", "c2s_rl.pipeline.tokens.shutil.rmtree"):
        with monkeypatch.context() as patch:
            patch.setattr(place, die)
            with pytest.raises(KeyboardInterrupt):
                write_token_shards(inputs, CONFIG, tmp_path / "killed", seed=1, sizes=SMALL)
        write_token_shards(inputs, CONFIG, tmp_path / "killed", seed=1, sizes=SMALL)
        assert content(tmp_path / "killed") == expected
        assert not (tmp_path / ".killed.work").exists()
        shutil.rmtree(tmp_path / "killed")


def test_what_another_run_left_half_made_is_not_gone_on_with(
    tmp_path: Path, whole: tuple[TokenInputs, dict[str, bytes]]
) -> None:
    inputs, expected = whole

    def die(_: TokenProgress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_token_shards(inputs, CONFIG, tmp_path / "t", seed=7, on_progress=die, sizes=SMALL)
    write_token_shards(inputs, CONFIG, tmp_path / "t", seed=1, sizes=SMALL)
    assert content(tmp_path / "t") == expected


def test_shards_that_are_there_are_reused_and_those_of_another_config_replaced(
    tmp_path: Path,
) -> None:
    inputs, output = inputs_of(tmp_path, mixed(4, 0)), tmp_path / "t"
    steps: list[TokenProgress] = []

    def write(config: SftDataConfig) -> TokenManifest:
        return write_token_shards(inputs, config, output, seed=0, on_progress=steps.append)

    first = write(SftDataConfig())
    assert [(step.step, step.num_done, step.num_all) for step in steps] == [
        ("tokenising", 1, 1),
        ("writing", 1, 1),
    ]
    assert write(SftDataConfig()) == first
    assert len(steps) == 2
    assert write(SftDataConfig(packing=True)).num_rows(TokenSide.TRAIN) == 1
    verify(output)


def test_folder_with_other_files_is_not_replaced(tmp_path: Path) -> None:
    inputs = inputs_of(tmp_path, mixed(4, 0))
    (tmp_path / "t").mkdir()
    (tmp_path / "t/thesis.txt").write_text("mine")
    with pytest.raises(StageError, match=r"must be new, empty or hold manifest\.json"):
        write_token_shards(inputs, SftDataConfig(), tmp_path / "t", seed=0)


def test_mixture_repeats_small_tasks_and_thins_large_ones(tmp_path: Path) -> None:
    # 50 samples at 3 : 2 are 30 of the 40 cells, and 20 of the 10 types, each of them twice.
    inputs = inputs_of(tmp_path, mixed(40, 10))
    config = SftDataConfig(mixture={CELL: 3, TYPE: 2})
    manifest = write_token_shards(inputs, config, tmp_path / "t", seed=0)
    cells, types = manifest.counts
    assert (cells.task, cells.num_samples, cells.num_thinned, cells.num_repeats) == (
        CELL,
        40,
        10,
        0,
    )
    assert (types.task, types.num_samples, types.num_thinned, types.num_repeats) == (
        TYPE,
        10,
        0,
        10,
    )
    samples = samples_of(open_token_rows(tmp_path / "t"))
    assert Counter(manifest.tasks[task] for *_, task in samples) == {CELL: 30, TYPE: 20}
    # An answer of a type is 7 tokens, of which 5 are the prompt; each is in twice.
    assert (types.num_shown, types.num_prompt_tokens, types.num_target_tokens) == (20, 100, 40)


def test_repeats_are_spread_over_the_epoch(tmp_path: Path) -> None:
    inputs = inputs_of(tmp_path, mixed(40, 10))
    config = SftDataConfig(mixture={CELL: 1, TYPE: 1})
    write_token_shards(inputs, config, tmp_path / "t", seed=0)
    tasks = [task for *_, task in samples_of(open_token_rows(tmp_path / "t"))]
    # 25 of each in random order: some 25 changes between neighbours, standard deviation 3.5.
    changes = sum(a != b for a, b in pairwise(tasks))
    assert 11 <= changes <= 39


def test_eval_rows_are_cells_kept_out_and_stand_by_task(tmp_path: Path) -> None:
    samples = mixed(30, 30)
    config = SftDataConfig(eval_fraction=0.3, packing=True, max_length=30)
    manifest = write_token_shards(inputs_of(tmp_path, samples), config, tmp_path / "t", seed=3)
    by_task = open_eval_rows(tmp_path / "t")
    assert set(by_task) == {CELL, TYPE}
    for task, rows in by_task.items():
        out = [
            r for r in samples if r.task is task and is_kept_out(r.target_id, fraction=0.3, seed=3)
        ]
        expected = Counter(
            (*PROMPT, *[8 if task is CELL else 9] * r.target.count("G"), 0) for r in out
        )
        found = samples_of(rows)
        assert Counter(ids for ids, *_ in found) == expected
        assert {manifest.tasks[code] for *_, code in found} == {task}
        assert len(rows) < len(found)  # packed
    assert sum(map(len, by_task.values())) == len(open_token_rows(tmp_path / "t", TokenSide.EVAL))
    num_eval, num_train = map(manifest.num_samples, (TokenSide.EVAL, TokenSide.TRAIN))
    assert num_eval + num_train == 60


def test_no_sample_with_a_kept_out_cell_is_learnt_in_whatever_place(tmp_path: Path) -> None:
    out = [i for i in range(60) if is_kept_out(f"t{i}", fraction=0.3, seed=3)]
    learnt = [i for i in range(60) if i not in out]
    alone = mixed(60, 0)
    # shows a learnt cell and one that is kept out; the other shows a learnt cell only
    shown = [
        replace(r, context_ids=(f"t{i}",)) for r, i in zip(alone, (out[0], learnt[0]), strict=False)
    ]
    pairs = [
        replace(r, prompt_id=f"pair{n}", target_ids=(f"t{learnt[1]}",)) for n, r in enumerate(shown)
    ]
    config = SftDataConfig(eval_fraction=0.3)
    manifest = write_token_shards(
        inputs_of(tmp_path, [*alone, *pairs]), config, tmp_path / "t", seed=3
    )
    assert manifest.num_samples(TokenSide.EVAL) == len(out)
    assert manifest.num_samples(TokenSide.TRAIN) == len(learnt) + 1
    statistics = json.loads((tmp_path / "t" / "statistics.json").read_text())
    train = [
        tally["counts"] for tally in statistics["tallies"] if tally["counts"]["side"] == "train"
    ]
    assert [counts["num_shared"] for counts in train] == [1]


def test_side_of_a_cell_depends_on_its_id_and_the_seed_only() -> None:
    out = [i for i in range(400) if is_kept_out(f"t{i}", fraction=0.25, seed=3)]
    # Binomial(400, 0.25): mean 100, standard deviation 8.7; five of them either way.
    assert 57 <= len(out) <= 143
    assert out != [i for i in range(400) if is_kept_out(f"t{i}", fraction=0.25, seed=4)]
    assert not any(is_kept_out(f"t{i}", fraction=0.0, seed=3) for i in range(400))


def test_cuts_and_drops_are_counted_by_task(tmp_path: Path) -> None:
    # Room for 12 tokens: 5 of the prompt, then 6 genes and the end, or 7 genes of a cut answer.
    samples = [with_genes(0, 6), with_genes(1, 7), with_genes(2, 30), *mixed(0, 1)]
    samples += [replace(record(9, " G1" * 9), task=TYPE)]
    samples += [with_genes(10, 2, prompt=" ".join(["cell"] * 12))]
    config = SftDataConfig(max_length=12, too_long=TooLong.CUT)
    manifest = write_token_shards(inputs_of(tmp_path, samples), config, tmp_path / "t", seed=0)
    cells, types = manifest.counts
    assert (cells.num_samples, cells.num_cut, cells.num_prompt_too_long) == (4, 2, 1)
    assert (cells.num_in, types.num_samples, types.num_too_long, types.num_in) == (3, 2, 1, 1)
    assert Counter(ids for ids, *_ in samples_of(open_token_rows(tmp_path / "t"))) == {
        (*PROMPT, *[8] * 6, 0): 1,
        (*PROMPT, *[8] * 7): 2,
        (*PROMPT, 9, 0): 1,
    }


def test_statistics_count_lengths_before_the_cut_and_genes(tmp_path: Path) -> None:
    samples = [with_genes(0, 6), with_genes(1, 30)]
    config = SftDataConfig(max_length=12, too_long=TooLong.CUT)
    write_token_shards(inputs_of(tmp_path, samples), config, tmp_path / "t", seed=0)
    tally = json.loads((tmp_path / "t/statistics.json").read_text())["tallies"][0]
    assert tally["lengths"] == {"12": 1, "36": 1}
    # Words of the text that are genes: 6 and 30, each one token of tests/sft_fixtures.WORDS.
    assert tally["genes"] == {"num_genes": 36, "num_tokens": 36, "num_whole": 36}
    assert tally["example"]["prompt"] == "A cell of type B:"
