"""What operators are given is valid, and says what the project needs."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from sweeps.provenance import ROOT

FOLDER = ROOT / "sweeps" / "cluster"


@pytest.fixture(scope="module")
def rayjob():
    return yaml.safe_load((FOLDER / "rayjob.yaml").read_text())


def pods(rayjob):
    cluster = rayjob["spec"]["rayClusterSpec"]
    return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_the_slurm_script_is_clean():
    script = FOLDER / "slurm.sh"
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_ssh_cluster_fits_rays_own_schema():
    import ray

    schema = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
    config = yaml.safe_load((FOLDER / "ray_up.yaml").read_text())
    jsonschema.validate(config, json.loads(schema.read_text()))
    assert config["max_workers"] == len(config["provider"]["worker_ips"])
    starts = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    assert all("RAY_AUTH_MODE=token" in start for start in starts if " start " in start)


def test_the_pods_fit_kubernetes_schema(rayjob):
    for template in pods(rayjob):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **template}
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


def test_the_ray_job_is_what_the_operator_expects(rayjob):
    """KubeRay's own schema is in no package: these are the fields it requires and the ones used."""
    import ray

    assert (rayjob["apiVersion"], rayjob["kind"]) == ("ray.io/v1", "RayJob")
    cluster = rayjob["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == ray.__version__
    assert cluster["authOptions"] == {"mode": "token"}
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    for group in cluster["workerGroupSpecs"]:
        assert group["groupName"]
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_every_volume_that_is_mounted_is_there_and_results_are_the_heads_alone(rayjob):
    head, *workers = pods(rayjob)
    for template in (head, *workers):
        volumes = {volume["name"] for volume in template["spec"]["volumes"]}
        for container in template["spec"]["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    mounts = {m["name"]: m["mountPath"] for m in head["spec"]["containers"][0]["volumeMounts"]}
    entrypoint = rayjob["spec"]["entrypoint"].split()
    for flag, volume in (("--data", "data"), ("--results", "results")):
        folder = entrypoint[entrypoint.index(flag) + 1]
        assert folder.startswith(mounts[volume])
    assert all({v["name"] for v in worker["spec"]["volumes"]} == {"shm"} for worker in workers)


def test_commands_in_these_files_know_their_flags(rayjob):
    from sweeps import command
    from sweeps.paper_grid import PaperGrid

    script, *flags = rayjob["spec"]["entrypoint"].split()[1:]
    assert (ROOT / script).exists()
    assert command.read_flags(PaperGrid, flags).address == "auto"
