"""Cycles that a replay does not hold, or that do not fill the rows of the log."""

from types import SimpleNamespace

import pytest

from envs.errors import ConfigError
from omd_tf2.common.experiment import Settings


def settings(cycle_steps=1, replay_size=5000):
    return Settings(
        agent=SimpleNamespace(cycle_steps=cycle_steps, replay_size=replay_size),
        train=SimpleNamespace(num_timesteps=1000, adapt_every=0),
        env=SimpleNamespace(target=""),
    )


@pytest.mark.parametrize("cycle_steps", [1, 50, 1000])
def test_cycles_that_fill_a_row_are_taken(cycle_steps):
    settings(cycle_steps=cycle_steps)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cycle_steps": 3}, "agent.cycle_steps must divide 1000, .* and is 3"),
        ({"cycle_steps": 10, "replay_size": 9}, "replay_size=9 does not hold one cycle of .*=10"),
        ({"cycle_steps": 2000}, "agent.cycle_steps must divide 1000, .* and is 2000"),
    ],
)
def test_others_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        settings(**options)
