"""A run that was stopped and resumed gives the numbers of one that was not, to the bit."""

import itertools
import json
import shutil
from dataclasses import dataclass, field

import numpy as np
import pytest

from baselines_tf2.common.errors import Interrupted
from baselines_tf2.common.files import read_arrays, read_table
from baselines_tf2.common.replay import Layout
from baselines_tf2.runs.checkpoint import Checkpoints, unpack
from envs import ConfigError
from tests import tiny

slow = pytest.mark.slow


@dataclass
class Share:
    """What one process of a resumed run did and said."""

    progress: tiny.Progress
    told: list[str] = field(default_factory=list)


def resumed(name, folder, settings, stops, *, every=10, eager=True):
    """Runs to the end in processes that are stopped at the given cycles, each counting its own.

    A positive number is Ctrl-C, after which the state is saved; a negative one sudden death.
    """
    shares = []
    for stop in (*stops, None):
        cycles = itertools.count(1)
        share = Share(tiny.Progress(die_at=-stop if stop and stop < 0 else None))
        shares.append(share)
        checkpoints = Checkpoints(
            folder,
            every=every,
            interrupted=lambda cycles=cycles, stop=stop: next(cycles) == stop,
            tell=share.told.append,
        )
        options = {"checkpoints": checkpoints, "progress": share.progress, "eager": eager}
        if stop is None:
            tiny.run(name, folder, settings, **options)
        else:
            with pytest.raises(Interrupted if stop > 0 else KeyboardInterrupt):
                tiny.run(name, folder, settings, **options)
    return shares


def last_state(folder):
    """The latest checkpoint's state but for the clock, and the replay's rows by number."""
    path = max((folder / "checkpoints").glob("step_*.json"))
    state, *rows = (
        read_arrays(path.parent / name) for name in json.loads(path.read_text())["files"]
    )
    replay = {}
    for saved in rows:
        for i in range(len(saved["ends"])):
            fields = (saved[name][i].tobytes() for name in ("packed", "ends"))
            replay[int(saved["start"]) + i] = tuple(fields)
    state = unpack(state)
    for clock in ("elapsed", "since_last"):
        state.get("rows", {}).pop(clock, None)
    return state, replay


def assert_same_state(folder, expected):
    """All that a next cycle would depend on, down to each simulator's state."""
    (got, got_rows), (state, rows) = last_state(folder), expected
    assert json.dumps(got, default=_bits) == json.dumps(state, default=_bits)
    held = sorted(set(rows) & set(got_rows))
    assert max(rows, default=0) == max(got_rows, default=0)
    assert len(held) >= min(len(rows), 40)
    assert all(rows[row] == got_rows[row] for row in held)


