"""Probe: write hidden states of parallel texts, then score how well a model aligns languages.

What each metric is, with its source: mpm_eval.probes. A task whose metrics are about pictures goes
to mpm_eval.stages.image_probe. Shapes: L layers (embeddings first), N texts, D dimension.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mpm_eval.backends import Backend
from mpm_eval.data import Dataset
from mpm_eval.errors import UserError
from mpm_eval.items import Item
from mpm_eval.metrics import IMAGE_PROBE_METRICS
from mpm_eval.schema import Sample, Score, Task
from mpm_eval.stages import image_probe
from mpm_eval.stages.probe_files import (
    Rows,
    embed_texts,
    is_done,
    load,
    path_of,
    save,
    text_rows,
)
from mpm_eval.stages.probe_scores import (
    Floor,
    Measured,
    PerSet,
    PerText,
    Probed,
    headline_layer,
    items_of,
    scores_of,
    statistics_of,
)

if TYPE_CHECKING:
    import numpy as np

MAX_TEXTS = 1000  # of measures that compare all texts with each other; the first ones
_OF_ONE_LANGUAGE = ("isotropy", "mean_cosine")  # the pivot has these too
_OF_A_SET = ("cka", "rsa", *_OF_ONE_LANGUAGE)


def write_embeddings(
    task: Task,
    dataset: Dataset,
    backend: Backend,
    folder: Path,
    languages: Sequence[str],
    limit: int | None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write embeddings/<language>.safetensors below `folder`, one whole file per language.

    A file that holds the same texts already is kept, so a killed run continues. Rows are in the
    order of the pivot's samples. Raises UserError when the pivot is not among `languages`, the
    samples are not parallel, there are fewer than two, or the model cannot embed.
    """
    if "embed" not in backend.capabilities:
        raise UserError(
            f"{task.name}: model '{backend.name}' gives no hidden states; "
            "choose a checkpoint of this project, or leave the task out"
        )
    if _about_pictures(task):
        image_probe.write_embeddings(task, dataset, backend, folder, languages, limit, progress)
        return
    _require_pivot(task, languages)
    members = {tag: list(dataset.samples(tag))[:limit] for tag in languages}
    ids = [sample.id for sample in members[task.pivot]]
    if len(ids) < 2:
        raise UserError(f"{task.name}: a probe needs at least 2 samples; raise --limit")
    for done, language in enumerate(languages, start=1):
        samples = _in_order(task, language, members[language], ids)
        texts = [sample.question for sample in samples]
        rows = text_rows(language, samples, texts)
        path = path_of(folder, language)
        if not is_done(path, rows):
            save(path, embed_texts(task, backend, texts, language), rows)
        if progress:
            progress(done * len(ids), len(languages) * len(ids))


def score_embeddings(
    task: Task, folder: Path, languages: Sequence[str], labels: Mapping[str, str]
) -> Probed:
    """Return the scores of every language, and per-text statistics of the headline layer.

    Subset "layer=3" is one layer, 0 the embeddings; "pooled" the mean over all layers. Subset ""
    is the headline: the task's `main_subset`, by default the middle layer. It is fixed before
    anything is measured; the best layer of the test data would flatter the model. Intervals of
    per-text metrics resample concepts with their hits; the pool of candidates stays as it is, since
    P@1 depends on its size. Raises UserError for missing or unlike files and for a `main_subset`
    that is no layer.
    """
    if _about_pictures(task):
        return image_probe.score_embeddings(task, folder, languages, labels)
    if task.pivot not in languages:
        raise UserError(f"{folder}: no hidden states of the pivot {task.pivot} to compare with")
    pivot_LND, pivot = load(folder, task.pivot)
    headline = headline_layer(task, len(pivot_LND))
    scores: list[Score] = []
    items: list[Item] = []
    statistics: dict[str, list[Sequence[float] | None]] = {}
    for language in languages:
        target_LND, target = load(folder, language)
        if target.ids != pivot.ids or len(target_LND) != len(pivot_LND):
            raise UserError(
                f"{folder}: the hidden states of {language} and {task.pivot} do not belong "
                "together; remove the folder embeddings and run again"
            )
        measured = measure(task, (pivot_LND, pivot), (target_LND, target))
        for metric, found in measured.items():
            scores += scores_of(metric, found, target, headline, labels.get(language, "unknown"))
            if isinstance(found, PerText):
                statistics.setdefault(metric, []).extend(statistics_of(found, headline))
        if language != task.pivot:
            items += items_of(target)
    return Probed(tuple(scores), tuple(items), statistics)


