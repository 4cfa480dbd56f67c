"""The probe: files of hidden states, retrieval against a slow oracle, floor, headline layer."""

import dataclasses
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpm_eval.errors import UserError
from mpm_eval.schema import Sample, Score, Task, TrainingRecord
from mpm_eval.stages.probe import (
    NUM_PAIRINGS,
    headline_layer,
    precision_at_1,
    random_floor,
    retrieve,
    score_embeddings,
    write_embeddings,
)
from mpm_eval.strict import file_sha256

LANGUAGES = ("en", "zh", "de")
NUM_LAYERS, NUM_TEXTS, DIMENSION = 5, 40, 16
METRICS = ("retrieval_p1", "retrieval_p1_centred", "retrieval_floor")


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

    choose = generate

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


def scores_of(folder: Path, **changes: Any) -> list[Score]:
    return score_embeddings(make_task(**changes), folder, LANGUAGES, {"zh": "zero-shot"})


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
            return super().embed(texts, language) * np.float32(np.inf)

    with pytest.raises(UserError, match="not finite in 'en'"):
        write(tmp_path, Overflowing())


# --- retrieval


def slow_hits(x_ND: np.ndarray, y_ND: np.ndarray) -> list[float]:
    """Return hits from x to y by three lines of Python."""

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.sqrt((a @ a) * (b @ b)))

    found = [max(range(len(y_ND)), key=lambda j: cosine(x, y_ND[j])) for x in x_ND]
    return [float(j == i) for i, j in enumerate(found)]


@pytest.mark.parametrize("centred", [False, True])
def test_hits_in_both_directions_equal_a_slow_oracle(centred: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 8)) + 3
    y = x + 0.8 * rng.normal(size=(50, 8)) - 5
    hits_N2, _ = retrieve(x, y, range(50), range(50), centred=centred)
    if centred:
        x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    assert hits_N2[:, 0].tolist() == slow_hits(x, y)
    assert hits_N2[:, 1].tolist() == slow_hits(y, x)
    assert 0 < hits_N2.mean() < 1


def test_a_hub_is_a_hit_in_one_direction_only() -> None:
    # both x find the first y; each y finds its own x
    x = np.array([[1.0, 0.0], [0.8, 0.6]])
    y = np.array([[0.95, 0.31], [0.0, 1.0]])
    hits_N2, nearest_2N = retrieve(x, y, range(2), range(2))
    assert nearest_2N.tolist() == [[0, 0], [0, 1]]
    assert hits_N2.T.tolist() == [[1, 0], [1, 1]]


def test_three_texts_give_the_value_counted_by_hand() -> None:
    # x to y finds 0, 0, 2 (two right), y to x finds 0, 2, 2 (two right): 4 of 6
    x = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    y = np.array([[1.0, 0.0], [0.4, 0.6], [0.0, 1.0]])
    hits_N2, nearest_2N = retrieve(x, y, range(3), range(3))
    assert nearest_2N.tolist() == [[0, 0, 2], [0, 2, 2]]
    stats_N2 = np.column_stack([hits_N2.mean(axis=1), np.ones(3)])
    assert precision_at_1(stats_N2.sum(axis=0)) == pytest.approx(200 / 3)


def test_random_vectors_stay_near_one_in_n_and_planted_translations_are_all_found() -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(300, 32))
    planted, _ = retrieve(x, x + 0.05 * rng.normal(size=x.shape), range(300), range(300))
    assert planted.mean() == 1
    hits_N2, nearest_2N = retrieve(x, rng.normal(size=x.shape), range(300), range(300))
    assert 100 * hits_N2.mean() <= random_floor(nearest_2N, range(300), range(300)) < 2


def test_of_equal_neighbours_the_first_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpm_eval.stages.probe._ROWS", 1)
    same = np.ones((4, 2))
    assert retrieve(same, same, range(4), range(4))[1].tolist() == [[0] * 4] * 2


def test_equal_texts_in_either_language_are_hits_for_each_other() -> None:
    x = np.eye(3)
    y = np.eye(3)[[1, 0, 2]]  # the first two are swapped
    assert retrieve(x, y, range(3), range(3))[0].mean(axis=1).tolist() == [0, 0, 1]
    assert retrieve(x, y, (0, 0, 2), range(3))[0].mean() == 1
    assert retrieve(x, y, range(3), (0, 0, 2))[0].mean() == 1


def test_centring_undoes_a_shift_by_language() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 8))
    y = x + 100 * rng.normal(size=8)
    uncentred, _ = retrieve(x, y, range(60), range(60))
    centred, _ = retrieve(x, y, range(60), range(60), centred=True)
    assert uncentred.mean() < 0.5
    assert centred.mean() == 1


def test_the_length_of_vectors_does_not_matter_even_at_the_edge_of_single_precision() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(30, 8)).astype(np.float32)
    for scale in (1e-30, 1e30):
        hits_N2, _ = retrieve(x * np.float32(scale), x, range(30), range(30))
        assert hits_N2.mean() == 1


def test_a_vector_of_zeros_is_far_from_all_and_spoils_no_other() -> None:
    x, y = np.eye(3), np.eye(3)
    y[1] = 0
    hits_N2, _ = retrieve(x, y, range(3), range(3))
    assert hits_N2[:, 0].tolist() == [1, 0, 1]


