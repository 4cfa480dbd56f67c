"""Zipped: the JSON members of a zip file that nobody vouches for."""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from mpm_eval.errors import UserError
from mpm_eval.stages.interchange.imported import parse_json

MAX_BYTES = 2 * 2**30  # of all members together, unpacked
_ZSTD = 93  # method of a member, which zipfile reads from Python 3.14 on


class JsonZip:
    """A zip file whose members are JSON; get one from `open_zip`."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self._archive = archive
        self.names = [info.filename for info in archive.infolist()]

    def read(self, name: str) -> Any:
        """Return the value of a member; UserError when it is damaged or no JSON."""
        where = f"{self.path}: {name}"
        info = self._archive.getinfo(name)
        try:
            if info.flag_bits & 1:
                raise UserError(f"{where}: encrypted")
            data = self._unzstd(info) if info.compress_type == _ZSTD else self._archive.read(info)
            text = data.decode("utf-8")
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, struct.error) as error:
            raise UserError(f"{where}: damaged ({error}); copy the log again") from None
        except NotImplementedError:
            raise UserError(
                f"{where}: packed with method {info.compress_type}, which cannot be read; "
                "convert the log to .json"
            ) from None
        except UnicodeDecodeError as error:
            raise UserError(f"{where}: not UTF-8 (byte {error.start})") from None
        return parse_json(text, where)

    def _unzstd(self, info: zipfile.ZipInfo) -> bytes:
        import pyarrow as pa

        with self.path.open("rb") as file:
            file.seek(info.header_offset)
            header = file.read(30)
            if header[:4] != b"PK\x03\x04":
                raise zipfile.BadZipFile("no header before a member")
            name_length, extra_length = struct.unpack("<HH", header[26:30])
            file.seek(name_length + extra_length, io.SEEK_CUR)
            packed = file.read(info.compress_size)
        with pa.CompressedInputStream(io.BytesIO(packed), "zstd") as stream:
            data: bytes = stream.read(info.file_size + 1)
        if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
            raise zipfile.BadZipFile("size or checksum differ")
        return data


@contextmanager
def open_zip(path: Path) -> Iterator[JsonZip]:
    """Yield the members of a zip file.

    Raises UserError for a file that is no zip or cut off, a member whose name leads out of it or
    is there twice, and more than `MAX_BYTES` unpacked. No member is ever written to the disk.
    """
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except zipfile.BadZipFile:
        raise UserError(f"{path}: not a zip file, or cut off; copy the log again") from None
    except (OSError, ValueError, struct.error) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    with archive:
        names: set[str] = set()
        for name in archive.namelist():
            parts = PurePosixPath(name.replace("\\", "/"))
            if parts.is_absolute() or ".." in parts.parts or ":" in name.partition("/")[0]:
                raise UserError(f"{path}: a member is called {name!r}, which leads out of the file")
            if name in names:
                raise UserError(f"{path}: two members are called {name!r}")
            names.add(name)
        total = sum(info.file_size for info in archive.infolist())
        if total > MAX_BYTES:
            raise UserError(
                f"{path}: {total / 2**30:.1f} GiB unpacked, at most {MAX_BYTES / 2**30:.1f} GiB "
                "are read; import fewer samples at a time"
            )
        yield JsonZip(path, archive)
