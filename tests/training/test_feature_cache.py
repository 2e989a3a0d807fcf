"""Training on cached features of a frozen prefix equals training on images with that prefix frozen."""

import json
import shutil
import sys
import types
from dataclasses import replace

import pytest
import torch
from support import TRAINED, Silence, resolved, run_quickly
from torch._dynamo.exc import BackendCompilerFailed
from torch.testing import assert_close

from dg_batchformer.algorithms import get_algorithm_class
from dg_batchformer.datasets import get_dataset_class
from dg_batchformer.errors import InputError
from dg_batchformer.hparams import WHOLE
from dg_batchformer.networks import Featurizer
from dg_batchformer.networks.freezing import freeze
from dg_batchformer.storage.folders import RunFolder, State, cache_dir
from dg_batchformer.storage.lock import Busy, held
from dg_batchformer.training import feature_cache
from dg_batchformer.training.console import Console
from dg_batchformer.training.data_path import check_features
from dg_batchformer.training.feature_cache import FeatureLoader, Features, open_features
from dg_batchformer.training.feature_recipe import recipe_of
from dg_batchformer.training.loaders import Request
from dg_batchformer.training.run_log import StorageTrouble
from dg_batchformer.training.stop import Interrupted

NEED_PIXELS = {"ARM", "CutMix", "MIRO", "Mixup", "NDCL"}
ON_FEATURES = [name for name in TRAINED if name not in NEED_PIXELS]
# Cancelling distances, signs of small gradients and low temperatures amplify rounding differences between batch sizes.
AMPLIFY = {"ANDMask", "CausIRL_MMD", "MMD", "RDM", "SANDMask", "iDAG"}
STAGES = ["layers.1", "featurizer"]


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """Write weights of the tiny backbone; every test has its own cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(3)
    featurizer = Featurizer((3, 32, 32), {"backbone": "tiny", "weights": "none"})
    torch.save(featurizer.state_dict(), tmp_path / "weights.pth")
    return str(tmp_path / "weights.pth")


def _spec(algorithm="ERM", *, weights, **given):
    hparams = {"image_size": 32, "batch_size": 4, "backbone": "tiny", "weights": weights, "freeze": "featurizer"}
    hparams |= {"data_augmentation": False, **given.pop("hparams", {})}
    asked = {"dataset": "PACS", "test_envs": (3,), "protocol": "quick", "steps": 20, "checkpoint_freq": 1}
    return resolved(algorithm=algorithm, data_path="features", hparams=hparams, **{**asked, **given})


def _losses(spec, path, data_dir, **given):
    run_quickly(spec, path, data_dir=data_dir, **given)
    records = [json.loads(line) for line in RunFolder(path).records_file.read_text().splitlines()]
    return [
        {
            name: value
            for name, value in record.items()
            if isinstance(value, float) and name not in ("step_time", "mem_gb")
        }
        for record in records
    ]


@pytest.mark.parametrize(
    "algorithm", [f"{name}{('', '+BF')[turn % 2]}" for turn, name in enumerate(ON_FEATURES)]
)  # plain and with BatchFormer alternately
def test_every_algorithm_trains_on_features_as_on_images_with_the_same_frozen_prefix(
    algorithm, weights, image_folder, tmp_path
):
    data_dir = image_folder()
    stage = STAGES[sum(algorithm.encode()) % 2]
    spec = _spec(algorithm, weights=weights, hparams={"freeze": stage})

    on_features = _losses(spec, tmp_path / "features", data_dir)
    on_images = _losses(replace(spec, data_path="exact"), tmp_path / "images", data_dir)

    tolerance = 1e-3 if algorithm.removesuffix("+BF") in AMPLIFY else 1e-5
    assert len(on_features) >= 20
    for got, expected in zip(on_features, on_images, strict=True):
        assert got.keys() == expected.keys()
        for name in got:
            assert_close(
                got[name],
                expected[name],
                rtol=tolerance,
                atol=tolerance,
                msg=lambda text, name=name: f"{name}: {text}",
                equal_nan=True,
            )


@pytest.mark.parametrize("stage", STAGES)
def test_a_linear_probe_on_features_equals_one_on_images(stage, weights, image_folder, tmp_path):
    data_dir, given = image_folder(), {"freeze": stage, "init": "linear_probe"}
    spec = _spec(weights=weights, steps=1, hparams=given)

    on_features = _losses(spec, tmp_path / "features", data_dir)
    on_images = _losses(replace(spec, data_path="exact"), tmp_path / "images", data_dir)

    for got, expected in zip(on_features, on_images, strict=True):
        assert_close(got, expected, rtol=1e-3, atol=1e-3)


def test_weights_to_begin_from_may_not_replace_those_whose_features_are_cached(weights, image_folder, tmp_path):
    data_dir, kept = image_folder(), tmp_path / "kept" / "model.pt"
    spec = _spec(weights=weights, steps=1, hparams={"freeze": "layers.1"})
    run_quickly(spec, kept.parent, data_dir=data_dir)
    begun = torch.load(kept, weights_only=True)["predictor"]
    same, other = tmp_path / "same.pt", tmp_path / "other.pt"
    torch.save(begun, same)
    torch.save({name: value + 1 for name, value in begun.items()}, other)

    def run(file, **given):
        asked = replace(spec, hparams={**spec.hparams, "init": str(file)}, **given)
        run_quickly(asked, tmp_path / f"{file.stem}{len(given)}", data_dir=data_dir)

    run(same)
    with pytest.raises(InputError, match=r"has other weights in the frozen part .* set data_path cached"):
        run(other)
    run(other, data_path="exact")


def test_weights_to_begin_from_may_differ_behind_the_cached_prefix(weights, image_folder, tmp_path):
    torch.save(Featurizer((3, 32, 32), {"backbone": "small_cnn"}).state_dict(), weights)
    small = {"backbone": "small_cnn", "freeze": "blocks.0", "tune": "bias"}  # bias leaves others behind it untuned
    spec, data_dir = _spec(weights=weights, steps=1, hparams=small), image_folder()
    run_quickly(spec, tmp_path / "kept", data_dir=data_dir)
    begun = torch.load(tmp_path / "kept" / "model.pt", weights_only=True)["predictor"]
    init = tmp_path / "init.pt"
    torch.save({name: value if "blocks.0" in name else value + 1 for name, value in begun.items()}, init)

    again = replace(spec, hparams={**spec.hparams, "init": str(init)})

    assert run_quickly(again, tmp_path / "again", data_dir=data_dir) is State.DONE


def test_augmented_views_are_computed_once_and_drawn_again_by_a_repeated_run(weights, image_folder, tmp_path):
    data_dir, spec = image_folder(), _spec(weights=weights, hparams={"data_augmentation": True, "feature_views": 2})
    watcher = Silence()

    first = _losses(spec, tmp_path / "first", data_dir, watcher=watcher)
    computed, watcher.cached = watcher.cached, 0
    again = _losses(spec, tmp_path / "again", data_dir, watcher=watcher)
    plain = _losses(_spec(weights=weights), tmp_path / "plain", data_dir)

    assert computed == 3 * 4 * 2 * 5  # views of the images of 4 environments with 2 classes
    assert watcher.cached == 0
    assert again == first != plain


def test_a_batch_holds_the_view_that_the_seed_of_a_sample_selects(image_folder):
    dataset = get_dataset_class("PACS")(image_folder(), [3], {"image_size": 32})
    images, views = sum(map(len, dataset)), 3
    rows = torch.tensor([[view, image] for view in range(1 + views) for image in range(images)])
    loader = FeatureLoader(dataset, Features(rows, images), views)
    indices, first = [0, 9, 4], len(dataset[0])  # of the second environment

    [[evaluated]] = loader.stream([[Request(1, indices, None)]])
    drawn = [next(iter(loader.stream([[Request(1, indices, [seed] * 3)]])))[0] for seed in range(2 * views)]

    assert evaluated.images.tolist() == [[0, first + index] for index in indices]
    assert [batch.images.tolist() for batch in drawn] == [
        [[1 + seed % views, first + index] for index in indices] for seed in range(2 * views)
    ]
    for batch in (evaluated, *drawn):
        assert batch.labels.tolist() == [0, 1, 0]  # five images of each class


def _recipe(folder, weights, **given):
    asked = {"image_size": 32, "backbone": "tiny", "upto": WHOLE, "views": 2, "precision": "fp32", "add": 0, **given}
    dataset = get_dataset_class("PACS")(folder, [3], {"image_size": asked["image_size"]})
    hparams = {"backbone": asked["backbone"], "weights": weights if asked["backbone"] == "tiny" else "none"}
    featurizer = Featurizer(dataset.input_shape, hparams)
    freeze(featurizer, asked["upto"], dataset.input_shape)
    next(featurizer.parameters()).data.add_(asked["add"])
    return recipe_of(dataset, featurizer, asked["backbone"], asked["views"], asked["precision"])


def test_features_are_shared_only_if_all_that_they_depend_on_is_equal(weights, image_folder, tmp_path):
    data_dir = image_folder()
    changes = {"image_size": 16}, {"upto": "layers.1"}, {"views": 1}, {"precision": "bf16"}, {"add": 0.001}

    same = [_recipe(data_dir, weights).folder for _ in range(2)]
    others = [_recipe(data_dir, weights, **change).folder for change in changes]
    (data_dir / "PACS" / "photo" / "dog" / "0.png").unlink()
    others.append(_recipe(data_dir, weights).folder)

    assert same[0] == same[1]
    assert len({same[0], *others}) == 1 + len(others)


@pytest.mark.parametrize("is_a_notebook", [False, True])
def test_features_of_a_network_with_another_normalization_or_code_are_others(
    is_a_notebook, image_folder, tmp_path, monkeypatch
):
    dataset = get_dataset_class("PACS")(image_folder(), [3], {"image_size": 32})
    monkeypatch.setitem(sys.modules, "mine", module := types.ModuleType("mine"))

    def recipe(code=NETWORK, scale=0.5):
        file = tmp_path / f"cell{len(code)}.py"
        file.write_text(code)
        if not is_a_notebook:  # where classes have no file
            module.__file__ = str(file)
        exec(compile(code, file, "exec"), vars(module))
        featurizer = module.Mine(scale)
        freeze(featurizer, WHOLE, dataset.input_shape)
        return recipe_of(dataset, featurizer, "mine", 0, "fp32")

    recipes = [recipe(), recipe(scale=0.25), recipe(NETWORK.replace("x.mean", "2 * x.mean"))]

    assert recipes[0] == recipe()
    assert len({recipe.folder for recipe in recipes}) == 3


NETWORK = """
import torch
from dg_batchformer.networks.base import FeaturizerModule

