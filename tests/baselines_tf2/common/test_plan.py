import pytest

from baselines_tf2.common.plan import Variant, parse_seeds, variants
from envs.errors import ConfigError


def test_seeds_are_numbers_and_ranges():
    assert parse_seeds("0-3") == [0, 1, 2, 3]
    assert parse_seeds("7") == [7]
    assert parse_seeds("0,5-6, 3") == [0, 5, 6, 3]


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "3-1", "0,0", "0-4,2", "2147483648", "1.5"])
def test_other_seeds_are_refused(text):
    with pytest.raises(ConfigError, match="seeds"):
        parse_seeds(text)


def test_settings_given_once_are_one_variant_without_a_name():
    assert variants([]) == [Variant("", ())]
    assert variants(["a=1", "b=2"]) == [Variant("", ("a=1", "b=2"))]


def test_settings_given_more_than_once_are_combined():
    assert variants(["a=1", "b=x", "a=2", "c=u/v", "c=w"]) == [
        Variant("a=1,c=u_v", ("a=1", "b=x", "c=u/v")),
        Variant("a=1,c=w", ("a=1", "b=x", "c=w")),
        Variant("a=2,c=u_v", ("a=2", "b=x", "c=u/v")),
        Variant("a=2,c=w", ("a=2", "b=x", "c=w")),
    ]


def test_a_value_given_twice_is_refused():
    with pytest.raises(ConfigError, match="'a=1' is given twice: leave one out"):
        variants(["a=1", "a=2", "a=1"])
