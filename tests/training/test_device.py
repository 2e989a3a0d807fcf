"""Devices by name, with a fake torch.cuda."""

import multiprocessing
import os

import pytest
import torch
from stand_in_gpus import Gpus
from support import resolved

from dg_batchformer.datasets import get_dataset_class
from dg_batchformer.errors import InputError
from dg_batchformer.storage.folders import RunFolder
from dg_batchformer.training import device as devices
from dg_batchformer.training import worker
from dg_batchformer.training.device import (
    allow_tf32,
    arithmetic,
    cuda_names,
    gpu_versions,
    parse_device,
    prepare_device,
)
from dg_batchformer.training.evaluate import Evaluation
from dg_batchformer.training.preflight import parse_devices
from dg_batchformer.training.records import RecordWriter

LISTED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 1g.5gb      Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 1g.5gb      Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
"""
GPU, *SLICES = (line.rpartition(": ")[2].rstrip(")") for line in LISTED.splitlines())


@pytest.fixture(autouse=True)
def _settings_as_before(monkeypatch):
    """Restore the device settings of the process."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    yield
    cudnn.deterministic, cudnn.benchmark = before
    allow_tf32(False)


@pytest.fixture
def listed(monkeypatch):
    monkeypatch.setattr(devices, "_nvidia_smi", lambda *arguments: LISTED if arguments == ("-L",) else "550.54.15\n")


@pytest.mark.parametrize(("name", "index"), [("auto", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_every_name_of_a_gpu_resolves_to_an_index(name, index, monkeypatch):
    gpus = Gpus(monkeypatch, 2)

    device = parse_device(name)
    prepare_device(device)

    assert device == torch.device("cuda", index)
    assert gpus.chosen == [device]


def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused(monkeypatch):
    Gpus(monkeypatch, 0)

    assert parse_device("auto") == torch.device("cpu")
    with pytest.raises(InputError, match="device cuda does not exist: no CUDA devices found"):
        parse_device("cuda")


def test_workers_of_a_sweep_get_gpus_by_index(monkeypatch):
    Gpus(monkeypatch, 2)

    assert parse_devices("cuda") == ["cuda:0"]
    assert parse_devices("cuda, cuda:1,cpu") == ["cuda:0", "cuda:1", "cpu"]
    assert parse_devices("auto") == ["cuda:0", "cuda:1"]
    with pytest.raises(InputError, match="device cuda:2 does not exist: 2 CUDA devices found"):
        parse_devices("cuda:2")


@pytest.mark.parametrize("error", [RuntimeError("CUDA error:\nout of memory"), AssertionError("no CUDA"), ValueError()])
def test_a_gpu_that_cannot_be_used_is_one_sentence(error, monkeypatch):
    def fail(device):
        raise error

    Gpus(monkeypatch, 1)
    monkeypatch.setattr(torch.cuda, "synchronize", fail)

    with pytest.raises(InputError, match=r"^device cuda:0 cannot be used: [^\n]*$"):
        prepare_device(torch.device("cuda", 0))


def test_a_uuid_hides_the_other_devices_from_the_process_that_uses_it(listed, monkeypatch):
    Gpus(monkeypatch, 1)

    assert parse_devices(f"{GPU[:12]},{SLICES[1]}") == [GPU, SLICES[1]]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "", "workers are forked from a server that must see all devices"
    assert parse_device(SLICES[1]) == torch.device("cuda", 0)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == SLICES[1]


@pytest.mark.parametrize(
    ("name", "message"),
    [("MIG-0", "nvidia-smi lists no such UUID"), ("MIG-c", "2 devices have UUIDs with this"), ("GPU", "unknown")],
)
def test_a_uuid_that_is_not_listed_is_refused(name, message, listed):
    with pytest.raises(InputError, match=message):
        parse_devices(name)


def test_a_uuid_that_cuda_does_not_find_is_refused_by_the_process_that_uses_it(monkeypatch):
    Gpus(monkeypatch, 0)
    monkeypatch.setattr(devices, "_nvidia_smi", lambda *arguments: "")

    assert parse_devices("GPU-1") == ["GPU-1"], "this process cannot know"
    with pytest.raises(InputError, match="device GPU-1 cannot be used: CUDA does not find GPU-1; nvidia-smi -L"):
        parse_device("GPU-1")


def test_each_mig_slice_in_the_environment_is_a_gpu_though_cuda_shows_the_first_alone(monkeypatch):
    Gpus(monkeypatch, 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(SLICES))

    assert parse_devices("auto") == cuda_names() == ["cuda:0", "cuda:1"]
    assert parse_device("cuda:1") == torch.device("cuda", 0)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == SLICES[1]


def test_records_of_gpus_say_versions_and_settings_that_numbers_depend_on(listed, monkeypatch):
    gpu, cpu = torch.device("cuda", 0), torch.device("cpu")
    Gpus(monkeypatch, 1)
    prepare_device(gpu)

    assert arithmetic(gpu) == {"tf32": False, "cudnn_deterministic": True, "cudnn_benchmark": False}
    assert gpu_versions(gpu)["driver"] == "550.54.15"
    assert arithmetic(cpu) == gpu_versions(cpu) == {}


def test_every_record_of_a_run_on_a_gpu_has_them(listed, monkeypatch, tmp_path):
    gpu = torch.device("cuda", 0)
    Gpus(monkeypatch, 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H200")
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2**30)
    spec, dataset = resolved(dataset="Shapes"), get_dataset_class("Shapes")(None, [0], {})
    splits = {(env, "in"): range(64) for env in range(len(dataset))}
    prepare_device(gpu)

    writer = RecordWriter(RunFolder(tmp_path), spec, {"batch_size": 8}, dataset, splits, gpu)
    record = writer.append(0, {}, Evaluation({}, {(env, "out"): 0.0 for env in spec.train_envs}, {}))

    assert record.items() >= {"device": "H200", "tf32": False, "cudnn_deterministic": True, "mem_gb": 1.0}.items()
    assert record["versions"]["driver"] == "550.54.15"


def test_a_worker_reports_whatever_makes_its_device_unusable(monkeypatch, tmp_path):
    def fail(name):
        raise KeyError("libcuda.so")

    monkeypatch.setattr(worker, "parse_device", fail)
    ours, its = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=worker.serve, args=(its, "cuda", 1, tmp_path / "log"))
    process.start()

    ours.send("a task")

    assert ours.poll(60)
    event = ours.recv()
    process.join(60)
    assert (event["event"], process.exitcode) == ("unusable", 0)
    assert "libcuda.so" in event["sentence"]
