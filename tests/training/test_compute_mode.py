"""Fast modes agree with the reference mode, and are named in the records."""

import copy
import json

import pytest
import torch
from PIL import Image
from stand_in_gpus import Gpus
from support import TRAINED, Silence, make_algorithm, make_minibatches, resolved, run_quickly
from torch._dynamo.exc import BackendCompilerFailed, FailOnRecompileLimitHit
from torch.utils._python_dispatch import TorchDispatchMode

from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.datasets import get_dataset_class
from dg_batchformer.errors import InputError
from dg_batchformer.networks import base
from dg_batchformer.networks.base import FeaturizerModule
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.storage.folders import RunFolder, State
from dg_batchformer.training import compute_mode
from dg_batchformer.training.cached import CachedLoader
from dg_batchformer.training.compute_mode import Execution, Work, apply
from dg_batchformer.training.loop import seed_everything
from dg_batchformer.training.stop import Interrupted

CPU = torch.device("cpu")
LITTLE = Work(per_step=10, per_evaluation=10, in_sweep=True)


def _folders_spec(**given):
    small = {"backbone": "tiny", "weights": "none", "image_size": 32, "batch_size": 4}
    given = {"algorithm": "ERM", "protocol": "quick", "steps": 5, "checkpoint_freq": 2, **given}
    return resolved(dataset="PACS", test_envs=(3,), hparams=small, **given)


def _records(path):
    return [json.loads(line) for line in (path / "results.jsonl").read_text().splitlines()]


@pytest.fixture
def data_dir(image_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return image_folder(n=10)


@pytest.mark.parametrize("name", ["ERM", "SWAD+BF"])
def test_a_cached_run_trains_and_says_so(name, data_dir, tmp_path):
    spec = _folders_spec(algorithm=name, data_path="cached", precision="auto", compile="auto")

    assert run_quickly(spec, tmp_path / "run", data_dir=data_dir) is State.DONE

    for record in _records(tmp_path / "run"):
        assert {record[key] for key in ("precision", "data_path", "compile")} == {"fp32", "cached", "off"}


def test_cached_and_exact_evaluate_alike(data_dir, tmp_path):
    """With lr 0, only the data path differs."""
    runs = []
    for path in ("exact", "cached"):
        spec = _folders_spec(data_path=path)
        spec = RunSpec.from_dict({**spec.as_dict(), "hparams": {**spec.hparams, "lr": 0.0}})
        run_quickly(spec, tmp_path / path, data_dir=data_dir)
        runs.append(_records(tmp_path / path))

    for exact, cached in zip(*runs, strict=True):
        measured = [key for key in exact if key.startswith("env") and key != "environments"]
        assert measured
        assert {key: exact[key] for key in measured} == pytest.approx({key: cached[key] for key in measured})


def test_a_cached_run_resumes_exactly(data_dir, tmp_path):
    spec = _folders_spec(data_path="cached")
    run_quickly(spec, tmp_path / "whole", data_dir=data_dir)
    stops = iter([False, True])
    with pytest.raises(Interrupted):
        run_quickly(spec, tmp_path / "cut", data_dir=data_dir, stop=lambda: next(stops))
    run_quickly(spec, tmp_path / "cut", data_dir=data_dir)

    whole, cut = _records(tmp_path / "whole"), _records(tmp_path / "cut")
    for record in (*whole, *cut):
        del record["step_time"]
    assert whole == cut


def test_records_say_how_far_large_training_images_were_shrunk(data_dir, tmp_path):
    spec = _folders_spec(data_path="cached")
    run_quickly(spec, tmp_path / "small", data_dir=data_dir)
    Image.new("RGB", (400, 257)).save(data_dir / "PACS" / "photo" / "dog" / "0.png")
    run_quickly(spec, tmp_path / "large", data_dir=data_dir)
    run_quickly(_folders_spec(data_path="exact"), tmp_path / "exact", data_dir=data_dir)

    said = [_records(tmp_path / run)[0].get("training_short_side") for run in ("small", "large", "exact")]

    assert said == [None, 320, None]


def test_a_run_whose_images_an_earlier_version_shrank_further_is_not_resumed(data_dir, tmp_path, monkeypatch):
    spec, records = _folders_spec(data_path="cached"), RunFolder(tmp_path / "run").records_file
    Image.new("RGB", (400, 300)).save(data_dir / "PACS" / "photo" / "dog" / "0.png")
    with monkeypatch.context() as earlier:
        earlier.setattr(CachedLoader, "conditions", {})
        with pytest.raises(Interrupted):
            run_quickly(spec, tmp_path / "run", data_dir=data_dir, stop=records.exists)

    with pytest.raises(InputError, match=r"started on training images that an earlier version shrank further; delete"):
        run_quickly(spec, tmp_path / "run", data_dir=data_dir)


@pytest.mark.parametrize("name", ["ERM", "CORAL+BF", "SWAD+MLDG+BF", "Fish", "IGA+BF"])
def test_bf16_covers_the_featurizer_only_and_its_loss_is_near(name):
    hparams = {"backbone": "small_cnn", **({"bf_dropout": 0.0} if "BF" in name else {})}
    losses, seen = [], []

    def look(module, inputs, z):
        seen.append(z.dtype)

    for mode in (Execution("fp32", "exact", "off"), Execution("bf16", "exact", "off")):
        algorithm = make_algorithm(name, **hparams)
        apply(mode, algorithm, CPU, 18)
        for module in algorithm.modules():
            if isinstance(module, FeaturizerModule):
                module.register_forward_hook(look)
        losses.append(float(algorithm.update(make_minibatches())["loss"]))

    assert torch.bfloat16 in seen
    assert algorithm.predict(make_minibatches()[0][0]).dtype is torch.float32
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[1] != losses[0]


def test_compiled_evaluation_agrees_for_any_batch_size_and_copies_are_independent():
    algorithm = make_algorithm("BF", backbone="small_cnn").eval()
    x = make_minibatches(n=9)[0][0]
    with torch.no_grad():
        before = algorithm.predict(x)
        apply(Execution("fp32", "exact", "on"), algorithm, CPU, 18)
        torch.testing.assert_close(algorithm.predict(x), before)
        torch.testing.assert_close(algorithm.predict(x[:4]), before[:4])
        clone = copy.deepcopy(algorithm)
        for parameter in clone.parameters():
            parameter.zero_()
        assert not clone.predict(x).any()


def test_auto_asks_the_hardware(monkeypatch, data_dir):
    spec = _folders_spec(precision="auto")
    large, small = (get_dataset_class("PACS")(data_dir, [0], {"image_size": size}) for size in (64, 32))
    for has_it, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has_it=has_it: {"avx512_bf16": has_it})
        assert compute_mode.settle(spec, large, CPU, LITTLE).precision == expected
        assert compute_mode.settle(spec, small, CPU, LITTLE).precision == "fp32"


