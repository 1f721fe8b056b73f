"""Tests of the SDE's error: the fitted orders, and the drawn figures."""

import pathlib
import types

from absl.testing import absltest

from noisy_sgd import records
from noisy_sgd.experiments.report import sde_error_claims
from noisy_sgd.figures import sde_error as figures
from noisy_sgd.studies import sde_error


class ClaimsTest(absltest.TestCase):
    def test_rows(self):
        weak = {"measurement": "weak", "orders": sde_error.weak()["orders"]}
        strong = {
            "measurement": "strong",
            "model": "least_squares",
            "order": 1.4,
            "interval": [1.2, 1.6],
            "num_paths": 9,
        }
        self.assertEqual(_verdicts([weak, weak, strong, strong]), [True] * 4)
        for row, (name, value) in enumerate(
            [("sampled_plain_mean", 1.3), ("surrogate_plain_covariance", 1.0), ("sampled_modified_covariance", 2.0)]
        ):
            spoilt = weak | {"orders": weak["orders"] | {name: value}}
            self.assertEqual(_verdicts([weak, spoilt, strong]), [one != row for one in range(4)])
        self.assertEqual(_verdicts([weak, strong, strong | {"interval": [0.4, 1.6]}]), [True] * 3 + [False])


def _verdicts(lines):
    run = types.SimpleNamespace(metrics=lines, directory=types.SimpleNamespace(name="orders"))
    return [claim.measure([run]).reached for claim in sde_error_claims.CLAIMS]


class OrderTest(absltest.TestCase):
    def test_weak_orders(self):
        orders = sde_error.weak()["orders"]
        for algorithm in ("surrogate", "sampled"):
            self.assertAlmostEqual(orders[f"{algorithm}_plain_mean"], 1.0, delta=0.15)
            self.assertAlmostEqual(orders[f"{algorithm}_modified_mean"], 2.0, delta=0.15)
        for drift in ("plain", "modified"):
            self.assertAlmostEqual(orders[f"surrogate_{drift}_covariance"], 2.0, delta=0.15)
            self.assertAlmostEqual(orders[f"sampled_{drift}_covariance"], 1.0, delta=0.15)

    def test_strong_error_shrinks_and_is_drawn(self):
        directory, runs = pathlib.Path(self.create_tempdir()), []
        for model in ("least_squares", "diagonal_linear"):
            found = sde_error.strong(model, relative_steps=(0.16, 0.08), num_paths=20, refinement=4)
            self.assertBetween(found["order"], 0.8, 2.2)
            self.assertLess(found["interval"][0], found["interval"][1])
            run = records.create(directory / model, {"experiment": model}, privacy="No guarantee: synthetic data.")
            run.finish(found)
            runs.append(records.read(directory / model))
        run = records.create(directory / "weak", {"experiment": "weak"}, privacy="No guarantee: synthetic data.")
        run.finish(sde_error.weak())
        weak = figures.draw_weak(records.read(directory / "weak"), directory)
        for path in (*weak, *figures.draw_strong(runs, directory)):
            self.assertGreater(path.stat().st_size, 100)

    def test_refuses_an_unknown_model(self):
        with self.assertRaisesRegex(ValueError, "`model` must be 'least_squares' or 'diagonal_linear'"):
            sde_error.strong("logistic")


if __name__ == "__main__":
    absltest.main()
