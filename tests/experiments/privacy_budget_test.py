"""Tests of the binary privacy_budget, from its command line to figures and a command to paste; its refusals."""

import dataclasses
import re
import shlex

from absl.testing import absltest, parameterized

from noisy_sgd import keys, privacy, records
from noisy_sgd.experiments import flags, privacy_budget
from noisy_sgd.mechanisms import gaussian
from noisy_sgd.privacy import ledger, statement
from noisy_sgd.runs import composition
from tests.experiments import toy_binary

SMALL = "--num_examples=1437 --num_steps=100 --epsilon=1 --batch_size=64,128 --accountant=rdp".split()


class PrivacyBudgetTest(toy_binary.Tests, parameterized.TestCase):
    binary = privacy_budget
    small = SMALL
    figures = 4

    def test_it_prints_a_command_that_trains_within_the_budget_and_what_a_search_costs(self):
        stdout, _ = self.run_binary(*SMALL, "--tries=10", f"--run_dir={self.root}/run")
        (command,) = re.findall(r"^python -m noisy_sgd\.experiments\.(train .*)$", stdout, re.MULTILINE)
        chosen = flags.train(shlex.split(command))
        self.assertEqual((chosen.data.dataset, chosen.training.batch_size), ("digits", 128))
        self.assertIsNone(chosen.data.num_train_examples)
        training = chosen.training
        spent = privacy.epsilon(
            training.noise_multiplier,
            training.batch_size,
            1437,
            training.num_steps,
            training.delta,
            sampling=training.sampling,
            accountant="rdp",
        )
        self.assertBetween(spent, 1 - 1e-3, 1)
        self.assertIn("below the privacy wall", stdout)
        seen, best = (
            float(number) for number in re.findall(r"epsilon = ([\d.]+)(?: at delta = 0.0001 \(add|\n)", stdout)
        )
        self.assertBetween(best, 1, seen)
        self.assertIn("(geometric; Papernot & Steinke 2022)", stdout)

    @parameterized.parameters(
        (1437, "--dataset=digits --algorithm"), (1000, "digits --num_train_examples=1000"), (50_000, "--dataset=mnist"),
        (10**6, "--dataset=imagenet2012"), (10**7, "noisy_sgd.DPSGD(learning_rate, "),
    )  # fmt: skip
    def test_the_command_has_enough_examples(self, num_examples, expected):
        budget = dataclasses.replace(privacy_budget.Settings().budget, num_examples=num_examples)
        command = privacy_budget._command(budget, {"noise_multiplier": 1.1, "batch_size": 500})
        self.assertIn(expected, command)
        for arguments in re.findall(r"^python -m noisy_sgd\.experiments\.(train .*)$", command, re.MULTILINE):
            self.assertEqual(flags.train(shlex.split(arguments)).training.noise_multiplier, 1.1)

    def test_recorded_runs_are_composed(self):
        plan = privacy_budget.Settings(accountant="rdp").budget.plan(4.0, 2048)
        plan = privacy.Plan(
            event=gaussian.IndependentNoise().make(1.0, 4.0, 2048, None),
            sampling=plan.sampling,
            num_steps=100,
            delta=1e-5,
            accountant="rdp",
        )
        for name in "ab":
            prints = [keys.fingerprint(name.encode() * 16)]
            said = {**statement.statement("dp_sgd", plan).as_dict(), composition.FINGERPRINTS: prints}
            records.create(self.root / name, {"name": name}, privacy=said).finish({})
            (self.root / name / "ledger.jsonl").write_text(ledger.Ledger(((0, 100),)).to_text())
        both = f"--runs={self.root}/a,{self.root}/b"
        expected = privacy.composed([plan, plan])
        self.assertEqual(self.run_binary(both)[0], f"{expected.text}\n")
        self.assertEqual(self.run_binary(both, "--delta=1e-6")[0], f"{privacy.composed([plan] * 2, 1e-6).text}\n")
        _, stderr = self.run_binary(f"--runs={self.root}/a,{self.root}/a", status=2)
        self.assertRegex(stderr, r"^[\w-]+: `--runs` must have noise keys of their own.*\n$")

    @parameterized.parameters(
        ("--epsilon=0", "`--epsilon` must be positive and finite"),
        ("--epsilon=1e-6", r"`--epsilon` must be at least [\d.e-]+, which 2000 steps cost .* noise multiplier"),
        ("--delta=1", "`--delta` must lie between 0 and 1"),
        (
            "--num_examples=100 --batch_size=200",
            "`--batch_size` must be at most `--num_examples` .*; 100 is the largest",
        ),
        ("--batch_size=0", "`--batch_size` must be at least 1"),
        ("--batch_size=8,8", "`--batch_size` must list one or more different values"),
        ("--num_steps=0", "`--num_steps` must be at least 1"),
        ("--sampling=uniform", "`--sampling` must be one of"),
        ("--tries=0", "`--tries` must be at least 1"),
        ("--tries=3 --tries_distribution=uniform", "`--tries_distribution` must be one of geometric"),
        ("--tries=3 --tries_distribution=negative_binomial", "`--tries_shape` is needed by"),
        ("--tries=3 --tries_distribution=negative_binomial --tries_shape=-1", "`--tries_shape` must be above -1"),
        ("--tries=3 --tries_shape=1", "`--tries_shape` needs `--tries_distribution=negative_binomial`"),
        ("--tries_distribution=poisson", "`--tries_distribution` needs `--tries`"),
        ("--runs=nowhere", "`--run_dir` means nothing to `--runs`"),
    )
    def test_refuses(self, arguments, message):
        self.assert_refused(message, *arguments.split())

    def test_runs_that_are_not_there_are_refused(self):
        _, stderr = self.run_binary(f"--runs={self.root}/nowhere", status=2)
        self.assertRegex(stderr, "must hold the run.json of a run")


if __name__ == "__main__":
    absltest.main()
