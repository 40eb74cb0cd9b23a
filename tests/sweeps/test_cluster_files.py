"""What operators are given is valid, and says what the project needs."""

import json
import os
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


def fields(required="", **types):
    """A JSON schema of an object that may have these fields and no others."""
    return {
        "type": "object",
        "properties": {name: {"type": t} if isinstance(t, str) else t for name, t in types.items()},
        "required": required.split(),
        "additionalProperties": False,
    }


STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
HEAD = fields("template", rayStartParams=STRINGS, template="object")
WORKERS = fields(
    "groupName minReplicas maxReplicas template", groupName="string", replicas="integer",
    minReplicas="integer", maxReplicas="integer", rayStartParams=STRINGS, template="object",
)  # fmt: skip
RAY_CLUSTER = fields(
    "headGroupSpec", rayVersion="string", authOptions=fields(mode={"enum": ["disabled", "token"]}),
    headGroupSpec=HEAD, workerGroupSpecs={"type": "array", "items": WORKERS},
)  # fmt: skip
RAY_JOB = fields(
    entrypoint="string", backoffLimit="integer", submissionMode="string",
    shutdownAfterJobFinishes="boolean", ttlSecondsAfterFinished="integer",
    rayClusterSpec=RAY_CLUSTER,
)  # fmt: skip
"""Names, types and requirements of the fields that the file uses, as the custom resource definition
of KubeRay has them (github.com/ray-project/kuberay, ray-operator/config/crd/bases/
ray.io_rayjobs.yaml, equal in v1.5.1 and v1.7.0)."""


def test_the_ray_job_is_what_the_operator_expects(rayjob):
    """No package has KubeRay's own schema; the next test checks a file of it."""
    import ray

    assert (rayjob["apiVersion"], rayjob["kind"]) == ("ray.io/v1", "RayJob")
    jsonschema.validate(rayjob["spec"], RAY_JOB)
    cluster = rayjob["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == ray.__version__
    assert cluster["authOptions"] == {"mode": "token"}
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.skipif(
    "KUBERAY_CRD" not in os.environ, reason="set KUBERAY_CRD to a release's ray.io_rayjobs.yaml"
)
def test_the_ray_job_fits_the_operators_whole_schema(rayjob):
    definition = yaml.load(Path(os.environ["KUBERAY_CRD"]).read_text(), yaml.CSafeLoader)
    (version,) = [each for each in definition["spec"]["versions"] if each["name"] == "v1"]
    schema = version["schema"]["openAPIV3Schema"]
    jsonschema.validate(rayjob, refusing_unknown_fields(schema))
    with pytest.raises(jsonschema.ValidationError):
        rayjob = {**rayjob, "spec": {**rayjob["spec"], "backofLimit": 3}}
        jsonschema.validate(rayjob, refusing_unknown_fields(schema))


def refusing_unknown_fields(schema):
    """Of Kubernetes' kind of schema the JSON schema, as its server applies it with --validate."""
    if isinstance(schema, list):
        return [refusing_unknown_fields(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {key: refusing_unknown_fields(each) for key, each in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        changed["type"] = ["integer", "string"]
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        changed.setdefault("additionalProperties", False)
    return changed


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
