"""Distances of painted to real pictures: of a whole language, of its subsets, and of two languages.

Shapes: N painted pictures, M real ones, C feature dimensions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpm_eval.metrics import distances_of, paint_metric
from mpm_eval.schema import Score, Task
from mpm_eval.stages.paint_vectors import PaintedIn, Vectors
from mpm_eval.stages.result_schema import Note, Skipped
from mpm_eval.stages.rows import Joined, Rows, subsets
from mpm_eval.strict import canonical_sha256

if TYPE_CHECKING:
    import numpy as np

KERNEL_SCALE = 1000  # a kernel distance is a few thousandths


@dataclass(frozen=True, slots=True)
class Distance:
    """A distance of two sets; `left_out` and `pairing` are for `images.jackknife.paired_gap`."""

    value: float | None
    ci95: tuple[float, float] | None
    reason: str  # why there is no value
    method: str
    left_out: tuple[float, ...]
    pairing: str
    notes: Mapping[str, float]


class Distances:
    """The distances of one task's pictures."""

    def __init__(
        self,
        task: Task,
        vectors: Vectors,
        of: Mapping[str, PaintedIn],
        settings: Callable[[PaintedIn], Sequence[str]],
    ) -> None:
        assert task.painting is not None
        self._task, self._vectors, self._of, self._settings = task, vectors, of, settings
        self._names = distances_of(task.painting.extractor)
        self._whole: dict[tuple[str, str], Distance] = {}

    def rows(self, name: str, language: str) -> Rows:
        """Return a distance over all pictures of a language and in every subset.

        Only the first has an interval of the Fréchet distance: it takes long.
        """
        of = self._of[language]
        if not of.scored:
            return Rows(skipped=(Skipped(name, language, "no picture was painted"),))
        scores, notes, skipped = [], [], []
        for subset in subsets((j.sample for j in of.members), self._task.main_subset):
            members = [j for j in of.members if j.within(subset)]
            scored = [j for j in of.scored if j.within(subset)]
            if not members:
                continue
            found, settings = self._measured(name, of, members, scored, interval=not subset)
            signature = "|".join((name, *settings, *self._settings(of), found.method))
            failed = len(members) - len(scored)
            scores.append(_score(name, of, subset, found, len(scored), failed, signature))
            notes += [Note(name, language, subset, k, v) for k, v in found.notes.items()]
            if not subset:
                self._whole[name, language] = found
                skipped += [Skipped(name, language, found.reason)] if found.reason else []
        return Rows(tuple(scores), tuple(skipped), tuple(notes))

    def gap(self, name: str, language: str) -> Rows:
        """Return the pivot's distance minus that of a language, over the pictures both have."""
        from mpm_eval.images.jackknife import paired_gap

        pivot, target = self._of[self._task.pivot], self._of[language]
        both = {j.sample.id for j in pivot.scored} & {j.sample.id for j in target.scored}
        ids = [j.sample.id for j in pivot.scored if j.sample.id in both]
        if not ids:
            return Rows(skipped=(Skipped("transfer_gap", language, "no picture in both"),))
        sides = [self._whole.get((name, tag)) for tag in (pivot.language, language)]
        if not _ids(pivot.members) == _ids(target.members) == _ids(target.scored) == ids:
            sides = [self._of_ids(name, of, ids) for of in (pivot, target)]
        one, other = sides
        assert one is not None and other is not None
        gap, ci95 = paired_gap(one, other)
        if gap is None:
            reason = one.reason or other.reason
            return Rows(skipped=(Skipped("transfer_gap", language, reason),))
        method = other.method if ci95 else "ci:none"
        signature = f"transfer_gap|of:{name}|pivot:{pivot.language}|paired|n:{len(ids)}|{method}"
        found = Distance(gap, ci95, "", method, (), "", {})
        members = {j.sample.id for of in (pivot, target) for j in of.members}
        failed = len(members) - len(ids)
        score = _score("transfer_gap", target, "", found, len(ids), failed, signature)
        return Rows((score,))

    def _of_ids(self, name: str, of: PaintedIn, ids: Sequence[str]) -> Distance:
        """Return the distance over some pictures, in the order of their ids, to their real ones."""
        by_id = {j.sample.id: j for j in of.scored}
        members = [by_id[one] for one in ids]
        return self._measured(name, of, members, members, interval=True)[0]

    def _measured(
        self,
        name: str,
        of: PaintedIn,
        members: Sequence[Joined],
        scored: Sequence[Joined],
        *,
        interval: bool,
    ) -> tuple[Distance, tuple[str, ...]]:
        """Return a distance and what its signature says of the two sets.

        Failed pictures leave the painted set, never the real one.
        """
        real = self._vectors.real
        keys = [k for k in dict.fromkeys(j.sample.image for j in members) if k in real.rows]
        rows = [real.rows[key] for key in keys if key is not None]
        row_of = {id(j): row for row, j in enumerate(of.scored)}
        painted_NC = self._vectors.features(of.language)[[row_of[id(j)] for j in scored]]
        clusters = [j.sample.cluster for j in scored]
        estimate = _frechet if name == self._names[0] else _kernel
        found = estimate(painted_NC, real.vectors_MC[rows], clusters, interval)
        digest = canonical_sha256(sorted(real.sha256s[row] for row in rows))[:12]
        settings = (
            f"extractor:{self._vectors.extractor.signature}",
            f"reference:{digest}",
            f"n:{len(scored)}",
            f"n_ref:{len(rows)}",
        )
        return found, settings


