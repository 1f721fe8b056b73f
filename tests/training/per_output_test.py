import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd.training import per_output

ONE, TWO, THREE = np.zeros(1), np.zeros(2), np.zeros(3)


class EntriesTest(parameterized.TestCase):
    @parameterized.parameters(
        ("x", ["x", "x"]),
        (["x", "y"], ["x", "y"]),
        (("x", None), ["x", None]),
        (("x", ()), ["x", None]),
        ({"p": "x", "q": "y"}, ["x", "y"]),
        ({"q": "y"}, [None, "y"]),
        (None, [None, None]),
    )
    def test_a_list_of_outputs(self, values, expected):
        self.assertEqual(per_output.entries("loss", values, [ONE, TWO], ("p", "q")), expected)

    @parameterized.parameters(
        ("x", ["x", "x"]),
        (["x", "y"], ["x", "y"]),
        ({"b": "y", "a": "x"}, ["x", "y"]),
        ({"p": "x", "q": "y"}, ["x", "y"]),
        ({"b": "y"}, [None, "y"]),
    )
    def test_a_dict_of_outputs(self, values, expected):
        self.assertEqual(per_output.entries("loss", values, {"b": TWO, "a": ONE}, ("p", "q")), expected)

    @parameterized.parameters(
        ({"u": ["x", "y"], "v": "z"}, ["x", "y", "z"]),
        ({"u": "x", "v": "z"}, ["x", "x", "z"]),
        (["x", "y", "z"], ["x", "y", "z"]),
    )
    def test_nested_outputs(self, values, expected):
        self.assertEqual(per_output.entries("loss", values, {"u": [ONE, TWO], "v": THREE}), expected)

    @parameterized.parameters(("x",), (["x"],), ({"p": "x"},))
    def test_a_single_output(self, values):
        self.assertEqual(per_output.entries("loss", values, ONE, ("p",)), ["x"])

    def test_a_shorter_list_is_for_those_that_need_one(self):
        self.assertEqual(per_output.entries("loss_weights", [2.0], [ONE, TWO], (), (1,)), [None, 2.0])
        self.assertEqual(per_output.entries("loss_weights", [None, 2.0], [ONE, TWO], (), (1,)), [None, 2.0])

    @parameterized.parameters(([1, 2, 3],), ({"z": 1},), ({"p": 1, "z": 1},), ([1],))
    def test_entries_of_no_output_are_refused(self, values):
        with self.assertRaisesRegex(ValueError, r"`loss` must be a single one.*with the names.*Received: loss="):
            per_output.entries("loss", values, [ONE, TWO], ("p", "q"))


class TargetsTest(parameterized.TestCase):
    @parameterized.parameters(
        (["x", "y"], (0, 1), ["x", "y"]),
        ({"q": "y", "p": "x"}, (0, 1), ["x", "y"]),
        (["y"], (1,), [None, "y"]),
        ("y", (1,), [None, "y"]),
        (["x", ()], (0,), ["x", None]),
    )
    def test_they_are_found(self, y, needed, expected):
        self.assertEqual(per_output.targets(y, [ONE, TWO], ("p", "q"), needed), expected)

    @parameterized.parameters(("x",), ({"p": "x"},), (["x", ()],))
    def test_missing_ones_are_refused(self, y):
        with self.assertRaisesRegex(ValueError, "`y` must hold targets.*Received: y=.*without targets for .*'q'"):
            per_output.targets(y, [ONE, TWO], ("p", "q"), (0, 1))


class WithoutNoneTest(absltest.TestCase):
    def test_it_keeps_the_structure(self):
        self.assertEqual(per_output.without_none({"p": [1, None], "q": None}), {"p": [1, ()], "q": ()})


if __name__ == "__main__":
    absltest.main()
