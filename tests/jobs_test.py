"""The job folder: scripts that start runs, tried with programs that stand in for the run and for Google Cloud."""

import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

import yaml
from absl.testing import absltest, parameterized

from noisy_sgd.experiments import flags

ROOT = pathlib.Path(__file__).resolve().parent.parent
JOBS = ROOT / "configs" / "jobs"
SCRIPTS = sorted(path.name for path in JOBS.glob("*.sh"))
# Ends with one status after the other, and writes what it was started with.
RUN = """
import json, os, pathlib, signal, sys, time
folder = pathlib.Path(__file__).parent
with (folder / "started").open("a") as file:
    file.write(json.dumps([sys.argv[1:], os.environ.get("TF_CONFIG")]) + "\\n")
statuses = json.loads((folder / "statuses").read_text())
(folder / "statuses").write_text(json.dumps(statuses[1:]))
if statuses[0] == "wait":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    (folder / "waiting").touch()
    time.sleep(60)
sys.exit(statuses[0])
"""


class StartTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)
        python = self.folder / "python"
        python.write_text(f"#!{sys.executable}\n{RUN}")
        python.chmod(0o755)

    @parameterized.parameters(([0], 0), ([2], 2), ([1] * 9, 1), (["wait"], 75))
    def test_runs_a_command_after_the_run_whatever_its_end(self, statuses, status):
        process = self.start(statuses, RETRIES="1", AFTER=f"cp {self.folder}/started {self.folder}/kept; false")
        if statuses == ["wait"]:
            self.wait_and_stop(process)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, status)
        self.assertEqual((self.folder / "kept").read_text(), (self.folder / "started").read_text())

    def start(self, statuses, **environment):
        (self.folder / "statuses").write_text(json.dumps(statuses))
        environment = os.environ | {"PYTHON": str(self.folder / "python"), "PAUSE": "0"} | environment
        command = ["bash", str(JOBS / "start.sh"), "--seed=3", "--run_dir=a b"]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    def started(self):
        return [json.loads(line) for line in (self.folder / "started").read_text().splitlines()]

    @parameterized.parameters(
        ([0], 0, 1), ([75, 0], 0, 2), ([1, 75, 1, 0], 0, 4), ([2, 0], 2, 1), ([75, 2], 2, 2), ([1] * 9, 1, 4)
    )
    def test_starts_a_run_again_until_it_ends(self, statuses, status, times):
        process = self.start(statuses, RETRIES="3")
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, status)
        arguments = ["-m", "noisy_sgd.experiments.train", "--seed=3", "--run_dir=a b"]
        self.assertEqual(self.started(), [[arguments, None]] * times)

    def wait_and_stop(self, process):
        end = time.monotonic() + 60
        while not (self.folder / "waiting").exists() and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)

    def test_hands_a_signal_on_and_ends_with_the_run(self):
        process = self.start(["wait", 0])
        self.wait_and_stop(process)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75)
        self.assertLen(self.started(), 1)

    def test_hosts_become_tf_config(self):
        self.start([0], HOSTS="10.0.0.1:2222,10.0.0.2:2222", INDEX="1").communicate(timeout=60)
        ((_, text),) = self.started()
        cluster = {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}
        self.assertEqual(json.loads(text), {"cluster": cluster, "task": {"type": "worker", "index": 1}})


