"""Made-up sweeps in DomainBed's format, for tests and for the tool that compares tables with DomainBed's."""

import json
import random
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

ENVIRONMENTS = {
    "VLCS": 4,
    "PACS": 4,
    "TerraIncognita": 4,
    "ColoredMNIST": 3,
    "SVIRO": 10,
    "WILDSCamelyon": 5,
    "Nowhere": 3,
}


class Kind(NamedTuple):
    """Properties of a made-up sweep.

    Args:
        draws: of hparams. evaluations: of every run that is whole.
        missing, unfinished: share of runs that are not there, and that stopped on the way.
        diverged: share of evaluations that are NaN.
        coarse: whether accuracies are so few that many are equal.

    """

    datasets: tuple[str, ...] = ("VLCS", "PACS", "TerraIncognita")
    algorithms: tuple[str, ...] = ("ERM", "CORAL", "Mine")
    trials: int = 3
    draws: int = 4
    evaluations: int = 5
    pairs: bool = False
    missing: float = 0.0
    unfinished: float = 0.0
    diverged: float = 0.0
    coarse: bool = False


KINDS = {
    "whole": Kind(),
    "pairs": Kind(pairs=True, draws=2, datasets=("PACS", "ColoredMNIST")),
    "gaps": Kind(pairs=True, draws=2, missing=0.15, unfinished=0.2),
    "ties": Kind(pairs=True, draws=3, coarse=True, datasets=("VLCS", "PACS")),
    "diverged": Kind(diverged=0.1, draws=3),
    "strange": Kind(
        datasets=("SVIRO", "WILDSCamelyon", "Nowhere"),
        algorithms=("Zeta_of_a_name_longer_than_any_column_is", "IB_ERM", "Alpha"),
        pairs=True,
        draws=1,
        trials=2,
        evaluations=3,
    ),
}


def write_sweep(folder: Path, kind: Kind, seed: int) -> int:
    """Write the runs of a sweep; return their number of records. Equal arguments write equal files."""
    numbers = random.Random(seed)
    total = 0
    for args in _args(kind):
        path = folder / f"{numbers.getrandbits(128):032x}"
        if numbers.random() < kind.missing:
            continue
        whole = numbers.random() >= kind.unfinished
        count = kind.evaluations if whole else numbers.randrange(kind.evaluations)
        records = [_record(kind, args | {"output_dir": path.name}, index, numbers) for index in range(count)]
        path.mkdir(parents=True)
        (path / "results.jsonl").write_text("".join(json.dumps(record, sort_keys=True) + "\n" for record in records))
        if whole:
            (path / "done").write_text("done")
        total += count
    return total


def _args(kind: Kind) -> Iterator[dict[str, object]]:
    for dataset in kind.datasets:
        envs = range(ENVIRONMENTS[dataset])
        held_out = [[env] for env in envs] + ([list(pair) for pair in combinations(envs, 2)] if kind.pairs else [])
        for algorithm in kind.algorithms:
            for trial in range(kind.trials):
                for draw in range(kind.draws):
                    for test_envs in held_out:
                        yield {
                            "algorithm": algorithm,
                            "checkpoint_freq": None,
                            "data_dir": "/data",
                            "dataset": dataset,
                            "holdout_fraction": 0.2,
                            "hparams": None,
                            "hparams_seed": draw,
                            "seed": 0,
                            "skip_model_save": False,
                            "steps": None,
                            "task": "domain_generalization",
                            "test_envs": test_envs,
                            "trial_seed": trial,
                            "uda_holdout_fraction": 0,
                        }


def _record(kind: Kind, args: dict[str, object], index: int, numbers: random.Random) -> dict[str, object]:
    def accuracy() -> float:
        if numbers.random() < kind.diverged:
            return float("nan")
        return numbers.randrange(1, 4) / 4 if kind.coarse else numbers.random()

    keys = [f"env{env}_{split}_acc" for env in range(ENVIRONMENTS[str(args["dataset"])]) for split in ("in", "out")]
    numbers.uniform(-5, -3.5)  # the recorded tables follow from these numbers, drawn in this order
    lr = 10 ** random.Random(f"{args['trial_seed']} {args['hparams_seed']}").uniform(-5, -3.5)
    hparams = {"batch_size": 32, "data_augmentation": True, "lr": lr, "weight_decay": 0.0}
    if args["hparams_seed"] == 0:
        hparams["lr"] = 5e-5
    return {
        **{key: accuracy() for key in keys},
        "args": args,
        "epoch": index * 7.5,
        "hparams": hparams,
        "loss": numbers.random(),
        **({"mem_gb": 1.5} if numbers.random() < 0.5 else {}),
        "step": index * 300,
        "step_time": 0.4,
    }
