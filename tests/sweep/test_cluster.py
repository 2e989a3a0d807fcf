import pytest

from dg_batchformer.errors import InputError
from dg_batchformer.sweep.cluster import Cluster, load_cluster
from dg_batchformer.sweep.launchers.slurm import runs_in_task


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "dg_batchformer.yaml"


def test_the_command_line_comes_before_a_file_and_a_file_before_the_defaults(home, tmp_path):
    assert load_cluster([], None) == Cluster()
    home.write_text("slurm: {partition: gpu, cpus: 8, time: 4:00:00, setup: [module load cuda]}")
    assert load_cluster(["cpus=4"], None) == Cluster(partition="gpu", cpus=4, time=240, setup=("module load cuda",))
    other = tmp_path / "other.yaml"
    other.write_text("slurm: {account: me}")
    assert load_cluster(["gpus=2", "mem=32G"], other) == Cluster(account="me", gpus=2, mem="32G")


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("4:00:00", 240), ("1-12", 2160), ("1-12:30", 2190), ("2:30", 3), ("0:10:01", 11)],
)
def test_time_is_read_as_sbatch_reads_it(text, minutes):
    assert load_cluster([f"time={text}"], None).time == minutes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("partitoin=gpu", "unknown slurm setting 'partitoin'; did you mean 'partition'"),
        ("gpu", "--slurm needs key=value, got 'gpu'"),
        ("cpus=many", "slurm cpus is 'many', but must be a whole number"),
        ("cpus=0", "slurm cpus is 0, but must be a whole number, at least 1"),
        ("time=soon", "slurm time is 'soon'; write minutes, 4:00:00"),
    ],
)
def test_invalid_slurm_settings_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        load_cluster([given], None)


def test_a_file_without_settings_reports_what_is_missing(tmp_path):
    file = tmp_path / "mine.yaml"
    for content in ("partition: gpu", "slurm: gpu", "{", ""):
        file.write_text(content)
        with pytest.raises(InputError, match=f"{file} (has no mapping|cannot be read)"):
            load_cluster([], file)
    with pytest.raises(InputError, match="cannot be read as YAML"):
        load_cluster([], tmp_path / "none.yaml")


def test_a_task_gets_as_many_runs_as_fit_its_time_limit():
    cluster = Cluster(time=100, signal=0)
    assert runs_in_task([600.0, 500.0], cluster) == 8  # of 80 minutes, ten each
    assert runs_in_task([600.0, None], cluster) == 1
    assert runs_in_task([], cluster) == 1
    assert runs_in_task([10**6], cluster) == 1
    assert runs_in_task([600.0], Cluster(time=100, signal=0, gpus=2)) == 16
