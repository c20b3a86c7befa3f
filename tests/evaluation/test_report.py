"""The report: one page, nothing outside it, nothing unescaped."""

import re
import shutil
import subprocess

import pytest

from c2s_rl.evaluation.plots import Picture
from c2s_rl.evaluation.report import (
    Pictures,
    RunInfo,
    condition_rows,
    metric_rows,
    render_report,
    tier_tables,
)
from c2s_rl.evaluation.reward_correlation import PairCorrelation, RewardCorrelation
from c2s_rl.evaluation.samples import Mark, MarkedSentence, MarkedWord, Sample

HOSTILE = "<script>alert('x')</script>"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture
def html(evaluation):
    run = RunInfo(
        name=f"demo {HOSTILE}",
        trained_on="A small model, trained on 700 blood cells.",
        seed=7,
        date="2026-01-31",
        versions={"torch": "2.13.0"},
        config_text=f"program: '{HOSTILE}'",
    )
    picture = Picture('<svg viewBox="0 0 1 1"><text>drawn</text></svg>', "A <picture>.")
    words = (MarkedWord("ISG15", Mark.PROGRAM), MarkedWord(HOSTILE, Mark.UNKNOWN))
    sample = Sample(f"B {HOSTILE}", f"prompt {HOSTILE}", (MarkedSentence("SFT", words, 3),))
    return render_report(evaluation, run, Pictures(None, picture, None, picture), [sample])


def test_numbers_intervals_and_verdict_are_on_the_page(html):
    assert "GRPO is better than SFT in program tau: 0.400 against 0.300" in html
    assert "The gain has a price" in html
    assert 'class="verdict better priced"' in html
    assert '<td class="policy">0.400<span class="ends">0.380 to 0.420</span></td>' in html
    assert '<td class="good">+0.100<span class="ends">+0.080 to +0.120</span></td>' in html
    assert "4 prompts, not seen in training" in html
    assert "No copy control: these prompts hold no control cell to copy." in html
    assert "4 of 6 genes are in the data set" in html


def test_gains_stand_beside_differences_and_metrics_say_what_they_are(tiered):
    picture = Picture("<svg></svg>", "A picture.")
    run = RunInfo("demo", "Cells.", 7, "2026-01-31", {}, "")
    pictures = Pictures(None, picture, None, picture, population=Picture("<svg>p</svg>", "Panels."))
    html = render_report(tiered, run, pictures, []).replace("\N{NO-BREAK SPACE}", " ")
    assert '<td class="good">+0.100 <span class="gain">(+33.3 %)</span><span class="ends">' in html
    assert '<td class="good">-1.000 <span class="gain">(-20.0 %)</span><span class="ends">' in html
    tip = re.search(r'<th scope="row" title="([^"]*)">scFID, all genes', html)[1]
    assert tip.splitlines()[0] == "Best: 0"
    assert "Source: C2S-Scale 4.6.9" in tip
    assert "Generated against real populations" in html
    assert "if other donors had been drawn" in html
    assert "Cells as vectors, all genes: expression of 10 genes." in html


def test_tiers_are_shown_apart(tiered, evaluation):
    tables = tier_tables(tiered)
    assert [table.label for table in tables] == ["program tau", "all-gene r", "scFID, all genes"]
    assert [(row.label, row.note) for row in tables[0].rows] == [
        ("unseen exposure", "5 prompts, 1 condition"),
        ("seen condition", "3 prompts, 1 condition"),
    ]
    values = [cell.value for cell in tables[2].rows[0].cells]
    assert values == ["n/a", "5.000", "4.000", "1.000", "-1.000"]
    notes = [row.note for row in condition_rows(tiered)]
    assert notes == ["4 prompts, unseen exposure", "4 prompts, seen condition"]
    assert tier_tables(evaluation) == []


def test_everything_that_users_wrote_is_escaped(html):
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 5  # title, heading, config, sample, prompt, word
    assert "NK &lt;b&gt;$x_i$&lt;/b&gt;" in html
    assert "A &lt;picture&gt;." in html


def test_pictures_are_inline_and_absent_ones_explained(html):
    assert html.count("<text>drawn</text>") == 2
    assert "No training curves" in html
    assert "No map" in html


def test_correlations_of_rewards_are_on_the_page_where_there_are_any(html, evaluation):
    assert "Rewards against each other" not in html
    run = RunInfo("demo", "A model.", 7, "2026-01-31", {}, "")
    picture = Picture('<svg viewBox="0 0 1 1"><text>drawn</text></svg>', "Heat.")
    pairs = (PairCorrelation(f"tau {HOSTILE}", "total", 64, 0.5, 0.25, None),)
    correlation = RewardCorrelation((f"tau {HOSTILE}", "total"), pairs)
    pictures = Pictures(None, picture, None, picture, rewards=picture)
    page = render_report(evaluation, run, pictures, [], correlation=correlation)
    row = re.search(r'id="reward-correlation">.*?<tbody>\s*(.*?)\s*</tbody>', page, re.DOTALL)[1]
    assert '<th scope="row">tau &lt;script&gt;' in row
    assert row.endswith("<td>0.250</td><td>0.500</td><td>-</td><td>64</td></tr>")


def test_nothing_is_loaded_from_elsewhere(html):
    assert not re.search(r"(src|href|action|data)\s*=\s*[\"']?(https?:)?//", html)
    assert not re.search(r"@import|url\(\s*[\"']?(https?:)?//", html)
    assert "<link" not in html


def test_a_difference_is_judged_by_its_metrics_direction(evaluation):
    looks = {row.label: row.cells[-1].look for row in metric_rows(evaluation)}
    assert looks["program tau"] == "good"
    assert looks["repeated genes"] == "bad"  # more of them
    assert looks["gene overlap"] == "open"  # -0.02 to +0.02
    assert looks["length"] == "open"  # neither way is better


def test_a_browser_shows_it_without_network(html, tmp_path):
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"no browser on PATH: one of {', '.join(BROWSERS)}")
    page = tmp_path / "report.html"
    page.write_text(html, encoding="utf-8")
    options = "--headless --no-sandbox --disable-gpu --no-first-run --disable-sync"
    quiet = "--disable-background-networking --disable-component-update"
    # Every host name fails to resolve: what the page needs must be in it.
    offline = "--host-resolver-rules=MAP * ~NOTFOUND"
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [browser, *options.split(), *quiet.split(), offline, profile]
    done = subprocess.run(
        [*command, "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    rows = re.findall(r"<tr.*?</tr>", done.stdout, flags=re.DOTALL)
    primary = next(row for row in rows if ">program tau<" in row)
    assert re.findall(r"0\.[1345]00", primary) == ["0.100", "0.300", "0.400", "0.500", "0.100"]
    assert 'id="conditions"' in done.stdout
