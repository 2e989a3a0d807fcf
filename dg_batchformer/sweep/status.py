"""What has become of a sweep: states by row, progress of what runs, failures with their reason."""

import json
from collections import Counter
from statistics import fmean
from typing import Any

from tabulate import tabulate

from dg_batchformer.catalog import dataset_facts
from dg_batchformer.store import RunFolder, State, SweepFolder
from dg_batchformer.times import duration


def status_text(folder: SweepFolder) -> str:
    """Return the status of a sweep as text."""
    declared = folder.read()
    states = {run["id"]: folder.run(run["id"]).state() for run in declared["runs"]}
    parts = [
        _states_table(declared, states),
        *_running(folder, declared, states),
        *_failures(folder, declared, states),
    ]
    left = [run_id for run_id, state in states.items() if not state.is_final]
    if left:
        parts.append(_remaining(folder, states, len(left)))
        parts.append(
            f"continue: python -m dg_batchformer sweep sweeps/{declared['name']}.yaml (failed ones: --retry failed)"
        )
    return "\n".join(parts)


def has_failures(folder: SweepFolder) -> bool:
    """Whether some run of a sweep failed."""
    return any(folder.run(run["id"]).state() is State.FAILED for run in folder.read()["runs"])


def run_name(run: dict[str, Any]) -> str:
    """Return a run as people say it."""
    spec = run["spec"]
    envs = "+".join(dataset_facts(spec["dataset"]).names[env] for env in spec["test_envs"])
    draw = f", draw {spec['hparams_seed']}" if spec["hparams_seed"] else ""
    return f"{run['label']} on {spec['dataset']}/{envs}, trial {spec['trial_seed']}{draw} ({run['id']})"


def _states_table(declared: dict[str, Any], states: dict[str, State]) -> str:
    shown = [state for state in State if state in states.values()]
    counts: dict[str, Counter[State]] = {label: Counter() for label in declared["rows"]}
    for run in declared["runs"]:
        counts[run["label"]][states[run["id"]]] += 1
    rows = [[label, *(count[state] or "" for state in shown), count.total()] for label, count in counts.items()]
    total = Counter(states.values())
    rows.append(["all", *(total[state] for state in shown), total.total()])
    return tabulate(rows, headers=[declared["name"], *map(str, shown), "runs"])


def _running(folder: SweepFolder, declared: dict[str, Any], states: dict[str, State]) -> list[str]:
    lines = []
    for run in declared["runs"]:
        if states[run["id"]] is State.RUNNING:
            done = _last_step(folder.run(run["id"])) + 1
            lines.append(f"running: {run_name(run)}, past step {done} of {run['spec']['steps']}")
    return lines


def _failures(folder: SweepFolder, declared: dict[str, Any], states: dict[str, State]) -> list[str]:
    failed = [run for run in declared["runs"] if states[run["id"]] is State.FAILED]
    lines = [f"failed: {run_name(run)}: {folder.run(run['id']).failure()}" for run in failed]
    diverged = [run for run in declared["runs"] if states[run["id"]] is State.DIVERGED]
    return lines + [f"diverged: {run_name(run)}: loss or metrics are not finite" for run in diverged]


def _last_step(folder: RunFolder) -> int:
    """Return the step of the last whole record, -1 if there is none."""
    try:
        lines = folder.records_file.read_text().splitlines()
        return int(json.loads(lines[-1])["step"])
    except (OSError, ValueError, LookupError):
        return -1


def _remaining(folder: SweepFolder, states: dict[str, State], left: int) -> str:
    took = [folder.run(run_id).outcome().get("seconds") for run_id, state in states.items() if state is State.DONE]
    measured = [seconds for seconds in took if isinstance(seconds, int | float)]
    if not measured:
        return f"{left} runs left; no run is done yet, so the time left is unknown"
    running = max(1, sum(state is State.RUNNING for state in states.values()))
    return f"{left} runs left, about {duration(fmean(measured) * left / running)} on {running} workers"
