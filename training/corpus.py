"""What each stage reads of the emoji data: texts, captions, questions."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from mpm_eval.data._emoji_data import Concept, EmojiData, codepoints
from mpm_eval.data.emoji_qa import QA_LANGUAGES, caption_prompts, questions
from training.recipe import Recipe
from training.tokenizer import Example

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
        """Return one example of stage `pretrain`: a picture and a pivot caption."""
        pivot = self.recipe.pivot
        caption = self._caption(
            picture.concept, pivot, rng, keyword_share=self.recipe.pretrain.keyword_share
        )
        return Example(self.prompts[pivot], caption, image=index, language=pivot)

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
