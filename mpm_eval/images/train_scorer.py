"""The recipe of the emoji scorer: tie two frozen encoders by English names, measure, write.

    python -m mpm_eval.images.train_scorer --out FOLDER [--features FOLDER]

Cost: about 10 minutes on one core, nearly all of it the eye. Expected: the table of the card,
`mpm_eval/images/data/README.md`; `--features` keeps what the eye saw.

Shapes: N pictures, P places, C channels, X = P * C, R rank, D common space, E text, T texts,
K concepts, B batch, V views, W wrong names.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mpm_eval.data._emoji_data import VENDORS, EmojiData, codepoints, emoji_data
from mpm_eval.images import embedded
from mpm_eval.images.emoji_scorer import (
    LANGUAGES,
    WEIGHTS,
    Metadata,
    load_scorer,
    picture_vectors,
    sentence_vectors,
    text_vectors,
)
from mpm_eval.languages import EMOJI_LANGUAGES
from mpm_eval.strict import to_jsonable, write_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides the weights, besides the data and the two encoders."""

    seed: int = 0
    num_views: int = 2  # the plain picture, and changed ones
    rank: int = 512  # principal directions of the grids that are looked at
    dim: int = 256
    steps: int = 600
    batch: int = 384
    learning_rate: float = 3e-3
    learning_rate_text: float = 1e-3
    noise: float = 0.6  # added to pictures, in standard deviations
    weight_decay: float = 0.1
    name_share: float = 0.8  # of names; any name or keyword otherwise
    plain_share: float = 0.6  # of steps on plain pictures
    num_candidates: int = 100  # of a measured choice


@dataclass(frozen=True)
class Corpus:
    """Grids of all vendors' pictures, and the vectors of all English names and keywords."""

    data: EmojiData
    concept_N: np.ndarray
    vendor_N: np.ndarray
    grids_VNX: tuple[Tensor, ...]  # one for each view, in half precision
    text_TE: Tensor
    texts_of: tuple[np.ndarray, ...]  # concept -> rows of text_TE, the name first
    names: Mapping[str, np.ndarray]  # language -> the name of every concept
    names_KE: Mapping[str, np.ndarray]  # language -> the vector of every concept's name

    @cached_property
    def learned(self) -> np.ndarray:
        """The concepts that are trained on: those of the split "test" are held out, whole
        subgroups, so that no near twin of one is trained on."""
        return np.array([i for i, c in enumerate(self.data.concepts) if c.split != "test"])

    @cached_property
    def held_out(self) -> np.ndarray:
        return np.array([i for i, c in enumerate(self.data.concepts) if c.split == "test"])


def train_scorer(
    out: Path,
    settings: Settings = Settings(),
    features: Path | None = None,
    report: Report = lambda _: None,
) -> Path:
    """Train on every vendor's pictures with English names and keywords, measure, write the weights.

    Two numbers per language go into the file: of concepts held out, and, by the same recipe with
    one vendor left out in turn, of that vendor's pictures of learned concepts. Returns the file.
    The same seed gives the same bytes on the same machine.
    """
    torch.set_num_threads(1)
    corpus = read_corpus(emoji_data(), settings, features, report)
    basis = _Basis.of(corpus.grids_VNX[0], settings)
    kept = np.isin(corpus.concept_N, corpus.learned)
    report("train on all vendors")
    final = fit(corpus, basis, np.flatnonzero(kept), settings)
    unseen = np.flatnonzero(~kept)
    accuracy = measure(corpus, final, unseen, corpus.held_out, settings)
    per_vendor = []
    for index, vendor in enumerate(VENDORS):
        report(f"train without {vendor}")
        rest = np.flatnonzero(kept & (corpus.vendor_N != index))
        own = np.flatnonzero(kept & (corpus.vendor_N == index))
        maps = fit(corpus, basis, rest, settings)
        per_vendor.append(measure(corpus, maps, own, corpus.learned, settings))
    metadata = Metadata(
        recipe="scorer",
        seed=settings.seed,
        steps=settings.steps,
        num_pictures=int(kept.sum()),
        num_concepts=len(corpus.learned),
        data_sha256=corpus.data.sha256,
        eye_sha256=embedded.eye_sha256(),
        accuracy=accuracy,
        accuracy_seen={
            tag: round(float(np.mean([one[tag] for one in per_vendor])), 1) for tag in accuracy
        },
    )
    return _write(out, final, metadata)


