"""What the readers of benchmarks share: options, files in a folder, typed fields, pictures."""

import gzip
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mpm_eval.data._local import file_name, picture_folders, require_folder
from mpm_eval.data._rows import decode, inside
from mpm_eval.data._samples import SampleSet, read_options, where
from mpm_eval.errors import CorruptImage, UserError
from mpm_eval.schema import Sample, Task
from mpm_eval.strict import build, canonical_sha256, file_sha256, read_text, to_jsonable

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Options:
    """The table [data] of a task that reads a benchmark."""

    source: str
    path: str  # folder, beside the task file or in $MPM_EVAL_DATA
    file: str  # in the folder; may hold {language} and {split}
    split: str = "test"
    ids: str = ""  # file in the folder with the ids of the split, one a line
    images: tuple[str, ...] = ("images",)  # folders of pictures, see `picture_folders`
    codes: Mapping[str, str] | None = None  # language -> what the data set calls it
    origin: str = ""  # where to get the files, for the message when they are missing
    hub: str = ""  # a copy on the Hugging Face hub in another layout, ID@COMMIT; not read


AnyOptions = TypeVar("AnyOptions", bound=Options)
Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class Source(Generic[AnyOptions]):
    """A task's folder of official files."""

    task: Task
    options: AnyOptions
    folder: Path

    def file(self, language: str = "") -> Path:
        """Return the annotation file of a language; raises UserError when it is missing."""
        return self._named(self.options.file, language, "file")

    def ids(self) -> Path:
        """Return the file with the ids of the split; raises UserError when it is missing."""
        return self._named(self.options.ids, "", "ids")

    def code(self, language: str) -> str:
        """Return what the data set calls a language."""
        return (self.options.codes or {}).get(language, language)

    def sample_set(
        self,
        make: Callable[[str], Sequence[Sample]],
        load: "Callable[[str], Image]",
        files: Iterable[Path],
        description: Mapping[str, str],
    ) -> SampleSet:
        """Return the samples; their hash is over options and annotation files, not pictures."""
        asked = {k: v for k, v in to_jsonable(self.options).items() if k not in _PROSE}
        digests = [file_sha256(file) for file in dict.fromkeys(files)]
        return SampleSet(
            task=self.task.name,
            languages=self.task.languages,
            make=make,
            load=load,
            sha256=canonical_sha256([asked, digests]),
            description={
                "source": self.options.source,
                "path": self.options.path,
                "split": self.options.split,
                "hub": self.options.hub or "local files only",
                **description,
            },
        )

    def _named(self, pattern: str, language: str, key: str) -> Path:
        name = file_name(pattern, language, self.options.split, self.options.codes)
        path = inside(self.folder, name, f"{where(self.task)}.{key}")
        if not name or not path.is_file():
            origin = f"; get it from {self.options.origin}" if self.options.origin else ""
            raise UserError(f"{self.folder / name}: no such file{origin}")
        return path


# change no sample
_PROSE = ("origin", "hub", "images", "path")


def open_source(cls: type[AnyOptions], task: Task) -> Source[AnyOptions]:
    """Return the folder of a task; raises UserError for wrong options and a missing folder."""
    options = read_options(cls, task)
    names = [file_name(options.file, "LANGUAGE", options.split, None)]
    names += [file_name(options.ids, "", options.split, None)] if options.ids else []
    needs = " and ".join(names)
    return Source(task, options, require_folder(task, options.path, needs, options.origin))


def pick(cls: type[Record], content: Any, place: str) -> Record:
    """Return the fields of `cls` from a record of a foreign file; its other fields are left out.

    Raises UserError for a missing key or a wrong type.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{place}: expected an object {{…}}, got {type(content).__name__}")
    known = {item.name for item in fields(cls)}  # type: ignore[arg-type]
    return build(cls, {k: v for k, v in content.items() if k in known}, place)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 text, also of one compressed with gzip.

    Only line breaks separate lines: U+2028 and friends are text. Raises UserError for a file that
    is damaged, or cut in the middle of its last line.
    """
    if path.suffix == ".gz":
        try:
            text = gzip.decompress(path.read_bytes()).decode("utf-8-sig")
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not a whole gzip file of UTF-8 text: {error}") from None
    else:
        text = read_text(path)
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def picture_name(name: str, place: str) -> str:
    """Return a picture's file name; raises UserError for one that leads out of its folder."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts:
        raise UserError(f"{place}: '{name}' is no file name inside the folder of pictures")
    return name


def picture_loader(source: Source[Any], names: Iterable[str]) -> "Callable[[str], Image]":
    """Return the loader of pictures by file name, from the folders of `data.images`.

    It raises CorruptImage for a picture that is missing or broken, and UserError when none of
    `names` is there: then the pictures were never downloaded.
    """
    options, task = source.options, source.task
    folders = picture_folders(task, source.folder, options.images)
    known = tuple(dict.fromkeys(names))

    def find(name: str) -> Path | None:
        # a file system may keep an accented name composed or decomposed
        forms = dict.fromkeys((name, *(unicodedata.normalize(f, name) for f in ("NFC", "NFD"))))
        tried = (inside(f, form, "picture") for f in folders if f.is_dir() for form in forms)
        return next((path for path in tried if path.is_file()), None)

    def load(name: str) -> "Image":
        path = find(name)
        if path is None:
            looked = " or ".join(map(str, folders))
            if not any(find(other) for other in known):
                raise UserError(
                    f"{task.name}: no picture of the set is in {looked}; put them there"
                    + (f", see {options.origin}" if options.origin else "")
                )
            raise CorruptImage(f"{name}: no such picture in {looked}")
        try:
            return decode(path.read_bytes(), name)
        except OSError as error:
            raise CorruptImage(f"{name}: cannot be read: {error.strerror}") from error

    return load
