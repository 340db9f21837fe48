"""One training step of every agent, soft actor-critics all, a pure function of the state."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from omd_tf2.common.functional import AdamState, Layers, adam_init, adam_step, init_mlp, mlp_kernel
from omd_tf2.common.inner import inner_steps, move_critics, move_model
from omd_tf2.common.solver import Health, LeastSquares, hypergradient, report
from omd_tf2.common.transition import Transition
from omd_tf2.halfcheetah import sac
from omd_tf2.halfcheetah.config import HalfCheetahConfig
from omd_tf2.implicit import gradient_of, loss_and_gradient


class State(NamedTuple):
    """All that is learned, and the optimisers."""

    model: Layers  # [B, O + A] -> [B, O + 1]: next observation (or change) and reward
    critics: sac.Critics  # [B, O + A] -> [B, 1] each
    target: sac.Critics
    actor: Layers  # [B, O] -> [B, 2 A]: mean and log std
    log_temperature: tf.Tensor
    model_adam: AdamState
    critic_adam: AdamState
    actor_adam: AdamState
    temperature_adam: AdamState


MOVED = tuple(name for name in State._fields if not name.startswith("model"))  # by an inner step


class Noise(NamedTuple):
    """N(0, 1) draws of the policy for one step."""

    critic: tf.Tensor  # [K + 1, B, A]: next actions of K critic steps, and of outer loss and f
    actor: tf.Tensor  # [K, B, A]: of K actor steps


class Metrics(NamedTuple):
    """What one step reports, scalars; `sac`, without a model, all but the first."""

    model_loss: tf.Tensor  # error of prediction on the real batch, whatever the model learns for
    actor_loss: tf.Tensor  # at the last inner step
    entropy: tf.Tensor  # as well
    temperature: tf.Tensor
    q_mean: tf.Tensor  # of the new critics on the real batch


def metric_names(config: HalfCheetahConfig) -> tuple[str, ...]:
    """The names of what `update` returns."""
    names = tuple(f"train/{name}" for name in Metrics._fields)
    if config.agent != "omd":
        return {"mle": names, "vaml": (*names, "train/vaml_loss"), "sac": names[1:]}[config.agent]
    solver = (f"solver/{name}" for name in config.solver.reported)
    return (*names, "train/outer_loss", "train/inner_steps", *solver)


def init_state(
    config: HalfCheetahConfig, obs_dim: int, action_dim: int, *, seed: int, dtype: str = "float32"
) -> State:
    """Fresh networks and optimisers; the target critics equal the critics."""
    seeds = np.random.SeedSequence(seed).spawn(4)
    hidden, model_hidden = [config.hidden_dim] * 2, [config.model_hidden_dim] * 2
    both = obs_dim + action_dim

    def network(index, *sizes):
        return init_mlp(sizes, seeds[index], output_gain=np.sqrt(2), dtype=dtype)

    model = network(0, both, *model_hidden, obs_dim + 1)
    critics = network(1, both, *hidden, 1), network(2, both, *hidden, 1)
    actor = network(3, obs_dim, *hidden, 2 * action_dim)
    log_temperature = tf.constant(np.log(config.init_temperature), dtype)
    adams = (adam_init(x) for x in (model, critics, actor, log_temperature))
    return State(model, critics, critics, actor, log_temperature, *adams)


def update(
    state: State, real: Transition, noise: Noise, config: HalfCheetahConfig
) -> tuple[State, tuple[tf.Tensor, ...]]:
    """Inner steps of critics, actor and temperature, then the model's (section 4c).

    For `mle` and `vaml` the model moves first; `sac` has none, and its critic steps are on the real
    batch. real: [B, ...] from the replay. Returns the new state and what `metric_names` names.
    """
    prediction_loss, own_loss = sac.model_loss(state.model, real, config), ()
    if config.agent in ("mle", "vaml"):
        loss, gradient = model_loss_and_gradient(state, real, noise.critic[-1], config)
        state = move_model(state, gradient, config.model_lr)
        own_loss = (loss,) * (config.agent == "vaml")
    state, steps, actor_cost, entropy = agent_steps(state, real, noise, config)
    metrics = Metrics(
        model_loss=prediction_loss,
        actor_loss=actor_cost,
        entropy=entropy,
        temperature=tf.exp(state.log_temperature),
        q_mean=tf.reduce_mean(sac.values(state.critics, real.obs0, real.actions)),
    )
    if config.agent != "omd":
        return state, (metrics[1:] if config.agent == "sac" else metrics + own_loss)
    outer_loss, gradient, health = model_gradient(state, real, noise.critic[-1], config)
    # The outer loss is of the new critics on the real batch.
    outer = outer_loss, tf.cast(steps, outer_loss.dtype), *report(config.solver, health)
    return move_model(state, gradient, config.model_lr), metrics + outer


def model_loss_and_gradient(
    state: State, real: Transition, noise: tf.Tensor, config: HalfCheetahConfig
) -> tuple[tf.Tensor, Layers]:
    """The loss of the model of mle or vaml, and its gradient in the model. noise: [B, A]."""
    if config.agent == "mle":
        return loss_and_gradient(sac.model_loss, state.model, real, config)

    def loss(model):
        predicted = sac.in_model(model, real, noise, config)
        y, y_real = (_targets(state, batch, noise, config) for batch in (predicted, real))
        return sac.vaml_loss(y, y_real)

    return loss_and_gradient(loss, state.model)


def model_critic_loss(
    critics: sac.Critics,
    model: Layers,
    state: State,
    real: Transition,
    noise: tf.Tensor,
    config: HalfCheetahConfig,
) -> tf.Tensor:
    """The inner loss: the critic loss on the model's transitions, of critics and model alone.

    The target critics, actor and temperature are the state's and held constant: as in the original
    the target's own dependence on the critics is no part of f.
    """
    batch = sac.in_model(model, real, noise, config)
    return sac.critic_loss(critics, batch, _targets(state, batch, noise, config))


def agent_steps(
    state: State, real: Transition, noise: Noise, config: HalfCheetahConfig
) -> tuple[State, tf.Tensor, tf.Tensor, tf.Tensor]:
    """K inner steps: critics inside the model, their target, actor and temperature, in this order.

    The first of the noise's K + 1 draws of next actions are the steps'; the norm held against
    `inner_tol` is taken with the one after. Returns the new state, the number of steps taken, and
    the last one's actor loss and entropy (0 where none was taken).
    """

    def optimality_fn(k, state):
        args = state, real, noise.critic[k], config
        if config.agent == "sac":
            return outer_gradient(*args)[1]
        return gradient_of(model_critic_loss)(state.critics, state.model, *args)

    def step_fn(k, state, gradient):
        state = move_critics(state, gradient, config.critic_lr, config.tau)
        return actor_step(state, real.obs0, noise.actor[k], config)

    zero, limits = tf.zeros([], real.rewards.dtype), (config.inner_steps, config.inner_tol)
    return inner_steps(optimality_fn, step_fn, state, MOVED, *limits, zero, zero)


def actor_step(
    state: State, obs: tf.Tensor, noise: tf.Tensor, config: HalfCheetahConfig
) -> tuple[State, tf.Tensor, tf.Tensor]:
    """One Adam step of actor and temperature on real observations: state, actor loss, entropy."""
    (loss, entropy), gradient = loss_and_gradient(
        sac.actor_loss, state.actor, state.critics, state.log_temperature, obs, noise
    )
    _, temperature_gradient = loss_and_gradient(
        sac.temperature_loss, state.log_temperature, entropy, -noise.shape[-1] / 2
    )
    actor, adam = adam_step(state.actor, gradient, state.actor_adam, config.actor_lr)
    state = state._replace(actor=actor, actor_adam=adam)
    log_temperature, adam = adam_step(
        state.log_temperature, temperature_gradient, state.temperature_adam, config.temperature_lr
    )
    return state._replace(log_temperature=log_temperature, temperature_adam=adam), loss, entropy


def outer_gradient(
    state: State, real: Transition, noise: tf.Tensor, config: HalfCheetahConfig
) -> tuple[tf.Tensor, sac.Critics]:
    """The critic loss on the real batch, and its gradient in the critics."""
    targets = _targets(state, real, noise, config)
    return loss_and_gradient(sac.critic_loss, state.critics, real, targets)


def _targets(state, batch, noise, config):
    return sac.critic_targets(
        state.target, state.actor, state.log_temperature, batch, noise, config.gamma
    )


def model_gradient(
    state: State, real: Transition, noise: tf.Tensor, config: HalfCheetahConfig
) -> tuple[tf.Tensor, Layers, Health]:
    """The outer loss, its gradient in the model by the implicit function theorem, and the health.

    f is the gradient of `model_critic_loss` in the critics, at the state's critics and target.
    """
    outer_loss, cotangent = outer_gradient(state, real, noise, config)

    def optimality_fn(critics, model):
        return gradient_of(model_critic_loss)(critics, model, state, real, noise, config)

    def targets_in(model):
        return _targets(state, sac.in_model(model, real, noise, config), noise, config)

    def problem():
        x = tf.concat([real.obs0, real.actions], -1)
        ones = tf.ones_like(real.rewards)[:, None]
        return LeastSquares(
            weight=2,  # the loss is the mean of (Q1 - y)^2 + (Q2 - y)^2
            values=sac.values(state.critics, real.obs0, real.actions),
            targets_fn=targets_in,
            outer_targets=_targets(state, real, noise, config),
            kernel=tf.stack([mlp_kernel(critic, x, ones) for critic in state.critics]),
        )

    found = hypergradient(
        config.solver, optimality_fn, state.critics, state.model, cotangent, problem
    )
    return outer_loss, *found
