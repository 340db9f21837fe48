"""Statistics of returns against arithmetic by hand."""

from baselines_tf2.common.rollout import Episode
from baselines_tf2.runs.judging import describe, percentiles, summarise, sweep_of, verdict


def test_percentiles_by_hand():
    assert percentiles(range(11)).tolist() == [1, 5, 9]


def test_the_worst_tenth_by_hand():
    returns = [float(x) for x in range(30)][::-1]
    worst = {1.0: returns, 0.0: returns[-19:], 3.0: [5.0, 3.0]}  # of 0, 1 and 2; of 19 one
    for mean, some in worst.items():
        assert describe("r", [{}] * len(some), some)["r_cvar10"] == mean


def test_the_worst_robot_is_the_one_of_the_lowest_mean():
    robots = [{"mass": 1.0}, {"mass": 2.0}] * 2
    # Means (9 + 1) / 2 = 5 and (4 + 2) / 2 = 3; the worst episode is the other one's.
    out = describe("r", robots, [9.0, 4.0, 1.0, 2.0])
    assert (out["r"], out["r_worst_robot"], out["r_cvar10"], out["r_p50"]) == (4.0, 3.0, 1.0, 3.0)
    assert "r_worst_robot" not in describe("r", [{}, {}], [1.0, 2.0])


def test_inside_and_outside_apart():
    ranges = {"mass": (1.0, 2.0), "friction": (0.5, 1.0)}
    returns = {(1.0, 1.0): (4.0, 6.0), (2.0, 0.5): (1.0, 2.0), (2.0, 1.1): (-8.0, 0.0),
               (3.0, 1.0): (-1.0, -9.0)}  # fmt: skip
    episodes = [
        Episode(one, 7, {"mass": mass, "friction": friction})
        for (mass, friction), both in returns.items()
        for one in both
    ]
    out = summarise(episodes, ranges)
    assert out["return_mean"] == -5 / 8 and out["length_mean"] == 7
    assert (out["return_inside"], out["return_outside"]) == (13 / 4, -18 / 4)
    assert (out["return_inside_worst_robot"], out["return_outside_worst_robot"]) == (1.5, -5.0)
    assert (out["return_inside_cvar10"], out["return_outside_cvar10"]) == (1.0, -9.0)
    # Inside 1, 2, 4, 6: 10 % of the way is 1 + 0.3, 50 % 3, 90 % 4 + 0.7 * 2.
    for percent, value in ((10, 1.3), (50, 3.0), (90, 5.4)):
        assert abs(out[f"return_inside_p{percent}"] - value) < 1e-12
    assert verdict(out, ranges, "8 episodes") == {
        "return": "-0.6 mean, percentiles 10, 50, 90: -8.3, 0.5, 4.6, worst tenth -9.0, "
        "worst robot -5.0; 8 episodes",
        "inside": "3.2 mean, percentiles 10, 50, 90: 1.3, 3.0, 5.4, worst tenth 1.0, "
        "worst robot 1.5; inside of mass 1 to 2, friction 0.5 to 1",
        "outside": "-4.5 mean, percentiles 10, 50, 90: -8.7, -4.5, -0.3, worst tenth -9.0, "
        "worst robot -5.0; outside of mass 1 to 2, friction 0.5 to 1",
    }


def test_without_varied_robots_there_is_no_inside():
    out = summarise([Episode(1.0, 5, {"mass": 2.0})], {})
    assert set(out) == {f"return_{x}" for x in ("mean", "p10", "p50", "p90", "cvar10")} | {
        "length_mean"
    }


def rows_of(*robots):
    names = ("physics/mass", "physics/slope")
    return [
        dict(zip(names, robot, strict=False)) | {"return": str(i)} for i, robot in enumerate(robots)
    ]


def test_a_sweep_holds_the_other_parameter_where_most_episodes_have_it():
    rows = rows_of((1, 0.0), (2, 1e-17), (3, 0.0), (2, -4), (2, 4), (1, 0.0))
    assert sweep_of(rows, "physics/mass") == {1: [0.0, 5.0], 2: [1.0], 3: [2.0]}
    assert sweep_of(rows, "physics/slope") == {-4: [3.0], 0: [1.0], 4: [4.0]}


def test_where_robots_were_drawn_every_episode_counts():
    rows = rows_of(("1", "0.3"), ("1", "0.7"), ("2", "0.1"))
    assert sweep_of(rows, "physics/mass") == {1: [0.0, 1.0], 2: [2.0]}
    assert sweep_of([{"return": "1", "physics/mass": ""}], "physics/mass") == {}