class JobsTest(parameterized.TestCase):
    @parameterized.parameters(*SCRIPTS)
    def test_a_script_can_be_read_and_run(self, name):
        subprocess.run(["bash", "-n", str(JOBS / name)], check=True)
        self.assertTrue(os.access(JOBS / name, os.X_OK), name)
        for path in re.findall(r"configs/[\w/.-]+\w", (JOBS / name).read_text()):
            self.assertTrue((ROOT / path).exists(), path)

    def test_the_queued_resource_starts_the_run(self):
        folder = pathlib.Path(self.create_tempdir().full_path)
        gcloud = folder / "gcloud"
        gcloud.write_text(
            f'#!/usr/bin/env bash\nprintf "%s\\n" "$@" > {folder}/asked\n'
            f'cp "${{@: -1}}" /dev/null 2>&1; for a in "$@"; do case "$a" in *startup-script=*) '
            f'cp "${{a##*startup-script=}}" {folder}/script;; esac; done\n'
        )
        gcloud.chmod(0o755)
        environment = os.environ | {"GCLOUD": str(gcloud), "ZONE": "here", "BUCKET": "gs://bucket", "DISK": "images"}
        command = ["bash", str(JOBS / "queued_resource.sh"), "mine", "--flagfile=configs/imagenet/sgd.flags"]
        subprocess.run(command, env=environment, check=True)
        asked = (folder / "asked").read_text().split()
        self.assertEqual(asked[:5], ["compute", "tpus", "queued-resources", "create", "mine"])
        self.assertContainsSubset({"--zone=here", "--spot", "--data-disk=source=images,mode=read-only"}, set(asked))
        subprocess.run(["bash", "-n", str(folder / "script")], check=True)
        (command,) = re.findall("^exec configs/jobs/tpu_vm.sh (.*)$", (folder / "script").read_text(), re.MULTILINE)
        made = flags.train(["train", *shlex.split(command), "--strategy=tpu", "--tpu=local"])
        self.assertEqual(made.run.checkpoint_dir, "gs://bucket/mine")
        self.assertEqual(made.training.algorithm, "sgd")
        (after,) = re.findall('^export AFTER="(.*)"$', (folder / "script").read_text(), re.MULTILINE)
        copied = [made.run.run_dir, "gs://bucket/records/mine"]
        self.assertEqual(after.split(), ["gcloud", "storage", "rsync", "--recursive", *copied])

    def test_the_arguments_of_the_job_set_are_flags(self):
        text = (JOBS / "jobset.yaml").read_text()
        arguments = re.findall(r"^ +- (--.*)$", text, re.MULTILINE)
        made = flags.train(["train", *arguments])
        self.assertEqual((made.run.strategy, made.training.batch_size), ("tpu", 128))
        (job,) = yaml.safe_load(text)["spec"]["replicatedJobs"]
        pod = job["template"]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        self.assertEqual(container["args"], arguments)
        claims = {volume["name"]: volume.get("persistentVolumeClaim") for volume in pod["volumes"]}
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        self.assertTrue(claims[mounts[made.data.data_dir]["name"]]["claimName"])
        # The record outlives the pod.
        records = mounts[os.path.dirname(made.run.run_dir)]
        self.assertEqual((records.get("readOnly"), claims[records["name"]]), (None, {"claimName": records["name"]}))

    def test_the_container_copies_what_exists(self):
        text = (JOBS / "Containerfile").read_text()
        for source in re.findall(r"^COPY (\S+)", text, re.MULTILINE):
            self.assertTrue((ROOT / source).exists(), source)
        for path in re.findall(r"configs/jobs/[\w.-]+", text):
            self.assertTrue((ROOT / path).exists(), path)

    def test_the_tpu_requirements_are_ours_with_another_tensorflow(self):
        text = (JOBS / "requirements-tpu.txt").read_text()
        pinned = dict(re.findall(r"^([\w-]+)==([\w.]+)", text, re.MULTILINE))
        self.assertEqual((pinned["tensorflow-tpu"], pinned["keras"]), ("2.20.0", "3.15.1"))
        self.assertEmpty({"tensorflow", "tensorflow-privacy"} & pinned.keys())
        project = (ROOT / "pyproject.toml").read_text().partition("dependencies = [")[2].partition("\n]")[0]
        for name, version, marker in re.findall(r'"([\w-]+)(?:==([\w.]+)|[^;"]*)(;[^"]*)?"', project):
            if name in ("tensorflow", "tensorflow-privacy", "tensorboard") or "< '3.1" in marker:
                continue
            self.assertIn(name, pinned)
            self.assertEqual(pinned[name], version or pinned[name], name)


if __name__ == "__main__":
    absltest.main()
