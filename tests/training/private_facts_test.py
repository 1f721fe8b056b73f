import keras
from absl.testing import absltest, parameterized

from noisy_sgd.training import private_facts

callbacks = keras.callbacks


class PrivateFactsTest(parameterized.TestCase):
    @parameterized.parameters(
        lambda: callbacks.EarlyStopping("loss"),
        lambda: callbacks.EarlyStopping("accuracy"),
        lambda: callbacks.ReduceLROnPlateau("gradient_norm"),
        lambda: callbacks.ModelCheckpoint("best.keras", "loss", save_best_only=True),
        lambda: callbacks.TerminateOnNaN(),
        lambda: [[callbacks.EarlyStopping("val_loss")], callbacks.EarlyStopping("loss")],
        lambda: callbacks.CallbackList([callbacks.EarlyStopping("loss")]),
    )
    def test_what_acts_on_training_facts_is_refused(self, make):
        with self.assertRaisesRegex(ValueError, "`callbacks` must not act on private facts.*Received: "):
            private_facts.check_callbacks(make())

    @parameterized.parameters(
        lambda: None,
        lambda: [],
        lambda: callbacks.EarlyStopping("val_loss"),
        lambda: callbacks.EarlyStopping("val_ema_accuracy"),
        lambda: [callbacks.ReduceLROnPlateau("val_loss"), callbacks.CSVLogger("log.csv")],
        lambda: callbacks.ModelCheckpoint("every.keras", "loss"),
        lambda: callbacks.ModelCheckpoint("best.keras", "val_accuracy", save_best_only=True),
        lambda: callbacks.EarlyStopping("epsilon"),
        lambda: callbacks.LearningRateScheduler(lambda epoch: 0.1),
    )
    def test_the_others_are_not(self, make):
        private_facts.check_callbacks(make())


if __name__ == "__main__":
    absltest.main()
