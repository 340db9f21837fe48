"""OMD on robots (2106.03273, section 5.3): soft actor-critic inside a learned model.

A step is a pure function of all weights, a batch and the policy's noise, and so are its parts:

Examples:
    >>> import numpy as np, tensorflow as tf
    >>> from omd_tf2.implicit import loss_and_gradient
    >>> from omd_tf2.common.solver import SolverConfig
    >>> from omd_tf2.common.transition import Transition
    >>> from omd_tf2.halfcheetah import sac, update
    >>> from omd_tf2.halfcheetah.config import HalfCheetahConfig
    >>> rng = np.random.default_rng(0)
    >>> def draw(*shape): return tf.constant(rng.normal(size=shape))  # 64 bits throughout
    >>> config = HalfCheetahConfig(hidden_dim=8, solver=SolverConfig("gauss_newton", ridge=1.0))
    >>> state = update.init_state(config, obs_dim=3, action_dim=2, seed=0, dtype="float64")
    >>> state = state._replace(log_temperature=draw())  # or any other weights of one's own
    >>> real = Transition(draw(5, 3), tf.tanh(draw(5, 2)), draw(5), draw(5, 3), 0 * draw(5))
    >>> noise = update.Noise(critic=draw(config.inner_steps + 1, 5, 2), actor=draw(1, 5, 2))
    >>> inner_loss, f = loss_and_gradient(  # as of the other losses, which are in sac
    ...     update.model_critic_loss,
    ...     state.critics, state.model, state, real, noise.critic[0], config
    ... )
    >>> solved, steps, actor_loss, entropy = update.agent_steps(state, real, noise, config)
    >>> outer_loss, gradient, health = update.model_gradient(solved, real, noise.critic[-1], config)
    >>> bool(health.converged), [kernel.shape.as_list() for kernel, bias in gradient]
    (True, [[5, 64], [64, 64], [64, 4]])
    >>> after, metrics = update.update(state, real, noise, config)
    >>> dict(zip(update.metric_names(config), metrics))["train/outer_loss"].dtype
    tf.float64
"""
