"""The terminal table."""

import io

from rich.console import Console

from c2s_rl.evaluation.bootstrap import Interval
from c2s_rl.evaluation.cell_metrics import Metric
from c2s_rl.evaluation.population_metrics import metric_rows
from c2s_rl.evaluation.result import format_gain, format_range, format_value
from c2s_rl.evaluation.table import FULL_WIDTH, population_notes, result_table, shown_metrics


def printed(evaluation, width):
    console = Console(file=io.StringIO(), width=width)
    console.print(result_table(evaluation, width=width))
    text = console.file.getvalue()
    return [line.replace("\N{NO-BREAK SPACE}", " ").rstrip() for line in text.splitlines()]


def row(lines, label):
    return next(line.split() for line in lines if line.startswith(label))


def test_the_primary_metric_comes_first_with_all_columns(evaluation):
    lines = printed(evaluation, FULL_WIDTH)
    header = next(i for i, line in enumerate(lines) if "SFT" in line)
    assert lines[header].split() == ["mean", "cell", "SFT", "GRPO", "real", "cell"]
    first = lines[header + 2]
    assert first.split() == ["program", "tau", "↑", "0.100", "0.300", "0.400", "0.500"]
    assert lines[header + 3].split() == [
        "0.080..0.120",
        "0.280..0.320",
        "0.380..0.420",
        "0.480..0.520",
    ]


def test_a_narrow_terminal_keeps_the_policies_intervals(evaluation):
    lines = printed(evaluation, 80)
    place = lines.index(next(line for line in lines if line.startswith("program tau")))
    assert lines[place + 1].split() == ["0.280..0.320", "0.380..0.420"]
    assert max(len(line) for line in lines) <= 80


def test_rates_are_in_percent(evaluation):
    lines = printed(evaluation, FULL_WIDTH)
    written = "".join(row(lines, "repeated genes"))
    assert written == "repeatedgenes↓0.0%10.0%20.0%0.0%"


def test_an_absent_baseline_is_explained(evaluation):
    text = " ".join(printed(evaluation, FULL_WIDTH))
    assert "No copy control: these prompts hold no control cell to copy." in text
    assert "3 prompts left out: more than num_prompts." in text
    assert "GRPO is better than SFT" in text


def test_a_metric_without_any_value_has_no_row(evaluation):
    empty = Interval(None, None, None, 0, 0)
    methods = [
        m.model_copy(update={"metrics": m.metrics | {Metric.PROGRAM_TAU_DELTA: empty}})
        for m in evaluation.methods
    ]
    without = evaluation.model_copy(update={"methods": tuple(methods)})
    assert Metric.PROGRAM_TAU_DELTA not in shown_metrics(without)
    assert shown_metrics(without)[0] == Metric.PROGRAM_TAU


def test_tiers_stand_below_the_primary_metric(tiered):
    lines = printed(tiered, FULL_WIDTH)
    labels = [
        line.split("  ")[0].strip() if line[:2] != "  " else line[:18].strip() for line in lines
    ]
    first = labels.index("program tau ↑")
    assert labels[first + 2] == "unseen exposure"
    assert labels[first + 4] == "seen condition"


def test_populations_say_which_cells_they_are_of(tiered):
    lines = printed(tiered, FULL_WIDTH)
    assert row(lines, "scFID, all genes")[-4:] == ["n/a", "5.000", "4.000", "1.000"]
    text = " ".join(" ".join(lines).split())
    assert "Distances between populations: 16 cells of every method in a condition" in text
    assert "1 of 2 conditions have fewer than 10 cells to compare and no distances" in text
    assert "n/a (mean cell): one cell is no population." in text
    assert "Intervals draw by donor: 6 of donor in the held-out prompts." in text


def test_of_many_conditions_without_distances_five_are_named(tiered):
    setting = tiered.population
    many = setting.model_copy(update={"skipped": {f"A549 | drug {i}": i for i in range(9)}})
    notes = " ".join(population_notes(tiered.model_copy(update={"population": many})))
    assert "'A549 | drug 4 (4)' and 4 more." in notes
    assert "drug 5" not in notes


def test_numbers_are_written_in_the_metrics_unit():
    half = Interval(0.5, 0.456, 0.5441, 8, 2)
    assert format_value(Metric.PROGRAM_TAU, 0.12345) == "0.123"
    assert format_value(Metric.PROGRAM_TAU, -0.02, is_signed=True) == "-0.020"
    assert format_value(Metric.UNKNOWN_RATE, 0.256).replace("\N{NO-BREAK SPACE}", " ") == "25.6 %"
    assert format_value(Metric.UNKNOWN_RATE, 0.05, is_signed=True) == "+5.0 points"
    assert format_value(Metric.NUM_WORDS, 80.26) == "80.3"
    assert format_value(Metric.PROGRAM_TAU, None) == "-"
    assert format_range(Metric.UNKNOWN_RATE, half) == "45.6 to 54.4"
    assert format_range(Metric.PROGRAM_TAU, Interval(0.5, None, None, 1, 1)) == ""
    scfid = metric_rows(["all genes"])["scfid/all genes"]
    # Four digits in all, whatever the size of the embedding's unit.
    assert [format_value(scfid, v) for v in (880.5372, 31.0, 0.0, 0.00312)] == [
        "880.5",
        "31.00",
        "0.000",
        "0.003120",
    ]
    assert format_range(scfid, Interval(5.0, 9.5, 101.25, 8, 2)) == "9.5 to 101.2"
    assert format_gain(-0.1234).replace("\N{NO-BREAK SPACE}", " ") == "-12.3 %"
    assert format_gain(None) == "-"
