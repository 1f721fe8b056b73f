import io
import tempfile

from absl.testing import absltest

from noisy_sgd import records
from noisy_sgd.runs import callbacks


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class ProgressTest(absltest.TestCase):
    def test_lines_have_rate_and_remaining_time(self):
        stream, clock = io.StringIO(), Clock()
        progress = callbacks.Progress(100, stream, lines=2, clock=clock)
        for batch in range(100):
            clock.now += 0.5
            progress.on_train_batch_end(batch)
        progress.on_epoch_end(0)
        progress.close()
        self.assertEqual(stream.getvalue(), "50/100 steps, 2 steps/s, 25 s left\n100/100 steps, 2 steps/s, 0 s left\n")

    def test_several_steps_in_one_call_and_several_runs(self):
        stream, clock = io.StringIO(), Clock()
        progress = callbacks.Progress(40, stream, lines=4, clock=clock)
        for _ in range(2):
            for batch in (6, 13, 19):
                clock.now += 1.0
                progress.on_train_batch_end(batch)
            progress.on_epoch_end(0)
            progress.on_train_end()
        done = [line.split("/")[0] for line in stream.getvalue().splitlines()]
        self.assertEqual(done, ["14", "20", "34", "40"])

    def test_the_test_accuracy_is_shown_and_no_training_metric(self):
        stream = io.StringIO()
        progress = callbacks.Progress(2, stream, lines=2, clock=Clock())
        progress.on_train_batch_end(1)
        self.assertEmpty(stream.getvalue())
        progress.on_epoch_end(0, {"accuracy": 0.77, "val_accuracy": 0.5})
        self.assertIn("2/2 steps", stream.getvalue())
        self.assertIn("test accuracy 50.0 %", stream.getvalue())
        self.assertNotIn("77", stream.getvalue())

    def test_a_terminal_gets_a_bar(self):
        stream = Terminal()
        progress = callbacks.Progress(10, stream)
        progress.on_train_batch_end(4)
        progress.on_train_batch_end(9)
        progress.close()
        self.assertIn("100%", stream.getvalue())
        self.assertIn("10/10", stream.getvalue())


class MetricsRecorderTest(absltest.TestCase):
    def test_writes_norms_at_their_step_and_metrics_at_the_epoch(self):
        with tempfile.TemporaryDirectory() as directory:
            run = records.create(f"{directory}/run", {}, privacy="none")
            recorder = callbacks.MetricsRecorder(run)
            norms = {"squared_gradient_norm": 1.0, "squared_noise_norm": 2.0}
            recorder.on_train_batch_end(0, norms)
            recorder.on_train_batch_end(9, {})
            recorder.on_epoch_end(0, {"val_accuracy": 0.5, **norms})
            metrics = records.read(run.directory).metrics
        self.assertEqual(metrics, [{"step": 1, **norms}, {"step": 10, "val_accuracy": 0.5}])


if __name__ == "__main__":
    absltest.main()