def test_rows_may_be_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(50, 4)), rng.normal(size=(50, 4))
    whole = retrieve(x, y, range(50), range(50))[1]
    monkeypatch.setattr("mpm_eval.stages.probe._ROWS", 7)
    np.testing.assert_array_equal(retrieve(x, y, range(50), range(50))[1], whole)


def test_precision_is_a_percentage_and_keeps_leading_dimensions() -> None:
    totals = np.array([[[1.5, 2.0], [0.0, 2.0]]])
    assert precision_at_1(totals).tolist() == [[75.0, 0.0]]


def test_the_floor_is_the_95th_percentile_of_random_pairings() -> None:
    rng = np.random.default_rng(4)
    nearest = np.stack([rng.integers(0, 100, 100), rng.integers(0, 100, 100)])
    floor = random_floor(nearest, range(100), range(100))
    # each direction hits about Poisson(1) times in 100: the mean of two has its 95 % at 2 or 2.5
    assert 1.5 <= floor <= 3.0
    assert floor == random_floor(nearest, range(100), range(100)) and isinstance(floor, float)


def test_the_floor_of_two_concepts_is_all() -> None:
    assert random_floor(np.array([[0, 1], [0, 1]]), range(2), range(2)) == 100


def test_the_floor_counts_equal_texts_as_retrieval_does() -> None:
    rng = np.random.default_rng(5)
    nearest, x_groups, y_groups = rng.integers(0, 60, (2, 60)), range(60), np.arange(60) // 10
    oracle = []
    pairings = np.random.Generator(np.random.PCG64(0))
    for _ in range(NUM_PAIRINGS):
        pairing = pairings.permutation(60).tolist()
        there = [y_groups[nearest[0, i]] == y_groups[pairing[i]] for i in range(60)]
        back = [y_groups[pairing[nearest[1, j]]] == y_groups[j] for j in range(60)]
        oracle.append(50 * (np.mean(there) + np.mean(back)))
    floor = random_floor(nearest, x_groups, y_groups)
    assert floor == pytest.approx(float(np.quantile(oracle, 0.95)))
    # the languages change places, their neighbours too
    assert random_floor(nearest[::-1], [0] * 60, x_groups) == 100
    assert floor > random_floor(nearest, range(60), range(60)) + 10


# --- scoring


def test_every_layer_and_language_but_the_pivot_gets_rows(tmp_path: Path) -> None:
    write(tmp_path)
    scores = scores_of(tmp_path)
    subsets = {"", *(f"layer={layer}" for layer in range(NUM_LAYERS))}
    expected = {(m, tag, s) for m in METRICS for tag in ("zh", "de") for s in subsets}
    assert {(s.metric, s.language, s.subset) for s in scores} == expected
    assert len(scores) == len(expected)
    assert all((s.n, s.n_failed) == (NUM_TEXTS, 0) for s in scores)
    assert {s.label for s in scores if s.language == "zh"} == {"zero-shot"}
    assert {s.label for s in scores if s.language == "de"} == {"unknown"}
    for score in scores:
        assert score.value is not None and 0 <= score.value <= 100
        assert " " not in score.signature and score.signature.startswith(score.metric)
        assert score.higher_is_better is (score.metric != "retrieval_floor")


def test_deeper_layers_of_a_model_that_aligns_score_higher(tmp_path: Path) -> None:
    write(tmp_path)
    scores = scores_of(tmp_path)
    first = pick(scores, "retrieval_p1", "zh", "layer=0")
    last = pick(scores, "retrieval_p1", "zh", "layer=4")
    floor = pick(scores, "retrieval_floor", "zh", "layer=0")
    assert last.value == 100 and first.value is not None and floor.value is not None
    assert first.value <= floor.value + 5
    assert last.ci95 is not None and last.ci95[0] < 100  # 40 of 40 is no proof of perfection


def test_centring_helps_where_only_the_language_differs(tmp_path: Path) -> None:
    write(tmp_path, Vectors(offset=8.0))
    scores = scores_of(tmp_path)
    plain = pick(scores, "retrieval_p1", "de", "layer=4").value
    centred = pick(scores, "retrieval_p1_centred", "de", "layer=4").value
    assert plain is not None and centred == 100 and plain < 60


def test_the_headline_is_the_middle_layer_and_not_the_best(tmp_path: Path) -> None:
    write(tmp_path)
    scores = scores_of(tmp_path)
    headline = pick(scores, "retrieval_p1", "zh", "")
    assert headline == dataclasses.replace(pick(scores, "retrieval_p1", "zh", "layer=2"), subset="")
    assert headline.value != pick(scores, "retrieval_p1", "zh", "layer=4").value


def test_the_signature_says_layer_candidates_centring_and_bootstrap(tmp_path: Path) -> None:
    write(tmp_path)
    scores = scores_of(tmp_path)
    assert pick(scores, "retrieval_p1_centred", "zh", "").signature == (
        "retrieval_p1_centred|cosine|directions:2|candidates:40|layer:2|layers:5|pooling:backend"
        "|centring:language-mean|candidates-fixed"
        "|ci:bootstrap,percentile|resamples:2000|seed:0|clusters:40"
    )
    assert "centring:none" in pick(scores, "retrieval_p1", "zh", "").signature


def test_the_task_may_name_the_headline_layer(tmp_path: Path) -> None:
    write(tmp_path)
    scores = scores_of(tmp_path, main_subset="layer=4")
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
        pick(scores_of(tmp_path / d), "retrieval_p1", "zh", "layer=4") for d in ("own", "pairs")
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
