"""Out of memory and GPU faults are distinguished from failures of a run, with remedies."""

import pytest
import torch
from stand_in_gpus import GIB, Gpus
from support import Sent, Silence, quick_spec, run_quickly

from dg_batchformer.datasets.residence import RESIDENCE
from dg_batchformer.spec.options import Assignment, RunOptions, Task
from dg_batchformer.storage.folders import RunFolder, State
from dg_batchformer.training.evaluate import Evaluator
from dg_batchformer.training.faults import DeviceFault, is_device_fault, is_out_of_memory, out_of_memory
from dg_batchformer.training.worker import train_task

CPU = torch.device("cpu")
ECC = "CUDA error: uncorrectable ECC error encountered"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("backend='inductor' raised:\nOutOfMemoryError: CUDA out of memory. Tried to allocate 20 MiB"),
    ],
)
def test_out_of_memory_errors_of_every_library_are_recognised(error):
    assert is_out_of_memory(error)
    assert not is_device_fault(error)


def test_an_out_of_memory_error_is_found_behind_another_error():
    error = ValueError("the run stopped")
    error.__cause__ = torch.OutOfMemoryError("CUDA out of memory")

    assert is_out_of_memory(error)
    assert not is_out_of_memory(ValueError("a plug-in's text: CUDA out of memory"))


@pytest.mark.parametrize(
    "message",
    [
        ECC,
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: GPU is lost",
        "CUDA error: unknown error",
        "CUDA error: invalid program counter",
        "CUDA error: operation not supported on global/shared address space",
        "CUDA error: Contained: an uncorrectable memory error or a hardware error",
        "CUDA error: no CUDA-capable device is detected",
    ],
)
def test_gpu_faults_are_recognised(message):
    assert is_device_fault(RuntimeError(message))
    assert not is_out_of_memory(RuntimeError(message))


def test_out_of_memory_on_a_gpu_reports_its_use_and_how_to_need_less(monkeypatch):
    Gpus(monkeypatch, 1, free=GIB // 2, total=24 * GIB)

    assert str(out_of_memory(torch.device("cuda", 0), torch.OutOfMemoryError())) == (
        "out of memory on cuda:0 (24.0 GiB, 0.0 held by this process, 0.5 free); use a smaller batch_size or "
        "image_size, --precision bf16, or fewer workers on that GPU (--devices)"
    )


def test_a_gpu_that_fails_leaves_its_run_to_be_resumed(tmp_path, monkeypatch):
    def fail(*arguments):
        raise RuntimeError(ECC)

    monkeypatch.setattr(Evaluator, "outputs", fail)
    task, events = Task((Assignment(quick_spec(), tmp_path / "worker"),), RunOptions()), Sent()

    with pytest.raises(DeviceFault, match=r"ECC error encountered\); rerun the command to resume"):
        run_quickly(quick_spec(), tmp_path / "train")
    assert train_task(task, CPU, events, lambda: False)
    assert events.sent[-1] == ("fault", {"sentence": f"cpu failed (RuntimeError: {ECC})"})
    for name in ("train", "worker"):
        assert RunFolder(tmp_path / name).failure() == ""
        assert not RunFolder(tmp_path / name).state().is_final


def test_cached_images_are_evicted_from_a_full_gpu_before_a_run_fails(tmp_path, monkeypatch):
    given_up, watcher, evaluate = [], Silence(), Evaluator.outputs

    def give_up():
        given_up.append(True)
        return len(given_up) == 1

    def full_at_first(*arguments):
        if not given_up:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return evaluate(*arguments)

    monkeypatch.setattr(RESIDENCE, "give_up", give_up)
    monkeypatch.setattr(Evaluator, "outputs", full_at_first)

    assert run_quickly(quick_spec(), tmp_path, watcher=watcher) is State.DONE
    assert watcher.notes == ["cpu ran out of memory; the pixel cache is removed from it, and the run resumes"]
    assert len(RunFolder(tmp_path).records_file.read_text().splitlines()) == 4
