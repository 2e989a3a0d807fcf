"""Data frames of the measurements, which the figures plot."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import pandas as pd
from torch import Tensor

from dg_batchformer.explain.held_out import HeldOut
from dg_batchformer.explain.load import Kept
from dg_batchformer.explain.measure import Measured
from dg_batchformer.explain.pairs import RELATIONS, PairMeans
from dg_batchformer.explain.quantities import Projection, accounted_for, principal_components

STREAMS = ("plain", "batchformer")


class View(NamedTuple):
    """Features of one stream: their projection, and the shares of variance between domains and between classes."""

    projection: Projection
    domains: float
    classes: float


def views(held_out: HeldOut, measured: Measured) -> dict[str, View]:
    """Project the features of both streams, each onto its own principal components; return views by stream."""
    domains, classes = held_out.domains[measured.rows], held_out.classes[measured.rows]

    def view(z: Tensor, beside: Projection | None = None) -> View:
        return View(principal_components(z, beside), accounted_for(z, domains), accounted_for(z, classes))

    plain = view(held_out.z[measured.rows.to(held_out.z.device)].cpu())
    return dict(zip(STREAMS, (plain, view(measured.attended, plain.projection)), strict=True))


def frames(kept: Kept, held_out: HeldOut, measured: Measured, seen: dict[str, View]) -> dict[str, pd.DataFrame]:
    """Return all data frames by file stem."""
    attention = dict(enumerate(measured.attention, start=1))
    gradients = dict(zip(STREAMS, (measured.plain_gradients, measured.gradients), strict=True))
    return {
        **_pair_frames(kept, "attention", "layer", attention, ("", "attends_to", "relative_attention")),
        **_by_frequency(attention, held_out.shots),
        **_pair_frames(kept, "gradients", "stream", gradients, ("loss_of_", "features_of", "mean_abs_gradient")),
        "features": _points(kept, held_out, measured, seen),
        "features_variance": _variance(seen),
    }


def _pair_frames(
    kept: Kept, stem: str, key: str, found: dict, columns: tuple[str, str, str]
) -> dict[str, pd.DataFrame]:
    """Return the frames by relation, domain and class; ``columns`` name sample i, sample j and the quantity."""
    prefix, other, quantity = columns
    relations = [
        {
            key: name,
            "relation": relation,
            quantity: means.mean([index]),
            "standard_error": means.standard_error(index),
            "share": means.share([index]),
            "uniform_share": means.uniform_share([index]),
            "pairs": means.pairs([index]),
        }
        for name, means in found.items()
        for index, relation in enumerate(RELATIONS)
    ]
    tables = {f"{stem}_by_relation": pd.DataFrame(relations)}
    for what, names in (("domain", kept.domains), ("class", kept.classes)):
        rows = [
            {key: name, f"{prefix}{what}": names[i], other: names[j], quantity: mean, "pairs": int(pairs)}
            for name, means in found.items()
            for i, j, mean, pairs in _cells(means, what)
        ]
        tables[f"{stem}_by_{what}"] = pd.DataFrame(rows)
    return tables


def _by_frequency(attention: dict[int, PairMeans], shots: Mapping[str, Sequence[int]]) -> dict[str, pd.DataFrame]:
    """Return the attention between many-shot, medium-shot and few-shot classes, if the run has an imbalance."""
    columns = ["layer", "classes", "attends_to", "domain", "relative_attention", "pairs"]
    rows = [
        (layer, of, to, "other" if across else "same", *means.between(shots[of], shots[to], across=across))
        for (layer, means), of, to, across in product(attention.items(), shots, shots, (False, True))
    ]
    return {"attention_by_frequency": pd.DataFrame(rows, columns=columns)} if rows else {}


def _cells(means: PairMeans, what: str) -> Iterator[tuple[int, int, float, float]]:
    """Yield (i, j, mean, pairs) for every pair of domains or classes."""
    _, counts = means.domains if what == "domain" else means.classes
    values = means.by_domain if what == "domain" else means.by_class
    places = product(range(len(values)), repeat=2)
    for (i, j), mean, pairs in zip(places, values.flatten().tolist(), counts.flatten().tolist(), strict=True):
        yield i, j, mean, pairs


def _points(kept: Kept, held_out: HeldOut, measured: Measured, seen: dict[str, View]) -> pd.DataFrame:
    """Return one row per image, with its principal components in both streams."""
    domains = held_out.domains[measured.rows].tolist()
    columns = {
        "domain": [kept.domains[domain] for domain in domains],
        "unseen": [domain in kept.unseen for domain in domains],
        "index": held_out.indices[measured.rows].tolist(),
        "class": [kept.classes[label] for label in held_out.classes[measured.rows].tolist()],
    }
    for stream, view in seen.items():
        for axis, values in enumerate(view.projection.points.T.tolist(), start=1):
            columns[f"{stream}_pc{axis}"] = values
    return pd.DataFrame(columns)


def _variance(seen: dict[str, View]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "stream": stream,
            "pc1": float(view.projection.shares[0]),
            "pc2": float(view.projection.shares[1]),
            "between_domains": view.domains,
            "between_classes": view.classes,
        }
        for stream, view in seen.items()
    )
