import pytest

from dg_batchformer.storage.folders import SweepFolder
from dg_batchformer.sweep import jobs
from dg_batchformer.sweep.jobs import Job, ended_states, log_jobs, read_jobs


def test_jobs_are_remembered_beyond_a_torn_line(tmp_path):
    folder = SweepFolder(tmp_path)
    folder.slurm.mkdir()
    log_jobs(folder, [Job("7_0", ["a", "b"]), Job("7_1", ["c"])])
    with folder.jobs_log.open("a") as file:
        file.write('{"job": "8", "ru')
    log_jobs(folder, [Job("9", ["d"])])

    assert read_jobs(folder) == [Job("7_0", ["a", "b"]), Job("7_1", ["c"]), Job("9", ["d"])]


@pytest.mark.parametrize(
    ("line", "states"),
    [
        ("7_1|OUT_OF_MEMORY", {"7_1": "OUT_OF_MEMORY"}),
        ("9|CANCELLED by 0", {"9": "CANCELLED"}),
        ("7_[1,3-5%2]|PENDING", dict.fromkeys(("7_1", "7_3", "7_4", "7_5"), "PENDING")),
        ("7_[2]|CANCELLED+", {"7_2": "CANCELLED"}),
        ("", {}),
    ],
)
def test_states_from_accounting_are_returned_for_every_task(line, states, monkeypatch):
    monkeypatch.setattr(jobs, "ask", lambda *command: f"{line}\n")

    assert ended_states([Job("7_1", [])]) == states
