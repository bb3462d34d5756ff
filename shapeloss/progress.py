"""Progress bars."""

from __future__ import annotations

from collections.abc import Callable

from tqdm import tqdm


def progress_bar(description: str) -> Callable[[int, int], None]:
    """A progress bar over steps, with an estimate of the time left: a function to call with (step, steps)."""
    shown: list[tqdm] = []

    def update(step: int, steps: int) -> None:
        if not shown:
            shown.append(tqdm(total=steps, initial=step - 1, desc=description, unit="step", mininterval=5))
        shown[0].update(step - shown[0].n)
        if step == steps:
            shown[0].close()

    return update
