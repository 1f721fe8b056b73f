"""A package, so that `from tests import oracles` finds this folder and no other one named tests."""
