import numpy as np
import pytest

from baselines_tf2.common.replay import Layout, Replay, Rollout
from envs import ConfigError


def transitions(times, num_envs=1, ends=(), terminals=(), members=None):
    """Rows whose observation is (time, env), whose reward is time and whose action is -time."""
    times = np.asarray(times, float)
    shape = (len(times), num_envs)
    grid = np.broadcast_to(times[:, None], shape)
    env = np.broadcast_to(np.arange(num_envs), shape)
    flag = lambda which: np.broadcast_to(np.isin(times, which)[:, None], shape).copy()
    return Rollout(
        obs0=np.stack([grid, env], -1),
        actions=-grid[..., None],
        rewards=grid.copy(),
        obs1=np.stack([grid + 1, env], -1),
        terminals1=flag(terminals),
        ends=flag([*ends, *terminals]),
        members=np.zeros(shape, int) if members is None else np.asarray(members),
    )


def make(**options):
    options = {"capacity": 100, "gamma": 0.5, "dtype": "float64"} | options
    return Replay(2, 1, **options)


RNG = np.random.default_rng


def test_a_sampled_row_is_a_stored_transition_and_the_newest_is_sampled_too():
    replay = make()
    replay.add(transitions(range(10), terminals=[9]))
    batch = replay.layout.unpack(replay.sample_many(RNG(0), 3, 200))
    time = np.asarray(batch.obs0)[..., 0]
    assert set(time.ravel()) == set(range(10))
    np.testing.assert_array_equal(batch.rewards, time)
    np.testing.assert_array_equal(batch.actions[..., 0], -time)
    np.testing.assert_array_equal(batch.obs1[..., 0], time + 1)
    np.testing.assert_array_equal(batch.terminals1, time == 9)
    assert set(np.ravel(batch.discounts)) == {0.5}
    assert not np.any(batch.absorbing0)


def test_the_ring_forgets_the_oldest():
    replay = make(capacity=8)
    for start in range(0, 15, 5):
        replay.add(transitions(range(start, start + 5)))
    assert len(replay) == 8
    rows = replay.sample_many(RNG(0), 1, 400)[0]
    assert set(rows[:, 0]) == set(range(7, 15))


def test_distinct_rows_come_once_in_a_batch_unless_there_are_too_few():
    replay = make(capacity=16, num_envs=2)
    for start in (0, 5):
        replay.add(transitions(range(start, start + 5), num_envs=2))
    drawn = replay.sample_many(RNG(0), 50, 16, distinct=True)[..., :2]
    whole = {(time, env) for time in range(2, 10) for env in range(2)}
    assert all({tuple(row) for row in batch} == whole for batch in drawn)
    some = replay.sample_many(RNG(0), 400, 3, distinct=True)[..., :2]
    assert all(len({tuple(row) for row in batch}) == 3 for batch in some)
    _, counts = np.unique(some.reshape(-1, 2), axis=0, return_counts=True)
    # 1,200 rows of 16, 75 each: a share's standard error is 8.
    assert len(counts) == 16 and np.abs(counts - 75).max() < 32
    assert replay.sample_many(RNG(0), 2, 17, distinct=True).shape[:2] == (2, 17)


def test_time_limits_are_not_terminals():
    replay = make()
    replay.add(transitions(range(4), ends=[3]))
    assert not replay.sample_many(RNG(0), 1, 50)[..., replay.layout.terminals1].any()


def test_n_step_windows_by_hand():
    replay = make(n_step=3)
    # One episode of rewards 0..4 ending in a terminal, another 5..6 cut by a time limit, then 7.
    replay.add(transitions(range(8), terminals=[4], ends=[6]))
    rows = np.arange(8)
    batch = replay.layout.unpack(replay.gather(rows, 0 * rows))
    # Row 1: 1 + 2/2 + 3/4; row 3: 3 + 4/2, terminal; row 5: 5 + 6/2, cut; row 7: end of data.
    np.testing.assert_allclose(batch.rewards, [1.0, 2.75, 4.5, 5.0, 4.0, 8.0, 6.0, 7.0])
    np.testing.assert_array_equal(np.asarray(batch.obs1)[:, 0], [3, 4, 5, 5, 5, 7, 7, 8])
    np.testing.assert_array_equal(batch.terminals1, [0, 0, 1, 1, 1, 0, 0, 0])
    np.testing.assert_allclose(
        batch.discounts, [1 / 8, 1 / 8, 1 / 8, 1 / 4, 1 / 2, 1 / 4, 0.5, 0.5]
    )


