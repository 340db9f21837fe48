"""What a checkpoint holds, what damage and full disks do to it, and the tables' way back."""

import copy
import errno
import json
import resource
from contextlib import closing, contextmanager

import numpy as np
import pytest

from baselines_tf2.common import files
from baselines_tf2.common.errors import Interrupted
from baselines_tf2.common.files import read_arrays
from baselines_tf2.common.replay import Replay, Rollout
from baselines_tf2.runs.checkpoint import Checkpoints, pack, unpack
from baselines_tf2.runs.logger import CsvTable, Logger
from envs import ConfigError

RNG = np.random.default_rng


class Stream:
    """Endless transitions of robots that change from episode to episode, as a collector's."""

    def __init__(self, num_envs=1, end=0.15):
        self._rng, self._end, self._num = RNG(0), end, num_envs
        self._members = np.zeros(num_envs, int)

    def take(self, count):
        shape, rng = (count, self._num), self._rng
        ends = rng.random(shape) < self._end
        members = np.empty(shape, int)
        for t in range(count):
            members[t] = self._members
            self._members = np.where(ends[t], rng.integers(4, size=self._num), self._members)
        return Rollout(
            obs0=rng.normal(size=(*shape, 3)),
            actions=rng.normal(size=(*shape, 2)),
            rewards=rng.normal(size=shape),
            obs1=rng.normal(size=(*shape, 3)),
            terminals1=ends & (rng.random(shape) < 0.3),
            ends=ends,
            members=members,
        )


def make_replay(**options):
    return Replay(3, 2, **({"capacity": 1000, "gamma": 0.9, "absorbing_fraction": 0.2} | options))


def save(checkpoints, step, replay):
    checkpoints.save(step, {"step": step, "replay": replay.get_state()}, replay)


def load(folder, told=None, **options):
    """The step of the checkpoint that a new process goes on from, and its replay."""
    replay = make_replay(**options)
    state = Checkpoints(folder, tell=[].append if told is None else told.append).load(replay)
    replay.set_state(state["replay"])
    return state["step"], replay


def samples(replay, paired):
    return [
        replay.sample_many(RNG(1), 3, 16, paired=paired),
        replay.sample_members(RNG(2), 3, 8, paired=paired, window=10_000),
    ]


def assert_same_samples(one, other, paired):
    assert len(one) == len(other)
    for x, y in zip(samples(one, paired), samples(other, paired), strict=True):
        np.testing.assert_array_equal(x, y)


def names(folder, pattern="*"):
    return sorted(path.name for path in (folder / "checkpoints").glob(pattern))


def steps(folder):
    return [int(name[5:17]) for name in names(folder, "step_*.json")]


# States -----------------------------------------------------------------------------------------


def assert_same_tree(got, expected):
    if isinstance(expected, np.ndarray):
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected, strict=True)
    elif isinstance(expected, dict):
        assert list(got) == list(expected)
        for name, value in expected.items():
            assert_same_tree(got[name], value)
    elif isinstance(expected, list | tuple):
        assert isinstance(got, list) and len(got) == len(expected)
        for pair in zip(got, expected, strict=True):
            assert_same_tree(*pair)
    elif isinstance(expected, float) and np.isnan(expected):
        assert np.isnan(got)
    else:
        assert type(got) is type(expected) and got == expected


TREE = {
    "none": None,
    "texts": ["", "a", "ü\n"],
    "truths": (True, False),
    "whole": [0, -1, 2**127 + 1],
    "floats": [0.1, 1e-320, -0.0, float("inf"), float("nan")],
    "empty": [{}, [], np.zeros((0, 4)), np.zeros(0, np.float32)],
    "arrays": {
        "32": np.array([0.1, np.nan, np.inf], np.float32),
        "64": np.array([[0.1], [1e-320]]),
        "scalar": np.array(7, np.int64),
        "bool": np.array([True, False]),
        "array": np.array([1, 2], np.int32),
    },
    "table": {"table": {"array": "no array"}, "array": "array_0"},
    "tree": {"tree": [[[None]]]},
    "rng": RNG(3).bit_generator.state,
}


def test_a_tree_of_states_comes_back(tmp_path):
    assert_same_tree(unpack(pack(TREE)), TREE)
    Checkpoints(tmp_path).save(1, TREE)
    assert_same_tree(Checkpoints(tmp_path).load(), TREE)


