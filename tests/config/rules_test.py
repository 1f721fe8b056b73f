"""Tests of the rules that several groups share, and of their one sentence."""

from absl.testing import absltest, parameterized

from noisy_sgd import config


class RulesTest(parameterized.TestCase):
    def test_a_refusal_names_flag_constraint_value_and_way_out(self):
        config.require(True, "alpha", "must be positive", -1, "give another")
        expected = r"^`--alpha` must be positive \(Received: alpha=-1\); give another$"
        with self.assertRaisesRegex(config.ConfigError, expected):
            config.require(False, "alpha", "must be positive", -1, "give another")
        self.assertTrue(issubclass(config.ConfigError, ValueError))

    @parameterized.parameters((None, True), (2, True), (2**31 - 1, True), (1, False), (2**31, False))
    def test_a_count_is_neither_too_small_nor_too_large_for_a_tensor(self, value, usable):
        if usable:
            config.require_at_least("num_runs", value, 2)
            return
        with self.assertRaisesRegex(config.ConfigError, f"--num_runs.*num_runs={value}"):
            config.require_at_least("num_runs", value, 2)

    @parameterized.parameters(((1, 2), True), ((), False), ((1, 1), False))
    def test_a_list_holds_different_values(self, values, usable):
        if usable:
            config.require_distinct("seed", values)
            return
        with self.assertRaisesRegex(config.ConfigError, "--seed.*one or more different values"):
            config.require_distinct("seed", values)

    def test_a_choice_lists_the_others(self):
        config.require_choice("figure", "gap", ("gap", "curves"))
        with self.assertRaisesRegex(config.ConfigError, "--figure.*one of gap, curves .Received: figure=map"):
            config.require_choice("figure", "map", ("gap", "curves"))


if __name__ == "__main__":
    absltest.main()
