"""A cluster that loses its head, drains a machine, differs in versions, or gets a job from outside.

Machines are processes here.  Minutes; `make test-cluster`.
"""

import importlib.util
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweeps.distributed import discovery
from sweeps.ledger.ledger import Ledger
from sweeps.provenance import ROOT
from tests.support.ray_nodes import RAY, Machines, free_port, kill_marked, marked, supervised
from tests.support.tiny import write_lit_cohort
from tests.sweeps.test_chaos import write_losses

pytestmark = pytest.mark.cluster

GRID = ["--losses", "my_losses:slow", "--seeds", "1", "--folds", "2", "--epochs", "12"]
GRID += ["--patch-size", "8", "--filters", "8", "16", "--batch-size", "4"]
GRID += ["--wandb", "disabled", "--no-report"]


@pytest.fixture
def place(tmp_path):
    write_lit_cohort(tmp_path / "data", [1, 2, 3, 4])
    write_losses(tmp_path, 0.4)
    return tmp_path


def grid(address, *more):
    return [str(ROOT / "sweeps" / "paper_grid.py"), *GRID, "--address", address, *more]


def until(condition, driver, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def checkpoints(place):
    return list(place.glob("results/paper_grid/trials/*/checkpoint.pt"))


@pytest.mark.parametrize("how", ["gone", "restarted"])
def test_a_driver_whose_head_is_lost_says_so_and_its_command_goes_on(place, how):
    with Machines() as machines:
        head, worker = machines.head(), machines.add(2)
        driver = machines.drive(grid(machines.address), place)
        until(lambda: checkpoints(place), driver)
        if how == "gone":  # its other processes live on, as when the head's machine is cut off
            (gcs,) = [number for number, line in marked(head.mark).items() if "gcs_server" in line]
            os.kill(gcs, signal.SIGKILL)
        else:
            head.kill()
            worker.kill()
            machines.head()
            machines.add(2)
        out, err = driver.communicate(timeout=300)
        assert driver.returncode == 1, out + err
        assert err.strip().startswith("error: ") and err.strip().count("\n") == 0
        assert "the same command goes on from here" in err
        if how == "gone":
            assert "the Ray cluster has not answered for" in err
            head.kill()
            worker.kill()
            machines.head()
            machines.add(2)
        before = {file.parent.name for file in checkpoints(place)}
        again = machines.drive(grid(machines.address), place)
        out, err = again.communicate(timeout=600)
        assert again.returncode == 0, out + err
        for name in before:
            log = place / "results/paper_grid/trials" / name / "log.txt"
            assert "attempt 2, after epoch" in log.read_text()


DRAIN = """
import sys, time
from ray._raylet import GcsClient
from ray.core.generated import autoscaler_pb2
reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
deadline = int(time.time() * 1000) + 1000
print(GcsClient(address=sys.argv[1]).drain_node(sys.argv[2], reason, "spot", deadline))
"""


def test_a_preempted_machine_does_not_count_as_a_lost_one(place):
    """With no retries at all, the trials of a drained machine go on elsewhere."""
    with Machines() as machines:
        machines.head()
        first = machines.add(2)
        driver = machines.drive(grid(machines.address, "--retries", "0"), place)
        until(lambda: checkpoints(place), driver)
        lines = [line for line in marked(first.mark).values() if "raylet/raylet" in line]
        node = lines[0].split("--node_id=")[1].split()[0]
        drain = [sys.executable, "-c", DRAIN, machines.address, node]
        done = subprocess.run(drain, env=machines.environment, capture_output=True, text=True)
        assert "True" in done.stdout, done.stdout + done.stderr
        time.sleep(2)
        first.kill()
        machines.add(2)
        out, err = driver.communicate(timeout=600)
        assert driver.returncode == 0, out + err
    attempts = [
        json.loads(file.read_text())["attempts"]
        for file in place.glob("results/paper_grid/trials/*/done.json")
    ]
    assert len(attempts) == 2 and max(attempts) == 2


def test_auto_means_the_head_and_not_another_sweeps_own_ray(place):
    """And with a second head, whose folder is its own too, a table to choose from."""
    if others := [each for each in discovery.running_rays() if each.private_to is None]:
        pytest.skip(f"Rays run here that are not this test's: {others}")
    with Machines() as machines, Machines() as second:
        machines.head(2)
        own = [*grid("auto")[:-2], "--epochs", "999", "--results", "own"]  # outlasts all of this
        own = machines.drive(own, place)

        def private():
            driver = supervised(own)
            return [
                each for each in discovery.running_rays() if driver and each.private_to == driver
            ]

        until(private, own)
        done = machines.drive(grid("auto", "--epochs", "1"), place)
        out, err = done.communicate(timeout=600)
        assert done.returncode == 0, out + err
        assert re.search(rf"on Ray cluster at \S+:{machines.port}, 1 CPU each", out)
        refused = machines.drive(grid(private()[0].address, "--results", "x"), place)
        out, err = refused.communicate(timeout=300)
        assert refused.returncode == 2
        assert f"that Ray is process {supervised(own)}'s own" in err
        second.head(1)
        refused = machines.drive(grid("auto", "--results", "x"), place)
        out, err = refused.communicate(timeout=300)
        assert refused.returncode == 2 and "2 Rays run on this machine; say which" in err
        rows = err.splitlines()[2:]
        assert {row.split()[0].rpartition(":")[2] for row in rows} == {
            str(machines.port), str(second.port)
        }  # fmt: skip
        assert any("2 of 2 CPUs" in row for row in rows)
        assert not (place / "x" / "sweep.json").exists()


def test_trials_that_wait_for_another_sweeps_cores_say_so(place):
    def shows(folder, text):
        live = place / folder / ".live.json"
        return live.exists() and text in live.read_text()

    with Machines() as machines:
        machines.head(2)
        first = machines.drive(
            grid(machines.address, "--epochs", "999", "--results", "first"), place
        )
        until(lambda: shows("first", "2 running"), first)
        second = machines.drive(grid(machines.address, "--results", "second"), place)
        until(lambda: shows("second", "held by job"), second)
        holder = supervised(first)
        second.send_signal(signal.SIGTERM)
        out, _ = second.communicate(timeout=300)
    wait = r"2 could run and wait: 0 of 2 CPUs are free; 2 CPU held by job 01000000 \(process (\d+)"
    assert re.search(wait, out).group(1) == str(holder)


def test_a_worker_whose_gpu_is_lost_is_replaced_and_the_trial_keeps_its_own_words(place):
    """Imitated: the loss breaks the process, as CUDA does after a device-side assert."""
    (place / "my_losses.py").write_text("""
import ray
from lesion_core.losses import CrossEntropy
from sweeps.trials import attempt

def slow(logits, target):
    training = logits.shape[-1] == 8  # not the try-out of every loss
    if training and ray.is_initialized() and ray.get_runtime_context().get_actor_id():
        attempt._lost = lambda device: "the GPU cannot be used any more"
        raise RuntimeError("CUDA error: device-side assert triggered")
    return CrossEntropy()(logits, target)

def unlucky(logits, target):
    return CrossEntropy()(logits, target)
""")
    with Machines() as machines:
        machines.head(1)
        flags = ["--losses", "my_losses:slow", "my_losses:unlucky", "--epochs", "1"]
        driver = machines.drive(grid(machines.address, *flags), place)
        out, err = driver.communicate(timeout=600)
    assert driver.returncode == 1, out + err
    ledger = Ledger(place / "results" / "paper_grid")
    states = ledger.states([path.name for path in (ledger.path / "trials").iterdir()])
    assert sorted(state["status"] for state in states.values()) == ["done"] * 2 + ["failed"] * 2
    for name, state in states.items():
        log = (ledger.path / "trials" / name / "log.txt").read_text()
        assert log.count(": attempt ") == 1, log
        if state["status"] == "failed":
            assert state["error"] == "RuntimeError: CUDA error: device-side assert triggered"


def test_a_machine_without_room_for_the_images_is_avoided_and_the_others_go_on(place):
    write_losses(place, 1.5)  # so that it lasts until the last machine has joined
    with Machines() as machines:
        machines.head()
        machines.add(1)
        script = "import sys; sys.argv[0] = 'x'; from sweeps import command, paper_grid\n"
        script += "from sweeps.distributed import cluster\n"
        script += "cluster._size = lambda cohort: 85 * 10**6\n"
        script += "sys.exit(command.run(paper_grid.main))"
        command = ["-c", script, *GRID, "--seeds", "1", "2", "3", "--epochs", "4"]
        command += ["--address", machines.address]
        driver = machines.drive(command, place, PYTHONPATH=f"{ROOT}:{place}")
        until(lambda: checkpoints(place), driver)
        machines.add(1, f"--object-store-memory={80_000_000}")
        out, err = driver.communicate(timeout=600)
    assert driver.returncode == 0, out + err
    assert out.count("no more trials go to those with an error; the others go on") == 1
    (line,) = [line for line in out.splitlines() if "object store" in line]
    assert line.split()[0] == "error" and "0.08 GB" in line


FILL = """
import sys, time, ray
ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
held = [ray.put(bytes(30_000_000)) for _ in range(8)]
print("full", flush=True)
time.sleep(600)
"""


def test_a_store_that_others_fill_while_a_sweep_runs_costs_no_trial(place):
    """240 MB in a store of 100: Ray puts on disk what does not fit."""
    with Machines() as machines:
        machines.head(2)
        driver = machines.drive(grid(machines.address), place)
        until(lambda: checkpoints(place), driver)
        filler = machines.drive(["-c", FILL, machines.address], place)
        assert filler.stdout.readline() == "full\n"
        out, err = driver.communicate(timeout=600)
    assert driver.returncode == 0, out + err
    assert "2 of 2 trials are done" in out and "0 failed" in out


def add_other_machine(machines, place):
    """With other versions, as far as its own installed packages tell."""
    for library, version in (("torch", "1.0"), ("pandas", "0.5")):
        info = place / "other" / f"{library}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {library}\nVersion: {version}\n"
        )
    machines.environment["PYTHONPATH"] = str(place / "other")
    machines.add()
    del machines.environment["PYTHONPATH"]


