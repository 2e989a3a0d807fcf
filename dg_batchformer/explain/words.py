"""Text summary of the measurements."""

from collections.abc import Mapping, Sequence
from math import isnan, nan

from dg_batchformer.explain.frames import View
from dg_batchformer.explain.load import Kept
from dg_batchformer.explain.measure import Measured
from dg_batchformer.explain.pairs import (
    ITSELF,
    OTHER_CLASS,
    OTHER_DOMAIN,
    OTHERS,
    SAME_CLASS,
    SAME_DOMAIN,
    PairMeans,
)


def summary(kept: Kept, measured: Measured, seen: dict[str, View], shots: Mapping[str, Sequence[int]]) -> str:
    """Describe attention, gradients and features in a few sentences with numbers."""
    layers = len(measured.attention)
    lines = [_setting(kept, measured), ""]
    for layer, means in enumerate(measured.attention, start=1):
        of_layer = f"attention{f' of layer {layer}' if layers > 1 else ''}"
        lines.append(f"{of_layer}: {_attention(kept, means)}")
        lines += [f"{of_layer} by frequency: {sentence}" for sentence in _by_frequency(kept, means, shots)]
    lines += [f"gradients: {_gradients(measured)}", f"features: {_features(seen)}"]
    return "\n".join([*lines, *(f"note: {sentence}" for sentence in _notes(kept))]) + "\n"


def _setting(kept: Kept, measured: Measured) -> str:
    spec = kept.spec
    batches, domains = len(measured.gradients.batches), len(kept.domains)
    return (
        f"{spec.method} on {spec.dataset}: trained on {spec.environment_names(spec.train_envs)}; "
        f"{spec.environment_names(spec.test_envs)} unseen\n"
        f"{batches} batches of {domains} x {measured.n} held-out images; BatchFormer in evaluation mode (no dropout)"
    )


def _attention(kept: Kept, means: PairMeans) -> str:
    sentences = [
        f"a sample gives {_times(means, SAME_CLASS)} uniform attention to each other sample of its class, "
        f"{_times(means, OTHER_CLASS)} to each of other classes, and {_times(means, ITSELF)} to itself"
    ]
    if isnan(means.mean(OTHER_DOMAIN)):
        sentences.append("it attends within its domain only")
    else:
        sentences.append(
            f"{_times(means, SAME_DOMAIN)} to each other sample of its domain, {_times(means, OTHER_DOMAIN)} to each "
            f"of other domains; {means.share(OTHER_DOMAIN):.0%} of its attention crosses domains "
            f"({means.uniform_share(OTHER_DOMAIN):.0%} if uniform), and samples of domains trained on "
            f"give {_to_unseen(kept, means):.2f}x to each of unseen domains"
        )
    sentences.append(
        f"{means.share(OTHER_CLASS):.0%} crosses classes ({means.uniform_share(OTHER_CLASS):.0%} if uniform)"
    )
    return "; ".join(sentences)


def _by_frequency(kept: Kept, means: PairMeans, shots: Mapping[str, Sequence[int]]) -> list[str]:
    """Say how samples of rare classes attend to frequent classes of other domains, if the run has an imbalance."""
    if not (shots.get("many") and shots.get("few")):
        return []
    many, few = shots["many"], shots["few"]
    to_many, to_few, back = (means.between(of, to, across=True)[0] for of, to in ((few, many), (few, few), (many, few)))
    names = ", ".join(kept.classes[label] for label in few)
    return [
        f"a sample of a few-shot class ({names}) gives {to_many:.2f}x uniform attention to each sample of many-shot "
        f"classes of other domains and {to_few:.2f}x to each of few-shot classes there; one of a many-shot class gives "
        f"{back:.2f}x to each of few-shot classes there"
    ]


def _to_unseen(kept: Kept, means: PairMeans) -> float:
    """Return the mean attention of samples of training environments to samples of test environments."""
    sums, counts = means.domains[:, kept.places(kept.spec.train_envs)][:, :, kept.unseen].sum(dim=(1, 2))
    return float(sums / counts)


def _times(means: PairMeans, relations: tuple[int, ...]) -> str:
    mean = means.mean(relations)
    return "no" if isnan(mean) else f"{mean:.2f}x"


def _gradients(measured: Measured) -> str:
    behind, plain = measured.gradients, measured.plain_gradients
    ratio = behind.mean(SAME_CLASS) / (behind.mean(OTHER_CLASS) or nan)  # all losses may be 0
    without = plain.share(OTHERS)
    return (
        f"after BatchFormer's layer, {behind.share(OTHERS):.0%} of the gradient of a sample's loss flows into the "
        f"features of other samples: {ratio:.2f}x as much into one of the same class as into one of another; without "
        f"BatchFormer {'exactly 0' if without == 0 else f'{without:.1%}'}"
    )


def _features(seen: dict[str, View]) -> str:
    plain, attended = seen["plain"], seen["batchformer"]
    return (
        f"classes account for {plain.classes:.0%} of the variance of plain features and {attended.classes:.0%} after "
        f"BatchFormer, domains for {plain.domains:.0%} and {attended.domains:.0%}"
    )


def _notes(kept: Kept) -> list[str]:
    notes = []
    if kept.is_averaged:
        notes.append("the features are those of the averaged model; BatchFormer is that of the last step")
    if kept.is_batch_dependent:
        notes.append(f"predictions of {kept.spec.method} depend on the batch by design")
    if kept.batchformer.scope != kept.hparams["bf_scope"]:
        notes.append(f"{kept.spec.method} forwards its domains one by one, so attention stays in them")
    return notes
