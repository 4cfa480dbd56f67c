"""Where the weights of a network lie: a folder or file of one's own, or a commit of the hub."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mpm_eval.errors import UserError
from mpm_eval.strict import canonical_sha256, file_sha256


@dataclass(frozen=True, slots=True)
class Source:
    """A folder of files, with what they are called."""

    folder: Path
    name: str
    revision: str  # commit of the hub; "" for a folder of one's own


def from_hub(argument: str, where: str, patterns: Sequence[str]) -> Source:
    """Return the files of "OWNER/NAME" or "OWNER/NAME@REVISION" that fit one of the patterns,
    fetched unless they are there.

    `where` starts the messages of UserError, raised for anything else and without a network.
    """
    name, _, revision = argument.partition("@")
    if not name or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"{where}: no such file or folder; give one, or a model id OWNER/NAME")
    try:
        from huggingface_hub import snapshot_download

        folder = snapshot_download(name, revision=revision or None, allow_patterns=list(patterns))
    except ImportError:
        raise UserError(f"{where}: needs the hub; pip install 'mpm-eval[hub]'") from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{where}: no such file or folder, and the hub gave nothing at revision "
            f"'{revision or 'main'}': {one_line(error)}"
        ) from None
    return Source(Path(folder), name, Path(folder).name)


def folder_sha256(folder: Path, patterns: Sequence[str]) -> str:
    """Return one hash over the names and bytes of the files that fit one of the patterns."""
    files = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    return canonical_sha256([[path.name, file_sha256(path)] for path in files])


def one_line(error: Exception) -> str:
    """Return what an error says on one line, at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__
