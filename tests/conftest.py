import os

from baselines_tf2.common.threads import set_threads

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MUJOCO_GL", "egl")
set_threads()  # as the driver does

import pytest

from tests.ray_nodes import cluster


@pytest.fixture(scope="session")
def ray_address():
    """Of a Ray cluster of one node with one CPU."""
    with cluster() as address:
        yield address


@pytest.fixture
def eagerly():
    """Runs every `tf.function` as plain Python, as --eager does."""
    import tensorflow as tf  # not above: the process that hands out the tests needs none

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
