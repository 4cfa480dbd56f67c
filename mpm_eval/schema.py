"""The records that cross a stage border: frozen dataclasses with a handful of fields each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

RESULT_SCHEMA_VERSION = 1
KINDS = ("generate", "choose", "retrieve", "probe", "paint")
LABELS = ("pivot", "zero-shot", "quasi-zero-shot", "supervised", "unknown")


@dataclass(frozen=True, slots=True)
class Brief:
    """What a judge that sees no picture reads beside the question and the answers."""

    context: str  # what the picture shows, in words
    role: str  # what an answerer is called, e.g. Assistant
    rule: str  # what the judge is to do


@dataclass(frozen=True, slots=True)
class Sample:
    """One example in one language; `id` is shared by its parallel members in other languages."""

    id: str
    language: str
    image: str | None  # key for Dataset.load_image; None for text-only samples
    references: tuple[str, ...]  # acceptable answers, the best one first; never empty
    cluster: str  # what the bootstrap resamples, usually the image
    question: str = ""  # the sample's own question; "" where the task's prompt is the question
    options: tuple[str, ...] = ()  # kind "choose"; references[0] is one of them
    answer: int = -1  # index of the right option
    category: str = ""  # e.g. conversation, detail, complex
    cell: str = ""  # e.g. seen_concept/unseen_style
    closed: bool = True  # scored exactly; False: scored against references
    brief: Brief | None = None  # for a judge; None: the sample cannot be judged
    prompt: str = ""  # template in place of the task's, with {question}
    translation: str = ""  # the question translated into the pivot language
    candidates: tuple[str, ...] = ()  # kind "retrieve": ids to rank; references are some of them
    other_image: str | None = None  # kind "paint": key of a second real picture, for a ceiling

    @property
    def key(self) -> tuple[str, str]:
        return (self.id, self.language)


@dataclass(frozen=True, slots=True)
class Request:
    """What a backend is asked: a rendered prompt, a picture, and options to choose from."""

    prompt: str
    language: str
    image: "Image | None" = None
    image_key: str | None = None  # equal keys are equal pictures: a backend may encode them once
    options: tuple[str, ...] = ()
    max_new_tokens: int = 32
    # only filled for backends with the capability "oracle"; so is `image` where one is to paint
    references: tuple[str, ...] = ()
    size: int = 0  # kind "paint": pixels of both sides; 0: as the backend paints


@dataclass(frozen=True, slots=True)
class OptionScore:
    """Log-probability (natural log, summed over tokens) of one option and its token count."""

    logprob: float
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """A raw model output with the sample it belongs to; `error` set means failed, never scored."""

    id: str
    language: str
    prompt: str
    output: str = ""
    option_scores: tuple[OptionScore, ...] = ()
    error: str = ""
    input_sha256: str = ""  # over prompt, options and the decoded picture
    ranking: tuple[str, ...] = ()  # kind "retrieve": ids of candidates, best first
    image_sha256: str = ""  # kind "paint": of the PNG file that `output` names

    @property
    def key(self) -> tuple[str, str]:
        return (self.id, self.language)

    @property
    def content(self) -> str:
        """What was answered, whole: two predictions with equal content are the same answer."""
        return self.image_sha256 or "\n".join(self.ranking) or self.output


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge said of one prediction, raw and parsed; `error` set means failed, no scores."""

    id: str
    language: str
    judge: str  # name, e.g. openai:gpt-4-0314
    mode: str  # llava or robust
    order: str  # reference-first or candidate-first
    repeat: int  # from 0
    request_sha256: str  # over everything that can change the reply
    reply: str = ""  # as the judge wrote it
    scores: tuple[float, float] | None = None  # reference, candidate; 0 to 10
    error: str = ""
    answered_by: str = ""  # the model that a server says it used
    num_prompt_tokens: int = 0
    num_reply_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Score:
    """One number with everything needed to trust it; one row of a result."""

    metric: str
    language: str
    value: float | None  # None: no sample could be scored (n = 0)
    ci95: tuple[float, float] | None
    n: int  # samples that were scored
    n_failed: int
    higher_is_better: bool
    signature: str  # metric, settings, tokenizer, bootstrap, library version
    subset: str = ""  # "" = every sample; else "category=…" or "cell=…"
    label: str = "unknown"  # one of LABELS, from the training record


@dataclass(frozen=True, slots=True)
class Painting:
    """How the pictures of a task of kind "paint" are asked for and measured."""

    extractor: str = "efficientnet_lite0"  # of features; or inception:FILE, hf:ID
    scorer: str = "emoji"  # of pictures against texts; or hf:ID
    scorer_languages: tuple[str, ...] = ()  # that a scorer of the hub knows; no file says so
    size: int = 0  # pixels of both sides; 0: as the model paints, all pictures alike
    images_per_prompt: int = 1  # each with a seed of its own


@dataclass(frozen=True, slots=True)
class Task:
    """A task file: data source, languages, prompts and metrics; no code."""

    name: str
    version: int
    kind: str  # one of KINDS
    description: str
    languages: tuple[str, ...]
    metrics: tuple[str, ...]
    main_metric: str
    data: Mapping[str, Any]  # {"source": "emoji", "split": "test", …}, checked by the reader
    prompts: Mapping[str, str] = field(default_factory=dict)  # language -> template with {question}
    pivot: str = "en"  # "": the languages have different samples, there is no transfer to measure
    main_subset: str = ""  # the subset shown in leaderboards
    paraphrases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of the prompts
    groups: tuple[str, ...] = ()
    max_new_tokens: int = 32
    painting: Painting | None = None  # kind "paint"
    licence: str = ""
    citation: str = ""
    sha256: str = ""  # of the canonical content, not of the file's bytes
    path: str = ""


@dataclass(frozen=True, slots=True)
class StageRecord:
    """What one training stage saw: the evidence for zero-shot labels."""

    name: str  # align, pretrain, instruct
    data: Mapping[str, str]  # data name -> sha256
    multimodal_samples: Mapping[str, int]  # language -> distinct image-text samples seen
    text_samples: Mapping[str, int]  # language -> distinct text-only samples seen
    steps: int
    seed: int
    losses: Mapping[str, float] = field(default_factory=dict)  # first, last, validation
    trained: Sequence[str] = ()  # parts with gradients
    samples_seen: int = 0  # with repetition
    images: Mapping[str, int] = field(default_factory=dict)  # style or source -> pictures
    num_skipped: int = 0  # broken samples of a stream


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """training.json of a checkpoint."""

    recipe: str
    pivot: str
    stages: tuple[StageRecord, ...]
    versions: Mapping[str, str]
    schema_version: int = 1
    # language -> share of names whose nearest pivot name, among all, is the right one
    alignment: Mapping[str, float] = field(default_factory=dict)
    alignment_layer: int = -1  # of the hidden states; 0 is the input embeddings


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A model card: YAML front matter of model_cards/<name>/README.md."""

    name: str
    path: str  # folder of the card
    checkpoint: str | None  # folder with config.json and model.safetensors
    backend: str  # backend spec that loads it
    languages: tuple[str, ...]
    licence: str
    description: str
    sha256: str  # of the card's text
