"""Where a frozen backbone came from: source, revision and one hash over its weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from mpm_eval.errors import UserError
from mpm_eval.strict import canonical_sha256, file_sha256

_FILES = ["*.safetensors", "*.json"]
# Folders hold the same weights in other formats, and so does what Mistral calls consolidated.
_OTHER_FORMATS = ["*/*", "consolidated*"]
_OTHER_PRECISIONS = ["*.fp16.*", "*.non_ema.*"]
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True, slots=True)
class Provenance:
    """What identifies a frozen backbone; a checkpoint stores this in the place of its weights."""

    source: str  # id on the hub or folder, as the recipe names it
    revision: str  # commit of the hub; "" for a folder
    sha256: str  # of `weights_sha256`


def locate(
    source: str, revision: str = "", weights: bool = True, parts: Sequence[str] = ()
) -> tuple[Path, str]:
    """Return (folder, commit) of a backbone: a local folder has no commit, "".

    A model of the hub is fetched unless it is in the cache, which suffices without a network;
    of one whose `weights` are not wanted, the configuration and tokenizer alone. `parts` are
    subfolders, of a pipeline of diffusers, that are wanted in place of what lies beside them.
    Raises UserError when there is neither folder nor model.
    """
    folder = Path(source).expanduser()
    if source and folder.is_dir():
        if revision:
            raise UserError(f"{source}: a folder has no revision '{revision}'; leave revision out")
        marker = "model_index.json" if parts else "config.json"
        if not (folder / marker).is_file():
            raise UserError(f"{source}: {marker} is missing; give a folder of save_pretrained")
        return folder, ""
    if not source or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise UserError(
            f"'{source}': no such folder; give a folder or an id of the hub, OWNER/NAME"
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise UserError(
            f"{source}: no such folder; a model of the hub needs pip install 'mpm-eval[hf]'"
        ) from None
    try:
        found = snapshot_download(
            source,
            revision=revision or None,
            allow_patterns=_wanted(weights, parts),
            ignore_patterns=_OTHER_PRECISIONS if parts else _OTHER_FORMATS,
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"{source}: no such folder, and neither the hub nor the cache has revision "
            f"'{revision or 'main'}' ({one_line(error)}); without a network give a local folder, "
            f"as `hf download {source} --local-dir FOLDER` writes it"
        ) from None
    return Path(found), Path(found).name


def _wanted(weights: bool, parts: Sequence[str]) -> list[str]:
    files = _FILES if weights else ["*.json"]
    return ["model_index.json", *(f"{p}/{f}" for p in parts for f in files)] if parts else files


def weights_sha256(folder: Path) -> str:
    """Return one hash over the names and bytes of a folder's safetensors files.

    Raises UserError when there are none, also when there are pickles in their place, which could
    run code, and when a file is truncated.
    """
    other = set(folder.glob(_OTHER_FORMATS[1]))
    files = sorted(path for path in folder.glob("*.safetensors") if path not in other)
    if not files:
        if any(any(folder.glob(pattern)) for pattern in _PICKLES):
            raise UserError(
                f"{folder}: pickled weights can run code and are not read; convert them to "
                "*.safetensors with save_pretrained"
            )
        raise UserError(f"{folder}: no *.safetensors; copy the weights there")
    for path in files:
        try:
            with safe_open(str(path), framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{path}: truncated or not a safetensors file ({one_line(error)}); copy it again"
            ) from None
    return canonical_sha256({path.name: file_sha256(path) for path in files})


def check(expected: Provenance, found: Provenance) -> None:
    """Raise UserError when a backbone's weights are not those that a checkpoint names."""
    if expected.sha256 == found.sha256:
        return
    wanted = f"revision {expected.revision} of" if expected.revision else "the weights that were in"
    raise UserError(
        f"{found.source}: the backbone is not the one this checkpoint was trained with: expected "
        f"sha256 {expected.sha256[:12]}, found {found.sha256[:12]}; give {wanted} {expected.source}"
    )


def one_line(error: Exception) -> str:
    """Return a library's message on one line of at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__
