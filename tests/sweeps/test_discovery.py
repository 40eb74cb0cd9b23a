"""--address auto means one Ray or none: never another process's own, another user's, or a guess."""

import os
import socket

import pytest

from sweeps.distributed import discovery, waiting

SESSION = "session_2026-01-01_00-00-00_000000_{}"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine whose processes are files; of Rays, only those that answer are there."""
    monkeypatch.setattr(discovery, "PROCESSES", tmp_path)
    monkeypatch.setattr(discovery, "_noted_by_ray_start", lambda: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    process(tmp_path, "self", ["python"])
    servers = []

    def answering():
        servers.append(server := socket.create_server(("127.0.0.1", 0)))
        return f"127.0.0.1:{server.getsockname()[1]}"

    yield tmp_path, answering
    for server in servers:
        server.close()


def process(proc, name, arguments, parent=1, network="net:[1]"):
    folder = proc / str(name)
    (folder / "ns").mkdir(parents=True)
    (folder / "ns" / "net").symlink_to(network)
    (folder / "cmdline").write_text("\0".join(arguments))
    (folder / "status").write_text(f"Name:\tx\nPPid:\t{parent}\n")


def raylet(proc, number, address, started_by=99, labels="", **more):
    session = SESSION.format(started_by)
    flags = [f"--gcs-address={address}", f"--session-name={session}"]
    flags += [f"--session_dir=/tmp/ray/{session}", f"--labels={labels}", "--head"]
    process(proc, number, ["/venv/raylet", *flags], **more)


def auto():
    return discovery.resolve_auto(lambda address: "1 of 2 CPUs")


def refusal():
    with pytest.raises(ValueError) as raised:
        auto()
    return str(raised.value)


def test_beside_another_drivers_own_ray_the_one_for_everybody_is_meant(machine):
    proc, answering = machine
    shared = answering()
    process(proc, 20, ["python", "sweeps/paper_grid.py"])
    raylet(proc, 21, answering(), started_by=20, parent=20)
    raylet(proc, 31, shared, started_by=30)  # `ray start`, which has ended
    assert auto() == shared
    process(proc, 40, ["python", "/venv/bin/ray", "start", "--head", "--block"])
    (proc / "31" / "cmdline").unlink()
    raylet(proc, 41, shared, started_by=40, parent=40)
    assert auto() == shared


def test_a_drivers_own_ray_is_refused_by_name_also_once_the_driver_is_gone(machine):
    proc, answering = machine
    own, ended = answering(), answering()
    process(proc, 20, ["python", "sweeps/paper_grid.py"])
    raylet(proc, 21, own, started_by=20, parent=20)
    raylet(proc, 51, ended, started_by=50, labels='{"lesion-seed-sweep": "private"}')
    said = refusal()
    assert "no Ray cluster answers on this machine" in said and "\n" not in said
    assert f"the one at {own} is process 20's own, and joined by nobody else" in said
    assert f"the one at {ended} is an ended process's own" in said
    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(ValueError, match=r"that Ray is process 20's own"):
            discovery.refuse_private(f"{host}:{own.rpartition(':')[2]}")
    discovery.refuse_private(f"10.0.0.1:{own.rpartition(':')[2]}")  # a machine elsewhere


def test_several_are_an_error_with_a_table_to_choose_from(machine, monkeypatch):
    proc, answering = machine
    first, second = sorted([answering(), answering()])
    raylet(proc, 21, first, started_by=20)
    raylet(proc, 31, second, started_by=30)
    raylet(proc, 32, second, started_by=30)  # another node of the same Ray
    monkeypatch.setattr(discovery, "_noted_by_ray_start", lambda: second)
    title, _, *rows = refusal().splitlines()
    assert title.startswith("--address auto: 2 Rays run on this machine; say which with --address")
    assert [row.split()[0] for row in rows] == [first, second]
    assert all("1 of 2 CPUs" in row for row in rows)
    assert SESSION.format(20) in rows[0] and SESSION.format(30) in rows[1]
    assert "the last" in rows[1] and "the last" not in rows[0]


def test_ray_address_decides_and_must_answer(machine, monkeypatch):
    proc, answering = machine
    raylet(proc, 21, answering(), started_by=20)
    asked = answering()
    monkeypatch.setenv("RAY_ADDRESS", asked)
    assert auto() == asked
    for wrong in ("127.0.0.1:1", "local", "ray://host:1", "nonsense"):
        monkeypatch.setenv("RAY_ADDRESS", wrong)
        assert f"RAY_ADDRESS={wrong}" in refusal()


def test_a_dead_head_a_container_and_another_users_ray_are_not_meant(machine, monkeypatch):
    proc, answering = machine
    raylet(proc, 21, "127.0.0.1:1", started_by=20)
    raylet(proc, 31, answering(), started_by=30, network="net:[2]")
    said = refusal()
    assert "the one at 127.0.0.1:1 has a head that does not answer" in said
    assert said.count("the one at") == 1
    raylet(proc, 41, theirs := answering(), started_by=40)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    monkeypatch.setattr(discovery, "_user", lambda number: "bob")
    if (proc / "41").stat().st_uid:  # root's is meant, whoever asks
        assert f"the one at {theirs} is bob's" in refusal()


def test_what_ray_start_noted_is_meant_where_no_process_shows(machine, monkeypatch):
    proc, answering = machine
    noted = answering()
    monkeypatch.setattr(discovery, "_noted_by_ray_start", lambda: noted)
    assert auto() == noted
    process(proc, 20, ["python", "sweeps/paper_grid.py"])
    raylet(proc, 21, noted, started_by=20, parent=20)
    assert f"the one at {noted} is process 20's own" in refusal()


def test_trials_that_wait_say_who_holds_the_cores():
    jobs = [
        {
            "JobID": "01",
            "DriverPid": 7,
            "DriverIPAddress": "10.0.0.1",
            "Entrypoint": "a.py \x1b[1m",
        },
        {"JobID": "02", "DriverPid": 8, "DriverIPAddress": "10.0.0.1", "Entrypoint": "b" * 99},
    ]
    held = {"01": {"CPU": 1.0}, "02": {"CPU": 3.0, "GPU": 1.0}, "03": {"memory": 5.0}}
    first, second = waiting.described(held, jobs, ["CPU", "GPU"])
    assert first == f"3 CPU and 1 GPU held by job 02 (process 8 on 10.0.0.1: {'b' * 60}...)"
    assert second == "1 CPU held by job 01 (process 7 on 10.0.0.1: a.py ?[1m)"
    many = {f"{number:02}": {"CPU": 1.0} for number in range(9)}
    assert waiting.described(many, [], ["CPU"])[-1] == "and 6 jobs more"


def test_a_reason_is_given_once_trials_wait_for_long(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(waiting.time, "monotonic", lambda: now[0])
    look = waiting.Waiting(1, 0)
    monkeypatch.setattr(look, "_reason", lambda: "0 of 2 CPUs are free")
    assert look.look(left=5, running=2, slots=2) == ""
    now[0] += 100
    assert look.look(left=0, running=1, slots=2) == ""
    assert look.look(left=5, running=1, slots=2) == ""  # its worker may be about to start
    now[0] += waiting.SECONDS_TO_START
    assert look.look(left=5, running=1, slots=2) == "1 could run and wait: 0 of 2 CPUs are free"
    assert look.look(left=5, running=2, slots=2) == ""
