"""The bar of a run: how fast it says the steps are."""

import io
import sys

import pytest

from baselines_tf2.runs.terminal import Bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("first", "last"), [(0, "30.0k"), (500_000, "530k")])
def test_the_bar_goes_on_at_the_runs_own_speed(monkeypatch, first, last):
    now, screen = [100.0], Terminal()
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", screen)
    with Bar() as bar:
        bar.start(1_000_000)
        if first:
            bar.resume(first)
        for step in range(1, 31):  # a second for each thousand
            now[0] += 1
            bar.update(first + 1000 * step, None)
        shown = screen.getvalue().split("\r")
    assert len(shown) > 25  # it is drawn again all the while
    assert "1.00kstep/s" in shown[-1] and f"{last}/1.00M" in shown[-1]
