"""What a user watches while a model trains: a bar, and figures that tell how it goes."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from c2s_rl.pipeline.align import StepReport
from c2s_rl.pipeline.sft import SftConfig


class _Bar:
    """One progress bar with a line of figures; use it as a context manager."""

    def __init__(self, console: Console, label: str, total: int | None) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=console,
        )
        self._task: TaskID = self._progress.add_task(label, total=total, figures="starting")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def _show(self, done: int, total: int | None, figures: str) -> None:
        self._progress.update(self._task, completed=done, total=total, figures=figures)


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
            report.num_steps,
            f"reward {f['reward_mean']:.3f}  KL {f['kl']:.4f}  length {f['length_mean']:.0f}  "
            f"valid {valid:.1%} (repeated {f['duplicate_rate']:.1%}, "
            f"unknown {f['unknown_rate']:.1%})  {f['tokens_per_s']:.0f} tokens/s",
        )


class SftProgress(_Bar):
    """SFT: loss, learning rate and speed."""

    def __init__(self, console: Console, config: SftConfig) -> None:
        super().__init__(console, "SFT", config.num_steps)

    def update(self, figures: Mapping[str, float | None]) -> None:
        """Show one line of metrics.jsonl."""
        shown = [
            f"{name} {figures[name]:.4g}"
            for name in ("loss", "eval_loss", "lr", "tokens_per_s")
            if figures.get(name) is not None
        ]
        self._show(int(figures["step"] or 0), None, "  ".join(shown))
