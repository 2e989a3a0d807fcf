"""Every reader on special, damaged or made-up files: it returns a result or a one-sentence error."""

import json
import random
import signal
from pathlib import Path

import hostile
import pytest
from domainbed_sweeps import Kind, write_sweep
from support import resolved
from sweep_folders import write_sweep as write_our_sweep

from dg_batchformer.catalog.image_manifest import read_manifest
from dg_batchformer.datasets.decoding import decode
from dg_batchformer.datasets.mnist import read_idx
from dg_batchformer.datasets.prepare.archives import extract, first_file, is_archive
from dg_batchformer.datasets.prepare.terra import places_of
from dg_batchformer.errors import InputError
from dg_batchformer.models.load import read_content, read_spec
from dg_batchformer.networks.weights import read_state_dict
from dg_batchformer.results.collect import collect
from dg_batchformer.results.predictions import read_predictions
from dg_batchformer.results.runs import parse_records
from dg_batchformer.spec.launch import options_of_run
from dg_batchformer.spec.manifest import read_sweep_manifest
from dg_batchformer.spec.sweep import Row, SweepSpec
from dg_batchformer.spec.sweep_file import load_sweep
from dg_batchformer.spec.yaml_lines import LinedYaml
from dg_batchformer.storage.folders import RunFolder, SweepFolder, read_object
from dg_batchformer.storage.lock import is_held, owner_of
from dg_batchformer.sweep.cluster import load_cluster
from dg_batchformer.sweep.jobs import read_jobs
from dg_batchformer.sweep.launches import is_launched
from dg_batchformer.sweep.plan import steps_done

SPEC = resolved("Toy", "ERM", test_envs=(0,))


def _extract(file: Path) -> None:
    (out := file.parent / "out").mkdir()
    extract(file, out)


# File names and their readers.
READERS = {
    "lock": owner_of,
    "held": is_held,
    "done": read_object,
    "error.txt": lambda file: RunFolder(file.parent).failure(),
    "launch.json": lambda file: options_of_run(RunFolder(file.parent)),
    "results.jsonl": lambda file: steps_done(RunFolder(file.parent), 100),
    "spec.json": lambda file: read_spec(RunFolder(file.parent)),
    "states.log": lambda file: SweepFolder(file.parent).final_states(),
    "sweep.json": lambda file: read_sweep_manifest(SweepFolder(file.parent)),
    "slurm/jobs.log": lambda file: read_jobs(SweepFolder(file.parents[1])),
    "launches/x": lambda file: is_launched(SweepFolder(file.parents[1])),
    "predictions.npz": read_predictions,
    "model.pt": lambda file: read_content(file, SPEC),
    "weights.pth": read_state_dict,
    "weights.safetensors": read_state_dict,
    "manifest.csv": read_manifest,
    "manifest.json": read_manifest,
    "sweep.yaml": load_sweep,
    "lined.yaml": LinedYaml,
    "slurm.yaml": lambda file: load_cluster([], file),
    "image.png": decode,
    "archive": is_archive,
    "first.zip": first_file,
    "all.tar": _extract,
    "annotations.json": lambda file: places_of([file]),
    "train-images-idx3-ubyte": lambda file: read_idx(file, 3),
}
SMALL = {kind: write for kind, write in hostile.SPECIAL.items() if kind not in ("zeros", "empty lists", "empty lines")}


@pytest.fixture(autouse=True)
def _no_hang():
    """Interrupt a test that waits for a FIFO or reads a device."""

    def interrupt(number, frame):
        raise TimeoutError("it hangs")

    signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(60)
    yield
    signal.alarm(0)


def _read(read, file):
    """Read a file; an exception must be one sentence, or a system error that names the file."""
    try:
        read(file)
    except InputError as error:
        said = str(error)
    except OSError as error:
        said = error.filename
    else:
        return
    assert said
    assert "\n" not in said.strip()


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("name", READERS)
def test_anything_but_a_file_is_answered_at_once(name, kind, tmp_path):
    hostile.put(file := tmp_path / name, kind)

    _read(READERS[name], file)