def test_n_step_windows_cross_the_seam_of_the_ring():
    replay = make(capacity=6, n_step=3)
    replay.add(transitions(range(5)))
    replay.add(transitions(range(5, 8)))  # rows 6 and 7 lie at slots 0 and 1
    batch = replay.layout.unpack(replay.gather(np.array([4, 5, 6]), np.zeros(3, int)))
    np.testing.assert_allclose(batch.rewards, [4 + 2.5 + 1.5, 5 + 3 + 7 / 4, 6 + 3.5])
    np.testing.assert_array_equal(np.asarray(batch.obs1)[:, 0], [7, 8, 8])


def directly(rewards, ends, start, n_step, gamma):
    """The window's return, last row and length, term by term."""
    total, length = 0.0, 0
    while length < n_step and start + length < len(rewards):
        total += gamma**length * rewards[start + length]
        length += 1
        if ends[start + length - 1]:
            break
    return total, start + length - 1, length


def random_rows(rng, start, count, num_envs, end):
    new = transitions(range(start, start + count), num_envs)
    ends = rng.random((count, num_envs)) < end
    terminals = ends & (rng.random(ends.shape) < 0.5)
    rewards = rng.normal(3, 1, ends.shape)
    return new._replace(rewards=rewards, ends=ends, terminals1=terminals)


@pytest.mark.parametrize("n_step", [2, 7, 16, 1000])
@pytest.mark.parametrize("gamma", [0.5, 0.99, 1.0])
@pytest.mark.parametrize("end", [0.0, 0.03, 0.3])
def test_windows_equal_the_direct_sum_while_the_ring_turns(n_step, gamma, end):
    """Episodes of any length that end, are cut, run on and are forgotten; asked for now and then."""
    rng, held = RNG(0), 60
    replay = make(capacity=2 * held, num_envs=2, n_step=n_step, gamma=gamma)
    rewards, ends = np.zeros((0, 2)), np.zeros((0, 2), bool)
    for count in (1, 1, 5, 40, 3, 30, 60, 1, 17, 2, 59):
        new = random_rows(rng, len(rewards), count, 2, end)
        replay.add(new)
        rewards, ends = np.concatenate([rewards, new.rewards]), np.concatenate([ends, new.ends])
        if count == 3:
            replay.end_episodes()
            ends[-1] = True
        if count == 17:  # what was not asked for meanwhile is made up for
            continue
        rows, columns = (x.ravel() for x in np.mgrid[replay.first_row : replay.next_row, :2])
        batch = replay.layout.unpack(replay.gather(rows, columns))
        expected, last, length = np.transpose([
            directly(rewards[:, column], ends[:, column], row, n_step, gamma)
            for row, column in zip(rows, columns, strict=True)
        ])  # fmt: skip
        np.testing.assert_allclose(batch.rewards, expected, rtol=1e-13)
        np.testing.assert_allclose(batch.discounts, gamma**length, rtol=1e-15)
        np.testing.assert_array_equal(batch.obs1, np.stack([last + 1, columns], -1))
        np.testing.assert_array_equal(batch.obs0, np.stack([rows, columns], -1))
        np.testing.assert_array_equal(batch.actions[:, 0], -rows)


def test_long_windows_keep_their_digits_in_a_32_bit_replay():
    """The sum is made in 64 bits: 1 + gamma + ... = (1 - gamma^n) / (1 - gamma)."""
    replay = make(capacity=5000, n_step=1000, gamma=0.999, dtype="float32")
    replay.add(transitions(range(5000))._replace(rewards=np.ones((5000, 1))))
    window = replay.layout.unpack(replay.gather(np.array([7]), np.array([0])))
    assert window.rewards[0] == np.float32((1 - 0.999**1000) / 0.001)


