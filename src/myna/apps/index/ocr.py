"""Words in pictures, by the `tesseract` command where it is installed; nothing is downloaded.

Without it a picture is a page without text and a note that says so.
"""

import functools
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable

SECONDS = 40.0  # a picture
LANGUAGES = ("chi_sim", "chi_tra", "eng")  # those of these that tesseract has


@functools.cache
def _command() -> list[str] | None:
    """How tesseract is called; None where it is not."""
    path = shutil.which("tesseract")
    if not path:
        return None
    listed = subprocess.run([path, "--list-langs"], capture_output=True, text=True, timeout=10).stdout.split()
    languages = [name for name in LANGUAGES if name in listed]
    return [path, "stdin", "stdout", *(("-l", "+".join(languages)) if languages else ())]


def picture_text(picture: Callable[[], bytes]) -> str | None:
    """The words of a picture file (PNG, JPEG, TIFF, ...), which is made only where there is OCR; None: there is none, or it failed."""
    command = _command()
    if command is None:
        return None
    try:
        done = subprocess.run(command, input=picture(), capture_output=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def gray_png(dots: bytes, width: int, height: int, stride: int) -> bytes:
    """A PNG (RFC 2083) of one byte a dot, rows from the top, `stride` bytes from row to row."""
    rows = b"".join(b"\x00" + dots[y * stride : y * stride + width] for y in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
