"""What is wrong with a machine is found before any trial starts, and reported in one table."""

import dataclasses

import pytest

from sweeps.distributed import preflight
from sweeps.distributed.preflight import Finding, Node
from sweeps.provenance import versions

VERSIONS = versions("wandb")
NODE = Node(node_id="n", address="10.0.0.2", gpus=0.0, store_bytes=1e9, slots=2)
NO_TRIALS = dataclasses.replace(NODE, slots=0)


def answer(**changes):
    return {"host": "two", "failed": {}, "gpus": None, "versions": VERSIONS} | changes


def judged(node=NODE, **changes):
    return [
        (one.level, one.what, one.found, one.expected)
        for one in preflight.judged(node, answer(**changes), VERSIONS)
    ]


def test_a_machine_like_the_drivers_is_fine():
    assert judged() == []
    own = preflight.probe(0, ["json"])
    assert preflight.judged(NODE, own, VERSIONS) == []


def test_another_version_of_what_computes_is_an_error_and_of_what_reads_a_warning():
    others = VERSIONS | {"torch": "1.0", "pandas": "0.1", "wandb": "not installed"}
    assert judged(versions=others) == [
        ("error", "torch", "1.0", VERSIONS["torch"]),
        ("warning", "pandas", "0.1", VERSIONS["pandas"]),
        ("warning", "wandb", "not installed", VERSIONS["wandb"]),
    ]


def test_builds_for_cpu_and_gpu_are_one_version():
    public = VERSIONS["torch"].partition("+")[0]
    assert judged(versions=VERSIONS | {"torch": f"{public}+cu999"}) == []


def test_what_cannot_be_imported_is_an_error_where_trials_run():
    finding = ("import torch", "ImportError: no libcudart", "no error")
    failed = {"torch": "ImportError: no libcudart"}
    assert judged(failed=failed) == [("error", *finding)]
    assert judged(NO_TRIALS, failed=failed) == [("warning", *finding)]


def test_a_module_that_is_not_there_is_reported_with_its_error():
    failed = preflight.probe(0, ["no_such_module"])["failed"]
    assert failed == {"no_such_module": "ModuleNotFoundError: No module named 'no_such_module'"}


@pytest.mark.parametrize("counted", [1, "no NVIDIA driver on your system"])
def test_gpus_that_ray_counts_but_torch_cannot_use_are_an_error(counted):
    node = dataclasses.replace(NODE, gpus=2.0)
    assert judged(node, gpus=counted) == [
        ("error", "usable GPUs", str(counted), "2, which Ray counts there")
    ]
    assert judged(node, gpus=2) == []


def test_gpus_are_counted_in_a_process_that_ray_has_hidden_none_from(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(
        preflight,
        "COUNT_GPUS",
        "import os; print(3 if 'CUDA_VISIBLE_DEVICES' not in os.environ else 0)",
    )
    assert preflight.probe(3.0, [])["gpus"] == 3


@pytest.mark.parametrize(("there", "times"), [([NODE], 1), ([], 0)])
def test_a_newcomer_that_cannot_answer_is_reported_once_unless_it_has_left(
    there, times, monkeypatch
):
    import ray
    from ray.exceptions import RayError

    def get(answer):
        raise RayError("its environment\ncannot be set up")

    asked = []
    monkeypatch.setattr(
        preflight, "start", lambda new, modules: {m.node_id: asked.append(m) for m in new}
    )
    monkeypatch.setattr(ray, "wait", lambda answers, timeout: (answers if ready else [], []))
    monkeypatch.setattr(ray, "get", get)
    newcomers, ready = preflight.Newcomers([NO_TRIALS], []), False
    other = dataclasses.replace(NODE, node_id="m")
    there = [dataclasses.replace(node, node_id="m") for node in there]
    assert newcomers.look([NO_TRIALS, other]) == []
    ready = True
    expected = Finding("error", "10.0.0.2", "answer", "its environment cannot be set up", "one")
    assert newcomers.look(there) == [expected] * times
    assert newcomers.look(there) == []
    assert asked == [other]
    assert newcomers.unfit == ({"m"} if times else set())


def test_trials_avoid_a_newcomer_without_room_for_the_images(monkeypatch):
    import ray
    from ray import tune as ray_tune

    from sweeps.distributed import tune

    monkeypatch.setattr(preflight, "start", lambda new, modules: {m.node_id: 0 for m in new})
    monkeypatch.setattr(ray, "wait", lambda answers, timeout: ([], answers))
    newcomers = preflight.Newcomers([NODE], [], {"wmh": 800_000_000, "lit": 400_000_000})
    machines = {
        size: dataclasses.replace(NODE, node_id=f"node{size}", store_bytes=size * 1e8)
        for size in (5, 10, 15)
    }
    found = newcomers.look([NODE, *machines.values()])
    assert [(each.level, each.what, each.found) for each in found] == [
        ("error", "object store", "0.5 GB"),
        ("warning", "object store", "1 GB"),
    ]
    assert newcomers.unfit == {"node5"}
    monkeypatch.setattr(tune, "avoided", set())
    anywhere = ray_tune.PlacementGroupFactory([{"CPU": 2, "GPU": 0.5}])
    assert tune.placement(2, 0.5, {}).required_resources == anywhere.required_resources
    assert tune.placement(2, 0.5, {})._bound.kwargs["bundle_label_selector"] is None
    monkeypatch.setattr(tune, "avoided", newcomers.unfit)
    selector = tune.placement(2, 0.5, {})._bound.kwargs["bundle_label_selector"]
    assert selector == [{"ray.io/node-id": "!in(node5)"}]
    assert tune.placement(2, 0.5, {}) == tune.placement(2, 0.5, {})


def test_images_that_do_not_fit_are_an_error_and_cohorts_that_fit_in_turn_a_warning():
    def found(**cohorts):
        return [
            (one.level, one.found)
            for one in preflight.object_store_findings([NODE, NO_TRIALS], cohorts)
        ]

    assert found(wmh=400_000_000, lit=400_000_000) == []
    assert found(wmh=800_000_000, lit=400_000_000) == [("warning", "1 GB")]
    assert found(wmh=950_000_000) == [("error", "1 GB")]


def test_the_table_names_machine_and_both_sides_errors_first():
    lines = preflight.table(
        [
            Finding("warning", "10.0.0.2 (two)", "pandas", "1.0", "3.0"),
            Finding("error", "10.0.0.11 (eleven)", "torch", "2.0", "2.13.0"),
        ]
    ).splitlines()
    assert lines[0].split() == ["machine", "what", "found", "there", "expected"]
    assert lines[1].split() == ["error", "10.0.0.11", "(eleven)", "torch", "2.0", "2.13.0"]
    assert lines[2].split() == ["warning", "10.0.0.2", "(two)", "pandas", "1.0", "3.0"]
    assert len({line.index("2.13.0") for line in lines if "2.13.0" in line}) == 1
