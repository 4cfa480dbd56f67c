"""The image-text probe: pictures embedded once, retrieval both ways, failures, the real model."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mpm_eval.cards import open_model
from mpm_eval.errors import CorruptImage, UserError
from mpm_eval.metrics import IMAGE_PROBE_METRICS
from mpm_eval.schema import Sample, Score, Task, TrainingRecord
from mpm_eval.stages.image_probe import measure
from mpm_eval.stages.probe import score_embeddings, write_embeddings
from mpm_eval.stages.probe_files import Rows
from mpm_eval.stages.probe_scores import Probed
from mpm_eval.strict import canonical_sha256

LANGUAGES = ("en", "zh")
NUM_PICTURES, NUM_LAYERS, DIMENSION = 40, 3, 40
TASK = Task(
    name="image_text_alignment",
    version=1,
    kind="probe",
    description="",
    languages=LANGUAGES,
    metrics=tuple(IMAGE_PROBE_METRICS),
    main_metric="image_to_text_r10",
    data={"source": "emoji"},
)


class Pictures:
    """Picture k is of one colour and called "<language> k"; some cannot be decoded."""

    sha256 = "0" * 64
    description: Mapping[str, str] = {}

    def __init__(self, corrupt: Sequence[int] = (), alike: int = 0) -> None:
        self.corrupt, self.alike = corrupt, alike
        self.loaded: list[str] = []

    def samples(self, language: str) -> Sequence[Sample]:
        return [
            Sample(f"s{k}", language, f"p{k}", (f"{language} {max(k, self.alike)}",), f"s{k}")
            for k in range(NUM_PICTURES)
        ]

    def load_image(self, key: str) -> Any:
        self.loaded.append(key)
        if int(key[1:]) in self.corrupt:
            raise CorruptImage(key)
        return Image.new("RGB", (4, 4), (int(key[1:]), 0, 0))


class Space:
    """English names lie on their pictures in the last layer, Chinese ones never do."""

    name = "space"
    sha256 = "1" * 64
    capabilities = frozenset({"embed", "embed_images"})
    batch_size = 7
    training_record: TrainingRecord | None = None
    identity: Mapping[str, str] = {}

    def __init__(self) -> None:
        self.calls: list[int] = []

    def generate(self, requests: Any) -> Any:
        raise AssertionError("a probe generates nothing")

    choose = generate

    def embed(self, texts: Sequence[str], language: str) -> np.ndarray:
        return self._states([int(text.split()[1]) for text in texts], language, 5.0)

    def embed_images(self, images: Sequence[Any]) -> np.ndarray:
        self.calls.append(len(images))
        return self._states([image.getpixel((0, 0))[0] for image in images], "picture", -5.0)

    @staticmethod
    def _states(numbers: Sequence[int], what: str, gap: float) -> np.ndarray:
        seed = sum(map(ord, what))
        own = np.random.default_rng(seed).normal(size=(NUM_LAYERS, NUM_PICTURES, DIMENSION))
        if what in ("picture", "en"):
            own[-1] = np.eye(NUM_PICTURES)
        # the whole of a modality lies elsewhere
        return (own[:, numbers] + gap).astype(np.float32)


def write(folder: Path, dataset: Pictures | None = None, backend: Space | None = None) -> Space:
    backend = backend or Space()
    write_embeddings(TASK, dataset or Pictures(), backend, folder, LANGUAGES, None)
    return backend


def scored(folder: Path, **changes: Any) -> Probed:
    return score_embeddings(dataclasses.replace(TASK, **changes), folder, LANGUAGES, {})


def pick(found: Probed, metric: str, language: str, subset: str) -> Score:
    (score,) = (
        s for s in found.scores if (s.metric, s.language, s.subset) == (metric, language, subset)
    )
    return score


def test_pictures_are_embedded_once_for_all_languages_and_not_again(tmp_path: Path) -> None:
    backend = write(tmp_path)
    assert sum(backend.calls) == NUM_PICTURES and max(backend.calls) == 7
    names = sorted(path.name for path in (tmp_path / "embeddings").iterdir())
    assert names == ["en.safetensors", "images.safetensors", "zh.safetensors"]
    again = Pictures()
    assert write(tmp_path, again).calls == [] and again.loaded == []
    (tmp_path / "embeddings" / "images.safetensors").write_bytes(b"broken")
    assert sum(write(tmp_path).calls) == NUM_PICTURES


def test_names_on_their_pictures_are_found_in_spite_of_the_gap(tmp_path: Path) -> None:
    write(tmp_path)
    found = scored(tmp_path)
    for metric in ("image_to_text_r1", "text_to_image_r1"):
        assert pick(found, metric, "en", "layer=2").value == 100
        for language, layer in (("en", "layer=0"), ("zh", "layer=2")):
            value = pick(found, metric, language, layer).value
            floor = pick(found, f"{metric}_floor", language, layer).value
            assert value is not None and floor is not None and value <= floor + 3
    margin = pick(found, "image_text_margin", "en", "layer=2")
    floor = pick(found, "image_text_margin_floor", "en", "layer=2").value
    assert margin.ci95 is not None and floor is not None and margin.ci95[0] > floor


def test_every_language_has_every_metric_in_every_layer(tmp_path: Path) -> None:
    write(tmp_path)
    found = scored(tmp_path)
    subsets = {"", "pooled", *(f"layer={k}" for k in range(NUM_LAYERS))}
    assert {(s.metric, s.language, s.subset) for s in found.scores} == {
        (m, tag, s) for m in IMAGE_PROBE_METRICS for tag in LANGUAGES for s in subsets
    }
    assert pick(found, "image_text_margin", "en", "").signature == (
        "image_text_margin|cosine|pictures:40|texts:40|centring:modality-mean|k:4|candidates-fixed"
        "|layer:1|layers:3|pooling:backend"
        "|ci:bootstrap,percentile|resamples:2000|seed:0|clusters:40"
    )
    recalls = [pick(found, f"image_to_text_r{k}", "zh", "pooled").value for k in (1, 5, 10)]
    assert recalls == sorted(recalls, key=lambda value: value or 0)


def test_the_floor_is_about_k_in_n(tmp_path: Path) -> None:
    write(tmp_path)
    found = scored(tmp_path)
    for cutoff, low, high in ((1, 2.5, 10), (5, 12.5, 27), (10, 25, 42)):
        floor = pick(found, f"text_to_image_r{cutoff}_floor", "zh", "layer=1").value
        assert floor is not None and low <= floor <= high


def slow_hits(pictures: np.ndarray, texts: np.ndarray, cutoff: int) -> list[float]:
    """Return recall at `cutoff` from picture to text, row i to row i, by a sort."""
    a, b = pictures - pictures.mean(axis=0), texts - texts.mean(axis=0)
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return [
        float(i in sorted(range(len(b)), key=lambda j: -float(row @ b[j]))[:cutoff])
        for i, row in enumerate(a)
    ]


def test_recall_equals_a_sort_of_centred_cosines() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.normal(size=(1, 30, 8))
    texts = pictures + 1.5 * rng.normal(size=(1, 30, 8))
    ids = tuple(map(str, range(30)))
    rows = Rows("en", ids, ids, tuple(range(30)), "", ids, ids)
    found = measure(TASK, pictures, range(30), texts, rows)
    for cutoff in (1, 5, 10):
        forth: Any = found[f"image_to_text_r{cutoff}"]
        back: Any = found[f"text_to_image_r{cutoff}"]
        assert forth.share_LN[0].tolist() == slow_hits(pictures[0], texts[0], cutoff)
        assert back.share_LN[0].tolist() == slow_hits(texts[0], pictures[0], cutoff)
        assert 0 < forth.share_LN.mean() < 1


def test_all_captions_of_a_picture_are_right_and_it_is_a_candidate_once() -> None:
    # two pictures with two captions each; each caption lies on its own picture
    pictures = np.array([[[1.0, 0.0], [-1.0, 0.0]]])
    texts = np.array([[[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]]])
    ids = ("a", "b", "c", "d")
    rows = Rows("en", ids, ids, (0, 1, 2, 3), "", ids, ids)
    task = dataclasses.replace(TASK, metrics=("image_to_text_r1", "text_to_image_r1"))
    found: Any = measure(task, pictures, [0, 0, 1, 1], texts, rows)
    assert found["image_to_text_r1"].share_LN.tolist() == [[1, 1, 1, 1]]
    assert found["text_to_image_r1"].share_LN.tolist() == [[1, 1, 1, 1]]
    assert "|pictures:2|texts:4|" in found["image_to_text_r1"].settings


def test_pictures_with_one_name_are_right_for_each_other(tmp_path: Path) -> None:
    write(tmp_path, Pictures(alike=3))
    found = scored(tmp_path)
    assert "|pictures:40|texts:37|" in pick(found, "text_to_image_r1", "en", "").signature


def test_a_picture_that_cannot_be_decoded_fails_its_samples_and_is_counted(tmp_path: Path) -> None:
    write(tmp_path, Pictures(corrupt=(3, 8)))
    again = Pictures(corrupt=(3, 8))
    assert write(tmp_path, again).calls == [], "what failed is known from the file"
    found = scored(tmp_path)
    score = pick(found, "image_to_text_r1", "en", "layer=2")
    assert (score.n, score.n_failed, score.value) == (38, 2, 100)
    failed = [i for i, item in enumerate(found.items) if item.error]
    assert {found.items[i].id for i in failed} == {"s3", "s8"} and len(failed) == 4
    rows = found.statistics["image_to_text_r1"]
    assert len(rows) == len(found.items) and [rows[i] for i in failed] == [()] * 4


def test_languages_need_not_share_their_samples(tmp_path: Path) -> None:
    class Fewer(Pictures):
        def samples(self, language: str) -> Sequence[Sample]:
            found = super().samples(language)
            return found[:20] if language == "zh" else found[10:]

    write(tmp_path, Fewer())
    found = scored(tmp_path)
    assert pick(found, "image_to_text_r1", "zh", "").n == 20
    assert pick(found, "image_to_text_r1", "en", "").n == 30


def test_what_cannot_be_probed_is_refused(tmp_path: Path) -> None:
    class Blind(Space):
        capabilities = frozenset({"embed"})

    class Texts(Pictures):
        def samples(self, language: str) -> Sequence[Sample]:
            return [dataclasses.replace(s, image=None) for s in super().samples(language)]

    with pytest.raises(UserError, match="'space' gives no hidden states of pictures"):
        write(tmp_path, backend=Blind())
    with pytest.raises(UserError, match="sample 's0' in 'en' has no picture"):
        write(tmp_path, Texts())
    with pytest.raises(UserError, match="1 of 40 pictures can be decoded"):
        write(tmp_path, Pictures(corrupt=range(1, 40)))


def test_files_of_another_model_are_not_compared(tmp_path: Path) -> None:
    class Deeper(Space):
        def embed(self, texts: Sequence[str], language: str) -> np.ndarray:
            return np.repeat(super().embed(texts, language), 2, axis=0)

    write(tmp_path, backend=Deeper())
    with pytest.raises(UserError, match="of en and of the pictures do not belong together"):
        scored(tmp_path)


def test_states_of_pictures_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    class Overflowing(Space):
        def embed_images(self, images: Sequence[Any]) -> np.ndarray:
            return super().embed_images(images) * np.float32(np.inf)

    with pytest.raises(UserError, match="not finite of pictures, first in layer 0"):
        write(tmp_path, backend=Overflowing())


@pytest.mark.slow
def test_the_shipped_model_puts_a_picture_where_a_text_stands() -> None:
    backend: Any = open_model("mpm-tiny")
    images = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    h_LND = backend.embed_images(images)
    assert h_LND.shape == backend.embed(["red", "blue"], "en").shape and h_LND.dtype == np.float32
    # layer 0 is the mean of the visual tokens, weighted 1, 2, 3, … by position
    visual_BKD = backend._model.encode_pictures(images).numpy()
    weight_K = np.arange(1, visual_BKD.shape[1] + 1)
    expected = (visual_BKD * weight_K[:, None]).sum(axis=1) / weight_K.sum()
    np.testing.assert_allclose(h_LND[0], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(backend.embed_images(images[1:])[:, 0], h_LND[:, 1], atol=1e-5)


def test_the_hash_of_the_pictures_is_that_of_their_keys(tmp_path: Path) -> None:
    from mpm_eval.stages.probe_files import load

    write(tmp_path)
    keys = [f"p{k}" for k in range(NUM_PICTURES)]
    assert load(tmp_path, "images")[1].texts_sha256 == canonical_sha256(keys)
