"""Score: join predictions with their samples and write result.json; needs no model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mpm_eval import __version__
from mpm_eval.errors import UserError
from mpm_eval.items import FILE as ITEMS_FILE
from mpm_eval.items import Item, Items, output_sha256, write_items
from mpm_eval.metrics import load_metric
from mpm_eval.schema import RESULT_SCHEMA_VERSION, Score, Task
from mpm_eval.stages.ingest import write_run
from mpm_eval.stages.judge import Judged, needs_judge, read_judged
from mpm_eval.stages.result_schema import (
    Note,
    Result,
    Skipped,
    TaskIdentity,
    ZeroShot,
)
from mpm_eval.stages.rows import (
    Joined,
    Measured,
    Rows,
    measure,
    metric_notes,
    prompt_notes,
    score_rows,
    statistics_rows,
    subsets,
    transfer_rows,
)
from mpm_eval.stages.run_folder import Manifest, Opened, join, open_task_folder, task_folders
from mpm_eval.store import to_line
from mpm_eval.strict import (
    canonical_sha256,
    file_sha256,
    rounded,
    to_jsonable,
    write_json,
)
from mpm_eval.zero_shot import evidence, label

# packages whose version can change a score
_SCORING_PACKAGES = ("numpy", "scipy")


def score_run(run: Path, tasks: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Score the tasks of a run (all without `tasks`), write each result.json, return the results.

    Scoring twice writes the same bytes. Raises UserError when a run is incomplete, its task file
    or data have changed, or a prediction belongs to no sample.
    """
    folders = task_folders(run)
    return [_score_folder(f) for f in folders if tasks is None or f.name in tasks]


def score_predictions(
    task: Task,
    file: Path,
    name: str,
    out: Path | None = None,
    languages: Sequence[str] | None = None,
) -> Path:
    """Write somebody else's predictions as a run called `name`, score it, return its folder.

    See docs/predictions.md for the format and for what is checked; every error is a UserError.
    """
    run = write_run(task, file, name, out, languages)
    _score_folder(run / task.name)
    return run


def _score_folder(folder: Path) -> dict[str, Any]:
    opened = open_task_folder(folder)
    if opened.task.kind == "probe":
        result, items = _probe_result(opened)
    elif opened.task.kind == "paint":
        result, items = _paint_result(opened)
    else:
        result, items = _item_result(opened)
    write_items(folder / ITEMS_FILE, items)
    content: dict[str, Any] = rounded(to_jsonable(result))
    write_json(folder / "result.json", content)
    return content


def _item_result(opened: Opened) -> tuple[Result, Items]:
    task = opened.task
    joined = join(opened)
    judged = read_judged(opened.folder, joined) if needs_judge(task) else None
    if judged:
        joined = {tag: [judged.joined(j) for j in members] for tag, members in joined.items()}
    labels = _labels(opened.manifest)
    members = [j for tag in joined for j in joined[tag]]
    parts: list[Rows] = []
    statistics = {}
    for name in task.metrics:
        measured, rows = _score_metric(task, name, joined, labels, judged)
        parts.append(rows)
        if name == task.main_metric and task.paraphrases:
            parts.append(Rows(notes=tuple(prompt_notes(rows.scores, name))))
        if name == task.main_metric and task.pivot in joined:
            parts += [_transfer(task, measured, tag) for tag in joined if tag != task.pivot]
        statistics[name] = statistics_rows(members, measured)
    return _of_samples(opened, members, parts, statistics, judged.record() if judged else None)


def _paint_result(opened: Opened) -> tuple[Result, Items]:
    from mpm_eval.stages.paint_scores import score_pictures

    joined = join(opened)
    found = score_pictures(opened, joined, _labels(opened.manifest))
    members = [j for tag in joined for j in joined[tag]]
    return _of_samples(opened, members, found.rows, found.statistics)


def _of_samples(
    opened: Opened,
    members: Sequence[Joined],
    parts: Sequence[Rows],
    statistics: Mapping[str, Sequence[Sequence[float] | None]],
    judging: Mapping[str, Any] | None = None,
) -> tuple[Result, Items]:
    """Return the result and the items of a task that has a prediction per sample."""
    predictions = sorted((j.prediction for j in members), key=lambda p: p.key)
    digest = canonical_sha256([to_line(prediction) for prediction in predictions])
    result = _result(
        opened,
        [score for part in parts for score in part.scores],
        [skipped for part in parts for skipped in part.skipped],
        [note for part in parts for note in part.notes],
        num_samples=len(predictions),
        num_failed=sum(bool(p.error) for p in predictions),
        predictions_sha256=digest,
        judging=judging,
    )
    return result, Items(tuple(map(_item, members)), statistics, digest)


def _transfer(task: Task, measured: Mapping[str, Measured], language: str) -> Rows:
    pivot, target = measured.get(task.pivot), measured.get(language)
    if getattr(load_metric(task.main_metric), "judged", False):
        reason = "a judge's scores are relative to the references of their own language"
        return Rows(skipped=(Skipped("transfer_gap", language, reason),))
    return transfer_rows(pivot, target, language, task.main_subset)


