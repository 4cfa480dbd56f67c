"""Measured: imported values as statistics, and their scores per subset."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mpm_eval.metrics.mean import Mean
from mpm_eval.schema import Prediction, Sample, Score
from mpm_eval.stages.interchange.imported import Log, Record
from mpm_eval.stages.rows import Joined, Measured, score_rows, subsets


class ImportedMean(Mean):
    """The mean of one program's values, with that program in its signature."""

    def __init__(self, name: str, program: str, higher_is_better: bool) -> None:
        super().__init__(name)
        self.higher_is_better = higher_is_better
        self._program = program

    def signature(self, language: str) -> str:
        """Return e.g. mean:acc|from:lm-eval,0.4.9|v:1."""
        return "".join(f"{self.name}|from:{self._program}|v:1".split())


def prediction_of(record: Record, language: str) -> Prediction:
    """Return a record as a line of predictions.jsonl."""
    return Prediction(
        id=record.id,
        language=language,
        prompt=record.prompt,
        output=record.output,
        error=record.error,
        input_sha256=record.input_sha256,
    )


def statistics_of(records: Sequence[Record], metric: str) -> list[Sequence[float] | None]:
    """Return [value, 1] per record; () for one that failed, None where the metric has no word."""
    rows: list[Sequence[float] | None] = []
    for record in records:
        value = record.values.get(metric)
        if record.error or (value is None and metric in record.values):
            rows.append(())
        else:
            rows.append(None if value is None else (value, 1.0))
    return rows


def scores_of(log: Log, language: str, lower_is_better: frozenset[str]) -> list[Score]:
    """Return every metric's score over all samples and per category and cell.

    Values are on the program's own scale; failed samples are counted, never scored.
    """
    program = f"{log.program},{log.program_version}" if log.program_version else log.program
    joined = [_joined(record, language) for record in log.records]
    names = subsets([member.sample for member in joined], "")
    scores: list[Score] = []
    for name in log.metrics:
        metric = ImportedMean(f"mean:{name}", program, name not in lower_is_better)
        scores += score_rows(_measured(metric, language, joined, log.records), names)
    return scores


def _measured(
    metric: ImportedMean, language: str, joined: Sequence[Joined], records: Sequence[Record]
) -> Measured:
    rows = statistics_of(records, metric.name.removeprefix("mean:"))
    counted, scored, known = [], [], []
    for member, row in zip(joined, rows, strict=True):
        if row is None:
            continue
        if row:
            scored.append(member)
            known.append(row)
        else:  # also a sample that the program answered and could not score
            error = member.prediction.error or "not scored"
            member = replace(member, prediction=replace(member.prediction, error=error))
        counted.append(member)
    statistics_NS = np.array(known, dtype=np.float64) if known else np.zeros((0, 0))
    return Measured(metric, language, "unknown", tuple(counted), tuple(scored), statistics_NS)


def _joined(record: Record, language: str) -> Joined:
    sample = Sample(
        id=record.id,
        language=language,
        image=None,
        references=record.references,
        cluster=record.cluster,
        category=record.category,
        cell=record.cell,
    )
    return Joined(sample, prediction_of(record, language))
