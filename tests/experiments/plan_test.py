"""The plan of a run: arithmetic, refusals, and the real step as the program that a compiler gets, here a fake one.

A compilation for a TPU takes minutes and packages that the suite does without; docs/imagenet.md says what was compiled.
"""

import contextlib
import io
import os
import pathlib
import re
import stat
import sys
import types
from unittest import mock

from absl.testing import absltest, parameterized

from noisy_sgd import config
from noisy_sgd.experiments import flags, plan
from noisy_sgd.experiments.planning import compiling, costs, devices, lowering, xla_program

SMALL = [
    "--model=mlp", "--hidden=8", "--algorithm=dp_sgd", "--noise_multiplier=1", "--l2_norm_clip=1", "--batch_size=64",
    "--microbatch_size=16", "--num_steps=100",
]  # fmt: skip
# What a compiler answers for a program: its memory grows with the microbatch, whose size is in the program's text.
FAKE = """
import json, re, sys
if len(sys.argv) > 2 and sys.argv[1] == "-c":
    sys.exit()
text = open(sys.argv[3]).read()
sizes = [int(size) for size in re.findall(r"tensor<(\\d+)x8x8x1xui8>", text)]
size = sizes[0] if sizes else 1
line = {"memory": size * 2**29, "flops": 4e9, "bytes_accessed": 2e9, "cycles": CYCLES, "loops": 0}
line = {"error": "RESOURCE_EXHAUSTED: too large"} if size > MOST else line | {"compile_seconds": 1.5}
print(json.dumps(line))
"""


class DevicesTest(parameterized.TestCase):
    @parameterized.parameters(("v5e:2x2x1", 4), ("v5e:2x4", 8), ("v4:2x2x2", 8), ("h100:8", 8), ("a100:1", 1))
    def test_counts_them(self, name, count):
        self.assertEqual(devices.topology(name).count, count)

    @parameterized.parameters("v5e", "v5e:4", "h100:2x2", "v9:2x2", "v5e:0x2", "v5e:2x", "")
    def test_refuses(self, name):
        with self.assertRaisesRegex(
            config.ConfigError, f"^`--topology` must be .*topology={name}\\); such as v5e:2x2x1"
        ):
            devices.topology(name)


class CostsTest(parameterized.TestCase):
    def test_a_tpus_time_is_its_compilers_and_a_gpus_the_slower_of_two(self):
        tpu, gpu = devices.KINDS["v5e"], devices.KINDS["h100"]
        part = {"cycles": 3_000_000, "flops": 0.0, "bytes_accessed": 0.0}
        self.assertAlmostEqual(costs.seconds(part, tpu, "bfloat16"), 2e-3)
        part = {"cycles": None, "flops": 9.89e12, "bytes_accessed": 3.35e9}
        self.assertAlmostEqual(costs.seconds(part, gpu, "bfloat16"), 1e-2)
        self.assertAlmostEqual(costs.seconds(part, gpu, "float32"), 9.89e12 / 495e12)
        self.assertAlmostEqual(costs.seconds(part | {"bytes_accessed": 3.35e11}, gpu, "bfloat16"), 0.1)

    def test_a_ring_sends_twice_all_but_its_own_part(self):
        self.assertEqual(costs.all_reduce_bytes(1000, 1), 0)
        self.assertEqual(costs.all_reduce_bytes(1000, 4), 4 * 1000 * 1.5)

    def test_sizes_are_divisors_up_to_the_share_of_a_replica(self):
        self.assertEqual(costs.microbatch_sizes(24, 4), [1, 2, 3, 4, 6])
        self.assertEqual(costs.microbatch_sizes(4, 8), [1])

    @parameterized.parameters(*range(9))
    def test_bisection_finds_the_largest_that_fits(self, limit):
        tried = []

        def fits(size):
            tried.append(size)
            return size <= limit

        sizes = list(range(1, 9))
        self.assertEqual(costs.largest_that_fits(sizes, fits), limit or None)
        self.assertLessEqual(len(tried), 4)


