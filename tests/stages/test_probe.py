"""The probe: files of hidden states, layers and pooled, floors, intervals, items."""

import dataclasses
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpm_eval.errors import UserError
from mpm_eval.metrics import PROBE_METRICS
from mpm_eval.schema import Sample, Score, Task, TrainingRecord
from mpm_eval.stages.probe import score_embeddings, write_embeddings
from mpm_eval.stages.probe_scores import Probed, headline_layer, percent
from mpm_eval.strict import file_sha256

pytestmark = pytest.mark.slow  # hidden states of many texts are made and scored

LANGUAGES = ("en", "zh", "de")
NUM_LAYERS, NUM_TEXTS, DIMENSION = 5, 40, 16
METRICS = (
    "retrieval_p1",
    "retrieval_p1_floor",
    "retrieval_p1_centred",
    "ratio_margin",
    "ratio_margin_floor",
    "mexa",
    "mexa_floor",
    "cka",
    "cka_floor",
    "rsa",
    "rsa_floor",
    "language_identity",
    "language_identity_floor",
    "isotropy",
    "mean_cosine",
)
ALONE = ("isotropy", "mean_cosine")


def make_task(**changes: Any) -> Task:
    task = Task(
        name="alignment",
        version=1,
        kind="probe",
        description="",
        languages=LANGUAGES,
        metrics=METRICS,
        main_metric="retrieval_p1",
        data={"source": "emoji_text"},
    )
    return dataclasses.replace(task, **changes)


class Texts:
    """A dataset of parallel texts, "<language> <number>"."""

    sha256 = "0" * 64

    def __init__(self, texts: dict[str, dict[str, str]] | None = None) -> None:
        ids = [f"c{k:02}" for k in range(NUM_TEXTS)]
        self.description: Mapping[str, str] = {}
        self.texts = texts or {tag: {i: f"{tag} {i}" for i in ids} for tag in LANGUAGES}

    def samples(self, language: str) -> Sequence[Sample]:
        return [
            Sample(i, language, None, (text,), cluster=i, question=text)
            for i, text in self.texts[language].items()
        ]

    def load_image(self, key: str) -> Any:
        raise AssertionError("a probe has no pictures")


class Vectors:
    """A backend: a concept's own vector plus one of its language, more aligned in each layer."""

    name = "vectors"
    sha256 = "1" * 64
    capabilities = frozenset({"embed"})
    batch_size = 7

    def __init__(self, offset: float = 0.0, noise: float = 1.0) -> None:
        self.offset, self.noise = offset, noise
        self.training_record: TrainingRecord | None = None
        self.identity: Mapping[str, str] = {}
        self.calls: list[tuple[str, int]] = []

    def generate(self, requests: Any) -> Any:
        raise AssertionError("a probe generates nothing")

    choose = embed_images = generate

    def embed(self, texts: Sequence[str], language: str) -> np.ndarray:
        self.calls.append((language, len(texts)))
        layers = []
        for layer in range(NUM_LAYERS):
            share = layer / (NUM_LAYERS - 1)
            rows = [
                share * self.vector(f"concept {text.split(' ', 1)[1]}")
                + (1 - share) * self.noise * self.vector(f"noise {layer} {text}")
                + self.offset * self.vector(f"language {language}")
                for text in texts
            ]
            layers.append(np.stack(rows))
        return np.stack(layers).astype(np.float32)

    @staticmethod
    def vector(name: str) -> np.ndarray:
        return np.random.default_rng(zlib.crc32(name.encode())).normal(size=DIMENSION)


def write(folder: Path, backend: Vectors | None = None, **changes: Any) -> Vectors:
    backend = backend or Vectors()
    arguments: dict[str, Any] = {
        "task": make_task(),
        "dataset": Texts(),
        "languages": LANGUAGES,
        "limit": None,
    }
    write_embeddings(backend=backend, folder=folder, **{**arguments, **changes})
    return backend


def probed(folder: Path, **changes: Any) -> Probed:
    return score_embeddings(make_task(**changes), folder, LANGUAGES, {"zh": "zero-shot"})


def scores_of(folder: Path, **changes: Any) -> tuple[Score, ...]:
    return probed(folder, **changes).scores


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Probed:
    """What is found on the default backend and task."""
    folder = tmp_path_factory.mktemp("found")
    write(folder)
    return probed(folder)


def pick(scores: Sequence[Score], metric: str, language: str, subset: str) -> Score:
    found = [s for s in scores if (s.metric, s.language, s.subset) == (metric, language, subset)]
    assert len(found) == 1
    return found[0]