def read_corpus(
    data: EmojiData, settings: Settings, features: Path | None, report: Report
) -> Corpus:
    """Return what is learned from; grids are read from `features` where they are there."""
    found = [
        (f"{vendor}/{codepoints(emoji)}", number, index)
        for number, vendor in enumerate(VENDORS)
        for index, concept in enumerate(data.concepts)
        for emoji in concept.pictures.get(vendor, ())
    ]
    keys = [key for key, _, _ in found]
    views = []
    for view in range(settings.num_views):
        report(f"view {view + 1} of {settings.num_views}: {len(keys)} pictures")
        views.append(_view(data, keys, view, features))
    report("names in all languages, English keywords")
    texts = [data.references(concept, "en") for concept in data.concepts]
    ends = np.cumsum([len(own) for own in texts])
    languages = [tag for tag in EMOJI_LANGUAGES if tag in LANGUAGES]
    names = {tag: [data.name(concept, tag) for concept in data.concepts] for tag in languages}
    return Corpus(
        data=data,
        concept_N=np.array([index for _, _, index in found]),
        vendor_N=np.array([number for _, number, _ in found]),
        grids_VNX=tuple(views),
        text_TE=torch.from_numpy(sentence_vectors([text for own in texts for text in own])),
        texts_of=tuple(np.split(np.arange(ends[-1]), ends[:-1])),
        names={tag: np.array(names[tag]) for tag in languages},
        names_KE={tag: sentence_vectors(names[tag]) for tag in languages},
    )


