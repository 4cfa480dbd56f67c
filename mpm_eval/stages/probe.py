"""Probe: write hidden states of parallel texts, then score how well a model aligns languages.

Translation retrieval by nearest cosine neighbour, per layer: P@1 as in Artetxe & Schwenk 2019
(arXiv 1812.10464, similarity search), and the same with each language's mean vector taken away,
which removes what says only the language (Libovický et al. 2020, arXiv 2004.05160).

Shapes: L layers (embeddings first), N texts, D dimension, P random pairings.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpm_eval.backends import Backend
from mpm_eval.data import Dataset
from mpm_eval.errors import UserError, unknown
from mpm_eval.schema import Sample, Score, Task
from mpm_eval.strict import build, canonical_sha256, to_jsonable, write_bytes

if TYPE_CHECKING:
    import numpy as np

TENSOR = "h_LND"
NUM_PAIRINGS = 1000
_METADATA = "mpm_eval"  # one key: safetensors writes several in an order that changes
_ROWS = 2048  # of a similarity matrix made at a time


@dataclass(frozen=True, slots=True)
class Rows:
    """What the rows of one language's hidden states are; stored in the file beside them."""

    language: str
    ids: tuple[str, ...]
    clusters: tuple[str, ...]
    groups: tuple[int, ...]  # row of the first sample with the same text
    texts_sha256: str


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
    if task.pivot not in languages:
        raise UserError(
            f"{task.name}: the probe compares every language with the pivot; "
            f"add {task.pivot} to --languages"
        )
    members = {tag: list(dataset.samples(tag))[:limit] for tag in languages}
    ids = [sample.id for sample in members[task.pivot]]
    if len(ids) < 2:
        raise UserError(f"{task.name}: a probe needs at least 2 samples; raise --limit")
    for done, language in enumerate(languages, start=1):
        samples = _in_order(task, language, members[language], ids)
        rows = _rows(language, samples)
        path = folder / "embeddings" / f"{language}.safetensors"
        if not _is_done(path, rows):
            texts = [sample.question for sample in samples]
            _save(path, _embed(task, backend, texts, language), rows)
        if progress:
            progress(done * len(ids), len(languages) * len(ids))


def score_embeddings(
    task: Task, folder: Path, languages: Sequence[str], labels: Mapping[str, str]
) -> list[Score]:
    """Return the scores of every language but the pivot, per layer and for the headline layer.

    Subset "layer=3" is one layer, 0 the embeddings. Subset "" is the headline: the task's
    `main_subset`, by default the middle layer. It is fixed before anything is measured; the best
    layer of the test data would flatter the model. Intervals resample concepts with their hits; the
    pool of candidates stays as it is, since P@1 depends on its size. Raises UserError for missing
    or unlike files and for a `main_subset` that is no layer.
    """
    if task.pivot not in languages:
        raise UserError(f"{folder}: no hidden states of the pivot {task.pivot} to compare with")
    pivot_LND, pivot = _load(folder, task.pivot)
    headline = headline_layer(task, len(pivot_LND))
    scores: list[Score] = []
    for language in languages:
        if language == task.pivot:
            continue
        target_LND, target = _load(folder, language)
        if target.ids != pivot.ids or len(target_LND) != len(pivot_LND):
            raise UserError(
                f"{folder}: the hidden states of {language} and {task.pivot} do not belong "
                "together; remove the folder embeddings and run again"
            )
        for layer in range(len(pivot_LND)):
            place = f"layer:{layer}|layers:{len(pivot_LND)}"
            rows = _score_layer(
                task, (pivot_LND[layer], pivot), (target_LND[layer], target), place, labels
            )
            scores += [_as_subset(row, f"layer={layer}") for row in rows]
            if layer == headline:
                scores += rows
    return scores


def headline_layer(task: Task, num_layers: int) -> int:
    """Return the layer of the task's `main_subset`, or the middle one: num_layers // 2.

    `num_layers` counts the embeddings. Raises UserError when `main_subset` names no layer.
    """
    if not task.main_subset:
        return num_layers // 2
    names = [f"layer={layer}" for layer in range(num_layers)]
    if task.main_subset not in names:
        raise unknown("layer", task.main_subset, names, f"{task.path or task.name}: main_subset")
    return names.index(task.main_subset)


