"""The benchmark runs; its figure is read by people, not tested."""

from tests.benchmarks import convert, rank_model


def test_both_sides_run_and_give_the_same_line_and_expression(tmp_path, monkeypatch):
    monkeypatch.setenv("C2S_RL_DATA", str(tmp_path))  # no Kang cells there
    with convert.cells_at_hand(None) as (data, what):
        lines = rank_model.compare(data, 20, what=what, rounds=1)
    assert [line.ratio > 0 for line in lines] == [True, True]
    assert lines[0].workload.startswith("20 drawn cells, ")