def test_only_windows_that_can_still_change_are_summed_again():
    replay, summed = make(capacity=10_000, n_step=50), []
    inner = replay._windows._sum
    replay._windows._sum = lambda part, left: (summed.append(len(part)), inner(part, left))[1]
    for start in range(0, 3000, 10):
        replay.add(transitions(range(start, start + 10), ends=[995]))
        if start >= 500:
            replay.gather(np.array([start]), np.array([0]))
    assert summed[0] == 510
    assert max(summed[1:]) == 49 + 10  # those which reached the data's end, and the new ones
    after_the_end = summed[(1000 - 500) // 10]
    assert after_the_end == 4 + 10  # rows 996 to 999, and the new ones


def test_n_step_windows_keep_to_their_environment():
    replay = make(n_step=2, num_envs=2)
    replay.add(transitions(range(4), num_envs=2))
    batch = replay.layout.unpack(replay.sample_many(RNG(0), 1, 100)[0])
    np.testing.assert_array_equal(np.asarray(batch.obs0)[:, 1], np.asarray(batch.obs1)[:, 1])


def test_independent_pairs_have_nothing_in_common():
    """Two of 100 rows and of two environments are drawn alike as often as chance has it."""
    replay = make(num_envs=2)
    replay.add(transitions(range(50), num_envs=2))
    packed = replay.sample_many(RNG(0), 200, 100, paired=True)
    (time_a, env_a), (time_b, env_b) = (
        np.moveaxis(x[..., :2], -1, 0) for x in np.split(packed, 2, 1)
    )
    apart = np.bincount(np.abs(time_a - time_b).astype(int).ravel(), minlength=50) / time_a.size
    expected = 2 * (50 - np.arange(50)) / 50**2  # of two uniform draws
    expected[0] /= 2
    np.testing.assert_allclose(apart, expected, atol=0.008)
    assert (env_a == env_b).mean() == pytest.approx(0.5, abs=0.02)


def two_robots():
    """Robot 7 has episodes 0-2 and 6-9, robot 3 has 3-5; capacity 8 forgets times 0 and 1."""
    replay = make(capacity=8, pairing="same_member")
    members = np.array([7, 7, 7, 3, 3, 3, 7, 7, 7, 7])[:, None]
    new = transitions(range(10), ends=[2, 5], members=members)
    for part in (slice(0, 4), slice(4, 10)):
        replay.add(Rollout(*(field[part] for field in new)))
    return replay, members[:, 0]


def test_same_member_pairs_share_their_robot_and_cover_all_its_rows():
    replay, members = two_robots()
    first, second = np.split(
        replay.sample_many(RNG(0), 20, 100, paired=True)[..., 0].astype(int), 2, 1
    )
    np.testing.assert_array_equal(members[first], members[second])
    assert set(first.ravel()) == set(range(2, 10))
    of_seven = second[members[first] == 7]
    values, counts = np.unique(of_seven, return_counts=True)
    assert set(values) == {2, 6, 7, 8, 9}
    np.testing.assert_allclose(counts / counts.sum(), 0.2, atol=0.04)  # uniform over its rows


def test_coupled_pairs_are_twins_at_the_same_time():
    replay = make(num_envs=4, pairing="coupled")
    replay.add(transitions(range(10), num_envs=4))
    first, second = np.split(replay.sample_many(RNG(0), 2, 100, paired=True)[..., :2], 2, axis=1)
    np.testing.assert_array_equal(first[..., 0], second[..., 0])
    np.testing.assert_array_equal(first[..., 1].astype(int) ^ 1, second[..., 1])
    assert set(first[..., 1].ravel()) == {0, 1, 2, 3}


def test_absorbing_pairs_come_only_once_a_terminal_was_stored():
    replay = make(absorbing_fraction=0.5)
    replay.add(transitions(range(5), ends=[4]))
    absorbing = replay.layout.absorbing0
    assert not replay.sample_many(RNG(0), 4, 100, paired=True)[..., absorbing].any()
    replay.add(transitions(range(5, 9), terminals=[8]))
    rows = replay.sample_many(RNG(0), 40, 100, paired=True)
    flags = rows[..., absorbing].reshape(40, 2, 50)
    assert flags.any(1).mean() == pytest.approx(0.5, abs=0.05)  # half of the pairs,
    assert not flags.all(1).any()  # one side at a time,
    assert flags[:, 0].mean() == pytest.approx(0.25, abs=0.04)  # either side alike
    row = rows[rows[..., absorbing] == 1][0]
    batch = replay.layout.unpack(row)
    assert not np.any(batch.obs0) and not np.any(batch.actions) and not np.any(batch.obs1)
    assert (batch.rewards, batch.terminals1, batch.discounts) == (0, 1, 0.5)
    assert not replay.sample_many(RNG(0), 4, 100)[..., absorbing].any()  # values need none


@pytest.mark.parametrize("pairing", ["independent", "same_member", "coupled"])
@pytest.mark.parametrize("terminals", [[], [123]])
@pytest.mark.parametrize("n_step", [1, 5, 40])
def test_no_target_asks_for_the_absorbing_state_before_it_is_trained(n_step, terminals, pairing):
    """A pair asks for it if one side has ended, or both go on under different discounts."""
    replay = make(
        capacity=400, num_envs=2, gamma=0.9, n_step=n_step, pairing=pairing, absorbing_fraction=0.2
    )
    rng, trained, asked = RNG(0), False, False
    for start in range(0, 200, 10):
        replay.add(
            transitions(range(start, start + 10), num_envs=2, terminals=terminals, ends=[59])
        )
        for packed in replay.sample_many(rng, 5, 128, paired=True):
            rows = replay.layout.unpack(packed)
            trained |= bool(np.any(rows.absorbing0))
            over_a, over_b = np.split(np.asarray(rows.terminals1) == 1, 2)
            c_a, c_b = np.split(np.asarray(rows.discounts), 2)
            asks = bool(np.any((over_a ^ over_b) | (~over_a & ~over_b & (c_a != c_b))))
            assert trained or not asks
            asked |= asks
    assert trained == asked
    # Twins end together, and so do their windows.
    assert asked == (bool(terminals) or (n_step > 1 and pairing != "coupled"))


@pytest.mark.parametrize("pairing", ["independent", "same_member", "coupled"])
def test_groups_come_from_one_robot_each(pairing):
    replay = make(num_envs=2, pairing=pairing, capacity=60)
    members = np.repeat(np.arange(10), 10)[:, None] * [1, 1]
    new = transitions(range(100), num_envs=2, ends=range(9, 100, 10), members=members)
    for part in range(0, 100, 10):
        replay.add(Rollout(*(field[part : part + 10] for field in new)))
    batch = replay.sample_members(RNG(0), 6, 8, paired=True, window=60)
    sides = batch.reshape(2, 6, 4, -1)  # the groups' rows, and those paired with them
    robots = sides[..., 0] // 10
    assert (robots == robots[:, :, :1]).all() and robots.min() >= 7
    if pairing != "independent":
        assert (robots[0] == robots[1]).all()
    if pairing == "coupled":
        first, second = sides
        np.testing.assert_array_equal(first[..., 0], second[..., 0])
        np.testing.assert_array_equal(first[..., 1] + second[..., 1], 1)
    single = replay.sample_members(RNG(0), 20, 8, paired=False, window=20)[:, 0] // 10
    single = single.reshape(20, 8)
    assert (single == single[:, :1]).all() and single.min() == 9


@pytest.mark.parametrize("robot_dim", [0, 2])
def test_layout_is_a_bijection(robot_dim):
    for obs_dim, action_dim in ((3, 1), (3, 2), (3, 6)):  # without padding, in one half
        layout = Layout(obs_dim, action_dim, robot_dim)
        row = np.arange(layout.width, dtype=float)[None]
        batch = layout.unpack(row)
        fields = [x for x in batch if x is not None]
        assert len(fields) == len(batch) - (robot_dim == 0)
        flat = [*np.concatenate([np.reshape(field, -1) for field in fields]), layout.members]
        assert len(set(flat)) == len(flat) == 2 * obs_dim + action_dim + 5 + robot_dim
        assert layout.width - len(flat) == action_dim - 1
        assert batch.rewards.shape == (1,)


def test_wrong_pairings_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'same_member'"):
        make(pairing="same_membr")
    with pytest.raises(ConfigError, match="even number"):
        make(pairing="coupled")
