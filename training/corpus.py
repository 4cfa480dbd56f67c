"""What each stage reads of the emoji data: texts, captions, questions."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from mpm_eval.data._emoji_data import Concept, EmojiData, codepoints
from mpm_eval.data.emoji_qa import QA_LANGUAGES, caption_prompts, questions
from training.recipe import PretrainConfig, Recipe
from training.tokenizer import Example
from training.translation_noise import damaged

_MAX_KEYWORDS = 5  # in a bag of words that stands for a picture


@dataclass(frozen=True)
class Picture:
    """A picture that may be trained on: a drawing in a training style of a training concept."""

    key: str  # for EmojiData.load_image
    vendor: str
    concept: Concept


@dataclass
class EmojiCorpus:
    """Draws examples; every draw depends on the generator it is given and on nothing else."""

    data: EmojiData
    recipe: Recipe

    @cached_property
    def prompts(self) -> dict[str, str]:
        return {language: caption_prompts()[language] for language in self.recipe.languages}

    @cached_property
    def trained_concepts(self) -> list[Concept]:
        return [concept for concept in self.data.concepts if concept.split == "train"]

    @cached_property
    def named(self) -> dict[str, list[Concept]]:
        """Language -> concepts with a name in it. Text of held-out concepts is text, not pictures:
        the language model may know the word for what the eye has never seen."""
        return {
            language: [c for c in self.data.concepts if self.data.name(c, language)]
            for language in self.recipe.languages
        }

    @property
    def _captions(self) -> PretrainConfig:
        return self.recipe.pretrain or PretrainConfig()

    def texts(self) -> Iterator[str]:
        """Yield all names, keywords and prompts, for the tokenizer."""
        for language in self.recipe.languages:
            for concept in self.named[language]:
                yield from [self.data.name(concept, language)] * 3
                yield from self.data.keywords(concept, language)
                if language in QA_LANGUAGES:
                    for qa in questions(concept, language):
                        yield qa.question
                        yield qa.references[0]
            yield from [self.prompts[language]] * 200

    def text_example(self, rng: random.Random) -> Example:
        """Return one example of stage `align`: a text source, a question and its answer.

        With translation the source may be in another language than question and answer, which is
        what a translation pair is; without it all three share one language.
        """
        config, languages = self.recipe.align, self.recipe.languages
        assert config is not None, "stage align alone draws texts"
        language = rng.choice(languages)
        concept = rng.choice(self.named[language])
        other = language
        if config.translation:
            pivot = rng.random() < config.pivot_share
            other = self.recipe.pivot if pivot else rng.choice(languages)
            if not self.data.name(concept, other):
                other = self.recipe.pivot
        source = self._bag(concept, other, rng)
        if language in QA_LANGUAGES and rng.random() < config.question_share:
            qa = self._question(concept, language, rng)
            return Example(qa[0], qa[1], source=source, language=language)
        answer = self._caption(concept, language, rng, keyword_share=0.2)
        return Example(self.prompts[language], answer, source=source, language=language)

    def caption_example(self, index: int, picture: Picture, rng: random.Random) -> Example:
        """Return one example of stage `pretrain`: a picture and a caption.

        The caption is in the pivot language, but for `native_share` of the examples, which are in
        the other languages in equal parts.
        """
        config, concept, language = self._captions, picture.concept, self.recipe.pivot
        # no draw without a share: recipes that have none keep their examples
        if config.native_share and rng.random() < config.native_share:
            targets = [tag for tag in self.recipe.languages if tag != self.recipe.pivot]
            named = [tag for tag in targets if self.data.name(concept, tag)]
            language = rng.choice(named or [language])
        caption = self._caption(concept, language, rng, keyword_share=config.keyword_share)
        caption = self._translated(caption, concept, language)
        return Example(self.prompts[language], caption, image=index, language=language)

    def question_example(
        self, index: int, picture: Picture, language: str, rng: random.Random
    ) -> Example:
        """Return one example of stage `instruct`: a picture, a question and its answer."""
        question, answer = self._question(picture.concept, language, rng)
        return Example(question, answer, image=index, language=language)

    def _caption(
        self, concept: Concept, language: str, rng: random.Random, keyword_share: float
    ) -> str:
        keywords = self.data.keywords(concept, language)
        if keywords and rng.random() < keyword_share:
            return rng.choice(keywords)
        return self.data.name(concept, language)

    def caption_name(self, concept: Concept, language: str) -> str:
        """Return the name of a concept as captions of stage `pretrain` give it."""
        return self._translated(self.data.name(concept, language), concept, language)

    def _translated(self, caption: str, concept: Concept, language: str) -> str:
        """Return a caption as `translation_noise` leaves it; those of the pivot stay whole.

        A wrong sense is the name of another concept of the same subgroup.
        """
        config, seed = self._captions, self.recipe.seed
        if language == self.recipe.pivot or not (caption and config.translation_noise):
            return caption

        def other_sense() -> str:
            near = [c for c in self.trained_concepts if c.subgroup == concept.subgroup]
            names = sorted({self.data.name(c, language) for c in near} - {"", caption})
            rng = random.Random(f"{seed}/wrong-sense/{language}/{caption}")
            return rng.choice(names) if names else caption

        return damaged(
            caption, language, config.noise_kind, config.translation_noise, seed, other_sense
        )

    def _bag(self, concept: Concept, language: str, rng: random.Random) -> str:
        """Return the name, some keywords, or both: what a picture says, in words."""
        name, keywords = self.data.name(concept, language), self.data.keywords(concept, language)
        kind = rng.random()
        if kind < 0.5 or not keywords:
            return name
        words = rng.sample(keywords, min(len(keywords), rng.randint(1, _MAX_KEYWORDS)))
        return " ".join([name, *words] if kind < 0.75 else words)

    def _question(self, concept: Concept, language: str, rng: random.Random) -> tuple[str, str]:
        qa = rng.choice(questions(concept, language, seed=str(rng.randrange(16))))
        return qa.question, qa.references[0]


def training_pictures(data: EmojiData) -> list[Picture]:
    """Return every distinct picture of a training concept in a training style, in a fixed order."""
    return [
        Picture(f"{vendor}/{codepoints(emoji)}", vendor, concept)
        for vendor in data.styles["train"]
        for concept in data.concepts
        if concept.split == "train"
        for emoji in concept.pictures.get(vendor, ())
    ]


def validation_pictures(data: EmojiData) -> list[Picture]:
    """Return one picture per training concept in the validation style."""
    return [
        Picture(key, key.partition("/")[0], concept)
        for key, concept in data.pictures("validation")
        if concept.split == "train"
    ]
