"""Replay of whole transitions in one ring of rows, sampled singly, in pairs or in n-step windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from baselines_tf2.common.state import Stateful
from envs.errors import ConfigError, check_known

if TYPE_CHECKING:  # processes that only act do without it
    import tensorflow as tf

PAIRINGS = ("independent", "same_member", "coupled")


class Batch(NamedTuple):
    """Transitions as the updates see them; a pair is the rows i and i + B/2 of one batch."""

    obs0: tf.Tensor  # [B, O]
    actions: tf.Tensor  # [B, A], in [-1, 1]
    rewards: tf.Tensor  # [B], the discounted sum over the window if n_step > 1
    obs1: tf.Tensor  # [B, O], where the window ends
    terminals1: tf.Tensor  # [B], 1 at a true terminal; a time limit is none
    discounts: tf.Tensor  # [B], gamma ** (length of the window)
    absorbing0: tf.Tensor  # [B], 1 where the row stands for the absorbing state itself
    robots: tf.Tensor | None = None  # [B, F], what the critic alone sees of the robot


class Layout:
    """Where each field of a Batch lies in a packed row, so that one gather moves a whole batch.

    A row has two halves of one width, where a window starts and where it ends, so that one gather
    can take them from two rows; the narrower one is padded. `robot_dim` numbers on its robot may
    follow it.
    """

    def __init__(self, obs_dim: int, action_dim: int, robot_dim: int = 0):
        self.obs_dim, after = obs_dim, obs_dim + action_dim
        self.half = obs_dim + max(action_dim + 2, 3)
        self.width = 2 * self.half + robot_dim
        self.obs0 = slice(0, obs_dim)
        self.actions = slice(obs_dim, after)
        self.rewards, self.members = after, after + 1  # the robot's number
        self.obs1 = slice(self.half, self.half + obs_dim)
        self.terminals1, self.discounts, self.absorbing0 = range(self.obs1.stop, self.obs1.stop + 3)
        self.robots = slice(2 * self.half, self.width)
        self._fields = Batch._fields if robot_dim else Batch._fields[:-1]

    def unpack(self, packed: tf.Tensor) -> Batch:
        """Splits packed rows, [..., W], into a Batch."""
        return Batch(*(packed[..., getattr(self, field)] for field in self._fields))


class Rollout(NamedTuple):
    """T steps of N environments, in the order they happened."""

    obs0: np.ndarray  # [T, N, O]
    actions: np.ndarray  # [T, N, A]
    rewards: np.ndarray  # [T, N]
    obs1: np.ndarray  # [T, N, O], the state before any reset
    terminals1: np.ndarray  # [T, N] bool
    ends: np.ndarray  # [T, N] bool: terminal or cut by a time limit
    members: np.ndarray  # [T, N] int: which robot of the ensemble


class Replay(Stateful):
    """A ring of `capacity` transitions of `num_envs` environments, allocated once.

    The ring has a column per environment, so that row r + 1 follows row r in time, and the columns
    2i and 2i + 1 hold the twins of coupled rollouts at the same time index.
    """

    STATE = ("_any_terminal",)  # beside the rows

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        *,
        capacity: int,
        gamma: float,
        num_envs: int = 1,
        n_step: int = 1,
        pairing: str = "independent",
        absorbing_fraction: float = 0.0,
        dtype: str = "float32",
    ):
        check_known("pairing", pairing, PAIRINGS)
        if pairing == "coupled" and num_envs % 2:
            raise ConfigError(f"coupled pairing needs an even number of environments: {num_envs}")
        self.layout = Layout(obs_dim, action_dim)
        self.gamma, self.n_step, self.num_envs = gamma, n_step, num_envs
        self.pairing, self.absorbing_fraction = pairing, absorbing_fraction
        self._num_rows = max(capacity // num_envs, 1)
        shape = (self._num_rows, num_envs)
        self._packed = np.zeros((*shape, self.layout.width), dtype)  # pages come as they fill
        self._ends = np.zeros(shape, bool)
        self._stretches = _Stretches()
        self._windows = _Windows(shape, n_step, gamma, dtype) if n_step > 1 else None
        self.next_row = 0  # counts on past the capacity; row r lies at r % num_rows
        self._any_terminal = False

    def __len__(self) -> int:
        """Transitions held."""
        return (self.next_row - self.first_row) * self.num_envs

    @property
    def first_row(self) -> int:
        """The oldest row held."""
        return max(self.next_row - self._num_rows, 0)

    def add(self, new: Rollout) -> None:
        """Stores T rows, T at most the ring's, over the oldest ones."""
        rows = np.arange(self.next_row, self.next_row + len(new.rewards))
        at, layout = rows % self._num_rows, self.layout
        packed = np.zeros((*new.rewards.shape, layout.width), self._packed.dtype)
        for name in ("obs0", "actions", "rewards", "obs1", "terminals1", "members"):
            packed[..., getattr(layout, name)] = getattr(new, name)
        packed[..., layout.discounts] = self.gamma
        self._packed[at], self._ends[at] = packed, new.ends
        self.next_row += len(rows)
        self._any_terminal |= bool(new.terminals1.any())
        if self.pairing == "same_member":
            self._stretches.add(self.first_row, int(rows[0]), new.members)

    def end_episodes(self) -> None:
        """Cuts the running episodes where they are, as a time limit would."""
        if self.next_row:
            self._ends[(self.next_row - 1) % self._num_rows] = True

    def get_rows(self, start: int) -> dict[str, np.ndarray]:
        """The rows from number `start` on, as far as they are held: what a checkpoint adds."""
        start = max(start, self.first_row)
        at = np.arange(start, self.next_row) % self._num_rows
        return {"start": np.array(start), "packed": self._packed[at], "ends": self._ends[at]}

    def put_rows(self, saved: Mapping[str, np.ndarray]) -> None:
        """Puts back what `get_rows` gave; files of rows are put back in their order."""
        stop = int(saved["start"]) + len(saved["ends"])
        at = np.arange(int(saved["start"]), stop) % self._num_rows
        self._packed[at], self._ends[at] = saved["packed"], saved["ends"]
        self.next_row = stop
        if self.pairing == "same_member":
            self._stretches.add(self.first_row, int(saved["start"]), self._members[at].astype(int))
        if self._windows is not None:
            self._windows.changed_from = 0

    def sample_many(
        self,
        rng: np.random.Generator,
        num_batches: int,
        batch_size: int,
        *,
        paired: bool = False,
        distinct: bool = False,
    ) -> np.ndarray:
        """Draws packed batches, [num_batches, batch_size, W]; pairs are rows i and i + B/2.

        distinct: without `paired` no transition comes twice in a batch, if there are enough.
        """
        shape = (num_batches, batch_size)
        at = self._sample_pairs(rng, shape) if paired else self._sample(rng, shape, distinct)
        packed = self.gather(*at)
        if paired and self.absorbing_reachable:
            self._replace_by_absorbing(rng, packed)
        return packed

    def sample_members(
        self,
        rng: np.random.Generator,
        num_groups: int,
        group_size: int,
        *,
        paired: bool,
        window: int,
    ) -> np.ndarray:
        """Draws groups within which every row, or every pair, comes from the same robot(s).

        Returns one batch, [num_groups * group_size, W], group by group; with `paired` each half of
        it, so that rows i and i + B/2 are pairs, whose two robots are one or two as the pairing has
        it. Only the latest `window` transitions are drawn from, so that robots are not told apart
        by when they were met.
        """
        held = max(min(window // self.num_envs, self.next_row - self.first_row), 1)
        rows = np.arange(self.next_row - held, self.next_row)
        members = self._members[rows % self._num_rows]  # [held, N]
        size = group_size // (1 + paired)
        # Rows and columns of the groups, and of what is paired with them.
        firsts: list[tuple] = []
        seconds: list[tuple] = []
        for _ in range(num_groups):
            robots = rng.choice(members.ravel(), 1 + (paired and self.pairing == "independent"))
            if paired and self.pairing == "same_member":
                robots = robots.repeat(2)
            for side, robot in zip((firsts, seconds), robots, strict=False):
                at, columns = np.nonzero(members == robot)
                picks = rng.integers(len(at), size=size)
                side.append((rows[at[picks]], columns[picks]))
            if paired and self.pairing == "coupled":
                at, columns = firsts[-1]
                seconds.append((at, columns ^ 1))
        return self.gather(*np.hstack([*firsts, *seconds]))

    def gather(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The packed windows that start at these rows and columns, [..., W]."""
        layout, slots = self.layout, rows % self._num_rows * self.num_envs + columns
        if self._windows is None:
            return np.take(self._packed.reshape(-1, layout.width), slots, axis=0)
        rewards = self._packed[..., layout.rewards]
        self._windows.update(rewards, self._ends, self.first_row, self.next_row)
        windows = np.take(self._windows.table, slots)
        halves = np.stack([2 * slots, 2 * windows["last"] + 1], axis=-1)
        packed = np.take(self._packed.reshape(-1, layout.half), halves, axis=0)
        packed = packed.reshape(*slots.shape, layout.width)
        packed[..., layout.rewards] = windows["returns"]
        packed[..., layout.discounts] = windows["discounts"]
        return packed

    @property
    def absorbing_reachable(self) -> bool:
        """Whether pairs with the absorbing state are drawn: only if some target asks for them.

        That takes a terminal, or windows of unequal length: where data ends any window is cut, but
        twins' are cut alike.
        """
        unequal = self.n_step > 1 and self.pairing != "coupled"
        return self.absorbing_fraction > 0 and (self._any_terminal or unequal)

    @property
    def _members(self):
        """The robots' numbers in the ring, [R, N], whole though the rows are of floats."""
        return self._packed[..., self.layout.members]

    def _sample(self, rng, shape, distinct=False):
        if distinct and len(self) >= shape[1]:
            drawn = [rng.choice(len(self), shape[1], replace=False) for _ in range(shape[0])]
            rows, columns = np.divmod(drawn, self.num_envs)
            return self.first_row + rows, columns
        rows = rng.integers(self.first_row, self.next_row, shape)
        return rows, rng.integers(self.num_envs, size=shape) if self.num_envs > 1 else 0 * rows

    def _sample_pairs(self, rng, shape):
        half = (shape[0], shape[1] // 2)
        if self.pairing == "independent":
            return self._sample(rng, shape)
        rows, columns = self._sample(rng, half)
        if self.pairing == "coupled":
            twin_rows, twin_columns = rows, columns ^ 1
        else:
            members = self._members[rows % self._num_rows, columns]
            twin_rows, twin_columns = self._stretches.sample(rng, members)
        return np.concatenate([rows, twin_rows], 1), np.concatenate([columns, twin_columns], 1)

    def _replace_by_absorbing(self, rng, packed):
        """Puts the absorbing state, which pays 0 for ever, into one side of some pairs."""
        num_batches, batch_size, _ = packed.shape
        pairs = batch_size // 2
        chosen = rng.random((num_batches, pairs)) < self.absorbing_fraction
        second = rng.random((num_batches, pairs)) < 0.5
        replace = np.concatenate([chosen & ~second, chosen & second], axis=1)
        row = np.zeros(self.layout.width, packed.dtype)
        row[self.layout.discounts] = self.gamma
        row[[self.layout.terminals1, self.layout.absorbing0]] = 1
        packed[replace] = row


class _Windows:
    """The n-step window that starts at each row of the ring, cut where episode or data ends.

    Rows are added at no cost: `update` sums what is new, and again the windows of the running
    episodes that may still grow, all rows at once.
    """

    def __init__(self, shape: tuple[int, int], n_step: int, gamma: float, dtype: str):
        self._n_step, self._gamma = n_step, gamma
        fields = [("returns", dtype), ("discounts", dtype), ("last", np.int64)]
        self.table = np.zeros(shape, fields)  # last: the flat position of the window's last row
        self.changed_from = 0  # the first row whose window is not final

    def update(self, rewards: np.ndarray, ends: np.ndarray, first_row: int, stop: int) -> None:
        """Makes the windows of the rows before `stop` right; rewards, ends: [R, N], the ring's."""
        start = max(self.changed_from, first_row)
        if start >= stop:
            return
        at = np.arange(start, stop) % len(ends)
        ends, steps = ends[at], np.arange(len(at))[:, None]
        last = np.where(ends, steps, len(at) - 1)
        left = np.minimum.accumulate(last[::-1])[::-1] - steps + 1  # to the episode's or data's end
        lengths = np.minimum(left, self._n_step)
        new = np.empty(lengths.shape, self.table.dtype)
        new["returns"] = self._sum(rewards[at].astype(np.float64), left)
        new["discounts"] = self._gamma**lengths
        columns = np.arange(ends.shape[1])
        new["last"] = (start + steps + lengths - 1) % len(self.table) * len(columns) + columns
        self.table[at] = new
        grows = (steps + left == len(at)) & ~ends[-1] & (left < self._n_step)
        self.changed_from = start + int(np.argmax(np.append(grows.any(1), True)))

    def _sum(self, part, left):
        """Joins windows of 1, 2, 4, ... steps into those of n: log n passes, nothing subtracted."""
        total, joined, steps = np.zeros_like(part), 0, 1
        while joined < min(self._n_step, len(part)):
            if self._n_step & steps:
                total, joined = self._join(total, part, joined, left), joined + steps
            part, steps = self._join(part, part, steps, left), 2 * steps
        return total

    def _join(self, first, second, steps, left):
        """Lets `second` go on where `first`, of that many steps, stops before the end."""
        held = max(len(first) - steps, 0)
        more = self._gamma**steps * second[steps:]
        return np.concatenate([first[:held] + more * (left[:held] > steps), first[held:]])


class _Stretches:
    """The stretches of rows that each robot has in the ring, to draw a row of a given robot."""

    def __init__(self):
        # Start row, stop row, column and robot of each, by robot, then column, then time.
        self._table = np.zeros((0, 4), np.int64)

    def add(self, first_row: int, row: int, members: np.ndarray) -> None:
        """Takes note of T rows from `row` on, [T, N], and forgets those before `first_row`."""
        self._table[:, 1] = np.minimum(self._table[:, 1], row)  # what is put back may be known
        found = [self._table]
        for column, robots in enumerate(members.T):
            starts = np.flatnonzero(np.diff(robots, prepend=-1))
            stops = np.append(starts[1:], len(robots))
            columns = np.full(len(starts), column)
            found.append(np.stack([row + starts, row + stops, columns, robots[starts]], axis=1))
        table = np.concatenate(found)
        table[:, 0] = np.maximum(table[:, 0], first_row)
        table = table[table[:, 0] < table[:, 1]]
        table = table[np.argsort(table[:, 3] * members.shape[1] + table[:, 2], kind="stable")]
        # What goes on from one call to the next is one stretch.
        apart = np.any(table[1:, [0, 2, 3]] != table[:-1, [1, 2, 3]], axis=1)
        begins, stops = np.append(True, apart), np.append(apart, True)
        self._table = np.column_stack([table[begins, 0], table[stops, 1], table[begins, 2:]])

    def sample(self, rng: np.random.Generator, members: np.ndarray) -> tuple:
        """Draws uniformly, for each of the given robots, one of its rows: (rows, columns)."""
        start, stop, column, member = self._table.T
        totals = np.concatenate([[0], np.cumsum(stop - start)])
        low = totals[np.searchsorted(member, members, side="left")]
        high = totals[np.searchsorted(member, members, side="right")]
        pick = rng.integers(low, high)
        stretch = np.searchsorted(totals, pick, side="right") - 1
        return start[stretch] + pick - totals[stretch], column[stretch]
