"""What the critic learns: values Q(s, a), or differences D(s1, a1, s2, a2) of values.

Both heads see batches whose observations are already normalised. A difference head reads the rows
i and i + B/2 of a batch as a pair, so the same batch gives B values or B/2 differences.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import keras
import tensorflow as tf

from baselines_tf2.common.replay import Batch
from baselines_tf2.ddpg.config import CRITICS, Critic, DDPGConfig
from baselines_tf2.ddpg.networks import Nets


class CriticHead(Protocol):
    """The learner does not know which head it has. P: B for values, B/2 for differences."""

    def targets(self, nets: Nets, batch: Batch) -> tf.Tensor:
        """What the critic should have said, [P], from the target networks."""

    def predictions(self, nets: Nets, batch: Batch) -> tf.Tensor:
        """What it says, [P]."""

    def loss(self, nets: Nets, batch: Batch, targets: tf.Tensor) -> tf.Tensor:
        """Mean squared error in normalised units, a scalar."""

    def actor_value(self, nets: Nets, batch: Batch, actions: tf.Tensor) -> tf.Tensor:
        """What the actor's actions, [B, A], are worth, [P]."""

    def values(
        self, nets: Nets, obs: tf.Tensor, actions: tf.Tensor, robots: tf.Tensor | None = None
    ) -> tf.Tensor:
        """An estimate of Q(obs, actions), [B]; robots: [B, F] where the critic sees them."""


def register(name: str, *, paired: bool = False, points: int = 1) -> Callable:
    """Returns a decorator that makes a head's class known to DDPGConfig(critic=name).

    The class is built from the config. paired: it reads rows as pairs, and a point (observation,
    action) ends with whether it is absorbing. points: that an input row of its network holds.
    """

    def decorate(make):
        CRITICS[name] = Critic(make, paired, points)
        return make

    return decorate


class _ClippedHead:
    """A head whose critic's outputs, [P], are normalised returns, clipped to +- `_range`."""

    _range: float | None
    _outputs: Callable  # of nets and a batch

    def predictions(self, nets, batch):
        return self._scaled(nets, self._outputs(nets, batch))

    def loss(self, nets, batch, targets):
        wanted = self._clip(nets.normalise_return(targets))
        return tf.reduce_mean(tf.square(self._outputs(nets, batch) - wanted))

    def _scaled(self, nets, outputs):
        return nets.denormalise_return(self._clip(outputs))

    def _clip(self, values):
        bound = self._range
        return values if bound is None else tf.clip_by_value(values, -bound, bound)


@register("q")
class QHead(_ClippedHead):
    """The critic of DDPG (Lillicrap et al. 2016, arXiv 1509.02971)."""

    def __init__(self, config: DDPGConfig):
        self._range = config.return_range

    def targets(self, nets, batch):
        """y = r + discount (1 - terminal) Q'(s', mu'(s')), [B]"""
        actions1 = nets.target_actor(batch.obs1)
        q1 = self._q(nets.target_critic, batch.obs1, actions1, batch.robots)
        q1 = nets.denormalise_return(q1)
        return batch.rewards + batch.discounts * (1 - batch.terminals1) * q1

    def actor_value(self, nets, batch, actions):
        return self.values(nets, batch.obs0, actions, batch.robots)

    def values(self, nets, obs, actions, robots=None):
        return self._scaled(nets, self._q(nets.critic, obs, actions, robots))

    def _outputs(self, nets, batch):
        return self._q(nets.critic, batch.obs0, batch.actions, batch.robots)

    def _q(self, critic, obs, actions, robots):
        seen = [obs, actions] + ([] if robots is None else [robots])
        return critic(tf.concat(seen, axis=-1))[:, 0]


