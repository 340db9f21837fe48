"""For tools that look for it; all of the packaging is in pyproject.toml."""

from setuptools import setup

setup()