# --- writing


def test_every_language_gets_one_file_of_layers_texts_and_dimensions(tmp_path: Path) -> None:
    from safetensors import safe_open

    backend = write(tmp_path)
    names = sorted(path.name for path in (tmp_path / "embeddings").iterdir())
    assert names == ["de.safetensors", "en.safetensors", "zh.safetensors"]
    with safe_open(tmp_path / "embeddings" / "zh.safetensors", framework="numpy") as file:
        h_LND = file.get_tensor("h_LND")
        rows = json.loads(file.metadata()["mpm_eval"])
    assert h_LND.shape == (NUM_LAYERS, NUM_TEXTS, DIMENSION) and h_LND.dtype == np.float32
    assert rows["ids"] == [f"c{k:02}" for k in range(NUM_TEXTS)]
    expected = Vectors().embed([f"zh {name}" for name in rows["ids"]], "zh")
    np.testing.assert_array_equal(h_LND, expected)
    assert max(size for _, size in backend.calls) == backend.batch_size


def test_a_second_run_computes_nothing_again(tmp_path: Path) -> None:
    write(tmp_path)
    assert write(tmp_path).calls == []


def test_a_killed_run_continues_with_the_languages_that_are_missing(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "embeddings" / "zh.safetensors").unlink()
    assert {language for language, _ in write(tmp_path).calls} == {"zh"}


def test_a_broken_file_is_written_again(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "embeddings" / "zh.safetensors"
    whole = file_sha256(path)
    path.write_bytes(path.read_bytes()[:100])
    assert {language for language, _ in write(tmp_path).calls} == {"zh"}
    assert file_sha256(path) == whole


def test_other_texts_or_another_limit_are_computed_again(tmp_path: Path) -> None:
    write(tmp_path, limit=10)
    assert len({language for language, _ in write(tmp_path, limit=20).calls}) == 3
    texts = Texts().texts
    texts["zh"]["c00"] = "zh c99"
    backend = write(tmp_path, dataset=Texts(texts), limit=20)
    assert {language for language, _ in backend.calls} == {"zh"}


def test_the_same_states_give_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "one")
    write(tmp_path / "two")
    for tag in LANGUAGES:
        digests = {file_sha256(tmp_path / d / "embeddings" / f"{tag}.safetensors")
                   for d in ("one", "two")}  # fmt: skip
        assert len(digests) == 1


def test_a_kill_while_writing_leaves_no_file_that_looks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path)
    assert list((tmp_path / "embeddings").iterdir()) == []


def test_rows_follow_the_pivot_whatever_the_order_of_a_language(tmp_path: Path) -> None:
    texts = Texts().texts
    texts["zh"] = dict(reversed(texts["zh"].items()))
    write(tmp_path / "reversed", dataset=Texts(texts))
    write(tmp_path / "straight")
    digests = {file_sha256(tmp_path / d / "embeddings" / "zh.safetensors")
               for d in ("reversed", "straight")}  # fmt: skip
    assert len(digests) == 1


def test_a_missing_parallel_text_is_named(tmp_path: Path) -> None:
    texts = Texts().texts
    del texts["zh"]["c07"]
    with pytest.raises(UserError, match=r"1 ids are missing in 'zh'.*first: c07"):
        write(tmp_path, dataset=Texts(texts))


def test_a_run_without_the_pivot_is_refused_before_any_work(tmp_path: Path) -> None:
    backend = Vectors()
    with pytest.raises(UserError, match="add en to --languages"):
        write(tmp_path, backend, languages=("zh", "de"))
    assert backend.calls == []


def test_a_model_without_hidden_states_is_refused(tmp_path: Path) -> None:
    backend = Vectors()
    backend.capabilities = frozenset({"generate"})
    with pytest.raises(UserError, match="gives no hidden states"):
        write(tmp_path, backend)


