import pathlib
import random
import tempfile

from absl.testing import absltest

from tests.experiments import kills


class KillsTest(absltest.TestCase):
    def test_three_kills_change_no_byte(self):
        with tempfile.TemporaryDirectory() as folder:
            generator = random.Random(0)
            outcome = kills.kill_and_compare("mirrored, Poisson", 3, pathlib.Path(folder), generator)
        self.assertEqual(outcome.kills, 3)
        self.assertEmpty(outcome.differing)


if __name__ == "__main__":
    absltest.main()
