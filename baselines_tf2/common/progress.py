"""What the user sees of one run while it goes on, and how it is asked to stop."""

import signal
import sys
import time
from typing import Self

from tqdm import tqdm


class StopRequest:
    """What Ctrl-C and SIGTERM ask for: the first time to stop when the state is whole."""

    def __init__(self):
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def __call__(self) -> bool:
        return self.asked

    def _ask(self, number, frame):
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("\nstopping after this cycle; once more stops at once", file=sys.stderr)


class Bar:
    """A tqdm bar of steps, steps per second, time left and return; closed with its `with` block."""

    def __init__(self):
        self._done = 0  # steps of this process
        self._step, self._bar, self._began = 0, None, time.perf_counter()

    def start(self, total: int) -> None:
        self._bar = tqdm(total=total, unit="step", unit_scale=True, disable=None, mininterval=0.5)

    def update(self, step: int, episode_return: float | None) -> None:
        if episode_return is not None:
            self._bar.set_postfix({"return": f"{episode_return:.1f}"}, refresh=False)
        self._bar.update(step - self._step)
        self._done += step - self._step
        self._step = step

    def resume(self, step: int) -> None:
        self._bar.initial = self._bar.n = self._step = step
        self._bar.refresh()

    def tell(self, text: str) -> None:
        tqdm.write(text, file=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error, *_) -> None:
        """Says how fast the steps were, unless the run ended with an error."""
        if self._bar is not None:
            self._bar.close()
        seconds = time.perf_counter() - self._began
        if self._done and error is None:
            print(
                f"\n{self._done:,} steps in {seconds:.0f} s, {self._done / seconds:,.0f} per second"
            )