def test_a_machine_that_joins_later_and_differs_is_warned_of_once(place):
    with Machines() as machines:
        machines.head()
        machines.add()
        driver = machines.drive(grid(machines.address), place)
        until(lambda: checkpoints(place), driver)
        add_other_machine(machines, place)
        out, err = driver.communicate(timeout=600)
    assert driver.returncode == 0, out + err
    assert out.count("warning: machines have joined that are not as expected") == 1
    (line,) = [line for line in out.splitlines() if "torch" in line]
    assert line.split()[0] == "error" and line.split()[3:5] == ["torch", "1.0"]


def test_a_wrong_token_is_one_line(place):
    with Machines() as machines:
        machines.head(1)
        driver = machines.drive(grid(machines.address), place, RAY_AUTH_TOKEN="0" * 64)
        out, err = driver.communicate(timeout=300)
    assert driver.returncode == 2, out + err
    assert err.startswith(f"error: --address {machines.address}: this Ray cluster lets nobody in")
    assert err.strip().count("\n") == 0
    assert not (place / "results").exists()


def test_what_matters_of_the_drivers_environment_reaches_workers_and_no_secret(place):
    with (place / "my_losses.py").open("a") as file:
        file.write("import os\nprint({name: os.environ.get(name) for name in (")
        file.write("'TORCH_HELLO', 'MALLOC_ARENA_MAX', 'HTTPS_PROXY', 'WANDB_API_KEY')})\n")
    secrets = {"HTTPS_PROXY": "http://me:pa55word@proxy:1", "WANDB_API_KEY": "k" * 40}
    with Machines() as machines:
        machines.head(1)
        driver = machines.drive(
            grid(machines.address, "--epochs", "1"), place,
            TORCH_HELLO="there", MALLOC_ARENA_MAX="3", **secrets,
        )  # fmt: skip
        out, err = driver.communicate(timeout=300)
    assert driver.returncode == 0, out + err
    assert "warning: HTTPS_PROXY holds a password" in err
    logs = "".join(log.read_text() for log in place.glob("results/paper_grid/trials/*/log.txt"))
    assert "{'TORCH_HELLO': 'there', 'MALLOC_ARENA_MAX': '3', 'HTTPS_PROXY': None" in logs
    assert "'WANDB_API_KEY': None}" in logs
    for said in (err, logs):
        assert "pa55word" not in said and secrets["WANDB_API_KEY"] not in said


