"""Image-text probe: do a picture and its name lie together, language by language?

A picture is embedded once and compared with the names of each language in turn, so languages need
not share their samples. The mean vector of the pictures and that of the names are taken away first:
the two lie apart as a whole, whatever they show (Liang et al. 2022, arXiv 2203.02053).

Shapes: L layers (embeddings first), N samples, I pictures, T distinct texts, D dimension.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpm_eval.backends import Backend
from mpm_eval.data import Dataset
from mpm_eval.errors import CorruptImage, UserError
from mpm_eval.items import Item
from mpm_eval.schema import Sample, Score, Task
from mpm_eval.stages.probe_files import (
    Rows,
    embed_pictures,
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
    PerText,
    Probed,
    headline_layer,
    items_of,
    scores_of,
    statistics_of,
)
from mpm_eval.strict import canonical_sha256

if TYPE_CHECKING:
    import numpy as np

IMAGES = "images"  # name of the file of the pictures' hidden states
_CUTOFFS = (1, 5, 10)
_CORRUPT = "picture cannot be decoded"


def write_embeddings(
    task: Task,
    dataset: Dataset,
    backend: Backend,
    folder: Path,
    languages: Sequence[str],
    limit: int | None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write embeddings/images.safetensors and embeddings/<language>.safetensors below `folder`.

    The text of a sample is its question, else its first reference. A file that holds the same
    inputs already is kept. A picture that cannot be decoded is left out; its samples fail. Raises
    UserError for a sample without a picture, fewer than two pictures, or a model that cannot embed
    pictures.
    """
    if "embed_images" not in backend.capabilities:
        raise UserError(
            f"{task.name}: model '{backend.name}' gives no hidden states of pictures; "
            "choose a checkpoint of this project, or leave the task out"
        )
    members = {tag: list(dataset.samples(tag))[:limit] for tag in languages}
    keys = list(dict.fromkeys(_key(task, s) for found in members.values() for s in found))
    total = len(keys) + sum(map(len, members.values()))
    if not _has_pictures(folder, keys):
        _write_pictures(task, dataset, backend, folder, keys)
    done = len(keys)
    for language, samples in members.items():
        if progress:
            progress(done, total)
        texts = [sample.question or sample.references[0] for sample in samples]
        rows = text_rows(language, samples, texts)
        path = path_of(folder, language)
        if not is_done(path, rows):
            save(path, embed_texts(task, backend, texts, language), rows)
        done += len(samples)
    if progress:
        progress(total, total)


def score_embeddings(
    task: Task, folder: Path, languages: Sequence[str], labels: Mapping[str, str]
) -> Probed:
    """Return the scores of every language, the pivot too, and per-sample statistics.

    Subsets as in the alignment probe: every layer, "pooled", and "" for the headline layer. Raises
    UserError for missing or unlike files and for a `main_subset` that is no layer.
    """
    image_LID, pictures = load(folder, IMAGES)
    headline = headline_layer(task, len(image_LID))
    row_of = {key: row for row, key in enumerate(pictures.ids)}
    scores: list[Score] = []
    items: list[Item] = []
    statistics: dict[str, list[Sequence[float] | None]] = {}
    for language in languages:
        text_LND, rows = load(folder, language)
        if len(text_LND) != len(image_LID) or len(rows.images) != len(rows.ids):
            raise UserError(
                f"{folder}: the hidden states of {language} and of the pictures do not belong "
                "together; remove the folder embeddings and run again"
            )
        kept = [i for i, key in enumerate(rows.images) if key in row_of]
        if len(kept) < 2:
            raise UserError(
                f"{folder}: {len(kept)} pictures of '{language}' can be decoded, at least 2 are "
                "needed; check the data"
            )
        picture_N = [row_of[rows.images[i]] for i in kept]
        scored = _rows_at(rows, kept)
        num_failed = len(rows.ids) - len(kept)
        measured = measure(task, image_LID, picture_N, text_LND[:, kept], scored)
        for metric, found in measured.items():
            scores += scores_of(
                metric, found, scored, headline, labels.get(language, "unknown"), num_failed
            )
            if isinstance(found, PerText):
                failed: list[Sequence[float] | None] = [()] * num_failed
                statistics.setdefault(metric, []).extend(statistics_of(found, headline) + failed)
        left_out = _rows_at(rows, [i for i in range(len(rows.ids)) if i not in set(kept)])
        items += items_of(scored)
        items += [replace(item, error=_CORRUPT) for item in items_of(left_out)]
    return Probed(tuple(scores), tuple(items), statistics)