@register("concat", paired=True, points=2)
@register("antisymmetric", paired=True, points=2)
@register("additive", paired=True)
class DifferenceHead(_ClippedHead):
    """D(x, y) ~ Q(x) - Q(y) of pairs of x = (observation, action, is absorbing).

    A terminal leads to the absorbing state, (0, 0, 1), of value 0: so D(x, absorbing) is Q(x), and
    a pair of which one side has ended keeps the other's remaining value.
    """

    def __init__(self, config: DDPGConfig):
        self._form = {
            "concat": _concat_difference,
            "antisymmetric": _antisymmetric_difference,
            "additive": _additive_difference,
        }[config.critic]
        self._symmetric = config.actor_loss == "symmetric"
        self._unequal_windows = config.n_step > 1 and config.pairing != "coupled"
        self._range = None if config.return_range is None else 2 * config.return_range

    def targets(self, nets, batch):
        """y = r_A - r_B + c_A Q'(A') - c_B Q'(B'), [P], written in differences alone.

        c is the window's discount. With m = min(c_A, c_B) the bootstrap is m D'(A', B') and, for
        the longer-lived side X', (c_A - c_B) D'(X', absorbing). A side that ended is absorbing,
        its value is 0 under any discount, and it takes the other's: then only D'(A', B') is left,
        and nothing where both sides ended.
        """
        ends = _points(batch.obs1, nets.target_actor(batch.obs1), batch.terminals1)
        (end_a, end_b), (r_a, r_b) = _halves(ends), _halves(batch.rewards)
        (over_a, over_b), (c_a, c_b) = _halves(batch.terminals1), _halves(batch.discounts)
        c_a, c_b = c_a + over_a * (c_b - c_a), c_b + over_b * (c_a - c_b)
        d1 = self._form(nets.target_critic, end_a, end_b)
        bootstrap = tf.minimum(c_a, c_b) * d1
        if self._unequal_windows:
            longer = tf.where((c_a > c_b)[:, None], end_a, end_b)
            bootstrap += (c_a - c_b) * self._form(nets.target_critic, longer, _absorbing(longer))
        # D(absorbing, absorbing) is 0 by definition; the concat form would have to learn it.
        bootstrap *= 1 - over_a * over_b
        return r_a - r_b + nets.denormalise_return(bootstrap)

    def actor_value(self, nets, batch, actions):
        """D(A, mu(A); B, b), and with the symmetric loss its mean with -D(A, a; B, mu(B)), [P]."""
        done = _points(batch.obs0, batch.actions, batch.absorbing0)
        mu = _points(batch.obs0, actions, batch.absorbing0)
        mu = mu if self._symmetric else _halves(mu)[0]
        difference = partial(self._form, nets.critic)
        if self._form is _additive_difference:
            # q once at each point. q(done) has no gradient here; compiled, it is the forward pass
            # that the critic's loss makes.
            done, mu = (nets.critic(points)[:, 0] for points in (done, mu))
            difference = tf.subtract
        a, b = _halves(done)
        if not self._symmetric:
            return self._scaled(nets, difference(mu, b))
        mu_a, mu_b = _halves(mu)
        first, second = difference(mu_a, b), difference(a, mu_b)
        return (self._scaled(nets, first) - self._scaled(nets, second)) / 2

    def values(self, nets, obs, actions, robots=None):
        """D(x, absorbing): an estimate of Q only once pairs with the absorbing state are drawn."""
        points = _points(obs, actions, tf.zeros_like(obs[:, 0]))
        return self._scaled(nets, self._form(nets.critic, points, _absorbing(points)))

    def _outputs(self, nets, batch):
        points = _points(batch.obs0, batch.actions, batch.absorbing0)
        return self._form(nets.critic, *_halves(points))


def make_head(config: DDPGConfig) -> CriticHead:
    """The head that `config.critic` names."""
    return CRITICS[config.critic].make(config)


def critic_input_dim(config: DDPGConfig, obs_dim: int, action_dim: int, robot_dim: int = 0) -> int:
    """The width of one input row of the critic network."""
    return (obs_dim + action_dim + robot_dim + config.paired) * CRITICS[config.critic].points


def _concat_difference(f: keras.Model, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """f(x, y): the seed's head, free to contradict itself."""
    return f(tf.concat([x, y], axis=-1))[:, 0]


def _antisymmetric_difference(f: keras.Model, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """(f(x, y) - f(y, x)) / 2, so that D(x, x) = 0 and D(x, y) = -D(y, x)."""
    both = tf.concat([tf.concat([x, y], -1), tf.concat([y, x], -1)], axis=0)
    forward, backward = _halves(f(both)[:, 0])
    return (forward - backward) / 2


def _additive_difference(q: keras.Model, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """q(x) - q(y), transitive as well; q itself has a free offset."""
    q_x, q_y = _halves(q(tf.concat([x, y], axis=0))[:, 0])
    return q_x - q_y


def _points(obs, actions, absorbing):
    alive = (1 - absorbing)[:, None]
    return tf.concat([obs * alive, actions * alive, absorbing[:, None]], axis=-1)


def _absorbing(points):
    return tf.concat([tf.zeros_like(points[:, :-1]), tf.ones_like(points[:, -1:])], axis=-1)


def _halves(x):
    return tf.split(x, 2, axis=0)