def test_compiling_without_a_compiler_is_refused_when_asked_and_left_out_when_not(monkeypatch):
    monkeypatch.setattr(compute_mode.shutil, "which", lambda name: None)

    assert compute_mode.settle_compile("auto", CPU, True) == "off"
    with pytest.raises(InputError, match="C\\+\\+ compiler"):
        compute_mode.settle_compile("on", CPU, True)


def test_gpus_compile_long_runs_of_sweeps_by_default(data_dir, monkeypatch):
    Gpus(monkeypatch, 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    monkeypatch.setattr(compute_mode, "_missing_to_compile", lambda device: "")
    gpu, dataset = torch.device("cuda", 0), get_dataset_class("PACS")(data_dir, [0], {"image_size": 64})
    settled = {}

    for steps, in_sweep in ((5000, True), (5000, False), (50, True)):
        spec = _folders_spec(compile="auto", steps=steps, checkpoint_freq=steps)
        settled[steps, in_sweep] = compute_mode.settle(spec, dataset, gpu, Work(96, 1000, in_sweep)).compile

    assert settled == {(5000, True): "on", (5000, False): "off", (50, True): "off"}


def test_gpus_need_triton_a_c_compiler_and_pythons_headers_to_compile(monkeypatch, tmp_path):
    Gpus(monkeypatch, 1)
    gpu = torch.device("cuda", 0)
    installed = {"triton": True, "gcc": "/usr/bin/gcc"}
    (tmp_path / "Python.h").touch()
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(compute_mode, "find_spec", installed.get)
    monkeypatch.setattr(compute_mode.shutil, "which", installed.get)
    monkeypatch.setattr(compute_mode.sysconfig, "get_path", lambda name: tmp_path)
    assert compute_mode.settle_compile("on", gpu, True) == "on"

    (tmp_path / "Python.h").unlink()
    with pytest.raises(InputError, match=r"needs Python's headers on a GPU \(for Triton; python3-dev\)"):
        compute_mode.settle_compile("on", gpu, True)
    monkeypatch.setenv("CC", "icc")
    with pytest.raises(InputError, match="needs a C compiler on a GPU"):
        compute_mode.settle_compile("on", gpu, True)
    del installed["triton"]
    with pytest.raises(InputError, match="needs Triton on a GPU, which is not installed; train with --compile off"):
        compute_mode.settle_compile("on", gpu, True)
    assert compute_mode.settle_compile("auto", gpu, True) == "off"


def test_runs_on_gpus_for_which_triton_cannot_compile_are_not_compiled(monkeypatch):
    Gpus(monkeypatch, 1)
    monkeypatch.setattr(compute_mode, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (6, 0))  # a P100
    gpu = torch.device("cuda", 0)

    assert compute_mode.settle_compile("auto", gpu, True) == "off"
    with pytest.raises(InputError, match=r"needs a GPU of 2017 or later \(for Triton: compute capability 7.0\)"):
        compute_mode.settle_compile("on", gpu, True)


@pytest.mark.parametrize("name", ["Fish", "MLDG", "SWAD+Fish+BF"])
def test_clones_that_live_for_one_update_are_compiled_without_cuda_graphs(name):
    algorithm = make_algorithm(name, backbone="small_cnn")

    apply(Execution("bf16", "exact", "on"), algorithm, torch.device("cuda"), 24)

    [featurizer] = [module for module in algorithm.modules() if isinstance(module, FeaturizerModule)]
    assert featurizer.compiles_training
    assert not featurizer.uses_cuda_graphs


class _NoWaiting(TorchDispatchMode):
    """Fails where a GPU would be synchronized: the value of a tensor is read, or determines a shape."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "equal", "is_nonzero"), f"{name} waits for the device"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("shape", ["{}", "{}+BF", "SWAD+{}"])
@pytest.mark.parametrize("name", [name for name in TRAINED if name != "NDCL"])  # which counts the samples that it mixes
def test_no_update_synchronises_with_the_device(name, shape):
    started = {"eqrm_burnin_iters": 0} if name == "EQRM" else {}
    algorithm = make_algorithm(shape.format(name), **started)
    algorithm.update(make_minibatches())  # setup in the first update may synchronize

    with _NoWaiting():
        algorithm.update(make_minibatches(seed=1))


def test_fp32_is_exact_unless_tf32_is_requested():
    algorithm = make_algorithm("ERM")
    allowed = []
    for precision in ("tf32", "fp32", "tf32", "bf16"):
        apply(Execution(precision, "exact", "off"), algorithm, CPU, 18)
        allowed.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))

    assert allowed == [(True, True), (False, False)] * 2
    assert algorithm.featurizer.autocast is torch.bfloat16


def test_tf32_is_refused_where_no_gpu_has_it(data_dir, monkeypatch):
    Gpus(monkeypatch, 1)
    spec, dataset = _folders_spec(precision="tf32"), get_dataset_class("PACS")(data_dir, [0], {"image_size": 32})

    assert compute_mode.settle(spec, dataset, torch.device("cuda", 0), LITTLE).precision == "tf32"
    with pytest.raises(InputError, match="tf32 needs an NVIDIA GPU of 2020 or later, not cpu; give fp32, bf16 or auto"):
        compute_mode.settle(spec, dataset, CPU, LITTLE)


def test_a_resumed_run_keeps_what_auto_meant_at_its_start():
    algorithm = make_algorithm("ERM", backbone="small_cnn").eval()
    apply(Execution("bf16", "exact", "on"), algorithm, CPU, 18)

    apply(Execution("fp32", "exact", "off"), algorithm, CPU, 18)

    assert algorithm.featurizer.autocast is None
    assert not algorithm.featurizer.compiles_evaluation


def test_gpus_compile_training_too_and_replay_it_for_small_batches(monkeypatch):
    algorithm, twice = make_algorithm("BF", backbone="small_cnn"), make_algorithm("SWAD+IGA", backbone="small_cnn")
    for images, graphs in ((24, True), (96, False)):
        apply(Execution("bf16", "exact", "on"), algorithm, torch.device("cuda"), images)
        assert algorithm.inner.featurizer.compiles_training
        assert algorithm.inner.featurizer.uses_cuda_graphs is graphs
    apply(Execution("bf16", "exact", "on"), twice, torch.device("cuda"), 24)
    assert not twice.inner.featurizer.compiles_training


@pytest.fixture
def traced(monkeypatch):
    """Compile without a compiler: graphs are traced, differentiated and run eagerly."""
    compiled = torch.compile

    def trace(function, *, dynamic=None, mode=None):
        return compiled(function, backend="aot_eager", dynamic=dynamic)

    monkeypatch.setattr(torch, "compile", trace)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    base.compiled_features.cache_clear()
    yield
    base.compiled_features.cache_clear()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # PyTorch reads it too
@pytest.mark.parametrize("shape", ["{}", "{}+BF"])
@pytest.mark.parametrize("name", TRAINED)
def test_compiled_training_updates_as_plain_training_does(name, shape, traced):
    algorithms = [make_algorithm(shape.format(name)) for _ in range(2)]
    apply(Execution("fp32", "exact", "on"), algorithms[0], torch.device("cuda"), 18)

    for algorithm in algorithms:
        for seed in range(2):
            seed_everything(seed)
            algorithm.update(make_minibatches(seed=seed))

    torch.testing.assert_close(*(algorithm.state_dict() for algorithm in algorithms), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("images", [18, 96])
def test_a_graph_that_was_differentiated_once_can_be_differentiated_twice(images, traced):
    for name in ("ERM+BF", "ANDMask+BF"):  # runs of one process
        algorithm = make_algorithm(name)
        apply(Execution("fp32", "exact", "on"), algorithm, torch.device("cuda"), images)
        algorithm.update(make_minibatches())


def test_runs_of_one_process_share_what_was_compiled(traced):
    for seed in range(3):
        algorithm = make_algorithm("ERM", seed=seed)
        apply(Execution("fp32", "exact", "on"), algorithm, torch.device("cuda"), 18)
        for update in range(2):
            algorithm.update(make_minibatches(seed=update))
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        assert graphs == 1, f"{graphs} graphs after {seed + 1} runs"


@pytest.mark.parametrize(
    "error", [FailOnRecompileLimitHit("too many"), BackendCompilerFailed("inductor", OSError("no ptxas"), None)]
)
def test_a_run_with_too_many_shapes_or_a_broken_compiler_continues_uncompiled_with_a_note(
    error, data_dir, tmp_path, monkeypatch
):
    def give_up(*given):
        raise error

    monkeypatch.setattr(base, "compiled_features", lambda training, graphs: give_up)
    spec, watcher = _folders_spec(compile="on", checkpoint_freq=4), Silence()

    assert run_quickly(spec, tmp_path / "run", data_dir=data_dir, watcher=watcher) is State.DONE

    assert [sentence for sentence in watcher.notes if "uncompiled" in sentence]
    assert {record["compile"] for record in _records(tmp_path / "run")} == {"off"}


def test_a_run_whose_backward_pass_cannot_be_compiled_resumes_uncompiled_from_its_checkpoint(
    data_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr(base, "compiled_features", lambda training, graphs: lambda network, x: network.features(x))
    update, updates = ERM.update, []

    def fail_compiled(self, minibatches, unlabeled=None):
        updates.append(self.featurizer.compiles_evaluation)
        if len(updates) == 4:
            raise BackendCompilerFailed("inductor", OSError("out of resource: shared memory"), None)
        return update(self, minibatches, unlabeled)

    monkeypatch.setattr(ERM, "update", fail_compiled)
    spec, watcher = _folders_spec(compile="on", checkpoint_freq=4), Silence()

    assert run_quickly(spec, tmp_path / "run", data_dir=data_dir, watcher=watcher, save_seconds=0) is State.DONE

    assert updates == [True] * 4 + [False] * 2  # the checkpoint is of three updates
    assert "compilation of the backward pass failed; the run resumes uncompiled" in watcher.notes
    assert [record["compile"] for record in _records(tmp_path / "run")] == ["on", "off"]


@pytest.mark.parametrize("name", ["ERM+BF", "ANDMask+BF", "SAM", "CORAL"])
def test_features_survive_the_next_replay_of_a_cuda_graph(name, monkeypatch):
    outputs = []

    def replay(featurizer, x):
        """Overwrite the output of the replay before, as CUDA graphs do."""
        for earlier in outputs:
            earlier.data.zero_()
        outputs[:] = [featurizer.features(x)]
        return outputs[0] * 1

    monkeypatch.setattr(base, "compiled_features", lambda training, graphs: replay)
    replaying, plain = make_algorithm(name), make_algorithm(name)
    apply(Execution("fp32", "exact", "on"), replaying, torch.device("cuda"), 18)

    for algorithm in (replaying, plain):
        seed_everything(0)
        algorithm.update(make_minibatches())

    torch.testing.assert_close(replaying.state_dict(), plain.state_dict())
