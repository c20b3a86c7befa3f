"""The command line: one command a stage, `run` for all, `plan` and `doctor` before them.

Every command reads the same run config. Nothing heavy is imported before a command really runs, so
that `c2s-rl --help` answers at once. What a user can cause (a C2SError) ends with one line and exit
code 2; anything else is a bug of ours and shows its traceback.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from c2s_rl.cli_cells import cells_app
from c2s_rl.cli_rewards import rewards_app
from c2s_rl.errors import C2SError

EXIT_USER_ERROR = 2

STAGES = {
    "convert": "Files of cells, in any known format, to shards of ranked genes.",
    "corpus": "Cell shards to prompts and targets, split into training and held-out.",
    "train-embedder": "A small scGPT of the run's own training cells, for rewards and metrics.",
    "base-model": "The language model that training starts from.",
    "pretrain": "Pretraining: next-token learning on all tasks of the corpus.",
    "sft": "Supervised fine-tuning on prompts and targets.",
    "align": "GRPO: align the policy with biological rewards.",
    "evaluate": "Compare the policies on held-out prompts; writes report.html.",
    "evaluate-tasks": "Every model of the run on held-out prompts of all tasks; task_report.html.",
    "evaluate-text": "The same for text answers; writes text_report.html.",
    "embed": "Cells, samples or texts to vectors of a policy; FOSCTTM against bulk.",
    "annotate": "Cells to cell types, as a policy names them.",
    "generate": "Conditions to cells that a policy writes, as AnnData.",
}
# Stages whose results can go into a copy of the user's own file.
INTO_STAGES = ("embed", "annotate")

ConfigOption = Annotated[
    Path, typer.Option("--config", metavar="FILE", help="The run's YAML file.", show_default=False)
]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        default_factory=list,
        help="Override a key of the config, for example align.num_steps=10. May be repeated.",
        show_default=False,
    ),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace what another config made in the same folder.")
]

app = typer.Typer(
    name="c2s-rl",
    help="Align Cell2Sentence language models with biological rewards by GRPO.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def configure(
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose", "-v", count=True, help="Also show details (-v) and libraries (-vv)."
        ),
    ] = 0,
) -> None:
    """Set up logging for all commands; the help text is the app's."""
    from rich.console import Console
    from rich.logging import RichHandler

    console = Console(stderr=True)
    handler = RichHandler(console=console, show_path=False, markup=False, log_time_format="%X")
    # Libraries log for their own developers: they are heard only when something is wrong.
    logging.basicConfig(
        level=logging.INFO if verbose > 1 else logging.WARNING,
        format="%(message)s",
        handlers=[handler],
    )
    for package in ("c2s_rl", "rewards", "actors"):
        logging.getLogger(package).setLevel(logging.DEBUG if verbose else logging.INFO)


def _add_stage(name: str, help_text: str) -> None:
    @app.command(name, help=help_text)
    def command(
        *, config: ConfigOption, overrides: SetOption, overwrite: OverwriteOption = False
    ) -> None:
        from actors.jobs import load_run, run_stage

        run_stage(load_run(config, overrides), name.replace("-", "_"), overwrite=overwrite)


def _add_into_stage(name: str, help_text: str) -> None:
    @app.command(name, help=help_text)
    def command(
        *,
        config: ConfigOption,
        overrides: SetOption,
        overwrite: OverwriteOption = False,
        into: Annotated[
            Path | None,
            typer.Option(
                metavar="FILE.h5ad",
                help=f"Also put the results into a copy of this file ({name}.into).",
            ),
        ] = None,
    ) -> None:
        from actors.jobs import load_run, run_stage

        asked = [] if into is None else [f"{name}.into={json.dumps(str(into))}"]
        run_stage(load_run(config, [*overrides, *asked]), name, overwrite=overwrite)


app.add_typer(cells_app)  # its commands stand beside the stages
app.add_typer(rewards_app, name="rewards")

for _name, _help in STAGES.items():
    if _name in INTO_STAGES:
        _add_into_stage(_name, _help)
    elif _name != "evaluate":
        _add_stage(_name, _help)


