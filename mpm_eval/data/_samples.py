"""What every reader returns: samples made once per language, and the loader of their pictures."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from mpm_eval.errors import UserError, unknown
from mpm_eval.schema import Sample, Task
from mpm_eval.strict import build

if TYPE_CHECKING:
    from PIL.Image import Image

Options = TypeVar("Options")


@dataclass(frozen=True)
class SampleSet:
    """A `Dataset` (see the package) whose samples come from a function of the language."""

    task: str  # name, for messages
    languages: tuple[str, ...]
    make: Callable[[str], Sequence[Sample]]
    load: Callable[[str], "Image"]
    sha256: str
    description: Mapping[str, str]
    _made: dict[str, tuple[Sample, ...]] = field(default_factory=dict)

    def samples(self, language: str) -> Sequence[Sample]:
        """Return the samples of one language of the task, in a fixed order.

        Raises UserError for a language the task does not have, and for an empty set.
        """
        if language not in self.languages:
            raise unknown("language", language, self.languages, self.task)
        if language not in self._made:
            self._made[language] = tuple(self.make(language))
        if not self._made[language]:
            raise UserError(
                f"{self.task}: no samples in language '{language}'; remove it from languages, or "
                "check the filters in [data]"
            )
        return self._made[language]

    def load_image(self, key: str) -> "Image":
        """Return the RGB picture of `Sample.image`; raises CorruptImage when it cannot be read."""
        return self.load(key)


def read_options(cls: type[Options], task: Task) -> Options:
    """Return the table [data] of a task as `cls`; raises UserError for unknown or wrong keys."""
    return build(cls, dict(task.data), where(task))


def where(task: Task) -> str:
    """Return how messages name the table [data] of a task."""
    return f"{task.path or task.name}: data"


def one_of(task: Task, key: str, got: str, known: Iterable[str]) -> None:
    """Raise UserError unless `got` is one of `known`."""
    known = tuple(known)
    if got not in known:
        raise unknown(key, got, known, f"{where(task)}.{key}")


def no_image(key: str) -> Any:
    """Stand in for the picture loader of text-only data; raises UserError when called."""
    raise UserError(f"this data has no pictures, '{key}' was asked for")