def test_a_random_stream_goes_on_from_its_state(tmp_path):
    rng, other = RNG(5), RNG(6)
    rng.integers(7, size=3, dtype=np.int32)  # leaves half a draw in the generator
    Checkpoints(tmp_path).save(1, {"rng": rng.bit_generator.state})
    other.bit_generator.state = Checkpoints(tmp_path).load()["rng"]
    np.testing.assert_array_equal(rng.integers(9, size=5), other.integers(9, size=5))
    np.testing.assert_array_equal(rng.normal(size=5), other.normal(size=5))


def test_what_numpy_cannot_save_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        Checkpoints(tmp_path).save(1, {"x": object()})
    assert names(tmp_path) == []


# When, and how many -----------------------------------------------------------------------------


def test_a_checkpoint_is_due_each_time_a_multiple_is_passed(tmp_path):
    checkpoints = Checkpoints(tmp_path, every=100, keep=100)
    assert not checkpoints.exist()
    for step in (40, 99, 100, 160, 201, 290, 520, 599):
        checkpoints.after_cycle(step, lambda s=step: {"step": s})
    assert steps(tmp_path) == [100, 201, 520]
    assert checkpoints.exist()


def test_the_count_goes_on_after_a_load(tmp_path):
    Checkpoints(tmp_path).save(230, {})
    checkpoints = Checkpoints(tmp_path, every=100, keep=100)
    assert checkpoints.load() == {}
    for step in (240, 299, 301):
        checkpoints.after_cycle(step, dict)
    assert steps(tmp_path) == [230, 301]


def test_a_state_is_taken_only_when_it_is_saved(tmp_path):
    def state():
        raise AssertionError

    Checkpoints(tmp_path, every=100).after_cycle(99, state)


def test_only_the_latest_are_kept(tmp_path):
    checkpoints, replay, stream = Checkpoints(tmp_path, keep=3), make_replay(), Stream()
    for step in range(1, 7):
        replay.add(stream.take(5))
        save(checkpoints, step, replay)
        assert steps(tmp_path) == list(range(1, step + 1))[-3:]
        assert len(names(tmp_path, "step_*.npz")) == min(step, 3)
        assert len(names(tmp_path)) == 2 * min(step, 3) + step  # rows' files stay


def test_an_interrupted_run_is_saved_first(tmp_path):
    answers, replay = iter([False, True]), make_replay()
    replay.add(Stream().take(4))
    checkpoints = Checkpoints(tmp_path, interrupted=lambda: next(answers))

    def state():
        return {"step": 2, "replay": replay.get_state()}

    checkpoints.after_cycle(1, state, replay)
    assert steps(tmp_path) == []
    with pytest.raises(Interrupted, match="interrupted at step 2: --resume goes on from there"):
        checkpoints.after_cycle(2, state, replay)
    step, other = load(tmp_path)
    assert step == 2
    assert_same_samples(replay, other, paired=False)


@pytest.mark.parametrize("option", [{"every": 0}, {"keep": 0}])
def test_impossible_numbers_are_refused(tmp_path, option):
    with pytest.raises(ConfigError, match="must be at least 1, not 0"):
        Checkpoints(tmp_path, **option)


def test_nothing_is_left_of_a_finished_runs_checkpoints(tmp_path):
    checkpoints, replay = Checkpoints(tmp_path), make_replay()
    checkpoints.remove()  # nothing there
    replay.add(Stream().take(4))
    for step in (1, 2):
        save(checkpoints, step, replay)
    checkpoints.remove()
    assert list(tmp_path.iterdir()) == []
    assert Checkpoints(tmp_path).load() is None


def test_a_file_of_the_users_own_does_not_stop_a_finished_run(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {})
    (tmp_path / "checkpoints" / "notes.txt").write_text("mine")
    checkpoints.remove()
    assert names(tmp_path) == ["notes.txt"]


# The replay -------------------------------------------------------------------------------------


def stored_rows(folder):
    """(first row, row after the last) of each file of rows, as its arrays say."""
    spans = []
    for name in names(folder, "replay_*"):
        saved = read_arrays(folder / "checkpoints" / name)
        assert len(saved["packed"]) == len(saved["ends"])
        spans.append((int(saved["start"]), int(saved["start"]) + len(saved["ends"])))
    return sorted(spans)