def _bits(array):
    return [str(array.dtype), array.shape, array.tobytes().hex()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Runs that were not stopped, each made once: results, and the state at their end."""
    made = {}

    def get(name, overrides, eager):
        key = name, overrides, eager
        if key not in made:
            folder, settings = tmp_path_factory.mktemp(name), tiny.make(name, *overrides)
            # None before the last cycle: nothing is saved while it runs.
            at_the_end = Checkpoints(folder, every=settings.train.num_timesteps)
            tiny.run(name, folder, settings, eager=eager, checkpoints=at_the_end)
            made[key] = tiny.result(folder), last_state(folder)
        return made[key]

    return get


PARAM_NOISE = "agent.noise_type=adaptive-param_0.2"
OVERLAPPED = "train.overlap=true"
MANY = (
    "torso_mass:6,1.5,3,9;friction:1,0.2,0.5,1.5;slope:0,5,-9,9;head_wind:0,2,-5,5;"
    "damping:1,0.2,0.5,1.5;reward_offset:0,1,-2,2"
)
TWO = ("train.num_envs=2", "agent.nb_rollout_steps=10")
KINDS_OF_NOISE = ("env.distractors=2", "env.observation_noise=0.1", "env.action_noise=0.1")

# Experiment, overrides, and the cycles at which the run is stopped: 16 of 5 steps of DDPG's (8 with
# two environments), 20 of 2 of OMD's, of which 18 are random, 10 of the tabular ones.
CASES = {
    "pendulum": ("ddpg_pendulum", (OVERLAPPED,), (2, 5, 1, 4)),
    "killed": ("ddpg_pendulum", (OVERLAPPED,), (3, -5, -5, 4)),
    "in_turns": ("ddpg_pendulum", (), (9,)),
    "parameter_noise": ("ddpg_pendulum", (PARAM_NOISE,), (6, 3, 4)),
    "parameter_noise_overlapped": ("ddpg_pendulum", (PARAM_NOISE, OVERLAPPED), (6, 7)),
    "parameter_noise_of_two": ("ddpg_pendulum", (PARAM_NOISE, *TWO), (4, 2)),
    "ou": ("ddpg_pendulum", ("agent.noise_type=ou_0.3,normal_0.1",), (7, 4)),
    "popart": (
        "ddpg_pendulum",
        ("agent.popart=true", "agent.normalize_returns=true", "agent.normalize_observations=false"),
        (9,),
    ),
    "n_step": ("ddpg_pendulum", ("agent.n_step=3",), (8, 4)),
    "sgd": ("ddpg_pendulum", ("agent.critic_optimizer=sgd", "agent.tau=1.0"), (8,)),
    "no_random_steps": ("ddpg_pendulum", ("train.random_steps=0",), (1, 1, 1)),
    "epopt": (
        "epopt_pendulum",
        ("train.epopt_trajectories=2", "train.epopt_warmup=0.2", "train.epopt_epsilon=0.5"),
        (3, 4, 5),
    ),
    "adapting": (
        "epopt_pendulum",
        ("env.target=mass=1.9", "train.adapt_every=15", "env.distractors=1"),
        (5, 4, 3),
    ),
    "adapting_omd": (
        "omd_cartpole",
        ("env.ensemble=pole_mass:0.1,0.02,0.05,0.2", "env.target=pole_mass=0.3")
        + ("train.adapt_every=15",),
        (9, 5),
    ),
    "same_member": (
        "diffcritic_pendulum",
        ("agent.pairing=same_member", "env.ensemble_size=2", "agent.n_step=2"),
        (5, 6),
    ),
    "centred_by_episode": (
        "ddpg_ensemble_pendulum",
        ("agent.reward_centering=robot", "agent.critic_sees=physics", "agent.n_step=2", OVERLAPPED),
        (3, 4, 5),
    ),
    "remedies": (
        "ddpg_offset_pendulum",
        ("agent.reward_centering=robot", "agent.critic_sees=robot", *TWO),
        (3, 2),
    ),
    "coupled": ("diffcritic_pendulum", ("agent.pairing=coupled", *TWO), (3, 2)),
    "coupled_of_four": (
        "diffcritic_pendulum",
        (
            "agent.pairing=coupled",
            "train.num_envs=4",
            "agent.nb_rollout_steps=20",
            "agent.noise_type=ou_0.3",
        ),
        (2, 1),
    ),
    "noise_and_offset": (
        "ddpg_ensemble_pendulum",
        (*KINDS_OF_NOISE, "env.ensemble=mass:1,0.25,0.5,1.5;reward_offset:0,1,-2,2"),
        (6, 6),
    ),
    "cheetahs": ("diffcritic_cheetah", (), (7, 4)),
    "cheetahs_with_all": (
        "diffcritic_cheetah",
        (
            *KINDS_OF_NOISE,
            "env.ensemble_size=3",
            "agent.pairing=same_member",
            *TWO,
            f"env.ensemble={MANY}",
        ),
        (4, 2),
    ),
    "fixed_robot": ("ddpg_cheetah", ("env.physics=torso_mass=7.5,friction=0.8",), (8,)),
    "hopper": ("ddpg_hopper", (), (6, 5)),
    "walker": ("ddpg_walker", (), (6, 5)),
    "ant": ("ddpg_ant", (), (6, 5)),
    "ants": ("diffcritic_ant", (), (9,)),
    "omd": ("omd_cartpole", (), (5, 14)),
    "mle": ("mle_cartpole", ("agent.prob_model=true",), (18, 1)),
    "vep": ("vep_cartpole", ("env.distractors=2",), (19,)),
    "vaml": ("vaml_cartpole", ("agent.model_steps=2", "agent.greedy=false"), (19,)),
    "qlearning": ("qlearning_cartpole", ("agent.hard=true",), (19,)),
    "omd_cold": ("omd_cartpole", ("agent.no_warm=true",), (19,)),
    "omd_warm": ("omd_cartpole", ("agent.warm_opt=true", "agent.cycle_steps=1"), (37, 2)),
    "omd_cheetah": ("omd_cheetah", (), (7, 12)),
    "mle_hoppers": ("mle_hopper", ("env.ensemble=torso_mass:3.6,0.9,1.8,5.4",), (19,)),
    "tabular_bounds": ("tabular_bounds", (), (3, 4)),
    "tabular_misspecification": ("tabular_misspecification", (), (3, 4)),
    "tabular_ift": ("tabular_ift", (), (3, 4)),
}
QUICK = (
    "adapting", "parameter_noise", "remedies", "cheetahs", "omd", "omd_cheetah", "tabular_ift"
)  # fmt: skip


def check(whole, folder, case, *, stops=None, eager=True):
    name, overrides, usual_stops = CASES[case]
    expected, state = whole(name, overrides, eager)
    settings = tiny.make(name, *overrides)
    shares = resumed(name, folder, settings, stops or usual_stops, eager=eager)
    tiny.assert_same_result(tiny.result(folder), expected)
    assert_same_state(folder, state)
    return shares


@pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=slow) for case in CASES]
)
def test_a_resumed_run_equals_one_that_was_not_stopped(whole, tmp_path, case):
    check(whole, tmp_path, case)


@pytest.mark.parametrize("case", ["cheetahs", "omd", "omd_cheetah", "tabular_ift"])
def test_another_seed_gives_other_numbers(whole, tmp_path, case):
    """In every table, and in weights; that the same one gives the same is told above."""
    name, overrides, _ = CASES[case]
    tiny.run(name, tmp_path, tiny.make(name, *overrides), seed=100)
    first, _ = whole(name, overrides, True)
    assert sorted(first) == tiny.files_of(name)
    tiny.assert_other_numbers(first, tiny.result(tmp_path))


COMPILED = ("parameter_noise", "cheetahs", "omd", "omd_cheetah", "tabular_ift")


class Image(tiny.Progress):
    """Keeps what a power cut in one of the cycles would leave on the disk."""

    def __init__(self, folder, cycle, image):
        super().__init__()
        self._folder, self._cycle, self._image = folder, cycle, image

    def update(self, step, episode_return):
        super().update(step, episode_return)
        if len(self.steps) == self._cycle:
            shutil.copytree(self._folder, self._image)


@pytest.mark.parametrize(
    "case", ["in_turns", *(pytest.param(case, marks=slow) for case in ("pendulum", *COMPILED))]
)
def test_compiled_it_does_too(tmp_path, case):
    """From the image of a run that goes on, so that only two agents are compiled."""
    name, overrides, stops = CASES[case]
    settings, (whole, image) = tiny.make(name, *overrides), (tmp_path / "whole", tmp_path / "image")
    done = sum(map(abs, stops))
    progress = Image(whole, done + 1, image)
    checkpoints = Checkpoints(whole, every=1)
    tiny.run(name, whole, settings, eager=False, checkpoints=checkpoints, progress=progress)
    (share,) = resumed(name, image, settings, (), eager=False)
    assert share.progress.resumed == [progress.steps[done - 1]]
    tiny.assert_same_result(tiny.result(image), tiny.result(whole))
    assert_same_state(image, last_state(whole))


def test_every_step_is_done_once_and_said(whole, tmp_path):
    shares = check(whole, tmp_path, "pendulum", stops=(2, 5, 1, 4))
    assert [share.progress.steps for share in shares] == [
        [5, 10],
        [15, 20, 25, 30, 35],
        [40],
        [45, 50, 55, 60],
        [65, 70, 75, 80],
    ]
    assert [share.progress.resumed for share in shares] == [[], [10], [35], [40], [60]]
    assert [share.told for share in shares] == [
        [] if start is None else [f"going on from step {start}"] for start in (None, 10, 35, 40, 60)
    ]


def test_what_a_killed_process_did_since_its_checkpoint_is_done_again(whole, tmp_path):
    shares = check(whole, tmp_path, "pendulum", stops=(-6, -8))
    # A checkpoint at each multiple of 10, but a process dies before that of its last cycle.
    assert [share.progress.steps[-1] for share in shares] == [30, 60, 80]
    assert [share.progress.resumed for share in shares] == [[], [20], [50]]


def test_a_run_that_was_stopped_in_its_last_cycle_only_ends(whole, tmp_path):
    shares = check(whole, tmp_path, "pendulum", stops=(16,))
    assert shares[1].progress.steps == [] and shares[1].progress.resumed == [80]


def test_no_row_of_the_replay_is_twice_on_disk_but_the_last_at_each_resume(tmp_path):
    settings = tiny.make("ddpg_pendulum", "agent.replay_size=1000")
    resumed("ddpg_pendulum", tmp_path, settings, (5, 6), every=20)
    spans = []
    for path in (tmp_path / "checkpoints").glob("replay_*.npz"):
        saved = read_arrays(path)
        spans.append((int(saved["start"]), int(saved["start"]) + len(saved["ends"])))
    # Due at each 20; stopped at 25 and 55.
    assert sorted(spans) == [(0, 20), (20, 25), (24, 40), (40, 55), (54, 60), (60, 80)]


def test_a_resume_from_a_damaged_checkpoint_goes_one_back(whole, tmp_path):
    name, overrides, _ = CASES["pendulum"]
    expected, state = whole(name, overrides, True)
    settings = tiny.make(name, *overrides)
    with pytest.raises(KeyboardInterrupt):
        checkpoints = Checkpoints(tmp_path, every=10)
        progress = tiny.Progress(die_at=11)
        tiny.run(name, tmp_path, settings, checkpoints=checkpoints, progress=progress)
    path = max((tmp_path / "checkpoints").glob("step_*.npz"))
    path.write_bytes(path.read_bytes()[:-1])
    (share,) = resumed(name, tmp_path, settings, ())
    assert share.progress.resumed == [40] and "step_000000000050 is damaged" in share.told[0]
    tiny.assert_same_result(tiny.result(tmp_path), expected)
    assert_same_state(tmp_path, state)


def test_a_resume_that_fails_leaves_what_there_was(tmp_path):
    name, settings = "ddpg_pendulum", tiny.make("ddpg_pendulum")
    with pytest.raises(Interrupted):
        checkpoints = Checkpoints(tmp_path, interrupted=lambda: True)
        tiny.run(name, tmp_path, settings, checkpoints=checkpoints)
    for path in (tmp_path / "checkpoints").glob("*.npz"):
        path.write_bytes(b"")
    (tmp_path / "weights.npz").write_bytes(b"the last weights")
    with pytest.raises(ConfigError, match="no checkpoint in .* is sound"):
        tiny.run(name, tmp_path, settings, checkpoints=Checkpoints(tmp_path, tell=[].append))
    assert (tmp_path / "weights.npz").read_bytes() == b"the last weights"


def test_pybullet_goes_on_with_the_next_episode_and_says_so(tmp_path):
    settings = tiny.make("ddpg_cheetah", "agent.replay_size=1000", backend="pybullet")
    shares = resumed("ddpg_cheetah", tmp_path, settings, (6,), every=80)
    assert shares[1].told == [
        "going on from step 30",
        "this simulator cannot go on within an episode: the next one begins",
    ]
    assert [step for share in shares for step in share.progress.steps] == list(range(5, 85, 5))
    for table, times in (("metrics.csv", 1), ("eval.csv", 1)):
        steps = [int(row["step"]) for row in read_table(tmp_path / table)]
        assert steps == ([20, 40, 60, 80] if table == "metrics.csv" else [40, 80]) * times
    files = sorted((tmp_path / "checkpoints").glob("replay_*.npz"))
    rows = {}
    for saved in map(read_arrays, files):
        start = int(saved["start"])
        rows |= {
            start + i: (saved["packed"][i, 0], saved["ends"][i, 0])
            for i in range(len(saved["ends"]))
        }
    assert sorted(rows) == list(range(80))
    # Whole episodes of 13 steps but for the third, which was cut after 4.
    assert [row for row in rows if rows[row][1]] == [12, 25, 29, 42, 55, 68]
    layout = Layout(26, 6)
    for row in range(79):
        follows = np.array_equal(rows[row][0][layout.obs1], rows[row + 1][0][layout.obs0])
        assert follows != rows[row][1], row