def _ids(members: Sequence[Joined]) -> list[str]:
    return [j.sample.id for j in members]


def _score(
    name: str,
    of: PaintedIn,
    subset: str,
    found: Distance,
    n: int,
    num_failed: int,
    signature: str,
) -> Score:
    metric = paint_metric(name)
    return Score(
        metric=name,
        language=of.language,
        value=found.value,
        ci95=found.ci95,
        n=n,
        n_failed=num_failed,
        # of a gap (pivot minus language) of what is better when lower, more is better
        higher_is_better=metric.higher_is_better if metric else True,
        signature=signature,
        subset=subset,
        label=of.label,
    )


def _frechet(
    painted_NC: "np.ndarray", real_MC: "np.ndarray", clusters: Sequence[str], interval: bool
) -> Distance:
    from mpm_eval.images.frechet import estimate_frechet
    from mpm_eval.images.statistics import FeatureStatistics

    reference = FeatureStatistics.of(real_MC)
    # too few pictures get no value, so an interval would be of nothing
    interval = interval and min(len(painted_NC), len(real_MC)) >= painted_NC.shape[1]
    given = painted_NC if interval else FeatureStatistics.of(painted_NC)
    found = estimate_frechet(given, reference, clusters=clusters)
    biased = found.biased_value if found.value is None else None
    known = {"biased_value": biased, "infinity": found.infinity}
    notes = {key: value for key, value in known.items() if value is not None}
    ci95 = found.ci95 if found.value is not None else None
    return Distance(
        found.value, ci95, found.reason, found.method, found.left_out, found.pairing, notes
    )


def _kernel(
    painted_NC: "np.ndarray", real_MC: "np.ndarray", clusters: Sequence[str], interval: bool
) -> Distance:
    from mpm_eval.images.kernel import kernel_distance

    found = kernel_distance(painted_NC, real_MC, clusters=clusters)
    if found.value is None:
        return Distance(None, None, found.note, found.method or "ci:none", (), "", {})
    ci95 = found.ci95 and (KERNEL_SCALE * found.ci95[0], KERNEL_SCALE * found.ci95[1])
    return Distance(
        KERNEL_SCALE * found.value,
        ci95,
        "",
        f"scale:{KERNEL_SCALE}|{found.method}",
        tuple(KERNEL_SCALE * value for value in found.left_out),
        found.pairing,
        {},
    )