def measure(
    task: Task, pivot: "tuple[np.ndarray, Rows]", target: "tuple[np.ndarray, Rows]"
) -> dict[str, Measured]:
    """Return the task's metrics of one language in every layer; of the pivot those it has alone."""
    import numpy as np

    alone = target[1].language == task.pivot
    names = [m for m in task.metrics if not alone or m in _OF_ONE_LANGUAGE]
    layers = []
    for layer in range(len(pivot[0])):
        found: dict[str, np.ndarray] = {}
        for part in (_retrieval, _margins, _similarity, _identity, _geometry):
            found |= part(names, pivot[0][layer], pivot[1], target[0][layer], target[1])
        layers.append(found)
    measured: dict[str, Measured] = {}
    for name in names:
        share_LX = np.stack([layer[name] for layer in layers])
        base, num_texts = name.removesuffix("_floor"), len(target[1].ids)
        if base in _OF_A_SET:
            num_texts = min(num_texts, MAX_TEXTS)
        settings = _settings(base, task.pivot, num_texts)
        if name != base:
            measured[name] = Floor(share_LX, settings, num_texts)
        elif name in _OF_A_SET:
            measured[name] = PerSet(share_LX, settings, num_texts)
        else:
            measured[name] = PerText(share_LX, settings)
    return measured


def _retrieval(
    names: Sequence[str], x_ND: "np.ndarray", x: Rows, y_ND: "np.ndarray", y: Rows
) -> "dict[str, np.ndarray]":
    if not _any_of(names, "retrieval_p1", "retrieval_p1_centred", "mexa"):
        return {}
    from mpm_eval.probes.mexa import mexa_hits
    from mpm_eval.probes.retrieval import random_hits, retrieve
    from mpm_eval.probes.vectors import NUM_PAIRINGS, pairings

    groups = x.groups, y.groups
    hits_N2, nearest_2N = retrieve(x_ND, y_ND, *groups)
    centred_N2, _ = retrieve(x_ND, y_ND, *groups, centred=True)
    either_P, both_P = random_hits(nearest_2N, *groups, pairings(len(x_ND), NUM_PAIRINGS))
    return {
        "retrieval_p1": hits_N2.mean(axis=1),
        "retrieval_p1_centred": centred_N2.mean(axis=1),
        "retrieval_p1_floor": either_P,
        "mexa": mexa_hits(x_ND, y_ND, *groups),
        "mexa_floor": both_P,
    }


def _margins(
    names: Sequence[str], x_ND: "np.ndarray", x: Rows, y_ND: "np.ndarray", y: Rows
) -> "dict[str, np.ndarray]":
    if not _any_of(names, "ratio_margin"):
        return {}
    from mpm_eval.probes.retrieval import ratio_margin
    from mpm_eval.probes.vectors import NUM_MATRIX_PAIRINGS, pairings, unit

    pairing_PN = pairings(len(x_ND), NUM_MATRIX_PAIRINGS)
    margin_N, floor_P = ratio_margin(unit(x_ND), unit(y_ND), x.groups, y.groups, pairing_PN)
    return {"ratio_margin": margin_N, "ratio_margin_floor": floor_P}


def _similarity(
    names: Sequence[str], x_ND: "np.ndarray", x: Rows, y_ND: "np.ndarray", y: Rows
) -> "dict[str, np.ndarray]":
    from mpm_eval.probes import similarity
    from mpm_eval.probes.vectors import NUM_MATRIX_PAIRINGS, halves, pairings

    x_ND, y_ND = x_ND[:MAX_TEXTS], y_ND[:MAX_TEXTS]
    mask_NM = halves(y.clusters[:MAX_TEXTS])
    pairing_PN = pairings(len(x_ND), NUM_MATRIX_PAIRINGS)
    found: dict[str, np.ndarray] = {}
    if _any_of(names, "cka"):
        k_NN, l_NN = similarity.linear_kernel(x_ND), similarity.linear_kernel(y_ND)
        centred = similarity.u_centred(k_NN), similarity.u_centred(l_NN)
        found["cka"] = similarity.cka(k_NN, l_NN, mask_NM)
        found["cka_floor"] = similarity.random_correlations(*centred, pairing_PN)
    if _any_of(names, "rsa"):
        r_NN, s_NN = similarity.distance_ranks(x_ND), similarity.distance_ranks(y_ND)
        found["rsa"] = similarity.rsa(r_NN, s_NN, mask_NM)
        found["rsa_floor"] = similarity.random_correlations(r_NN, s_NN, pairing_PN)
    return found


