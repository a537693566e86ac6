"""Small pictures: the browser's own decoder turns a screenshot into pixels, and a palette of 256 makes a small PNG."""

import base64
import struct
import zlib

import numpy as np
import numpy.typing as npt
from playwright.sync_api import Page

COLOURS = 256
DECODE = """async (picture) => {
  const blob = await (await fetch(`data:image/png;base64,${picture}`)).blob();
  const bitmap = await createImageBitmap(blob);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const bytes = context.getImageData(0, 0, bitmap.width, bitmap.height).data;
  let text = "";
  const step = 32768;
  for (let start = 0; start < bytes.length; start += step) {
    text += String.fromCharCode(...bytes.subarray(start, start + step));
  }
  return [bitmap.width, bitmap.height, btoa(text)];
}"""
Pixels = npt.NDArray[np.uint8]


def pixels_of(page: Page, png: bytes) -> Pixels:
    """The picture's pixels, rows by columns by red, green and blue; `page` is any empty page."""
    width, height, text = page.evaluate(DECODE, base64.b64encode(png).decode())
    return np.frombuffer(base64.b64decode(text), dtype=np.uint8).reshape(height, width, 4)[:, :, :3]


def with_palette(pixels: Pixels) -> bytes:
    """A PNG in which every colour is one of the 256 that are used most, or the nearest of them."""
    height, width, _ = pixels.shape
    flat = pixels.reshape(-1, 3).astype(np.int64)
    keys = (flat[:, 0] << 16) | (flat[:, 1] << 8) | flat[:, 2]
    known, where, counts = np.unique(keys, return_inverse=True, return_counts=True)
    colours = np.stack([known >> 16, (known >> 8) & 255, known & 255], axis=1)
    palette = colours[np.argsort(-counts)[:COLOURS]]
    nearest = np.array([int(np.argmin(((palette - colour) ** 2).sum(axis=1))) for colour in colours], dtype=np.uint8)
    rows = nearest[where.reshape(-1)].reshape(height, width)
    scanlines = np.concatenate([np.zeros((height, 1), dtype=np.uint8), rows], axis=1)  # each begins with filter 0
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (
            _chunk(b"IHDR", header),
            _chunk(b"PLTE", palette.astype(np.uint8).tobytes()),
            _chunk(b"IDAT", zlib.compress(scanlines.tobytes(), 9)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
