import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.training import participation

ROWS = tf.data.Dataset.range(50)
PASS = 3  # batches of 20


class Endless(keras.utils.PyDataset):
    num_batches = None


def generator():
    yield np.zeros([20])


class DataTest(parameterized.TestCase):
    @parameterized.parameters(
        (lambda: np.zeros([50, 4]), None, {"one_pass": True}),
        (lambda: {"a": np.zeros([50]), "b": [tf.zeros([50])]}, 2, {"one_pass": True}),
        (lambda: ROWS.batch(20), None, {"num_batches": 3, "ends": True}),
        (lambda: ROWS.batch(20), 2, {"num_batches": 3}),
        (lambda: ROWS.batch(20).repeat(), 5, {}),
        (lambda: ROWS.batch(20).filter(lambda x: True), None, {"ends": True}),
        (lambda: ROWS.batch(20).filter(lambda x: True), 5, {}),
        (lambda: generator(), None, {"ends": True}),
        (lambda: Endless(), 5, {}),
        (lambda: None, None, {"ends": True}),
    )
    def test_what_is_known_of_data(self, make, steps_per_epoch, known):
        self.assertEqual(participation.Data.of(make(), steps_per_epoch), participation.Data(**known))

    @parameterized.parameters(
        ({"one_pass": True}, [0, 1, 1, 1, 1, 1]),
        ({"num_batches": 3}, [0, 1, 1, 1, 2, 3]),
        ({"num_batches": 2, "ends": True}, [0, 1, 1, 2, 3, 4]),
        ({"num_batches": 4, "ends": True}, [0, 1, 2, 3, 4, 5]),
        ({"ends": True}, [0, 1, 2, 3, 4, 5]),
        ({}, [0, 1, 2, 3, 4, 5]),
    )
    def test_participations(self, known, expected):
        data = participation.Data(**known)
        self.assertEqual([data.participations(steps, PASS) for steps in range(6)], expected)

    def test_only_data_that_end_by_themselves_tell_their_size(self):
        ends, stops = participation.Data(ends=True), participation.Data()
        self.assertEqual(ends.after_an_epoch(3).participations(3, PASS), 1)
        self.assertEqual(ends.after_an_epoch(4).participations(4, PASS), 4)
        self.assertEqual(stops.after_an_epoch(3).participations(3, PASS), 3)
        known = participation.Data(num_batches=3, ends=True)
        self.assertEqual(known.after_an_epoch(1), known)
        arrays = participation.Data(one_pass=True)
        self.assertEqual(arrays.after_an_epoch(1), arrays)


if __name__ == "__main__":
    absltest.main()