def retrieve(
    x_ND: "np.ndarray",
    y_ND: "np.ndarray",
    x_groups: Sequence[int],
    y_groups: Sequence[int],
    *,
    centred: bool = False,
) -> "tuple[np.ndarray, np.ndarray]":
    """Return hits_N2 (0 or 1) and nearest_2N of rows that translate each other, x to y, y to x.

    A hit: the nearest neighbour by cosine, of equal ones the first, is the translation. Two
    concepts with the same text in either language count as hits for each other, since nothing
    tells them apart: the groups name them.
    """
    import numpy as np

    x_ND, y_ND = _unit(x_ND, centred), _unit(y_ND, centred)
    nearest_2N = _nearest(x_ND, y_ND)
    hits_N2 = np.zeros((len(x_ND), 2))
    for groups in (np.asarray(x_groups), np.asarray(y_groups)):
        hits_N2 = np.maximum(hits_N2, (groups[nearest_2N] == groups).T)
    return hits_N2, nearest_2N


def precision_at_1(totals: "np.ndarray") -> "np.ndarray":
    """Return P@1, 0 to 100, for summed [hits averaged over both directions, 1]: (…, 2) to (…)."""
    return 100 * totals[..., 0] / totals[..., 1]


def random_floor(
    nearest_2N: "np.ndarray", x_groups: Sequence[int], y_groups: Sequence[int], seed: int = 0
) -> float:
    """Return the 95th percentile of P@1, 0 to 100, when concepts are paired at random.

    The neighbours stay, the translations are shuffled: a model that finds no more than this has
    not been shown to align anything. Equal texts are hits for each other, as in `retrieve`.
    """
    import numpy as np

    rng = np.random.Generator(np.random.PCG64(seed))
    x, y = np.asarray(x_groups), np.asarray(y_groups)
    forth, back = nearest_2N
    N = len(forth)
    values = np.empty(NUM_PAIRINGS)
    for index in range(NUM_PAIRINGS):
        to_y = rng.permutation(N)  # pivot text i is paired with target text to_y[i]
        to_x = np.empty_like(to_y)
        to_x[to_y] = np.arange(N)
        forth_hits = (y[forth] == y[to_y]) | (x[to_x[forth]] == x)
        back_hits = (x[back] == x[to_x]) | (y[to_y[back]] == y)
        values[index] = 50 * (forth_hits.mean() + back_hits.mean())
    return float(np.quantile(values, 0.95))


def _score_layer(
    task: Task,
    pivot: "tuple[np.ndarray, Rows]",
    target: "tuple[np.ndarray, Rows]",
    place: str,
    labels: Mapping[str, str],
) -> list[Score]:
    language, n = target[1].language, len(target[1].ids)
    # How texts are pooled is the backend's affair; the hash of the model stands for it.
    settings = f"cosine|directions:2|candidates:{n}|{place}|pooling:backend"
    scores: list[Score] = []

    def add(metric: str, value: float, ci95: tuple[float, float] | None, how: str) -> None:
        if metric in task.metrics:
            label = labels.get(language, "unknown")
            better = metric != "retrieval_floor"
            signature = f"{metric}|{settings}|{how}"
            scores.append(
                Score(metric, language, value, ci95, n, 0, better, signature, label=label)
            )

    import numpy as np

    from mpm_eval.stats import estimate

    groups = pivot[1].groups, target[1].groups
    for metric, centred in (("retrieval_p1", False), ("retrieval_p1_centred", True)):
        hits_N2, nearest_2N = retrieve(pivot[0], target[0], *groups, centred=centred)
        stats_N2 = np.column_stack([hits_N2.mean(axis=1), np.ones(n)])
        found = estimate(stats_N2, target[1].clusters, precision_at_1)
        assert found.value is not None
        centring = "centring:language-mean" if centred else "centring:none"
        add(metric, found.value, found.ci95, f"{centring}|candidates-fixed|{found.method}")
        if not centred:
            floor = random_floor(nearest_2N, *groups)
            add("retrieval_floor", floor, None, f"pairings:{NUM_PAIRINGS}|quantile:0.95|seed:0")
    return scores


def _as_subset(score: Score, subset: str) -> Score:
    from dataclasses import replace

    return replace(score, subset=subset)