def _identity(
    names: Sequence[str], x_ND: "np.ndarray", x: Rows, y_ND: "np.ndarray", y: Rows
) -> "dict[str, np.ndarray]":
    if not _any_of(names, "language_identity"):
        return {}
    from mpm_eval.probes.language_identity import language_identity

    right_N, floor_P = language_identity(x_ND, y_ND, y.clusters)
    return {"language_identity": right_N, "language_identity_floor": floor_P}


def _geometry(
    names: Sequence[str], x_ND: "np.ndarray", x: Rows, y_ND: "np.ndarray", y: Rows
) -> "dict[str, np.ndarray]":
    from mpm_eval.probes.geometry import isotropy, mean_cosine
    from mpm_eval.probes.vectors import halves

    mask_NM = halves(y.clusters[:MAX_TEXTS])
    measures = {"isotropy": isotropy, "mean_cosine": mean_cosine}
    return {name: measures[name](y_ND[:MAX_TEXTS], mask_NM) for name in names if name in measures}


def _settings(metric: str, pivot: str, num_texts: int) -> str:
    """Return what a signature says of a metric."""
    from mpm_eval.probes.language_identity import NUM_FOLDS, RIDGE
    from mpm_eval.probes.retrieval import NUM_NEIGHBOURS

    nearest = f"cosine|directions:2|candidates:{num_texts}"
    return {
        "retrieval_p1": f"{nearest}|centring:none|candidates-fixed",
        "retrieval_p1_centred": f"{nearest}|centring:language-mean|candidates-fixed",
        "mexa": f"{nearest}|strict|candidates-fixed",
        "ratio_margin": f"{nearest}|k:{NUM_NEIGHBOURS}|candidates-fixed",
        "cka": f"linear|hsic:unbiased|texts:{num_texts}",
        "rsa": f"distance:1-cosine|spearman|texts:{num_texts}",
        "language_identity": f"ridge:{RIDGE}|folds:{NUM_FOLDS}|against:{pivot}|texts:{num_texts}",
        "isotropy": f"isoscore|texts:{num_texts}",
        "mean_cosine": f"different-texts|texts:{num_texts}",
    }[metric]


def _any_of(names: Sequence[str], *metrics: str) -> bool:
    return any(name.removesuffix("_floor") in metrics for name in names)


def _about_pictures(task: Task) -> bool:
    """Return whether the task's metrics are about pictures; UserError when only some are."""
    about = [name in IMAGE_PROBE_METRICS for name in task.metrics]
    if any(about) and not all(about):
        raise UserError(
            f"{task.path or task.name}: metrics: '{task.metrics[about.index(True)]}' is about "
            f"pictures, '{task.metrics[about.index(False)]}' is not; make two tasks of them"
        )
    return any(about)


def _require_pivot(task: Task, languages: Sequence[str]) -> None:
    if task.pivot not in languages:
        raise UserError(
            f"{task.name}: the probe compares every language with the pivot; "
            f"add {task.pivot} to --languages"
        )


def _in_order(
    task: Task, language: str, samples: Sequence[Sample], ids: Sequence[str]
) -> list[Sample]:
    by_id = {sample.id: sample for sample in samples}
    if len(by_id) != len(samples):
        raise UserError(f"{task.name}: an id is used twice in language '{language}'")
    missing = [name for name in ids if name not in by_id]
    if missing or len(by_id) != len(ids):
        surplus = [name for name in by_id if name not in set(ids)]
        raise UserError(
            f"{task.name}: '{language}' and '{task.pivot}' are not parallel: {len(missing)} ids "
            f"are missing in '{language}', {len(surplus)} are only there "
            f"(first: {(missing or surplus)[0]}); give the same ids in every language"
        )
    return [by_id[name] for name in ids]