def _score_metric(
    task: Task,
    name: str,
    joined: Mapping[str, Sequence[Joined]],
    labels: Mapping[str, str],
    judged: Judged | None,
) -> tuple[dict[str, Measured], Rows]:
    """Return the metric's statistics by language, and its rows in every language and subset."""
    from mpm_eval.metrics.judged import RelativeScore

    metric = load_metric(name)
    if task.kind not in metric.kinds:
        raise UserError(
            f"{task.path or task.name}: metrics: '{name}' cannot score kind '{task.kind}', "
            f"only {', '.join(sorted(metric.kinds))}; remove it"
        )
    if judged and isinstance(metric, RelativeScore):
        metric = metric.judged_by(judged.judging.signature)
    measured: dict[str, Measured] = {}
    scores: list[Score] = []
    skipped: list[Skipped] = []
    notes: list[Note] = []
    for tag, members in joined.items():
        if not metric.supports(tag):
            skipped.append(Skipped(name, tag, "the metric does not know this language"))
            continue
        found = measured[tag] = measure(metric, tag, labels[tag], members)
        if found.too_few:
            skipped.append(Skipped(name, tag, found.too_few))
        elif not found.joined:
            skipped.append(Skipped(name, tag, "the metric applies to no sample"))
        names = subsets((j.sample for j in members), task.main_subset)
        scores += score_rows(found, names)
        notes += metric_notes(found)
        if judged and isinstance(metric, RelativeScore):
            notes += judged.notes(found, names)
    return measured, Rows(tuple(scores), tuple(skipped), tuple(notes))


def _item(member: Joined) -> Item:
    sample, prediction = member.sample, member.prediction
    return Item(
        id=sample.id,
        language=sample.language,
        cluster=sample.cluster,
        category=sample.category,
        cell=sample.cell,
        error=prediction.error,
        input_sha256=prediction.input_sha256[:16],
        output_sha256=output_sha256(prediction.content, prediction.option_scores),
    )


def _probe_result(opened: Opened) -> tuple[Result, Items]:
    from mpm_eval.stages.probe import score_embeddings

    languages = opened.manifest.languages
    files = sorted((opened.folder / "embeddings").glob("*.safetensors"))
    missing = sorted(set(languages) - {file.stem for file in files})
    if missing:
        raise UserError(
            f"{opened.folder}: no hidden states for {', '.join(missing)}; "
            "run the same command to continue"
        )
    probed = score_embeddings(opened.task, opened.folder, list(languages), _labels(opened.manifest))
    # a file of pictures belongs to every language
    read = (*languages, "images")
    digest = canonical_sha256({f.name: file_sha256(f) for f in files if f.stem in read})
    result = _result(
        opened,
        probed.scores,
        [],
        [],
        num_samples=sum(len(members) for members in opened.samples().values()),
        num_failed=sum(bool(item.error) for item in probed.items),
        predictions_sha256=digest,
    )
    return result, Items(probed.items, probed.statistics, digest)


def _labels(manifest: Manifest) -> dict[str, str]:
    return {tag: label(manifest.training_record, tag) for tag in manifest.languages}


def _result(
    opened: Opened,
    scores: Sequence[Score],
    skipped: Sequence[Skipped],
    notes: Sequence[Note],
    *,
    num_samples: int,
    num_failed: int,
    predictions_sha256: str,
    judging: Mapping[str, Any] | None = None,
) -> Result:
    manifest, task = opened.manifest, opened.task
    record = manifest.training_record
    return Result(
        schema_version=RESULT_SCHEMA_VERSION,
        task=TaskIdentity(
            name=task.name,
            version=task.version,
            sha256=task.sha256,
            kind=task.kind,
            main_metric=task.main_metric,
            main_subset=task.main_subset,
            pivot=task.pivot,
            description=task.description,
        ),
        model=manifest.model,
        data=manifest.data,
        decoding=manifest.decoding,
        seed=manifest.seed,
        limit=manifest.limit,
        languages=manifest.languages,
        num_samples=num_samples,
        num_failed=num_failed,
        predictions_sha256=predictions_sha256,
        versions={**manifest.versions, **_scoring_versions()},
        zero_shot={
            tag: ZeroShot(label(record, tag), evidence(record, tag)) for tag in manifest.languages
        },
        scores=tuple(sorted(scores, key=lambda s: (s.metric, s.language, s.subset))),
        skipped=tuple(sorted(skipped, key=lambda s: (s.metric, s.language))),
        notes=tuple(sorted(notes, key=lambda n: (n.metric, n.language, n.subset, n.name))),
        control=manifest.control,
        judging=judging or {},
    )


def _scoring_versions() -> dict[str, str]:
    from importlib.metadata import version

    scoring = {f"scoring:{package}": version(package) for package in _SCORING_PACKAGES}
    return {"scoring:mpm-eval": __version__, **scoring}
