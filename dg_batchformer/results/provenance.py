"""Provenance of the numbers in a table, from the records of its runs, for footnotes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dg_batchformer.results.collection import CollectedRun, most_draws
from dg_batchformer.text.counts import how_many
from dg_batchformer.text.printable import one_line

_PACKAGES = ("dg_batchformer", "torch", "torchvision")


@dataclass(frozen=True)
class Provenance:
    """Settings of the runs in a table; several values if they differ.

    Args:
        runs, trials, draws: numbers of included runs, and of their trials and draws.
        versions: of packages, by name.
        fingerprints: of the datasets.

    """

    runs: int
    trials: int
    draws: int
    protocols: Sequence[str] = ()
    precisions: Sequence[str] = ()
    data_paths: Sequence[str] = ()
    devices: Sequence[str] = ()
    threads: Sequence[str] = ()
    fingerprints: Sequence[str] = ()
    versions: Mapping[str, Sequence[str]] | None = None

    @property
    def sentence(self) -> str:
        """Everything except the fingerprints, in one line."""
        parts = [f"{how_many(self.runs, 'run')} of {how_many(self.trials, 'trial')} and {how_many(self.draws, 'draw')}"]
        parts += [f"protocol {_joined(self.protocols)}"] if self.protocols else []
        parts += [f"precision {_joined(self.precisions)}"] if self.precisions else []
        parts += [f"data path {_joined(self.data_paths)}"] if self.data_paths else []
        parts += [f"on {_joined(self.devices)}"] if self.devices else []
        parts += [self.differing_threads] if self.differing_threads else []
        known = self.versions or {}
        parts += [f"{name} {_joined(known[name])}" for name in _PACKAGES if known.get(name)]
        return f"Made from {', '.join(parts)}"

    @property
    def differing_threads(self) -> str:
        """A note if runs used different numbers of CPU threads, else ''."""
        if len(self.threads) < 2:
            return ""
        return f"runs with {_joined(self.threads)} CPU threads, which differ in rounding"


def provenance(runs: Sequence[CollectedRun]) -> Provenance | None:
    """Return the provenance of runs; None if none is included in tables."""
    trained = [run for run in runs if run.counts]
    if not trained:
        return None
    said = [run.constant for run in trained]
    versions = [one["versions"] for one in said if isinstance(one.get("versions"), Mapping)]
    packages = sorted({name for of_run in versions for name in of_run})
    return Provenance(
        runs=len(trained),
        trials=len({run.trial_seed for run in trained}),
        draws=most_draws(trained),
        protocols=_values(said, "protocol"),
        precisions=_values(said, "precision"),
        data_paths=_values(said, "data_path"),
        devices=_values(said, "device"),
        threads=_values([one for one in said if one.get("device") == "cpu"], "threads"),
        fingerprints=_values(said, "dataset_fingerprint"),
        versions={one_line(name): _values(versions, name) for name in packages},
    )


def _values(said: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    return sorted({one_line(str(one[key])) for one in said if one.get(key)})


def _joined(values: Sequence[str]) -> str:
    return " and ".join(values)