@app.command("evaluate", help=STAGES["evaluate"])
def evaluate_command(
    *,
    config: ConfigOption,
    overrides: SetOption,
    overwrite: OverwriteOption = False,
    export: Annotated[
        bool,
        typer.Option(
            "--export", help="Also write cells as .h5ad for cell-eval (evaluate.export=true)."
        ),
    ] = False,
) -> None:
    """Evaluate; the help text is the stage's."""
    from actors.jobs import load_run, run_stage

    asked = ["evaluate.export=true"] if export else []
    run_stage(load_run(config, [*overrides, *asked]), "evaluate", overwrite=overwrite)


@app.command("run")
def run_command(
    *, config: ConfigOption, overrides: SetOption, overwrite: OverwriteOption = False
) -> None:
    """All stages that the config has a section for; what is done already is reused."""
    from actors.jobs import load_run, run_all

    run_all(load_run(config, overrides), overwrite=overwrite)


@app.command("tokens")
def tokens_command(
    *, config: ConfigOption, overrides: SetOption, overwrite: OverwriteOption = False
) -> None:
    """Tokenise for pretraining and SFT without training; writes <stage>/tokens/report.html."""
    from actors.jobs import load_run, write_tokens

    write_tokens(load_run(config, overrides), overwrite=overwrite)


@app.command("plan")
def plan_command(
    *,
    config: ConfigOption,
    cluster: Annotated[
        str,
        typer.Option(
            metavar="CLUSTER",
            help="4xH100, 2x8xH100 (nodes x GPUs), 2cores (this machine, timed) or a YAML file.",
            show_default=False,
        ),
    ],
    overrides: SetOption,
    assume: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=VALUE",
            default_factory=list,
            help="What is taken for granted, for example prompt_tokens=900. May be repeated.",
            show_default=False,
        ),
    ],
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write the plan as JSON.")
    ] = None,
) -> None:
    """What GRPO steps will compute, hold and take on a cluster, and the best way to share it."""
    from actors.jobs import load_run
    from actors.plan_job import show_plan

    show_plan(load_run(config, overrides), cluster, assume, json_file)


@app.command("compare")
def compare_command(
    *,
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders of evaluated runs.", show_default=False),
    ],
    output: Annotated[
        Path, typer.Option(metavar="FILE.html", help="Where the page with the picture goes.")
    ] = Path("comparison.html"),
    metric: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            default_factory=list,
            help="Metric to show, as evaluation.json names it; default: all. May be repeated.",
            show_default=False,
        ),
    ],
) -> None:
    """What GRPO gained in any number of runs: a table here, a picture and tables as a page."""
    from rich.console import Console

    from c2s_rl.evaluation.compare import compare_runs
    from c2s_rl.evaluation.compare_page import render_comparison
    from c2s_rl.evaluation.compare_table import compare_table

    comparison = compare_runs(runs, metric)
    console = Console()
    console.print(compare_table(comparison))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(render_comparison(comparison), encoding="utf-8")
    console.print(f"page: {output}", soft_wrap=True)


@app.command("doctor")
def doctor_command(
    *,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Also check what this run needs."),
    ] = None,
    overrides: SetOption,
) -> None:
    """What this machine has, which engine will be used, and what is missing for a config."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from c2s_rl.doctor import examine

    checks = examine(config, overrides)
    table = Table(box=None, show_header=False)
    for check in checks:
        mark = Text("ok", "green") if check.is_ok else Text("missing", "bold red")
        # Text, not markup: a path or a message may hold square brackets.
        table.add_row(mark, check.subject, Text(check.found), Text(check.advice, "yellow"))
    Console().print(table)
    if not all(check.is_ok for check in checks):
        raise typer.Exit(EXIT_USER_ERROR)


def main() -> None:
    """Run the command line; ends the process with 0, 1 (bug), 2 (user error) or 130 (Ctrl-C)."""
    try:
        app()
    except C2SError as error:
        message = " ".join(str(error).split())  # one line, whatever a library put into it
        typer.secho(f"error: {message}", err=True, fg=typer.colors.RED)
        sys.exit(EXIT_USER_ERROR)