def test_a_row_is_on_disk_once_and_every_kept_checkpoint_has_its_own(tmp_path):
    checkpoints, replay, stream = Checkpoints(tmp_path, keep=4), make_replay(), Stream()
    expected = {}
    for step in range(1, 5):
        replay.add(stream.take(200))
        save(checkpoints, step, replay)
        expected[step] = copy.deepcopy(replay)
    assert stored_rows(tmp_path) == [(0, 200), (200, 400), (400, 600), (600, 800)]
    size = sum(path.stat().st_size for path in (tmp_path / "checkpoints").glob("replay_*"))
    row = replay.layout.width * 4 + 1  # [bytes] packed in float32, end
    assert 800 * row <= size < 800 * row + 4 * 2000
    for step in (4, 3, 2, 1):
        found, other = load(tmp_path)
        assert found == step
        assert_same_samples(expected[step], other, paired=False)
        (tmp_path / "checkpoints" / f"step_{step:012d}.json").unlink()


def test_nothing_new_writes_no_rows(tmp_path):
    checkpoints, replay = Checkpoints(tmp_path), make_replay()
    save(checkpoints, 1, replay)
    assert stored_rows(tmp_path) == []
    assert len(load(tmp_path)[1]) == 0
    replay.add(Stream().take(4))
    for step in (2, 3):
        save(checkpoints, step, replay)
    assert stored_rows(tmp_path) == [(0, 4)]


def test_a_resumed_run_repeats_no_row_but_the_last(tmp_path):
    """Which a simulator that cannot go on turns into an episode's end."""
    replay, stream = make_replay(), Stream()
    replay.add(stream.take(50))
    save(Checkpoints(tmp_path), 1, replay)
    for step in (2, 3, 4):
        checkpoints, replay = Checkpoints(tmp_path), make_replay()
        replay.set_state(checkpoints.load(replay)["replay"])
        replay.end_episodes()
        replay.add(stream.take(10 * (step < 4)))  # the last one stops at once
        save(checkpoints, step, replay)
        assert_same_samples(load(tmp_path)[1], replay, paired=False)
    assert stored_rows(tmp_path) == [(0, 50), (49, 60), (59, 70), (69, 70)]


def test_rows_that_the_ring_forgot_leave_the_disk(tmp_path):
    checkpoints, replay = Checkpoints(tmp_path, keep=2), make_replay(capacity=100)
    stream = Stream()
    for step in range(1, 11):
        replay.add(stream.take(40))
        save(checkpoints, step, replay)
    assert replay.first_row == 300
    # What the checkpoint before needs, of rows 260 to 360, stays too.
    assert stored_rows(tmp_path) == [(240, 280), (280, 320), (320, 360), (360, 400)]


KINDS = [
    pytest.param({}, False, id="values"),
    pytest.param({"n_step": 3}, False, id="n_step"),
    pytest.param({"n_step": 30}, False, id="long_windows"),
    pytest.param({"n_step": 3}, True, id="pairs"),
    pytest.param({"pairing": "same_member", "n_step": 2}, True, id="same_member"),
    pytest.param({"pairing": "same_member", "num_envs": 2}, True, id="same_member_of_two"),
    pytest.param({"pairing": "coupled", "num_envs": 4}, True, id="coupled"),
    pytest.param({"dtype": "float64", "num_envs": 3}, False, id="float64"),
]


@pytest.mark.parametrize("options, paired", KINDS)
def test_a_loaded_replay_gives_the_same_samples_ever_after(tmp_path, options, paired):
    num_envs = options.get("num_envs", 1)
    options = {"capacity": 40 * num_envs} | options  # 40 rows
    checkpoints, stream = Checkpoints(tmp_path), Stream(num_envs)
    replay, resumed = make_replay(**options), []
    # Within the ring, over its seam, several whole rings at once, and a single row.
    for step, counts in enumerate([(7,), (30,), (25, 40, 38), (3,), (1,), (40,)], 1):
        for count in counts:
            new = stream.take(count)
            for one in (replay, *resumed):
                one.add(new)
        save(checkpoints, step, replay)
        found, other = load(tmp_path, **options)
        assert found == step
        resumed.append(other)
        for other in resumed:
            assert_same_samples(replay, other, paired)
            assert (other.first_row, other.next_row) == (replay.first_row, replay.next_row)
            assert other.absorbing_reachable == replay.absorbing_reachable


