from unittest import mock

from absl.testing import absltest

from noisy_sgd.experiments.benchmarks import clock


class ClockTest(absltest.TestCase):
    def test_medians_of_steps_that_take_turns(self):
        now, called = {"wall": 5.0, "processor": 7.0}, []

        def step(name, durations):
            durations = iter(durations)

            def run():
                called.append(name)
                now["wall"] += next(durations)
                now["processor"] += 2.0

            return run

        steps = {"a": step("a", (0.5, 0.1, 0.2)), "b": step("b", (3.0, 9.0, 4.0))}
        with (
            mock.patch.object(clock.time, "perf_counter", lambda: now["wall"]),
            mock.patch.object(clock.time, "process_time", lambda: now["processor"]),
        ):
            found = clock.in_turns(steps, 3)
        self.assertEqual(called, ["a", "b"] * 3)
        self.assertEqual(list(found), ["a", "b"])
        for name, wall in (("a", 200.0), ("b", 4000.0)):
            self.assertAlmostEqual(found[name].wall, wall)
            self.assertAlmostEqual(found[name].processor, 2000.0)


if __name__ == "__main__":
    absltest.main()
