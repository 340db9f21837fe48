from types import SimpleNamespace

import numpy as np
import pytest

from baselines_tf2.common.replay import Rollout
from baselines_tf2.common.rollout import Episode
from baselines_tf2.ddpg.config import DDPGConfig, LoopConfig
from baselines_tf2.ddpg.epopt import WorstEpisodes, check_selection, make_selection
from envs import ConfigError


def episodes(*returns, length=2, offsets=None):
    """Rows of whole episodes, one after the other, and their ends; the reward names the episode."""
    names = np.repeat(np.arange(len(returns)), length)[:, None]
    ends = np.tile([False] * (length - 1) + [True], len(returns))[:, None]
    zeros = np.zeros((*names.shape, 1))
    physics = [{"reward_offset": offset} for offset in offsets] if offsets else [{}] * len(returns)
    finished = [Episode(x, length, robot) for x, robot in zip(returns, physics, strict=True)]
    return Rollout(zeros, zeros, names.astype(float), zeros, ends, ends, names), finished


def part(new, start, stop):
    return Rollout(*(field[start:stop] for field in new))


def names(kept):
    return None if kept is None else kept.rewards[:, 0].tolist()


def test_the_worst_tenth_of_ten_is_the_worst_one():
    select = WorstEpisodes(10, 0.1, warmup_steps=0)
    kept = select(*episodes(5, 3, 8, 1, 9, 7, 6, 4, 2, 0))
    assert names(kept) == [9, 9]  # the episode that returned 0
    np.testing.assert_array_equal(kept.ends[:, 0], [False, True])
    assert select.metrics() == {"epopt/return": 4.5, "epopt/return_stored": 0.0}


def test_a_robot_that_is_given_reward_is_not_the_better_for_it():
    """Of 7, 2 and 4 in 2 steps at offsets 3, 0 and -1 a step, 1, 2 and 6 were earned."""
    rows, finished = episodes(7.0, 2.0, 4.0, offsets=(3.0, 0.0, -1.0))
    select = WorstEpisodes(3, 1 / 3, warmup_steps=0)
    assert names(select(rows, finished)) == [0, 0]  # with its offset it would be the best
    assert select.metrics() == {"epopt/return": 3.0, "epopt/return_stored": 1.0}


def test_warm_up_stores_episodes_as_they_come_and_the_last_of_them_whole():
    select = WorstEpisodes(2, 0.5, warmup_steps=3)
    new, finished = episodes(0, 0, 5, 4, 2, 3)
    assert names(select(part(new, 0, 1), [])) == [0]  # not after its batch
    assert names(select(part(new, 1, 3), finished[:1])) == [0, 1]
    # Of its two steps the warm-up holds one, and the ranked batches 2, 3 and 4, 5 begin after it.
    assert names(select(part(new, 3, 7), finished[1:3])) == [1]
    assert names(select(part(new, 7, 12), finished[3:])) == [3, 3, 4, 4]


def test_a_batch_waits_for_whole_episodes():
    select = WorstEpisodes(2, 1.0, warmup_steps=0)
    new, finished = episodes(1.0, 2.0)
    assert select(part(new, 0, 1), []) is None
    assert select(part(new, 1, 3), finished[:1]) is None
    assert names(select(part(new, 3, 4), finished[1:])) == [0, 0, 1, 1]


def test_two_batches_that_end_in_one_cycle_are_two():
    select = WorstEpisodes(2, 0.5, warmup_steps=0)
    assert names(select(*episodes(1, 2, 8, 7, 0))) == [0, 0, 3, 3]
    assert names(select(*episodes(9))) == [4, 4]  # the one that was left over, 0, and 9


def test_an_episode_that_was_cut_is_forgotten():
    for warmup, kept in ((0, None), (1, [0])):
        select = WorstEpisodes(1, 1.0, warmup_steps=warmup)
        new, finished = episodes(1.0, 2.0)
        assert names(select(part(new, 0, 1), [])) == kept
        select.end_episodes()
        assert select(part(new, 2, 3), []) is None
        assert names(select(part(new, 3, 4), finished[1:])) == [1, 1]


@pytest.mark.parametrize("stop", range(1, 12))
def test_put_back_it_goes_on_alike(stop):
    new, finished = episodes(4, 0, 5, 4, 2, 3)
    whole, first, second = (WorstEpisodes(2, 0.5, warmup_steps=3) for _ in range(3))
    expected = [names(whole(part(new, 0, stop), finished[: stop // 2])) or []]
    expected += names(whole(part(new, stop, 12), finished[stop // 2 :])) or []
    got = [names(first(part(new, 0, stop), finished[: stop // 2])) or []]
    second.set_state(first.get_state())
    got += names(second(part(new, stop, 12), finished[stop // 2 :])) or []
    assert got == expected and second.get_state() == whole.get_state()


def test_the_warm_up_is_a_share_of_the_run():
    # Of each one episode that one: what the config itself refuses, as no selection.
    one = SimpleNamespace(epopt_trajectories=1, epopt_epsilon=1.0, epopt_warmup=0.3)
    select = make_selection(one, num_timesteps=10)
    new, finished = episodes(*range(5))
    # 0.3 * 10 steps: the second episode, of steps 2 and 3, is the last to be stored at its start.
    stored = [
        names(select(part(new, t, t + 1), finished[t // 2 : (t + 1) // 2])) for t in range(10)
    ]
    assert stored == [[0], [0], [1], [1], None, [2, 2], None, [3, 3], None, [4, 4]]
    assert make_selection(LoopConfig(), 10) is None


def test_a_run_selects_from_the_shortest_length_that_is_let_pass():
    config, loop = DDPGConfig(), LoopConfig(epopt_trajectories=10, epopt_warmup=0.1)
    check_selection(config, loop, 1_000_000, episode_steps=1000)
    check_selection(
        config, loop, 12_000, episode_steps=1000
    )  # 1,200 steps, so 2 episodes, and then 10
    with pytest.raises(
        ConfigError, match="selects nothing in 11999 steps: after a warm-up of 1200"
    ):
        check_selection(config, loop, 11_999, episode_steps=1000)
    check_selection(config, LoopConfig(), 1, episode_steps=1000)
    small, loop = DDPGConfig(replay_size=2999), LoopConfig(epopt_trajectories=10, epopt_epsilon=0.3)
    with pytest.raises(ConfigError, match="replay_size=2999 does not hold the 3000 steps"):
        check_selection(small, loop, 1_000_000, episode_steps=1000)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"epopt_trajectories": 5}, r"must be a whole number: 5 \* 0.1 = 0.5"),
        ({"epopt_trajectories": 15}, r"must be a whole number: 15 \* 0.1 = 1.5"),
        ({"epopt_trajectories": 10, "epopt_warmup": 1.0}, "epopt_warmup must lie in"),
        ({"epopt_trajectories": 10, "epopt_warmup": -0.1}, "epopt_warmup must lie in"),
        ({"epopt_trajectories": 10, "epopt_epsilon": 0.0}, "epopt_epsilon must lie in"),
        ({"epopt_trajectories": 10, "epopt_epsilon": 1.0}, "1 selects all"),
    ],
)
def test_shares_that_cannot_be_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        LoopConfig(**options)