def cut_replay(tmp_path, **options):
    """Eight rows of an endless episode, the first five before a resume; loaded once more."""
    stream, replay = Stream(options.get("num_envs", 1), end=0), make_replay(**options)
    replay.add(stream.take(5))
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1, replay)
    checkpoints, replay = Checkpoints(tmp_path), make_replay(**options)
    replay.set_state(checkpoints.load(replay)["replay"])
    replay.end_episodes()
    new = stream.take(3)
    replay.add(new._replace(members=new.members + 7))
    save(checkpoints, 2, replay)
    return replay, load(tmp_path, **options)[1]


def test_after_a_cut_windows_end_there(tmp_path):
    for replay in cut_replay(tmp_path, n_step=3, gamma=0.5):
        rows = np.arange(8)
        windows = replay.layout.unpack(replay.gather(rows, 0 * rows))
        lengths = np.round(np.log(np.asarray(windows.discounts)) / np.log(0.5)).astype(int)
        np.testing.assert_array_equal(lengths, [3, 3, 3, 2, 1, 3, 2, 1])
        assert not np.any(windows.terminals1)
        single = make_replay()
        single.put_rows(replay.get_rows(0))
        single = single.layout.unpack(single.gather(rows, 0 * rows))
        ends = [2, 3, 4, 4, 4, 7, 7, 7]
        np.testing.assert_array_equal(windows.obs1, np.asarray(single.obs1)[ends])
        assert replay.absorbing_reachable  # windows are of unequal length


@pytest.mark.parametrize("num_envs", [1, 2])
def test_after_a_cut_the_next_robot_has_its_own_rows(tmp_path, num_envs):
    for replay in cut_replay(tmp_path, pairing="same_member", num_envs=num_envs):
        obs = {}
        for row in range(8):
            for column in range(num_envs):
                at = np.array([row]), np.array([column])
                obs[tuple(replay.gather(*at)[0, :3])] = row
        first, second = np.split(replay.sample_many(RNG(0), 10, 200, paired=True)[..., :3], 2, 1)
        pairs = {
            (obs[tuple(x)], obs[tuple(y)])
            for x, y in zip(first.reshape(-1, 3), second.reshape(-1, 3), strict=True)
        }
        same = {(i, j) for i in range(8) for j in range(8) if (i < 5) == (j < 5)}
        assert pairs == same


def test_cutting_an_episode_that_has_ended_changes_nothing():
    for options in ({"n_step": 2}, {"pairing": "same_member"}):
        replay, cut = make_replay(**options), make_replay(**options)
        cut.end_episodes()  # nothing stored yet
        new = Stream().take(30)
        new.ends[-1] = True
        for one in (replay, cut):
            one.add(new)
        cut.end_episodes()
        cut.end_episodes()
        assert_same_samples(replay, cut, paired="pairing" in options)
        assert replay.absorbing_reachable == cut.absorbing_reachable


# Damage -----------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path):
    """A folder with two checkpoints, and the names of the files that only the newer one needs."""
    checkpoints, replay, stream = Checkpoints(tmp_path), make_replay(), Stream()
    replays = {}
    for step in (1, 2):
        replay.add(stream.take(6))
        save(checkpoints, step, replay)
        replays[step] = copy.deepcopy(replay)
    shared = json.loads((tmp_path / "checkpoints" / "step_000000000001.json").read_text())["files"]
    own = [x for x in names(tmp_path) if x not in shared and x != "step_000000000001.json"]
    assert len(own) == 3 and len(shared) == 2
    return tmp_path, replays, own, list(shared)


