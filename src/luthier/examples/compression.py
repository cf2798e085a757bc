"""Compressed files as plain bytes: gzip, bzip2, xz and zstd, recognised by their first bytes.

Bytes are unpacked as they are asked for, so that a small file that unpacks to a huge one costs neither
memory nor disk; where it unpacks to far more than text can, it is refused.
"""

from __future__ import annotations

import bz2
import io
import lzma
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from luthier.errors import DataError
from luthier.examples.row import StreamError

CHUNK_BYTES = 2**16
FREE_BYTES = 64 * 2**20  # up to here no ratio is too high
MOST_TIMES = 200  # real examples shrink to a third or a twentieth, repeated ones to a hundredth
MOST_BYTES = 64 * 2**30


class _Decoder(Protocol):
    """What bz2, lzma and zstd agree on."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """zlib's decoder as the others are."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


@dataclass(frozen=True)
class Packing:
    """One kind of compression: its name, endings, first bytes, and a decoder of one stream."""

    name: str
    endings: tuple[str, ...]
    magic: bytes
    decoder: Callable[[], _Decoder]


def zstd() -> Any:
    """The standard library's zstd, or its backport."""
    if sys.version_info >= (3, 14):  # pragma: no cover
        from compression import zstd as module
    else:
        from backports import zstd as module
    return module


def _zstd_decoder() -> _Decoder:
    decoder: _Decoder = zstd().ZstdDecompressor()
    return decoder


PACKINGS = (
    Packing("gzip", (".gz", ".gzip"), b"\x1f\x8b", _Gzip),
    Packing("bzip2", (".bz2",), b"BZh", bz2.BZ2Decompressor),
    Packing("xz", (".xz",), b"\xfd7zXZ\x00", lzma.LZMADecompressor),
    Packing("zstd", (".zst", ".zstd"), b"\x28\xb5\x2f\xfd", _zstd_decoder),
)


def packing_of(start: bytes) -> Packing | None:
    """The compression of a file that starts so."""
    return next((packing for packing in PACKINGS if start.startswith(packing.magic)), None)


def packing_named(ending: str) -> Packing | None:
    """The compression that a file with this ending should have."""
    return next((packing for packing in PACKINGS if ending.lower() in packing.endings), None)


class Unpacked(io.RawIOBase):
    """The plain bytes of a compressed file.

    Reading raises `StreamError` where the stream is broken or cut off, after all that came before it was
    given out, and `DataError` where it unpacks to more than examples could.

    Args:
        file: the compressed bytes.
        name: as errors name it.
    """

    def __init__(self, file: io.BufferedIOBase, packing: Packing, name: str) -> None:
        self._file, self._packing, self._name = file, packing, name
        self._decoder = packing.decoder()
        self._fed = b""  # read, and not given to the decoder yet
        self._taken = self._given = 0
        self._ended = False

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, or part of it; 0 at the end."""
        try:
            data = self._next(len(buffer))
        except (zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, zstd().ZstdError) as error:
            raise self._broken(error) from None
        self._given += len(data)
        self._refuse_bomb()
        buffer[: len(data)] = data
        return len(data)

    def _next(self, most: int) -> bytes:
        while not self._ended:
            if self._decoder.eof:
                self._begin_stream()
                continue
            data = b""
            if self._decoder.needs_input and not self._fed:
                self._fed = self._read()
                if not self._fed:
                    data = self._decoder.decompress(b"", most)
                    if not data and not self._decoder.eof:
                        raise EOFError("it is cut off")
            fed, self._fed = self._fed, b""
            data = data or self._decoder.decompress(fed, most)
            if data:
                return data
        return b""

    def _begin_stream(self) -> None:
        """Go on with what follows a finished stream: another one, padding, or nothing."""
        rest = self._decoder.unused_data
        while not (rest := rest.lstrip(b"\0")):
            rest = self._read()
            if not rest:
                self._ended = True
                return
        if len(rest) < len(self._packing.magic):
            rest += self._read()
        if not rest.startswith(self._packing.magic):
            raise ValueError("other bytes follow its end")
        self._decoder, self._fed = self._packing.decoder(), rest

    def _read(self) -> bytes:
        data = self._file.read(CHUNK_BYTES)
        self._taken += len(data)
        return data

    def _broken(self, error: Exception) -> StreamError:
        return StreamError(
            f"the {self._packing.name} stream is broken or cut off ({error})", "download or compress it again"
        )

    def _refuse_bomb(self) -> None:
        times = self._given / max(self._taken, 1)
        if self._given > FREE_BYTES and times > MOST_TIMES:
            raise DataError(
                f"unpacks to more than {MOST_TIMES} times its size ({self._given / 2**20:.0f} MiB from "
                f"{self._taken / 2**20:.1f} MiB so far), as a decompression bomb does",
                where=self._name,
                fix=f"if that is right, unpack it yourself and give the plain file ({self._packing.name} -d)",
            )
        if self._given > MOST_BYTES:
            raise DataError(
                f"unpacks to more than {MOST_BYTES // 2**30} GiB",
                where=self._name,
                fix="split it, or unpack it yourself and give the plain file",
            )