@pytest.mark.parametrize("name", READERS)
def test_arbitrary_bytes_are_answered(name, tmp_path):
    rng = random.Random(name)
    (file := tmp_path / name).parent.mkdir(exist_ok=True)
    starts = (b"", b"{}", b"[]", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n", b"a: [b]\n", b"path,label,domain\na,b,c\n")
    for number in range(30):
        file.write_bytes(hostile.damaged(rng.choice(starts) + rng.randbytes(rng.choice((0, 10, 1000))), rng))
        _read(READERS[name], file)
        if name == "all.tar":
            (tmp_path / "out").rename(tmp_path / str(number))


@pytest.mark.parametrize("name", hostile.TENSORS)
def test_oversized_tensors_and_code_in_tensors_are_one_sentence(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if name == "compressed zeros":
        pytest.skip("takes seconds to write: tools/red_team.py tries it")
    hostile.TENSORS[name](tmp_path / "model.pt")

    with pytest.raises(InputError):
        read_content(tmp_path / "model.pt", SPEC)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", sorted(set(hostile.PREDICTIONS) - {"2 GB of zeros"}))
def test_invalid_predictions_are_ignored(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hostile.PREDICTIONS[name](tmp_path / "predictions.npz")

    found = read_predictions(tmp_path / "predictions.npz")

    assert found is None or name == "labels out of range"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", hostile.YAMLS)
def test_malformed_sweep_files_are_one_sentence(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yaml").write_text(hostile.YAMLS[name])

    if name not in ("many trials", "number"):
        with pytest.raises(InputError):
            load_sweep(tmp_path / "sweep.yaml")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", hostile.MANIFESTS)
@pytest.mark.parametrize("ending", ["csv", "json"])
def test_malformed_manifests_are_one_sentence(name, ending, tmp_path):
    (file := tmp_path / f"manifest.{ending}").write_bytes(hostile.MANIFESTS[name])

    _read(read_manifest, file)


@pytest.mark.parametrize("name", hostile.IMAGES)
def test_invalid_or_oversized_images_are_one_sentence(name, tmp_path):
    hostile.IMAGES[name](tmp_path / "image.png")

    if name != "a PNG of 9000 x 9000":
        with pytest.raises(InputError, match="cannot be decoded as an image"):
            decode(tmp_path / "image.png")


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """Return the manifest and a record of one of our sweeps."""
    rows = (Row("ERM", "ERM"), Row("SWAD+BF", "SWAD+BF"))
    asked = SweepSpec("tiny", ("PACS",), rows, "quick", 2, 2, ("0", "1"))
    folder = write_our_sweep(tmp_path_factory.mktemp("ours") / "tiny", asked, lambda run: 0.5, hparams={"lr": 1e-3})
    [record, *_] = [json.loads(path.read_text()) for path in folder.runs.glob("*/results.jsonl")]
    return folder, json.loads(folder.sweep_file.read_text()), record


def test_made_up_manifests_are_read_or_one_sentence(ours, tmp_path):
    _, declaration, _ = ours
    rng = random.Random(0)
    for number in range(300):
        folder = SweepFolder(tmp_path / str(number))
        folder.path.mkdir()
        folder.sweep_file.write_text(json.dumps(hostile.made_up(declaration, rng)))
        _read(collect, [folder.path])


def test_made_up_records_are_read_or_counted(ours):
    _, _, record = ours
    rng = random.Random(0)
    for _ in range(500):
        parse_records(hostile.records_of(rng, [record, record]))
        parse_records(hostile.damaged(json.dumps(record).encode() * 2, rng))


def test_made_up_runs_of_domainbed_are_read_or_one_sentence(tmp_path):
    write_sweep(tmp_path / "sweep", Kind(("PACS",), ("ERM",), trials=1, draws=1, evaluations=1), seed=0)
    files = sorted((tmp_path / "sweep").glob("*/results.jsonl"))
    rng = random.Random(0)
    lines = [json.loads(file.read_text().splitlines()[0]) for file in files]
    for _ in range(100):
        for file, line in zip(files, lines, strict=True):
            file.write_bytes(hostile.records_of(rng, [line]))
        _read(collect, [tmp_path / "sweep"])
