import time
from pathlib import Path

from actors.follow_metrics import followed
from c2s_rl.runlog import RunLog


def test_every_line_arrives_in_order_at_the_latest_when_the_block_ends(tmp_path: Path) -> None:
    seen: list[float | None] = []
    path = tmp_path / "metrics.jsonl"
    with (
        followed(path, lambda figures: seen.append(figures["step"])),
        RunLog(tmp_path, use_tensorboard=False) as runlog,
    ):
        for step in range(50):
            runlog.log(step, {"loss": 1.0})
            time.sleep(0.02)
    assert seen == list(range(50))


def test_lines_of_a_killed_run_are_passed_on_only_once_it_goes_on(tmp_path: Path) -> None:
    with RunLog(tmp_path, use_tensorboard=False) as runlog:
        for step in (1, 2, 3):
            runlog.log(step, {"loss": 1.0})
    seen: list[float | None] = []
    with followed(tmp_path / "metrics.jsonl", lambda figures: seen.append(figures["step"])):
        time.sleep(1.2)  # more than two looks at the file
        assert seen == []
        with RunLog(tmp_path, start_step=3, use_tensorboard=False) as runlog:
            runlog.log(3, {"loss": 1.0})
    assert seen == [1, 2, 3]


def test_a_line_that_is_still_being_written_waits(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    seen: list[float | None] = []
    with followed(path, lambda figures: seen.append(figures["step"])):
        path.write_text('{"step": 1}\n{"st')
        time.sleep(0.7)
        with path.open("a") as file:
            file.write('ep": 2}\n')
    assert seen == [1, 2]