def damages(data):
    yield "empty", b""
    for length in (1, len(data) // 2, len(data) - 2):  # a manifest ends with a new line
        yield f"{length} bytes", data[:length]
    yield "zeros", bytes(len(data))
    yield "another file", b"x" * len(data)
    yield "longer", data + b"\0"
    for position in {0, 1, *np.linspace(0, len(data) - 1, 25).astype(int)}:
        yield f"bit at {position}", flipped(data, position, position % 8)


def flipped(data, position, bit):
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    return bytes(changed)


def assert_falls_back(folder, replays, backup):
    """A new process takes the first checkpoint, says so, and can go on from it."""
    told = []
    step, replay = load(folder, told)
    assert step == 1
    assert_same_samples(replay, replays[1], paired=False)
    assert len(told) == 1 and "\n" not in told[0]
    assert told[0].startswith("warning: checkpoint step_000000000002 is damaged, trying the one")
    assert steps(folder) == [1]
    for name, data in backup.items():
        (folder / "checkpoints" / name).write_bytes(data)


@pytest.mark.parametrize("kind", ["manifest", "state", "rows", "missing"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(two, kind):
    folder, replays, own, _ = two
    path = {x: folder / "checkpoints" / x for x in own}
    backup = {x: path[x].read_bytes() for x in own}
    if kind == "missing":
        for name in own:
            path[name].unlink()
            if name.endswith(".json"):
                assert load(folder)[0] == 1  # and nothing is wrong
                for other, data in backup.items():
                    path[other].write_bytes(data)
            else:
                assert_falls_back(folder, replays, backup)
        return
    (name,) = (
        x
        for x in own
        if {"manifest": ".json", "state": "step_", "rows": "replay_"}[kind] in x
        and x.endswith(".json") == (kind == "manifest")
    )
    for _, data in damages(backup[name]):
        path[name].write_bytes(data)
        assert_falls_back(folder, replays, backup)


def test_no_flipped_bit_goes_unseen(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, {"x": np.array(0.1)})
    for name in ("step_000000000002.json", "step_000000000002.npz"):
        path = tmp_path / "checkpoints" / name
        backup = {x: (path.parent / x).read_bytes() for x in names(tmp_path, "step_*2.*")}
        for position in range(len(backup[name])):
            path.write_bytes(flipped(backup[name], position, position % 8))
            told = []
            Checkpoints(tmp_path, tell=told.append).load()
            assert len(told) == 1 and steps(tmp_path) == [1], position
            for other, data in backup.items():
                (path.parent / other).write_bytes(data)


def test_if_no_checkpoint_is_sound_that_is_an_error(two):
    folder, _, _, shared = two
    rows = next(name for name in shared if name.startswith("replay"))
    (folder / "checkpoints" / rows).write_bytes(b"")
    before, told = names(folder), []
    with pytest.raises(ConfigError, match="no checkpoint in .* is sound: start again with"):
        load(folder, told)
    assert len(told) == 2 and all(rows in text for text in told)
    assert names(folder) == before  # nothing is removed: someone may still rescue it


@pytest.mark.parametrize(
    "manifest",
    ["[]", "1", "null", "{}", '{"step": 2}', '{"step": 2, "files": {}}', '{"step": 2, "files": 3}',
     '{"step": [], "files": {}}', '{"step": 2, "files": {"step_000000000002.npz": 1}}',
     '{"step": 2, "files": ["step_000000000002.npz"]}', '{"step": 1e999, "files": {}}'],
)  # fmt: skip
def test_a_manifest_of_another_shape_is_damage_too(two, manifest):
    folder, replays, _, _ = two
    (folder / "checkpoints" / "step_000000000002.json").write_text(manifest)
    assert_falls_back(folder, replays, {})


def test_a_damaged_older_checkpoint_is_no_matter(two):
    folder, replays, _, _ = two
    (folder / "checkpoints" / "step_000000000001.json").write_text("{")
    told = []
    step, replay = load(folder, told)
    assert step == 2 and told == []
    assert_same_samples(replay, replays[2], paired=False)


def test_a_run_goes_on_from_the_one_before(two):
    folder, replays, own, _ = two
    (folder / "checkpoints" / next(x for x in own if x.startswith("replay"))).unlink()
    checkpoints, replay = Checkpoints(folder, tell=[].append), make_replay()
    replay.set_state(checkpoints.load(replay)["replay"])
    new = Stream(end=0.5).take(9)
    replay.add(new)
    save(checkpoints, 2, replay)  # the same step as the damaged one
    replays[1].add(new)
    step, other = load(folder)
    assert step == 2
    assert_same_samples(other, replays[1], paired=False)


def test_what_a_killed_process_left_is_removed(two):
    folder, _, _, _ = two
    sound = names(folder)
    for name in (".step_000000000003.npz.77.partial", "step_000000000003.npz", "replay_9_12.npz"):
        (folder / "checkpoints" / name).write_bytes(b"half")
    step, _ = load(folder)
    assert step == 2 and names(folder) == sound


def failing_at(monkeypatch, wanted):
    """The disk is full in the middle of the wanted-th file from now on."""
    real, calls = files.write_atomically, []

    def write(path, action):
        calls.append(path)

        def half(file):
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

        real(path, half if len(calls) == wanted else action)

    monkeypatch.setattr(files, "write_atomically", write)
    return calls


@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_a_full_disk_leaves_the_former_checkpoint(two, monkeypatch, wanted):
    folder, replays, _, _ = two
    checkpoints, replay = Checkpoints(folder), make_replay()
    replay.set_state(checkpoints.load(replay)["replay"])
    replay.add(Stream().take(5))
    with monkeypatch.context() as patch:
        calls = failing_at(patch, wanted)
        with pytest.raises(OSError, match="No space left on device"):
            save(checkpoints, 3, replay)
        assert len(calls) == wanted
    assert names(folder, ".*") == []
    step, other = load(folder)  # as the next process does, which tidies up
    assert step == 2
    assert_same_samples(other, replays[2], paired=False)


@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_after_a_full_disk_the_same_process_can_save_again(two, monkeypatch, wanted):
    folder, _, _, _ = two
    checkpoints, replay = Checkpoints(folder), make_replay()
    replay.set_state(checkpoints.load(replay)["replay"])
    stream = Stream()
    replay.add(stream.take(5))
    with monkeypatch.context() as patch:
        failing_at(patch, wanted)
        with pytest.raises(OSError):
            save(checkpoints, 3, replay)
    replay.add(stream.take(5))
    save(checkpoints, 4, replay)
    step, other = load(folder)
    assert step == 4
    assert_same_samples(other, replay, paired=False)


# Tables -----------------------------------------------------------------------------------------


def fill(table, first, last):
    """Rows of a log; from the 4th on with a column that the first ones lack."""
    for step in range(first, last + 1):
        late = {"train/late": step / 3} if step >= 4 else {}
        table.append([{"step": step, "return": step / 7, "text": 'a,"b"', **late}])


@pytest.mark.parametrize("kept", [0, 1, 3, 4, 6])
def test_rows_and_columns_after_the_checkpoint_come_back_identically(tmp_path, kept):
    path = tmp_path / "t.csv"
    table = CsvTable(path)
    fill(table, 1, kept)
    state = json.loads(json.dumps(table.get_state()))
    before = path.read_text() if kept else None
    fill(table, kept + 1, 6)
    whole = path.read_text()
    path.write_text(whole + "7,0.")  # a line that a power cut halved
    resumed = CsvTable(path)
    resumed.set_state(state)
    assert (path.read_text() if path.exists() else None) == before
    fill(resumed, kept + 1, 6)
    assert path.read_text() == whole
    assert resumed.get_state() == table.get_state()


@pytest.mark.parametrize("left", [None, "", "step,return,text\n", 'step,return,text\n1,0.1,"a\n'])
def test_a_table_that_lost_rows_is_an_error(tmp_path, left):
    path = tmp_path / "t.csv"
    table = CsvTable(path)
    fill(table, 1, 3)
    state = table.get_state()
    path.unlink()
    if left is not None:
        path.write_text(left)
    with pytest.raises(ConfigError, match="t.csv lacks rows or is damaged"):
        CsvTable(path).set_state(state)


def test_a_logger_that_lost_a_table_says_so_as_it_is_closed(tmp_path):
    with closing(Logger(tmp_path)) as logger:
        logger.log(1, {"train/x": 1.0})
        state = logger.get_state()
    (tmp_path / "metrics.csv").unlink()
    with pytest.raises(ConfigError, match="lacks rows"), closing(Logger(tmp_path)) as resumed:
        resumed.set_state(state)


@contextmanager
def largest_file(size):
    """What the system lets a file of this process grow to, in bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 1, 5])  # [bytes]
def test_a_failed_append_leaves_no_half_line(tmp_path, room):
    path = tmp_path / "t.csv"
    table = CsvTable(path)
    fill(table, 1, 2)
    before = path.read_text()
    with largest_file(len(before.encode()) + room), pytest.raises(OSError):
        fill(table, 3, 3)
    assert path.read_text() == before
    assert table.get_state()["count"] == 2
    fill(table, 3, 3)
    assert len(path.read_text().splitlines()) == 4