def measure(
    task: Task,
    image_LID: "np.ndarray",
    picture_N: Sequence[int],
    text_LND: "np.ndarray",
    rows: Rows,
) -> dict[str, Measured]:
    """Return the task's metrics of one language in every layer; sample i shows picture_N[i]."""
    import numpy as np

    from mpm_eval.probes.retrieval import NUM_NEIGHBOURS

    layers = [
        _measure_layer(image_D, np.asarray(picture_N), text_D, np.asarray(rows.groups))
        for image_D, text_D in zip(image_LID, text_LND, strict=True)
    ]
    num_images, num_texts = len(set(picture_N)), len(set(rows.groups))
    measured: dict[str, Measured] = {}
    for name in task.metrics:
        share_LX = np.stack([layer[name] for layer in layers])
        settings = f"cosine|pictures:{num_images}|texts:{num_texts}|centring:modality-mean"
        if "margin" in name:
            settings += f"|k:{NUM_NEIGHBOURS}"
        if name.endswith("_floor"):
            measured[name] = Floor(share_LX, settings, len(rows.ids))
        else:
            measured[name] = PerText(share_LX, f"{settings}|candidates-fixed")
    return measured


def _measure_layer(
    image_ID: "np.ndarray", picture_N: "np.ndarray", text_ND: "np.ndarray", group_N: "np.ndarray"
) -> "dict[str, np.ndarray]":
    """Return every metric of one layer: shares (N,), or means under random pairings (P,).

    Candidates are the distinct pictures and the distinct texts of the samples. All texts of a
    picture are right for it, and all pictures with a text for that text.
    """
    import numpy as np

    from mpm_eval.probes import retrieval
    from mpm_eval.probes.vectors import NUM_MATRIX_PAIRINGS, pairings, unit

    first_I, image_N = np.unique(picture_N, return_index=True, return_inverse=True)[1:]
    first_T, text_N = np.unique(group_N, return_index=True, return_inverse=True)[1:]
    images_ID = unit(image_ID[picture_N[first_I]], centred=True)
    texts_TD = unit(text_ND[first_T], centred=True)
    right_IT = np.zeros((len(images_ID), len(texts_TD)), dtype=bool)
    right_IT[image_N, text_N] = True
    pairing_PN = pairings(len(text_ND), NUM_MATRIX_PAIRINGS)
    found: dict[str, np.ndarray] = {}
    for name, query_QD, candidate_CD, right_QC, query_N, candidate_N in (
        ("image_to_text", images_ID, texts_TD, right_IT, image_N, text_N),
        ("text_to_image", texts_TD, images_ID, right_IT.T, text_N, image_N),
    ):
        rank_N = retrieval.ranks(query_QD, candidate_CD, right_QC)[query_N]
        position_QC = retrieval.positions(query_QD, candidate_CD)
        random_PN = retrieval.random_ranks(position_QC, query_N, candidate_N, pairing_PN)
        for cutoff in _CUTOFFS:
            found[f"{name}_r{cutoff}"] = (rank_N <= cutoff).astype(np.float64)
            found[f"{name}_r{cutoff}_floor"] = (random_PN <= cutoff).mean(axis=1)
    found["image_text_margin"], found["image_text_margin_floor"] = retrieval.ratio_margin(
        images_ID[image_N], texts_TD[text_N], image_N.tolist(), text_N.tolist(), pairing_PN
    )
    return found


def _has_pictures(folder: Path, keys: Sequence[str]) -> bool:
    """Return whether the file was made for these keys; which of them it lacks was found then."""
    try:
        return load(folder, IMAGES)[1].texts_sha256 == canonical_sha256(list(keys))
    except UserError:
        return False


def _write_pictures(
    task: Task, dataset: Dataset, backend: Backend, folder: Path, keys: Sequence[str]
) -> None:
    import numpy as np

    parts: list[np.ndarray] = []
    found: list[str] = []
    step = max(1, backend.batch_size)
    for start in range(0, len(keys), step):
        pictures: dict[str, Any] = {}
        for key in keys[start : start + step]:
            # one that cannot be decoded fails its samples and not the run
            with suppress(CorruptImage):
                pictures[key] = dataset.load_image(key)
        if pictures:
            parts.append(embed_pictures(task, backend, list(pictures.values())))
            found += pictures
    if len(found) < 2:
        raise UserError(
            f"{task.name}: {len(found)} of {len(keys)} pictures can be decoded, at least 2 are "
            "needed; check the data or raise --limit"
        )
    ids = tuple(found)
    rows = Rows("", ids, ids, tuple(range(len(ids))), canonical_sha256(list(keys)))
    save(path_of(folder, IMAGES), np.concatenate(parts, axis=1), rows)


def _key(task: Task, sample: Sample) -> str:
    if sample.image is None:
        raise UserError(
            f"{task.name}: sample '{sample.id}' in '{sample.language}' has no picture; "
            "an image-text probe needs one for every sample"
        )
    return sample.image


def _rows_at(rows: Rows, kept: Sequence[int]) -> Rows:
    return Rows(
        language=rows.language,
        ids=tuple(rows.ids[i] for i in kept),
        clusters=tuple(rows.clusters[i] for i in kept),
        groups=tuple(rows.groups[i] for i in kept),
        texts_sha256=rows.texts_sha256,
        images=tuple(rows.images[i] for i in kept),
        text_sha256s=tuple(rows.text_sha256s[i] for i in kept),
    )