def _unit(x_ND: "np.ndarray", centred: bool) -> "np.ndarray":
    import numpy as np

    x_ND = x_ND.astype(np.float32)
    # The largest value first: squares of large activations overflow single precision.
    x_ND = x_ND / max(float(np.abs(x_ND).max()), 1e-30)
    if centred:
        x_ND = x_ND - x_ND.mean(axis=0, dtype=np.float64).astype(np.float32)
    norms = np.linalg.norm(x_ND, axis=1, keepdims=True)
    unit_ND: np.ndarray = x_ND / np.where(norms > 0, norms, 1)
    return unit_ND


def _nearest(x_ND: "np.ndarray", y_ND: "np.ndarray") -> "np.ndarray":
    """Return nearest_2N, x to y and y to x, of equal ones the first; one product serves both."""
    import numpy as np

    forth: list[np.ndarray] = []
    best_N, back_N = np.full(len(y_ND), -np.inf), np.zeros(len(y_ND), dtype=np.int64)
    for start in range(0, len(x_ND), _ROWS):
        similar_MN = x_ND[start : start + _ROWS] @ y_ND.T
        forth.append(similar_MN.argmax(axis=1))
        rows_N = similar_MN.argmax(axis=0)
        found_N = similar_MN[rows_N, np.arange(len(y_ND))]
        better_N = found_N > best_N
        best_N[better_N], back_N[better_N] = found_N[better_N], start + rows_N[better_N]
    return np.stack([np.concatenate(forth), back_N])


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


def _rows(language: str, samples: Sequence[Sample]) -> Rows:
    texts = [sample.question for sample in samples]
    first: dict[str, int] = {}
    groups = tuple(first.setdefault(text, row) for row, text in enumerate(texts))
    return Rows(
        language=language,
        ids=tuple(sample.id for sample in samples),
        clusters=tuple(sample.cluster for sample in samples),
        groups=groups,
        texts_sha256=canonical_sha256(texts),
    )


def _embed(task: Task, backend: Backend, texts: Sequence[str], language: str) -> "np.ndarray":
    """Return h_LND in float32: half precision overflows at the largest activations of some LLMs."""
    import numpy as np

    step = max(1, backend.batch_size)
    parts = [
        np.asarray(backend.embed(texts[i : i + step], language), dtype=np.float32)
        for i in range(0, len(texts), step)
    ]
    h_LND = np.concatenate(parts, axis=1)
    if h_LND.ndim != 3 or h_LND.shape[1] != len(texts):
        raise ValueError(f"{backend.name}: embed gave {h_LND.shape} for {len(texts)} texts")
    if not np.isfinite(h_LND).all():
        raise UserError(
            f"{task.name}: model '{backend.name}' gives hidden states that are not finite in "
            f"'{language}'; load it in float32 or leave the task out"
        )
    return h_LND


def _is_done(path: Path, rows: Rows) -> bool:
    if not path.is_file():
        return False
    try:
        return _read(path)[1] == rows
    except UserError:
        return False  # a broken file is written again


def _load(folder: Path, language: str) -> "tuple[np.ndarray, Rows]":
    path = folder / "embeddings" / f"{language}.safetensors"
    if not path.is_file():
        raise UserError(f"{path}: no such file; run the same command to continue")
    return _read(path)


def _read(path: Path) -> "tuple[np.ndarray, Rows]":
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            h_LND = file.get_tensor(TENSOR)
        rows = build(Rows, json.loads(metadata[_METADATA]), str(path))
    except (SafetensorError, KeyError, ValueError):
        raise UserError(
            f"{path}: not hidden states of this program; remove it and run again"
        ) from None
    if h_LND.ndim != 3 or h_LND.shape[1] != len(rows.ids):
        raise UserError(f"{path}: {h_LND.shape} for {len(rows.ids)} ids; remove it and run again")
    return h_LND, rows


def _save(path: Path, h_LND: "np.ndarray", rows: Rows) -> None:
    """Write one file in one step: a reader sees no file, the old one or the new one, whole."""
    import numpy as np
    from safetensors.numpy import save

    text = json.dumps(to_jsonable(rows), ensure_ascii=False, sort_keys=True, allow_nan=False)
    # safetensors writes the memory as it lies: a view in another order would be shuffled.
    content = save({TENSOR: np.ascontiguousarray(h_LND)}, metadata={_METADATA: text})
    write_bytes(path, content)
