"""What a run logs of itself."""

import time

from baselines_tf2.common.train_loop import Epoch
from baselines_tf2.runs.training import EpochRows
from tests.baselines_tf2.common.test_train_loop import FakeAgent


def test_the_speed_leaves_out_what_a_row_costs(monkeypatch):
    now, speeds = [0.0], []

    def on_epoch(step, metrics):
        speeds.append(metrics.get("time/steps_per_second"))
        now[0] += 10  # an evaluation

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    rows = EpochRows(FakeAgent(), on_epoch)
    rows.log(0, {})
    for step in (100, 200):
        now[0] += 2
        rows.epoch(Epoch(step=step, metrics={}, episodes=[], latest=None))
    assert speeds == [None, 50, 50]
