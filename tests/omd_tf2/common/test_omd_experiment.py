"""Settings that leave nothing to train on, or rows of the log that cycles do not fill."""

from types import SimpleNamespace

import pytest

from envs.errors import ConfigError
from omd_tf2.common.experiment import check_steps


def settings(num_timesteps=1000, random_steps=100, cycle_steps=1, replay_size=5000):
    return SimpleNamespace(
        agent=SimpleNamespace(
            random_steps=random_steps, cycle_steps=cycle_steps, replay_size=replay_size
        ),
        train=SimpleNamespace(num_timesteps=num_timesteps, adapt_every=0),
        env=SimpleNamespace(target=""),
    )


@pytest.mark.parametrize("cycle_steps", [1, 50, 1000])
def test_cycles_that_fill_a_row_are_taken(cycle_steps):
    check_steps(settings(cycle_steps=cycle_steps, random_steps=999))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"random_steps": 1000},
            "agent.random_steps=1000 leaves nothing to train on .*: add --set=agent.random_steps=100",
        ),
        ({"num_timesteps": 99}, "leaves nothing to train on in 99 steps"),
        ({"cycle_steps": 3}, "agent.cycle_steps must divide 1000, .* and is 3"),
        ({"cycle_steps": 10, "replay_size": 9}, "replay_size=9 does not hold one cycle of .*=10"),
        ({"cycle_steps": 2000}, "agent.cycle_steps must divide 1000, .* and is 2000"),
    ],
)
def test_others_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        check_steps(settings(**options))
