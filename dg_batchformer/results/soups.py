"""Read the soups of a sweep as additional rows; ``models.make_soups`` writes them."""

import json
from pathlib import Path

from dg_batchformer.errors import MALFORMED
from dg_batchformer.results.collection import CollectedRun
from dg_batchformer.results.runs import RunRecords, parse_records
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.storage.digests import damaged
from dg_batchformer.storage.folders import RunFolder, State, SweepFolder
from dg_batchformer.storage.safe_read import TABLE, TEXT, read_bytes, read_text
from dg_batchformer.text.printable import one_line


def read_soups(sweep: SweepFolder, *, by_train_envs: bool) -> tuple[list[CollectedRun], list[str]]:
    """Return the soups of a sweep, sorted by row, and a note on every folder that cannot be read.

    Args:
        sweep: the sweep.
        by_train_envs: whether the sweep is defined by ``train_envs``.

    """
    soups, skipped = [], []
    for path in sorted(sweep.soups.glob("*/")) if sweep.soups.is_dir() else []:
        folder = RunFolder(path)
        if folder.state() is not State.DONE:
            continue
        if names := damaged(folder):
            skipped.append(f"the soup {path} is damaged ({', '.join(names)}); make it again")
            continue
        try:
            soups.append(_read(folder, by_train_envs=by_train_envs))
        except (OSError, *MALFORMED) as error:
            skipped.append(f"the soup {path} cannot be read ({error}); make it again")
    return sorted(soups, key=lambda soup: (soup.label, soup.dataset, soup.test_envs, soup.trial_seed)), skipped


def _read(folder: RunFolder, *, by_train_envs: bool) -> CollectedRun:
    label = json.loads(read_text(folder.soup_file, TEXT))["label"]
    if not isinstance(label, str):
        raise ValueError(f"its label is {label!r:.60}")
    spec = RunSpec.from_dict(json.loads(read_text(folder.spec_file, TEXT)))
    records = parse_records(read_bytes(folder.records_file, TABLE)).runs[-1]
    return soup_run(label, spec, records, folder.path, by_train_envs=by_train_envs)


def soup_run(label: str, spec: RunSpec, records: RunRecords, path: Path, *, by_train_envs: bool) -> CollectedRun:
    """Return a soup as a run of its row.

    Args:
        label: its row.
        spec: shared by its members.
        records: of its evaluation.
        path: its folder.
        by_train_envs: whether the sweep is defined by ``train_envs``.

    """
    return CollectedRun(
        label=one_line(label),
        dataset=one_line(spec.dataset),
        algorithm=spec.algorithm,
        test_envs=spec.test_envs,
        trial_seed=spec.trial_seed,
        hparams_seed=0,  # one soup, of all draws
        state=State.DONE,
        records=records,
        path=path,
        environments=tuple(map(one_line, spec.environments)),
        train_envs=spec.train_envs if by_train_envs else (),
        imbalance="" if spec.imbalance is None else str(spec.imbalance),
    )