class LoweringTest(parameterized.TestCase):
    def test_the_programs_are_the_real_steps(self):
        settings = plan.parse(["plan", *SMALL, "--ema_decay=0.9"]).run
        made = lowering.objects(settings)
        microbatch, update = lowering.microbatch_program(made, settings, 16), lowering.update_program(made)
        self.assertIn("tensor<16x8x8x1xui8>", microbatch)
        self.assertNotIn("stablehlo.while", microbatch)
        # The noise needs random bits; the update writes weights, their sums and their averages.
        self.assertRegex(update, "rng_bit_generator|shift_right_logical")
        for shape in ("64x8", "8x10"):
            self.assertGreaterEqual(update.count(f": tensor<{shape}xf32>"), 3)
        without = lowering.update_program(lowering.objects(plan.parse(["plan", *SMALL]).run))
        arguments = [re.search(r"func\.func (?:public )?@main\((.*?)\) ->", text)[1] for text in (update, without)]
        averages, weights = (text.count("tensor<64x8xf32>") for text in arguments)
        self.assertEqual(averages, weights + 1)

    def test_a_microbatch_holds_all_views(self):
        typed = [*SMALL, "--augmentation=crop", "--augmentation_multiplicity=2"]
        settings = plan.parse(["plan", *typed]).run
        program = lowering.microbatch_program(lowering.objects(settings), settings, 16)
        self.assertIn("tensor<16x2x8x8x1xui8>", program)

    def test_imagenet_needs_no_files(self):
        made = lowering.facts(config.Data(dataset="imagenet2012", image_size=32, held_out=10_000))
        self.assertEqual((made.image_shape, made.num_classes), ((32, 32, 3), 1000))
        self.assertEqual(made.num_train_examples, 1_271_167)
        self.assertEqual(lowering.facts(config.Data()).num_train_examples, 1437)


