"""As many cases are read side by side as there is memory for."""

import pytest

from lesion_core import memory
from lesion_core.cohorts import Case

GB = 2**30


@pytest.mark.parametrize(
    ("group", "files"),
    [
        ("0::/job", {"memory.max": 9 * GB, "memory.current": 4 * GB, "memory.stat": GB}),
        (
            "4:memory:/job",
            {"memory.limit_in_bytes": 9 * GB, "memory.usage_in_bytes": 4 * GB, "memory.stat": GB},
        ),
    ],
    ids=["version 2", "version 1"],
)
def test_as_many_cases_are_read_at_a_time_as_the_control_group_has_memory_for(
    tmp_path, group, files
):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 99000000 kB\nMemAvailable: 88000000 kB\n")
    image = {"flair": tmp_path / "a.nii"}
    cases = [Case(id="a", site="", channels=image, lesion=tmp_path / "b.nii", brain=None)] * 99
    voxels = GB // 2 // (8 + 4 + 4 + 12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "voxels_of", lambda case: (voxels, voxels))
        assert memory.memory_bytes(tmp_path) == (88000000 * 1024, 99000000 * 1024)
        assert memory.cases_at_a_time(cases, 64, tmp_path) == 8
        (tmp_path / "proc/self/cgroup").write_text(f"1:cpu:/\n{group}\n")
        folder = tmp_path / "sys/fs/cgroup" / group.split(":")[1] / "job"
        folder.mkdir(parents=True)
        for name, number in files.items():
            key = {"0": "inactive_file ", "4": "total_inactive_file "}[group[0]]
            text = key if name == "memory.stat" else ""
            (folder / name).write_text(f"{text}{number}\n")
        assert memory.memory_bytes(tmp_path) == (6 * GB, 9 * GB)  # less what is only cached
        assert memory.cases_at_a_time(cases, 64, tmp_path) == 8
        assert memory.cases_at_a_time(cases, 3, tmp_path) == 3
        patch.setattr(memory, "voxels_of", lambda case: (4 * voxels, 4 * voxels))
        assert memory.cases_at_a_time(cases, 64, tmp_path) == 3
        patch.setattr(memory, "voxels_of", lambda case: (30 * voxels, 30 * voxels))
        assert memory.cases_at_a_time(cases, 64, tmp_path) == 1  # it may fit: brains are smaller
        patch.setattr(memory, "voxels_of", lambda case: (GB, GB))
        with pytest.raises(ValueError, match=r"a\.nii: .* take 12\.9 GB to read; .* use 9\.7 GB"):
            memory.cases_at_a_time(cases, 64, tmp_path)