def changed(picture: "Image", rng: np.random.Generator) -> "Image":
    """Return a picture as a painter might have drawn it: turned, scaled and shifted a little,
    mirrored, of other colours, small, noisy."""
    from PIL import Image, ImageEnhance

    side = picture.width
    scale, angle = rng.uniform(0.8, 1.1), rng.normal() * 0.15
    mirror = -1 if rng.random() < 0.25 else 1
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    centre = side / 2 + rng.uniform(-6, 6, 2) * (side / 64)
    turn = np.array([[cos * mirror, sin], [-sin * mirror, cos]])
    shift = side / 2 - turn @ centre
    picture = picture.transform(
        picture.size,
        Image.Transform.AFFINE,
        (*turn[0], shift[0], *turn[1], shift[1]),
        Image.Resampling.BILINEAR,
        fillcolor="white",
    )
    if rng.random() < 0.6:
        picture = picture.resize((side // 2, side // 2), Image.Resampling.BOX)
    picture = ImageEnhance.Color(picture).enhance(rng.uniform(0.4, 1.3))
    picture = ImageEnhance.Contrast(picture).enhance(rng.uniform(0.7, 1.2))
    noise_HWC = rng.normal(size=(picture.height, picture.width, 3)) * rng.uniform(0, 16)
    noisy_HWC = np.asarray(picture, dtype=np.float32) + noise_HWC
    return Image.fromarray(noisy_HWC.clip(0, 255).astype(np.uint8))


def _view(data: EmojiData, keys: Sequence[str], view: int, features: Path | None) -> Tensor:
    """Return z_NX of all pictures: the plain ones for view 0."""
    kept = features / f"{data.sha256[:16]}-{view}.npy" if features else None
    if kept is not None and kept.is_file():
        return torch.from_numpy(np.load(kept))
    rng = np.random.default_rng(view)  # the views are data: the same for every seed
    pictures = [data.load_image(key) for key in keys]
    if view:
        pictures = [changed(picture, rng) for picture in pictures]
    grid_NPC = embedded.grids(pictures)
    grid_NX = grid_NPC.reshape(len(keys), -1).astype(np.float16)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, grid_NX)
    return torch.from_numpy(grid_NX)


@dataclass(frozen=True, slots=True)
class _Basis:
    """The main directions of the grids: a tenth of the numbers, so that training takes seconds."""

    mean_X: Tensor
    map_XR: Tensor  # scaled by the root of each direction's spread: half whitened

    @classmethod
    def of(cls, grid_NX: Tensor, settings: Settings) -> "_Basis":
        torch.manual_seed(settings.seed)
        mean_X = grid_NX.float().mean(0)
        _, spread_R, map_XR = torch.pca_lowrank(
            grid_NX.float() - mean_X, q=settings.rank, center=False
        )
        root_R = spread_R.sqrt()
        return cls(mean_X, map_XR / root_R * (len(grid_NX) ** 0.5 / root_R.mean()))

    def coordinates(self, grid_NX: Tensor) -> Tensor:
        return (grid_NX.float() - self.mean_X) @ self.map_XR


def fit(
    corpus: Corpus, basis: _Basis, rows: np.ndarray, settings: Settings
) -> dict[str, np.ndarray]:
    """Return the maps learned from some of the pictures.

    InfoNCE (van den Oord et al. 2018) of pictures against one text of every learned concept: the
    wrong texts of a batch are all there are.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    views_NR = [basis.coordinates(grid_NX[rows]) for grid_NX in corpus.grids_VNX]
    place = {concept: index for index, concept in enumerate(corpus.learned)}
    target_N = torch.tensor([place[concept] for concept in corpus.concept_N[rows]])
    text_TE = corpus.text_TE - corpus.text_TE.mean(0)
    _, _, directions = torch.linalg.svd(text_TE, full_matrices=False)
    picture_in = torch.randn(settings.rank, settings.dim, generator=generator) / settings.rank**0.5
    text_in, scale = (3 * directions[: settings.dim].T).clone(), torch.tensor(2.66)
    for parameter in (picture_in, text_in, scale):
        parameter.requires_grad_()
    optimizer = torch.optim.AdamW(
        [
            {"params": [picture_in], "lr": settings.learning_rate},
            {"params": [text_in], "lr": settings.learning_rate_text},
            {"params": [scale], "lr": settings.learning_rate_text, "weight_decay": 0.0},
        ],
        weight_decay=settings.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, settings.steps))
    for _ in range(settings.steps):
        chosen = torch.from_numpy(rng.integers(0, len(rows), settings.batch))
        plain = rng.random() < settings.plain_share or len(views_NR) == 1
        x_BR = views_NR[0 if plain else rng.integers(1, len(views_NR))][chosen]
        noise_BR = torch.randn(x_BR.shape, generator=generator) * x_BR.std() * settings.noise
        picture_BD = F.normalize((x_BR + noise_BR) @ picture_in, dim=-1)
        text_KE = text_TE[_one_text_each(corpus, rng, settings.name_share)]
        text_KD = F.normalize(text_KE @ text_in, dim=-1)
        loss = F.cross_entropy(picture_BD @ text_KD.T * scale.exp(), target_N[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        maps = {
            "picture_in": basis.map_XR @ picture_in,
            "picture_mean": basis.mean_X,
            "text_in": text_in,
            "text_mean": corpus.text_TE.mean(0),
        }
        return {name: value.contiguous().numpy() for name, value in maps.items()}


def _one_text_each(corpus: Corpus, rng: np.random.Generator, name_share: float) -> np.ndarray:
    """Return one row of text_TE for each learned concept: its name, or any text of it."""
    picked = [
        own[0] if rng.random() < name_share else own[rng.integers(len(own))]
        for own in (corpus.texts_of[concept] for concept in corpus.learned)
    ]
    return np.array(picked)


def measure(
    corpus: Corpus,
    maps: Mapping[str, np.ndarray],
    rows: np.ndarray,
    pool: np.ndarray,
    settings: Settings,
) -> dict[str, float]:
    """Return, by language, how often the right name of a picture is the nearest of 100, percent.

    The wrong names are of concepts drawn at random from `pool`, the same in every language; one
    that equals the right name is passed over.
    """
    maps = _rounded(maps)  # what is measured is what is shipped
    rng = np.random.default_rng(settings.seed)
    place = {concept: index for index, concept in enumerate(pool)}
    right_N = np.array([place[concept] for concept in corpus.concept_N[rows]])
    # shifted by at least one place from the right concept, around the pool
    apart_NW = np.stack(
        [rng.permutation(len(pool) - 1)[: settings.num_candidates - 1] + 1 for _ in rows]
    )
    wrong_NW = (right_N[:, None] + apart_NW) % len(pool)
    picture_ND = picture_vectors(maps, corpus.grids_VNX[0][rows].numpy())
    found: dict[str, float] = {}
    for language, names in corpus.names.items():
        names_K = names[pool]
        cosine_NK = picture_ND @ text_vectors(maps, corpus.names_KE[language][pool]).T
        row_N = np.arange(len(rows))
        nearer_NW = cosine_NK[row_N[:, None], wrong_NW] >= cosine_NK[row_N, right_N][:, None]
        same_NW = names_K[wrong_NW] == names_K[right_N][:, None]
        hit_N = ~(nearer_NW & ~same_NW).any(axis=1)
        found[language] = round(100 * float(hit_N.mean()), 1)
    return found


def _rounded(maps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the maps in half precision, as they are written."""
    return {name: value.astype(np.float16) for name, value in maps.items()}


def _write(out: Path, maps: Mapping[str, np.ndarray], metadata: Metadata) -> Path:
    from safetensors.numpy import save

    path = out / WEIGHTS.name
    state = json.dumps(to_jsonable(metadata), sort_keys=True)
    write_bytes(path, save(_rounded(maps), {"scorer": state}))
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and print what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights")
    parser.add_argument("--features", type=Path, help="folder that keeps what the eye saw")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    path = train_scorer(given.out, Settings(seed=given.seed), given.features, print)
    metadata = load_scorer(path).metadata
    print(f"{path}: {path.stat().st_size} bytes; top-1 among 100, percent")
    print("| language | seen concepts, a new style | unseen concepts |\n|---|--:|--:|")
    for tag, value in metadata.accuracy.items():
        print(f"| {tag} | {metadata.accuracy_seen[tag]} | {value} |")


if __name__ == "__main__":
    main()
