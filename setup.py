"""Packaging: the plain install serves a CPU; `.[and-cuda]` adds TensorFlow's CUDA libraries."""

from setuptools import find_packages, setup

setup(
    name="differential-training",
    version="0.1.0",
    description="Difference critics and optimal model design for reinforcement learning, in TF2",
    python_requires=">=3.11",
    packages=find_packages(
        include=["baselines_tf2", "baselines_tf2.*", "omd_tf2", "omd_tf2.*", "envs", "envs.*"]
    ),
    package_data={"": ["py.typed"], "baselines_tf2.report": ["*.html", "*.css", "*.mplstyle"]},
    py_modules=["run_experiments"],
    install_requires=[
        "absl-py>=2.1",
        "filelock>=4.2",
        "gymnasium[mujoco]>=1.2",
        "matplotlib>=3.9",
        "mujoco>=3.3",
        "numpy>=2.0",
        "pybullet>=3.2.7",
        "pybullet_envs_gymnasium>=0.6",
        "scipy>=1.15",
        "tensorboard>=2.20",
        "tensorflow>=2.20,<3",
        "tensorflow-probability[tf]>=0.25",
        "tqdm>=4.66",
    ],
    extras_require={
        "and-cuda": ["tensorflow[and-cuda]>=2.20,<3"],
        "report": ["jinja2>=3.1"],
        "sweep": ["ray>=2.60"],
        "video": ["gymnasium[classic-control]>=1.2", "imageio-ffmpeg>=0.6"],
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "rliable==1.2.0",  # what the statistics are compared with
            "pandas<3",  # for it
            "mypy>=1.18",
            "ruff>=0.15",
            "differential-training[report,sweep,video]",
        ],
        "docs": ["mkdocs-api-autonav>=0.4", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.26"],
    },
)
