"""The emergency journal: a file allocated in advance, for what the ledger cannot take.

Its blocks are on the disk before they are needed, so a full disk does not keep us from writing down which orders went
out. It is one file of fixed size: a header with a generation, then entries of length, checksum and text. Emptying it is
a new generation, which makes every older entry invalid.
"""

import os
import struct
import threading
import zlib
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_hex

from django.conf import settings as django_settings
from django.db import connections

SIZE_BYTES = 4 * 1024 * 1024  # some two thousand changes of orders
MAGIC = b"algo-trader ledger journal 1 "
GENERATION_BYTES = 16
HEADER_BYTES = len(MAGIC) + GENERATION_BYTES
FRAME = struct.Struct(">II")  # length of the text in bytes, CRC-32 of generation and text
END = FRAME.pack(0, 0)


class JournalFull(Exception):
    """The file has no room for the entry; nothing was written."""


class EmergencyJournal:
    """The file at `path`, made and allocated when it is opened. All methods block for a moment; they may share threads.

    Raises OSError when it cannot be opened, allocated or written.
    """

    def __init__(self, path: Path, *, size_bytes: int = SIZE_BYTES) -> None:
        self._size_bytes = size_bytes
        self._using = threading.Lock()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._generation, self._end = b"", HEADER_BYTES
            if os.fstat(self._descriptor).st_size != size_bytes or not self._read_header():
                self._allocate(path)
            self.entries()
        except OSError:
            os.close(self._descriptor)
            raise

    def entries(self) -> list[str]:
        """What was written since the file was last emptied, in order; a torn last entry is none."""
        with self._using:
            content = os.pread(self._descriptor, self._size_bytes, 0)
            found: list[str] = []
            place = HEADER_BYTES
            while place + FRAME.size <= len(content):
                length, checksum = FRAME.unpack_from(content, place)
                text = content[place + FRAME.size : place + FRAME.size + length]
                if not length or len(text) < length or zlib.crc32(self._generation + text) != checksum:
                    break
                found.append(text.decode())
                place += FRAME.size + length
            self._end = place
            return found

    def append(self, text: str) -> None:
        """One more entry, on the disk when this returns. Raises JournalFull."""
        with self._using:
            content = text.encode()
            frame = FRAME.pack(len(content), zlib.crc32(self._generation + content)) + content
            if self._end + len(frame) + len(END) > self._size_bytes:
                raise JournalFull(f"{self._size_bytes} bytes are taken")
            self._write(frame + END, self._end)
            self._end += len(frame)

    def clear(self) -> None:
        """Forgets everything."""
        with self._using:
            self._start_generation()

    def close(self) -> None:
        """Closes the file; what is in it stays."""
        with self._using, suppress(OSError):
            os.close(self._descriptor)

    def _read_header(self) -> bool:
        header = os.pread(self._descriptor, HEADER_BYTES, 0)
        self._generation = header[len(MAGIC) :]
        return header.startswith(MAGIC) and len(self._generation) == GENERATION_BYTES

    def _allocate(self, path: Path) -> None:
        """Writes zeros: a file with holes would need room when it is needed."""
        os.ftruncate(self._descriptor, 0)
        self._write(bytes(self._size_bytes), 0)
        self._start_generation()
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _start_generation(self) -> None:
        self._generation = token_hex(GENERATION_BYTES // 2).encode()
        self._write(MAGIC + self._generation + END, 0)
        self._end = HEADER_BYTES

    def _write(self, content: bytes, place: int) -> None:
        written = 0
        while written < len(content):
            written += os.pwrite(self._descriptor, content[written:], place + written)
        os.fsync(self._descriptor)


def journal_path() -> Path:
    """Where the journal of the `default` database is: under the data folder, one for each database."""
    database = connections["default"].settings_dict
    name = "|".join(str(database.get(part, "")) for part in ("ENGINE", "HOST", "PORT", "NAME"))
    return Path(django_settings.DATA_DIR) / f"ledger-{sha256(name.encode()).hexdigest()[:12]}.journal"