class PlanTest(parameterized.TestCase):
    def _python(self, cycles=None, most=10**6):
        """A Python whose compiler is the fake one."""
        path = pathlib.Path(self.create_tempdir().full_path, "python")
        text = FAKE.replace("CYCLES", repr(cycles)).replace("MOST", repr(most))
        path.write_text(f"#!{sys.executable}\n{text}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    def _run(self, *arguments, status=0):
        stdout, stderr = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            with self.assertRaises(SystemExit) as caught:
                flags.run(plan.parse, plan.main, ["plan", *SMALL, *arguments])
        self.assertEqual(caught.exception.code or 0, status, stderr.getvalue())
        return stdout.getvalue() if status == 0 else stderr.getvalue()

    def test_states_the_costs_of_a_step_and_of_the_run(self):
        told = self._run("--topology=v5e:2x2x1", f"--compiler_python={self._python(cycles=27_000_000_000)}")
        self.assertIn("Estimates of the TPU compiler for v5e:2x2x1, 4 replicas; nothing was measured.", told)
        self.assertIn("microbatch: 8.00 of 16 GiB memory, 4.0 GFLOP, 2.00 GB accessed, 0 loops, compiled in 2 s", told)
        self.assertIn(
            "a step: 36000.0 ms = 1.00 microbatches of 16 per replica at 18000.00 ms + update 18000.00 ms + sum", told
        )
        self.assertRegex(told, "the run: 100 steps, 1.0 hours, 4 device hours, 4.5 epochs")
        self.assertRegex(told, r"Guaranteed: \([0-9.]+, 0.0001\)-differential privacy")

    def test_searches_the_largest_microbatch(self):
        python = self._python(cycles=1, most=16)
        told = self._run("--topology=v5e:1x1", f"--compiler_python={python}", "--largest_microbatch")
        self.assertIn("The largest microbatch that fits is 16 (tried: 8, 16, 32).", told)
        # A compiler that refuses nothing: 64 examples take 32 GiB, and the device has 16.
        generous = f"--compiler_python={self._python(cycles=1)}"
        told = self._run("--topology=v5e:1x1", generous, "--largest_microbatch")
        self.assertIn("The largest microbatch that fits is 32 (tried: 8, 16, 32, 64).", told)
        told = self._run("--topology=h100:1", f"--compiler_python={python}", "--microbatch_size=32")
        self.assertIn(
            "A microbatch of 32 does not fit (microbatch: RESOURCE_EXHAUSTED: too large); give a smaller", told
        )

    def test_exports_the_programs(self):
        folder = self.create_tempdir().full_path + "/new"
        told = self._run(f"--export_dir={folder}")
        self.assertEqual(told, f"program: {folder}/microbatch.mlir\nprogram: {folder}/update.mlir\n")
        text = pathlib.Path(folder, "microbatch.mlir").read_text()
        self.assertStartsWith(text.lstrip("#"), "loc")
        self.assertIn("tensor<16x8x8x1xui8>", text)

    @parameterized.parameters(({"flops": 5.0, "bytes accessed": 7.0},), ([{"flops": 5.0, "bytes accessed": 7.0}],))
    def test_what_a_compiled_program_says(self, costs):
        sizes = {"argument": 100, "output": 20, "temp": 3000, "generated_code": 50000, "alias": 15}
        sizes = types.SimpleNamespace(**{f"{name}_size_in_bytes": size for name, size in sizes.items()})
        text = '%a = fusion(), {"estimated_cycles":"40"}\n%b = while(%a)\n%c = add(), {"estimated_cycles":"2"}'
        program = mock.Mock()
        program.get_compiled_memory_stats.return_value = sizes
        program.cost_analysis.return_value = costs
        program.hlo_modules.return_value = [mock.Mock(**{"to_string.return_value": text})]
        expected = {"memory": 53105, "flops": 5.0, "bytes_accessed": 7.0, "cycles": 42, "loops": 1}
        self.assertEqual(xla_program._said(program), expected)

    def test_outputs_take_no_memory_of_arguments(self):
        alias = '{alias = {kind = "may_alias", parameter_index = array<i64>}, output_index = array<i64: 1>}'
        before = f"module @a attributes {{mhlo.a = [], mhlo.input_output_alias = [{alias}, {alias}], mhlo.b = [1]}} {{"
        after = "module @a attributes {mhlo.a = [], mhlo.b = [1]} {"
        self.assertEqual(xla_program._without_aliases(before), after)
        self.assertEqual(xla_program._without_aliases(after), after)

    def test_a_python_without_jax_is_one_sentence(self):
        empty = pathlib.Path(self.create_tempdir().full_path)
        (empty / "jax.py").write_text("raise ImportError('No module named jax')")
        with mock.patch.dict(os.environ, {"PYTHONPATH": str(empty)}):
            stderr = self._run("--topology=v5e:2x2x1", status=2)
        self.assertRegex(
            stderr, "^[^\n]*: `--compiler_python` must be a Python with jax and libtpu .*No module.*pip[^\n]*\n$"
        )
        stderr = self._run("--compiler_python=/nowhere/python", "--topology=h100:1", status=2)
        self.assertRegex(stderr, "^[^\n]*: `--compiler_python` must be a Python with jax .*No such file[^\n]*\n$")

    def test_a_compilation_that_fails_is_one_sentence(self):
        broken = pathlib.Path(self.create_tempdir().full_path, "python")
        broken.write_text(
            f"#!{sys.executable}\nimport sys\nif sys.argv[1] != '-c': raise SystemError('no such slice')\n"
        )
        broken.chmod(0o755)
        with self.assertRaisesRegex(ValueError, "^`topology` must be .*: v4:2x2x1 \\(SystemError: no such slice\\)$"):
            compiling.compiled("module", devices.topology("v4:2x2x1"), str(broken))


if __name__ == "__main__":
    absltest.main()
