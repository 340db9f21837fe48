import gymnasium as gym
import numpy as np
import pytest

from envs import ConfigError, EnvSpec, find_robot, make_env, uncertainty_grid, uncertainty_set

ROBOTS = ("cheetah", "hopper", "walker")


@pytest.mark.parametrize(
    ("task", "count", "text"),
    [
        ("cheetah", 1, "friction:0.25,7.5"),  # coefficients 0.1 and 3.0 over the nominal 0.4
        ("cheetah", 2, "friction:0.25,10;torso_mass:0.1,7"),
        ("cheetah", 3, "friction:0.25,10;torso_mass:0.1,7;mass/bthigh:0.1,3"),
        ("hopper", 1, "floor_friction:0.1,3"),
        ("hopper", 2, "floor_friction:0.1,3;torso_mass:0.1,3"),
        ("hopper", 3, "floor_friction:0.1,3;torso_mass:0.1,3;mass/thigh:0.1,4"),
        ("walker", 1, "floor_friction:0.1,4"),
        ("walker", 2, "floor_friction:0.1,4;torso_mass:0.1,5"),
        ("walker", 3, "floor_friction:0.1,4;torso_mass:0.1,5;mass/thigh:0.1,6"),
    ],
)
def test_the_sets_are_those_of_the_papers(task, count, text):
    assert str(uncertainty_set(task, count)) == text
    for variant in ("corrected", "as_published"):
        grid = uncertainty_grid(task, count, variant)
        assert list(grid) == list(uncertainty_set(task, count))
        assert {len(values) for values in grid.values()} == {10}
        for name, one in uncertainty_set(task, count).items():
            assert grid[name][0] == one.low
            assert (grid[name][-1] == one.high) == (variant == "corrected")


def test_grids_by_hand():
    # From 0.1 to 4.0 in steps of 3.9 / 9; RRLS steps by 3.9 / 10 and stops at 3.61.
    (corrected,) = uncertainty_grid("walker", 1, "corrected").values()
    assert corrected == pytest.approx([0.1 + i * 3.9 / 9 for i in range(10)])
    (published,) = uncertainty_grid("walker", 1, "as_published").values()
    assert published == (0.1, 0.49, 0.88, 1.27, 1.66, 2.05, 2.44, 2.83, 3.22, 3.61)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ant", 2, "corrected"), "unknown robot with uncertainty sets 'ant'"),
        (("hopper", 4, "corrected"), "1, 2 or 3 parameters; got 4"),
        (("hopper", 2, "publishd"), "unknown variant of the grid"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        uncertainty_grid(*arguments)


@pytest.mark.parametrize("task", ROBOTS)
def test_as_published_is_rrlss_robot_to_the_bit(task):
    """RRLS writes body_mass and the sliding friction, and neither inertia nor derived constants."""
    pytest.importorskip("mujoco")
    ours = make_env(EnvSpec(task, "mujoco", bare_mass=True), training=False)
    original = gym.make(find_robot(ours).unwrapped.spec.id)
    model = original.unwrapped.model
    torso, thigh = model.body("torso").id, model.body(2).id
    geoms = slice(None) if task == "cheetah" else slice(0, 1)
    grid = uncertainty_grid(task, 3, "as_published")
    for point in ([grid[name][i] for name in grid] for i in (0, 4, 8)):
        friction = point[0] * (0.4 if task == "cheetah" else 1)
        model.geom_friction[geoms, 0] = friction
        model.body_mass[[torso, thigh]] = point[1:]
        ours.action_space.seed(0)
        options = {"physics": dict(zip(grid, point, strict=True))}
        np.testing.assert_array_equal(
            ours.reset(seed=1, options=options)[0], original.reset(seed=1)[0]
        )
        for _ in range(60):
            action = ours.action_space.sample()
            got, expected = ours.step(action), original.step(action)
            np.testing.assert_array_equal(got[0], expected[0])
            assert got[1:3] == expected[1:3]
            if got[2]:
                break
    ours.close()
    original.close()


@pytest.mark.parametrize("task", ROBOTS)
def test_named_ensembles_draw_from_the_sets(task):
    pytest.importorskip("mujoco")
    env = make_env(EnvSpec(task, "mujoco", ensemble="rrls3"), training=True)
    robots = [env.reset(seed=seed)[1]["physics"] for seed in range(20)]
    for name, one in uncertainty_set(task, 3).items():
        values = [robot[name] for robot in robots]
        assert one.low <= min(values) < 0.4 * one.high < 0.6 * one.high < max(values) <= one.high
    env.close()