def test_another_version_on_one_machine_is_a_table_and_nothing_runs(place):
    with Machines() as machines:
        machines.head()
        machines.add()
        add_other_machine(machines, place)
        driver = machines.drive(grid(machines.address), place)
        out, err = driver.communicate(timeout=300)
    assert driver.returncode == 2, out + err
    title, columns, *rows = err.strip().splitlines()
    assert title == "error: not every machine is fit for this sweep"
    assert columns.split() == ["machine", "what", "found", "there", "expected"]
    assert [(row.split()[0], row.split()[3:5]) for row in rows] == [
        ("error", ["torch", "1.0"]),
        ("warning", ["pandas", "0.5"]),
    ]
    assert not (place / "results" / "paper_grid" / "sweep.json").exists()


def test_images_larger_than_a_machines_object_store_are_a_table(place):
    with Machines() as machines:
        machines.head()
        machines.add(1)
        script = "import sys; sys.argv[0] = 'x'; from sweeps import command, paper_grid\n"
        script += "from sweeps.distributed import cluster\n"
        script += "cluster._size = lambda cohort: 10**9\n"
        script += "sys.exit(command.run(paper_grid.main))"
        command = ["-c", script, *GRID, "--address", machines.address]
        driver = machines.drive(command, place, PYTHONPATH=str(ROOT))
        out, err = driver.communicate(timeout=300)
    assert driver.returncode == 2, out + err
    assert "object store  0.1 GB" in err and "--object-store-memory=BYTES" in err