class Mine(FeaturizerModule):
    n_outputs = 3

    def __init__(self, scale):
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale), persistent=False)

    def features(self, x):
        return self.scale * x.mean(dim=(2, 3))
"""


def test_large_caches_are_stored_in_fp16_and_say_so(weights, image_folder, tmp_path, monkeypatch):
    data_dir, spec, watcher = image_folder(), _spec(weights=weights), Silence()
    whole = _losses(spec, tmp_path / "whole", data_dir)
    shutil.rmtree(cache_dir() / "features")
    monkeypatch.setattr(feature_cache, "_MOST_IN_FP32", 0)

    half = _losses(spec, tmp_path / "half", data_dir, watcher=watcher)

    assert any("stored in fp16, with a relative error of at most 0.05 %" in sentence for sentence in watcher.notes)
    assert '"feature_dtype": "float16"' in RunFolder(tmp_path / "half").records_file.read_text()
    assert half != whole
    for got, expected in zip(half, whole, strict=True):
        assert_close(got, expected, rtol=1e-2, atol=1e-2, equal_nan=True)


def test_features_too_large_for_fp16_are_refused(weights, image_folder, tmp_path, monkeypatch):
    state = torch.load(weights, weights_only=True)
    torch.save({name: value * 1e6 for name, value in state.items()}, weights)
    monkeypatch.setattr(feature_cache, "_MOST_IN_FP32", 0)

    with pytest.raises(InputError, match="features are too large for fp16, and the feature cache too large for fp32"):
        run_quickly(_spec(weights=weights), tmp_path / "run", data_dir=image_folder())


def test_a_full_disk_stops_a_run_that_can_be_resumed_later(weights, image_folder, tmp_path, monkeypatch):
    data_dir, spec = image_folder(), _spec(weights=weights, steps=1)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda folder: usage)
        with pytest.raises(StorageTrouble, match=r"the feature cache needs .* set fewer feature_views, .* to resume"):
            run_quickly(spec, tmp_path / "run", data_dir=data_dir)

    assert run_quickly(spec, tmp_path / "run", data_dir=data_dir) is State.DONE


def test_a_prefix_that_cannot_be_compiled_computes_its_features_uncompiled(
    weights, image_folder, tmp_path, monkeypatch
):
    data_dir, watcher = image_folder(), Silence()
    plain = _losses(_spec(weights=weights), tmp_path / "plain", data_dir)
    shutil.rmtree(cache_dir() / "features")

    def give_up(images):
        raise BackendCompilerFailed("inductor", OSError("omp.h: No such file or directory"), None)

    monkeypatch.setattr(feature_cache, "compiled", lambda function, **options: give_up)

    got = _losses(_spec(weights=weights, compile="on"), tmp_path / "run", data_dir, watcher=watcher)

    [sentence] = [sentence for sentence in watcher.notes if "cannot be compiled" in sentence]
    assert "omp.h" in sentence
    for record, expected in zip(got, plain, strict=True):
        assert_close(record, expected, rtol=1e-4, atol=1e-4)


def test_a_build_whose_lock_was_taken_over_stops(weights, image_folder, tmp_path):
    spec = _spec(weights=weights, steps=1)

    class Suspended(Silence):
        def caching(self, cache, done, total):
            for lock in cache_dir().glob("features/*/lock"):
                lock.write_text('{"token": "of another process"}')

    with pytest.raises(Busy, match="was taken over by"):
        run_quickly(spec, tmp_path / "run", data_dir=image_folder(n=40), watcher=Suspended())
    assert not list(cache_dir().glob("features/*/index.json"))


def test_a_build_stops_when_asked_to_and_the_same_run_continues_it(weights, image_folder, tmp_path):
    spec, console = _spec(weights=weights, steps=1), Console()
    given = {"data_dir": image_folder(n=40), "watcher": console}

    with pytest.raises(Interrupted, match="the pixel cache is not complete; run the same command again to continue"):
        run_quickly(spec, tmp_path / "run", **given, stop=lambda: True)
    with pytest.raises(Interrupted, match="the feature cache is not complete"):
        run_quickly(spec, tmp_path / "run", **given, stop=lambda: list((cache_dir() / "features").glob("*/rows")))

    assert run_quickly(spec, tmp_path / "run", **given) is State.DONE


def test_no_code_can_change_the_features_that_all_runs_share(weights, image_folder, tmp_path):
    run_quickly(_spec(weights=weights, steps=1), tmp_path, data_dir=image_folder())
    [file] = cache_dir().glob("features/*/rows")
    before = file.read_bytes()

    open_features(file.parent).rows.add_(1)

    assert file.read_bytes() == before


def test_a_build_uses_every_core_and_training_only_its_threads(weights, image_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("dg_batchformer.training.feature_cache.usable_cores", lambda: 3)
    threads = {"build": set(), "run": set()}

    class Watching(Silence):
        def caching(self, cache, done, total):
            threads["build"].add(torch.get_num_threads())

        def step(self, step):
            threads["run"].add(torch.get_num_threads())

    before = torch.get_num_threads()
    run_quickly(_spec(weights=weights, steps=2), tmp_path, data_dir=image_folder(n=4), watcher=Watching())

    assert 3 in threads["build"]
    assert threads["run"] == {before}


@pytest.mark.parametrize("cache", ["features/*", "pixels/*"])
def test_a_run_that_waits_for_the_cache_of_another_process_stops_when_asked_to(cache, weights, image_folder, tmp_path):
    spec, data_dir = _spec(weights=weights, steps=1), image_folder(n=4)
    run_quickly(spec, tmp_path / "run", data_dir=data_dir)
    [folder] = cache_dir().glob(cache)
    for file in (path for path in cache_dir().rglob("*") if path.is_file()):
        file.unlink()

    with held(folder / "lock"), pytest.raises(Interrupted, match="run the same command again to continue"):
        run_quickly(spec, tmp_path / "again", data_dir=data_dir, stop=lambda: True)


@pytest.mark.system
def test_a_compiled_prefix_computes_the_same_features(weights, image_folder, tmp_path):
    data_dir, spec = image_folder(), _spec(weights=weights)

    plain = _losses(spec, tmp_path / "plain", data_dir)
    shutil.rmtree(cache_dir())
    compiled = _losses(replace(spec, compile="on"), tmp_path / "compiled", data_dir)

    for got, expected in zip(compiled, plain, strict=True):
        assert_close(got, expected, rtol=1e-4, atol=1e-4)


def _damage(file, place):
    content = bytearray(file.read_bytes())
    content[place] ^= 64
    file.write_bytes(content)


def test_a_flipped_bit_in_the_cache_is_detected_and_features_are_computed_again(weights, image_folder, tmp_path):
    data_dir, spec = image_folder(), _spec(weights=weights)
    first = _losses(spec, tmp_path / "first", data_dir)
    [rows] = (cache_dir() / "features").glob("*/rows")
    _damage(rows, 100)
    watcher = Silence()

    again = _losses(spec, tmp_path / "again", data_dir, watcher=watcher)

    assert any("damaged" in sentence for sentence in watcher.notes)
    assert again == first


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"rows": 3', '{"images": 1, "rows": 2, "shape": [1], "dtype": 3}']
)
def test_features_are_computed_again_if_their_index_cannot_be_read(content, weights, image_folder, tmp_path):
    data_dir, spec, watcher = image_folder(), _spec(weights=weights), Silence()
    first = _losses(spec, tmp_path / "first", data_dir)
    [index] = (cache_dir() / "features").glob("*/index.json")
    index.write_text(content)

    assert _losses(spec, tmp_path / "again", data_dir, watcher=watcher) == first
    assert any("has an index that cannot be read; it is computed again" in sentence for sentence in watcher.notes)


@pytest.mark.parametrize("damaged", [False, True])
def test_an_interrupted_build_continues_behind_its_last_intact_batch(damaged, weights, image_folder, tmp_path):
    data_dir, spec = image_folder(n=40), _spec(weights=weights)
    first = _losses(spec, tmp_path / "first", data_dir)
    [rows] = (cache_dir() / "features").glob("*/rows")
    whole, views = rows.read_bytes(), []
    shutil.rmtree(rows.parent)

    class Follower(Silence):
        def caching(self, cache, done, total):
            views.append(done)

    def stop():
        return rows.exists() and rows.stat().st_size > len(whole) // 2

    with pytest.raises(Interrupted):
        run_quickly(spec, tmp_path / "again", data_dir=data_dir, stop=stop, watcher=Follower())
    before = max(views)
    views.clear()
    if damaged:
        _damage(rows, rows.stat().st_size // 2)
    again = _losses(spec, tmp_path / "again", data_dir, watcher=Follower())

    assert 0 < before < max(views)
    assert (min(view for view in views if view) > before) is not damaged
    assert rows.read_bytes() == whole
    assert again == first
    assert {file.name for file in rows.parent.iterdir()} == {"rows", "index.json"}


def test_a_kept_model_of_cached_features_predicts_images(weights, image_folder, tmp_path):
    from dg_batchformer.models.load import load_model

    run_quickly(_spec("SWAD+ERM+BF", weights=weights), tmp_path / "run", data_dir=image_folder())

    model = load_model(RunFolder(tmp_path / "run"), torch.device("cpu"))

    assert model.algorithm.predict(torch.randn(2, 3, 32, 32)).shape == (2, 2)


def test_exactly_the_methods_on_the_list_need_pixels():
    assert {name for name in TRAINED if get_algorithm_class(name).needs_pixels} == NEED_PIXELS


@pytest.mark.parametrize("algorithm", [*sorted(NEED_PIXELS), "MixStyle", "SWAD+MixStyle+BF"])
def test_methods_that_need_pixels_are_refused_with_the_reason(algorithm, weights):
    with pytest.raises(InputError, match=r"cannot train on cached features: .+; set data_path cached"):
        check_features(_spec(algorithm, weights=weights), {"freeze": "featurizer"})


def test_cached_features_need_a_frozen_prefix():
    with pytest.raises(InputError, match="set freeze to a stage"):
        check_features(resolved(dataset="PACS", data_path="features"), {"freeze": "none"})


@pytest.mark.parametrize("backbone", ["timm/vit_tiny_patch16_224", "clip/ViT-B-32"])
def test_networks_that_cannot_be_split_are_refused_before_a_sweep_begins(backbone):
    spec = resolved(dataset="PACS", data_path="features")

    check_features(spec, {"freeze": "featurizer", "backbone": backbone})
    with pytest.raises(InputError, match=rf"cannot continue {backbone} after blocks.3: .* set freeze featurizer, or"):
        check_features(spec, {"freeze": "blocks.3", "backbone": backbone})
