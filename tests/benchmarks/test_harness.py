import subprocess
import sys

from tests.benchmarks.__main__ import measurements, present, run_all
from tests.benchmarks.harness import PROJECT, Result, peak_megabytes, table

REACHED = Result("speed", "peer", "10 rows", ratio=3.0, bound=2.5)
MISSED = Result("memory", "peer", "10 rows", ratio=0.6, bound=0.5, is_upper=True)


def test_a_ratio_must_be_on_the_right_side_of_its_bound():
    assert str(REACHED) == "speed against peer: 3.00 (reached, >= 2.5) [10 rows]"
    assert str(MISSED) == "memory against peer: 0.60 (MISSED, <= 0.5) [10 rows]"


def test_table_has_one_row_a_result():
    assert table([REACHED, MISSED]).splitlines() == [
        "what    against  ratio  bound",
        "speed   peer     3.00   >= 2.5  reached",
        "memory  peer     0.60   <= 0.5  MISSED",
    ]


def test_a_crash_is_told_and_the_others_are_still_measured(capsys):
    def crashes(*, quick):
        raise RuntimeError("side 'peer' must exit 0, got 1")

    measures = {"first": crashes, "second": lambda quick: [REACHED]}
    assert not run_all(measures, quick=True, output=None)
    printed = capsys.readouterr()
    assert "crashed: first" in printed.out
    assert "reached" in printed.out
    assert "must exit 0" in printed.err


def test_a_missed_bound_is_no_crash(capsys, tmp_path):
    assert run_all({"one": lambda quick: [MISSED]}, quick=True, output=tmp_path / "out.jsonl")
    assert "MISSED" in capsys.readouterr().out
    assert '"ratio": 0.6' in (tmp_path / "out.jsonl").read_text()


def test_every_benchmark_is_looked_up_by_name():
    assert {"convert", "learner", "rollout", "end_to_end"} <= set(present())
    assert list(measurements(["rollout"])) == ["rollout"]


def test_the_peak_of_a_process_is_not_that_of_its_parent():
    held = b"x" * 400_000_000
    program = "from tests.benchmarks.harness import peak_megabytes; print(peak_megabytes())"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, check=True, capture_output=True, text=True
    )
    assert peak_megabytes() > len(held) / 2**20
    assert 5 < float(done.stdout) < 200