@pytest.mark.skipif(
    importlib.util.find_spec("aiohttp_cors") is None, reason="needs the job server: ray[default]"
)
def test_a_job_from_outside_runs_is_stopped_and_again_goes_on(place):
    port = free_port()
    with Machines(PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}") as machines:
        machines.start(
            "127.0.0.1", 2, "--head", f"--port={machines.port}", "--dashboard-host=127.0.0.1",
            f"--dashboard-port={port}", f"--dashboard-agent-listen-port={free_port()}",
            f"--temp-dir={machines.folder}/0",
        )  # fmt: skip
        server = ["--address", f"http://127.0.0.1:{port}"]

        def job(*command):
            return subprocess.run(
                [RAY, "job", *command], cwd=ROOT, env=machines.environment, timeout=600,
                capture_output=True, text=True,
            )  # fmt: skip

        def submit(*flags, options=()):
            command = ["submit", *server, "--working-dir", ".", *options, "--", "python"]
            command += ["sweeps/paper_grid.py", "--address", "auto", "--data", str(place / "data")]
            return job(*command, *GRID, *flags)

        # As sweeps/cluster/README.md says: at first the head's agent is still starting.
        deadline = time.monotonic() + 300
        while (tried := job("submit", *server, "--no-wait", "--", "true")).returncode:
            assert "No available agent" in tried.stdout + tried.stderr
            assert time.monotonic() < deadline
            time.sleep(5)
        fleeting = submit("--losses", "xent")
        assert fleeting.returncode == 1
        assert "that is in the job's copy of the code, which Ray deletes" in fleeting.stdout
        stays = str(place / "stays")
        options = ["--no-wait", "--submission-id", "first"]
        options += ["--runtime-env-json", json.dumps({"env_vars": {"PYTHONPATH": str(place)}})]
        begun = submit("--results", stays, options=options)
        assert begun.returncode == 0, begun.stdout + begun.stderr
        deadline = time.monotonic() + 300
        while not list(place.glob("stays/trials/*/checkpoint.pt")):
            assert time.monotonic() < deadline, job("logs", *server, "first").stdout
            time.sleep(0.5)
        job("stop", *server, "first")
        assert len(list(place.glob("stays/trials/*/done.json"))) < 2
        again = submit("--results", stays, options=options[-2:])
        assert again.returncode == 0, again.stdout + again.stderr
        assert "2 of 2 trials are done" in again.stdout
        assert "nothing to do" in submit("--results", stays, options=options[-2:]).stdout
    logs = [log.read_text() for log in place.glob("stays/trials/*/log.txt")]
    assert len(logs) == 2 and any("attempt 2, after epoch" in log for log in logs)


STUBS = {
    "scontrol": 'if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> "$CALLS"; fi',
    "hostname": "echo 127.0.0.1",
    # Runs its command here, once for all nodes it is asked for.
    "srun": 'while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"',
}


def test_the_slurm_script_starts_a_cluster_and_stops_and_requeues_in_time(place):
    """With srun and scontrol that act on this machine."""
    stubs = place / "bin"
    stubs.mkdir()
    for name, script in STUBS.items():
        (stubs / name).write_text(f"#!/bin/sh\n{script}\n")
        (stubs / name).chmod(stat.S_IRWXU)
    activate = place / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f"PATH={stubs}:{Path(sys.executable).parent}:$PATH\n")
    mark, job = f"slurm-{os.getpid()}", free_port()
    environment = {
        **os.environ,
        "PATH": f"{stubs}:{os.environ['PATH']}",
        "LESION_TEST_MACHINE": mark,
        "CALLS": str(place / "calls"),
        "SLURM_SUBMIT_DIR": str(place),
        "SLURM_JOB_NODELIST": "here",
        "SLURM_JOB_ID": str(job),
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "1",
        "RAY_worker_niceness": "0",
    }
    command = ["bash", str(ROOT / "sweeps" / "cluster" / "slurm.sh"), "python"]
    command += [str(ROOT / "sweeps" / "paper_grid.py"), *GRID]
    log = place / "slurm.out"
    try:
        with log.open("w") as out:
            batch = subprocess.Popen(
                command, env=environment, cwd=place, start_new_session=True, stdout=out, stderr=out
            )
        until(lambda: checkpoints(place), batch)
        batch.send_signal(signal.SIGTERM)  # as SLURM does before the time is up
        batch.wait(timeout=120)
    finally:
        kill_marked(mark)
    said = log.read_text()
    assert batch.returncode == 143, said
    assert "2 at a time on Ray cluster" in said
    assert "stopped; the same command goes on from here" in said
    assert (place / "calls").read_text() == f"requeue {job}\n"
