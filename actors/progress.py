"""What a user watches while a model trains: a bar, and figures that tell how it goes.

In a terminal the bar stays in place with the figures below it; elsewhere (the log of a job) every
update is one line.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed
from rich.progress import TimeRemainingColumn as Remaining
from rich.text import Text

from c2s_rl.pipeline.align import StepReport
from c2s_rl.pipeline.sft import SftConfig

LINES_IN_LOG = 20  # of a whole run: enough to see a curve, few enough to read


class _Bar:
    """One progress bar with a line of figures; use it as a context manager."""

    def __init__(self, console: Console, label: str, total: int | None) -> None:
        self._console = console
        self._label = label
        self._total = total
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            Elapsed(),
            TextColumn("left"),
            Remaining(),
        )
        self._task: TaskID = self._progress.add_task(label, total=total)
        self._live = Live(self._progress, console=console)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def _show(self, done: int, figures: str) -> None:
        self._progress.update(self._task, completed=done)
        if self._console.is_terminal:
            self._live.update(Group(self._progress, Text(figures)))
        elif done % max(1, (self._total or 0) // LINES_IN_LOG) == 0:
            of = f"/{self._total}" if self._total else ""
            self._console.print(f"{self._label} {done}{of}  {figures}", soft_wrap=True)


class AlignProgress(_Bar):
    """GRPO: reward, KL, length, validity and speed."""

    def __init__(self, console: Console, num_steps: int) -> None:
        super().__init__(console, "GRPO", num_steps)

    def update(self, report: StepReport) -> None:
        """Show the figures of a step that has just been finished."""
        f = report.figures
        valid = 1.0 - f["duplicate_rate"] - f["unknown_rate"]
        self._show(
            report.step + 1,
            f"reward {f['reward_mean']:.3f}  KL {f['kl']:.4f}  length {f['length_mean']:.0f}  "
            f"valid {valid:.1%} (repeated {f['duplicate_rate']:.1%}, "
            f"unknown {f['unknown_rate']:.1%})  {f['tokens_per_s']:.0f} tokens/s",
        )


class SftProgress(_Bar):
    """SFT or pretraining: loss, learning rate and speed."""

    def __init__(self, console: Console, config: SftConfig) -> None:
        label = {"sft": "SFT", "pretrain": "pretraining"}[config.stage]
        super().__init__(console, label, config.num_steps)

    def update(self, figures: Mapping[str, float | None]) -> None:
        """Show one line of metrics.jsonl."""
        shown = [
            f"{label} {value:.4g}"
            for name, label in {
                "loss": "loss",
                "eval_loss": "held-out loss",
                "lr": "lr",
                "tokens_per_s": "tokens/s",
            }.items()
            if (value := figures.get(name)) is not None
        ]
        self._show(int(figures["step"] or 0), "  ".join(shown))


class EmbedderProgress(_Bar):
    """Training of an scGPT: how far guessed bins are off, beside the trivial guess."""

    def __init__(self, console: Console, num_steps: int) -> None:
        super().__init__(console, "scGPT", num_steps)
        self._held_out = ""

    def update(self, step: int, figures: Mapping[str, float]) -> None:
        """Show the figures of a step that has just been finished."""
        if "held_out" in figures:
            off, trivial = (figures[name] ** 0.5 for name in ("held_out", "mean_bin"))
            self._held_out = f"  held-out {off:.1f}, by the mean {trivial:.1f}"
        self._show(step, f"bins off by {figures['masked'] ** 0.5:.1f}{self._held_out}")


class CountProgress(_Bar):
    """Work that is counted: cells that are embedded, prompts that are answered."""

    def __init__(self, console: Console, label: str) -> None:
        super().__init__(console, label, None)
        self._lines = -1

    def update(self, done: int, total: int) -> None:
        """Show how many of all are done."""
        self._progress.update(self._task, completed=done, total=total)
        line = LINES_IN_LOG * done // max(1, total)
        if not self._console.is_terminal and line > self._lines:
            self._console.print(f"{self._label} {done}/{total}", soft_wrap=True)
        self._lines = max(self._lines, line)