def test_one_sample_is_refused_since_retrieval_would_be_perfect(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 2 samples"):
        write(tmp_path, limit=1)


def test_states_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    class Overflowing(Vectors):
        def embed(self, texts: Sequence[str], language: str) -> np.ndarray:
            h_LND = super().embed(texts, language)
            h_LND[3, -1, 0] = np.nan
            return h_LND

    with pytest.raises(UserError, match="not finite in 'en', first in layer 3; load it in float32"):
        write(tmp_path, Overflowing())


# --- scoring


def test_every_layer_and_language_gets_rows_and_the_pivot_those_it_has_alone(found: Probed) -> None:
    scores = found.scores
    subsets = {"", "pooled", *(f"layer={layer}" for layer in range(NUM_LAYERS))}
    expected = {(m, tag, s) for m in METRICS for tag in ("zh", "de") for s in subsets}
    expected |= {(m, "en", s) for m in ALONE for s in subsets}
    assert {(s.metric, s.language, s.subset) for s in scores} == expected
    assert len(scores) == len(expected)
    assert all((s.n, s.n_failed) == (NUM_TEXTS, 0) for s in scores)
    assert {s.label for s in scores if s.language == "zh"} == {"zero-shot"}
    assert {s.label for s in scores if s.language == "de"} == {"unknown"}
    for score in scores:
        low, high = PROBE_METRICS[score.metric].range
        assert score.value is not None and low <= score.value <= high
        assert " " not in score.signature and score.signature.startswith(score.metric)
        assert (score.ci95 is None) is score.metric.endswith("_floor")
        if score.ci95:
            assert score.ci95[0] <= score.value <= score.ci95[1]
    lower = {s.metric for s in scores if not s.higher_is_better and s.ci95}
    assert lower == {"language_identity", "mean_cosine"}


def test_deeper_layers_of_a_model_that_aligns_score_higher(found: Probed) -> None:
    scores = found.scores
    first = pick(scores, "retrieval_p1", "zh", "layer=0")
    last = pick(scores, "retrieval_p1", "zh", "layer=4")
    floor = pick(scores, "retrieval_p1_floor", "zh", "layer=0")
    assert last.value == 100 and first.value is not None and floor.value is not None
    assert first.value <= floor.value + 5
    assert last.ci95 is not None and last.ci95[0] < 100  # 40 of 40 is no proof of perfection


def test_centring_helps_where_only_the_language_differs(tmp_path: Path) -> None:
    write(tmp_path, Vectors(offset=8.0))
    scores = scores_of(tmp_path, metrics=("retrieval_p1", "retrieval_p1_centred"))
    plain = pick(scores, "retrieval_p1", "de", "layer=4").value
    centred = pick(scores, "retrieval_p1_centred", "de", "layer=4").value
    assert plain is not None and centred == 100 and plain < 60


def test_the_headline_is_the_middle_layer_and_not_the_best(found: Probed) -> None:
    scores = found.scores
    headline = pick(scores, "retrieval_p1", "zh", "")
    assert headline == dataclasses.replace(pick(scores, "retrieval_p1", "zh", "layer=2"), subset="")
    assert headline.value != pick(scores, "retrieval_p1", "zh", "layer=4").value


def test_the_signature_says_layer_candidates_centring_and_bootstrap(found: Probed) -> None:
    scores = found.scores
    assert pick(scores, "retrieval_p1_centred", "zh", "").signature == (
        "retrieval_p1_centred|cosine|directions:2|candidates:40|centring:language-mean"
        "|candidates-fixed|layer:2|layers:5|pooling:backend"
        "|ci:bootstrap,percentile|resamples:2000|seed:0|clusters:40"
    )
    assert "centring:none" in pick(scores, "retrieval_p1", "zh", "").signature


def test_the_task_may_name_the_headline_layer(tmp_path: Path) -> None:
    write(tmp_path)
    scores = scores_of(tmp_path, main_subset="layer=4", metrics=("retrieval_p1",))
    assert "layer:4" in pick(scores, "retrieval_p1", "zh", "").signature


@pytest.mark.parametrize(("num_layers", "expected"), [(1, 0), (2, 1), (5, 2), (7, 3), (19, 9)])
def test_the_middle_counts_the_embeddings(num_layers: int, expected: int) -> None:
    assert headline_layer(make_task(), num_layers) == expected


def test_a_headline_that_is_no_layer_names_those_there_are(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(UserError, match=r"unknown layer 'layer=9'.*did you mean 'layer=\d'"):
        scores_of(tmp_path, main_subset="layer=9")


def test_only_the_metrics_of_the_task_are_scored(tmp_path: Path) -> None:
    write(tmp_path)
    assert {s.metric for s in scores_of(tmp_path, metrics=("retrieval_p1",))} == {"retrieval_p1"}


def test_scoring_twice_gives_the_same_numbers(tmp_path: Path) -> None:
    write(tmp_path)
    assert scores_of(tmp_path) == scores_of(tmp_path)


def test_the_interval_counts_a_shared_cluster_once(tmp_path: Path) -> None:
    class Pairs(Texts):
        def samples(self, language: str) -> Sequence[Sample]:
            samples = super().samples(language)
            return [dataclasses.replace(s, cluster=f"p{i // 20}") for i, s in enumerate(samples)]

    write(tmp_path / "own")
    write(tmp_path / "pairs", dataset=Pairs())
    own, shared = (
        pick(scores_of(tmp_path / d, metrics=("retrieval_p1",)), "retrieval_p1", "zh", "layer=4")
        for d in ("own", "pairs")
    )
    assert own.value == shared.value and own.ci95 is not None and shared.ci95 is not None
    assert shared.ci95[0] < own.ci95[0] - 10


def test_files_of_different_runs_are_not_compared(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path / "short", limit=10)
    short = tmp_path / "short" / "embeddings" / "zh.safetensors"
    short.replace(tmp_path / "embeddings" / "zh.safetensors")
    with pytest.raises(UserError, match="zh and en do not belong together"):
        scores_of(tmp_path)


@pytest.mark.parametrize("content", [b"", b"x" * 100])
def test_a_file_that_is_no_safetensors_file_is_named(tmp_path: Path, content: bytes) -> None:
    write(tmp_path)
    (tmp_path / "embeddings" / "zh.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"zh\.safetensors: not hidden states of this program"):
        scores_of(tmp_path)


def test_a_missing_language_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "embeddings" / "de.safetensors").unlink()
    with pytest.raises(UserError, match=r"de\.safetensors: no such file"):
        scores_of(tmp_path)


def test_pooled_is_the_mean_over_the_layers(found: Probed) -> None:
    scores = found.scores
    for metric in ("retrieval_p1", "mexa", "cka", "rsa", "isotropy", "ratio_margin"):
        layers = [pick(scores, metric, "zh", f"layer={k}").value for k in range(NUM_LAYERS)]
        pooled = pick(scores, metric, "zh", "pooled")
        assert None not in layers
        assert pooled.value == pytest.approx(np.mean([v for v in layers if v is not None]))
        assert "layer:mean" in pooled.signature


@pytest.mark.parametrize("metric", ["retrieval_p1", "mexa", "ratio_margin", "cka", "rsa"])
def test_aligned_layers_stand_above_the_floor_and_noise_does_not(
    found: Probed, metric: str
) -> None:
    scores = found.scores
    for layer, above in (("layer=4", True), ("layer=0", False)):
        score = pick(scores, metric, "de", layer)
        floor = pick(scores, f"{metric}_floor", "de", layer)
        assert score.value is not None and floor.value is not None and score.ci95 is not None
        assert (score.ci95[0] > floor.value) is above


def test_the_language_is_told_from_the_vectors_where_only_it_differs(tmp_path: Path) -> None:
    write(tmp_path / "plain")
    write(tmp_path / "offset", Vectors(offset=8.0))
    plain, offset = (
        pick(
            scores_of(tmp_path / d, metrics=("language_identity",)),
            "language_identity",
            "de",
            "layer=4",
        ).value
        for d in ("plain", "offset")
    )
    assert plain == 50 and offset == 100


def test_items_hold_the_texts_of_the_headline_layer(found: Probed) -> None:
    assert [(i.id, i.language) for i in found.items] == [
        (f"c{k:02}", tag) for tag in ("zh", "de") for k in range(NUM_TEXTS)
    ]
    per_text = {"retrieval_p1", "retrieval_p1_centred", "ratio_margin", "mexa", "language_identity"}
    assert set(found.statistics) == per_text
    for metric in per_text:
        rows = found.statistics[metric][NUM_TEXTS:]
        total = np.array([row for row in rows if row is not None]).sum(axis=0)
        score = pick(found.scores, metric, "de", "")
        assert percent(total) == pytest.approx(score.value) and total[1] == score.n
    assert len({item.input_sha256 for item in found.items}) == 2 * NUM_TEXTS


def test_two_texts_have_no_cka_and_say_so(tmp_path: Path) -> None:
    write(tmp_path, limit=2)
    scores = scores_of(tmp_path)
    cka = pick(scores, "cka", "zh", "")
    assert (cka.value, cka.ci95, cka.n, cka.n_failed) == (None, None, 0, 2)
    assert pick(scores, "retrieval_p1", "zh", "").value is not None


def test_a_task_about_both_pictures_and_texts_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(UserError, match="'image_to_text_r1' is about pictures, 'mexa' is not"):
        scores_of(tmp_path, metrics=("mexa", "image_to_text_r1"))
