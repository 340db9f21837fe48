import gc
import os
from importlib import metadata
from pathlib import Path

from baselines_tf2.common.threads import set_threads

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MUJOCO_GL", "egl")
set_threads()  # as the driver does

import pytest

from tests.ray_nodes import cluster

# XLA's former emitters, unoptimised: a third of the seconds to compile. Slow tests, and forks of
# the driver, compile as users do; with `XLA_FLAGS= pytest` all do, and with another version of
# TensorFlow, whose XLA may not know the flags and ends the process.
QUICK_COMPILER = "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0"


def pytest_configure(config):
    if config.option.markexpr == "not slow" and metadata.version("tensorflow")[:5] == "2.21.":
        os.environ.setdefault("XLA_FLAGS", QUICK_COMPILER)


def pytest_collection():
    gc.disable()  # until all is imported: the libraries' many objects stay


def pytest_collection_modifyitems(items):
    """Ray's first, for one worker to have; then those that start processes, lest one be the last."""
    top = Path(__file__).parent
    items.sort(key=lambda item: ("ray_address" not in item.fixturenames, item.path.parent != top))


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


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
