"""From painted pictures to the rows of a result: what each picture has, and distances of sets.

Shapes: N pictures, T texts, D dimensions of the scorer's space, K candidates.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpm_eval.errors import UserError
from mpm_eval.metrics import is_of_a_set, paint_metric
from mpm_eval.stages.paint import lost
from mpm_eval.stages.paint_distances import Distances
from mpm_eval.stages.paint_vectors import PaintedIn, Vectors
from mpm_eval.stages.result_schema import Note, Skipped
from mpm_eval.stages.rows import (
    Joined,
    Measured,
    Rows,
    score_rows,
    statistics_rows,
    subsets,
    transfer_rows,
)
from mpm_eval.stages.run_folder import Manifest, Opened

if TYPE_CHECKING:
    import numpy as np

NUM_CANDIDATES = 100
_OF_THE_PAINTER = ("sampler", "steps", "guidance", "rerank")  # what a backend may say of itself


@dataclass(frozen=True, slots=True)
class PaintedScores:
    """What scoring the pictures of a task gives."""

    rows: tuple[Rows, ...]
    # metric -> one row per sample, in the order of the samples; only of metrics of one picture
    statistics: Mapping[str, Sequence[Sequence[float] | None]]


@dataclass(frozen=True, slots=True)
class _Values:
    """A metric of the pictures of one language; `why` is set where it has none."""

    members: tuple[Joined, ...] = ()
    scored: tuple[Joined, ...] = ()
    value_N: "np.ndarray | None" = None  # of the scored ones
    settings: str = ""
    notes: tuple[tuple[str, float], ...] = ()
    why: str = ""


def score_pictures(
    opened: Opened, joined: Mapping[str, Sequence[Joined]], labels: Mapping[str, str]
) -> PaintedScores:
    """Return the scores of a task's pictures, by metric, language and subset.

    Raises UserError when a picture is missing or another than was painted, and for weights that
    cannot be had.
    """
    _require_whole(opened, joined)
    task = opened.task
    scorer = _Scorer(opened, joined, labels)
    distances = Distances(task, scorer.vectors, scorer.of, scorer.settings)
    targets = [tag for tag in joined if tag != task.pivot] if task.pivot in joined else []
    rows: list[Rows] = []
    statistics = {}
    members = [j for tag in joined for j in joined[tag]]
    for name in task.metrics:
        if is_of_a_set(name):
            rows += [distances.rows(name, tag) for tag in joined]
            rows += [distances.gap(name, tag) for tag in targets if name == task.main_metric]
            continue
        measured: dict[str, Measured] = {}
        for tag in joined:
            found, part = scorer.of_pictures(name, tag)
            rows.append(part)
            if found is not None:
                measured[tag] = found
        statistics[name] = statistics_rows(members, measured)
        if name == task.main_metric:
            pivot = measured.get(task.pivot)
            rows += [
                transfer_rows(pivot, measured.get(tag), tag, task.main_subset) for tag in targets
            ]
    return PaintedScores(tuple(rows), statistics)


def _require_whole(opened: Opened, joined: Mapping[str, Sequence[Joined]]) -> None:
    gone = lost(opened.folder, (j.prediction for members in joined.values() for j in members))
    if gone:
        raise UserError(
            f"{opened.folder}: {len(gone)} pictures are missing or not as they were painted, the "
            f"first is {gone[0].output}; run the same command to paint them again"
        )


class _Scorer:
    """Everything that the metrics of one task share."""

    def __init__(
        self,
        opened: Opened,
        joined: Mapping[str, Sequence[Joined]],
        labels: Mapping[str, str],
    ) -> None:
        assert opened.task.painting is not None
        self.task, self.painting = opened.task, opened.task.painting
        self.manifest, self.dataset, self.folder = opened.manifest, opened.dataset, opened.folder
        self.vectors = Vectors(opened, joined)
        self.of = {
            tag: PaintedIn(
                tag, labels[tag], tuple(members), tuple(j for j in members if not j.failed)
            )
            for tag, members in joined.items()
        }
        self._painter = _painter(self.manifest)

    def of_pictures(self, name: str, language: str) -> tuple[Measured | None, Rows]:
        """Return a metric that every picture of a language has, and its rows."""
        from mpm_eval.metrics.painted import Hits, Painted

        of = self.of[language]
        values = {
            "clip_score": self._clip_score,
            "top1_of_100": self._top1,
            "consistency": self._consistency,
            "diversity": self._diversity,
        }[name](of)
        metric = paint_metric(name)
        assert metric is not None
        if values.why or values.value_N is None:
            return None, Rows(skipped=(Skipped(name, language, values.why),))
        kind = Hits if name == "top1_of_100" else Painted
        parts = (values.settings, self.vectors.scorer.signature, *self.settings(of))
        measured = Measured(
            metric=kind(name, metric, "|".join(part for part in parts if part)),
            language=language,
            label=of.label,
            joined=values.members,
            scored=values.scored,
            statistics=_with_ones(values.value_N),
        )
        names = subsets((j.sample for j in of.members), self.task.main_subset)
        notes = tuple(Note(name, language, "", key, value) for key, value in values.notes)
        return measured, Rows(tuple(score_rows(measured, names)), (), notes)

    def _clip_score(self, of: PaintedIn) -> _Values:
        import numpy as np

        from mpm_eval.images.clip_score import SCALE

        if why := self._unknown(of.language) or _none(of):
            return _Values(why=why)
        texts = [_text(j) for j in of.scored]
        text_ND = self.vectors.scorer.embed_texts(texts, of.language)
        cosine_N = np.einsum("nd,nd->n", self.vectors.embeddings(of.language), text_ND)
        value_N = SCALE * np.clip(cosine_N.astype(np.float64), 0.0, 1.0)
        notes = self._accuracy(of.language)
        return _Values(of.members, of.scored, value_N, f"scale:{SCALE:g}", notes)

    def _top1(self, of: PaintedIn) -> _Values:
        judged_in = self.task.pivot or of.language
        if why := self._unknown(judged_in) or _none(of):
            return _Values(why=why)
        known = {s.id: s.question for s in self.dataset.samples(judged_in)}
        texts = list(dict.fromkeys(known.values()))
        if len(texts) < NUM_CANDIDATES:
            return _Values(why=f"needs {NUM_CANDIDATES} different texts, there are {len(texts)}")
        members = tuple(j for j in of.members if j.sample.id in known)
        scored = tuple(j for j in members if not j.failed)
        rows = [i for i, j in enumerate(of.scored) if j.sample.id in known]
        image_ND = self.vectors.embeddings(of.language)[rows]
        text_TD = self.vectors.scorer.embed_texts(texts, judged_in)
        place = {text: i for i, text in enumerate(texts)}
        hits = []
        for image_D, member in zip(image_ND, scored, strict=True):
            right = place[known[member.sample.id]]
            cosine_K = text_TD[_candidates(right, texts)] @ image_D
            hits.append(float((cosine_K[1:] < cosine_K[0]).all()))  # a tie is no hit
        settings = f"candidates:{NUM_CANDIDATES}|judged-in:{judged_in}"
        return _Values(members, scored, _array(hits), settings, self._accuracy(judged_in))

    def _consistency(self, of: PaintedIn) -> _Values:
        import numpy as np

        pivot = self.of.get(self.task.pivot)
        if of is pivot:
            return _Values(why="its pictures are what those of other languages are compared with")
        if pivot is None:
            return _Values(why=f"no pictures of the pivot '{self.task.pivot}' in this run")
        theirs = {j.sample.id for j in pivot.members}
        row = {j.sample.id: i for i, j in enumerate(pivot.scored)}
        members = tuple(j for j in of.members if j.sample.id in theirs)
        pairs = [(i, row[j.sample.id]) for i, j in enumerate(of.scored) if j.sample.id in row]
        if not pairs:
            return _Values(why=f"no picture is painted in both {pivot.language} and {of.language}")
        own, other = (list(side) for side in zip(*pairs, strict=True))
        a_ND = self.vectors.embeddings(of.language)[own].astype(np.float64)
        b_ND = self.vectors.embeddings(pivot.language)[other].astype(np.float64)
        scored = tuple(of.scored[i] for i in own)
        value_N = 100 * np.einsum("nd,nd->n", a_ND, b_ND)
        apart_N = _mean_with_others(a_ND, b_ND, [j.sample.cluster for j in scored])
        notes = () if apart_N is None else (("different_clusters", 100 * float(apart_N.mean())),)
        return _Values(members, scored, value_N, f"pivot:{pivot.language}|same-seed", notes)

    def _diversity(self, of: PaintedIn) -> _Values:
        import numpy as np

        if why := _none(of):
            return _Values(why=why)
        vectors_ND = self.vectors.embeddings(of.language).astype(np.float64)
        clusters = [j.sample.cluster for j in of.scored]
        cosine_N = _mean_with_others(vectors_ND, vectors_ND, clusters)
        if cosine_N is None:
            return _Values(why="needs pictures of two clusters, there is one")
        return _Values(of.members, of.scored, 100 * (1 - cosine_N), "different-clusters")

    def _unknown(self, language: str) -> str:
        scorer = self.vectors.scorer
        if scorer.languages is None:
            return f"nobody said which languages scorer {scorer.name} knows: scorer_languages"
        return "" if language in scorer.languages else f"scorer {scorer.name} does not know it"

    def _accuracy(self, language: str) -> tuple[tuple[str, float], ...]:
        known = self.vectors.scorer.accuracy or {}
        return (("scorer_accuracy", known[language]),) if language in known else ()

    def settings(self, of: PaintedIn) -> tuple[str, ...]:
        """Return how the pictures were made: size, and what the model says of its sampling."""
        from PIL import Image

        with Image.open(self.folder / of.scored[0].prediction.output) as picture:
            size = f"painted:{picture.width}x{picture.height}"
        return (size, self._painter) if self._painter else (size,)


def _none(of: PaintedIn) -> str:
    return "" if of.scored else "no picture was painted"


def _text(member: Joined) -> str:
    """Return what a picture should show: the question, also where a control asked another one."""
    return member.sample.question or member.prediction.prompt


def _candidates(right: int, texts: Sequence[str]) -> list[int]:
    """Return the place of the right text, then of 99 others that depend on the texts alone."""
    import numpy as np

    digest = hashlib.sha256(texts[right].encode()).digest()
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "big")))
    others = rng.choice(len(texts) - 1, NUM_CANDIDATES - 1, replace=False)
    return [right, *(int(i) + (i >= right) for i in others)]


def _mean_with_others(
    a_ND: "np.ndarray", b_ND: "np.ndarray", clusters: Sequence[str]
) -> "np.ndarray | None":
    """Return the mean product of each row of a with the rows of b of other clusters; None: none."""
    import numpy as np

    index = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    if len(index) < 2:
        return None
    cluster_N = np.array([index[name] for name in clusters])
    sum_CD = np.zeros((len(index), b_ND.shape[1]))
    np.add.at(sum_CD, cluster_N, b_ND)
    count_N = len(clusters) - np.bincount(cluster_N)[cluster_N]
    others_ND = sum_CD.sum(axis=0) - sum_CD[cluster_N]
    return np.asarray(np.einsum("nd,nd->n", a_ND, others_ND) / count_N)


def _with_ones(value_N: "np.ndarray") -> "np.ndarray":
    import numpy as np

    return np.column_stack([value_N, np.ones(len(value_N))])


def _array(values: Sequence[float]) -> "np.ndarray":
    import numpy as np

    return np.array(values, dtype=np.float64)


def _painter(manifest: Manifest) -> str:
    """Return what the model says of its sampling, as one part of a signature."""
    said = [f"{key}={manifest.model.identity[key]}" for key in _OF_THE_PAINTER
            if key in manifest.model.identity]  # fmt: skip
    return "painter:" + ",".join(said) if said else ""
