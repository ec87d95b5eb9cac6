"""Checks uploaded photos by their first bytes, so that nothing but an image is ever stored and served."""

from __future__ import annotations

from pathlib import PurePath

from django.core.exceptions import ValidationError
from django.core.files import File

# A phone's photo is 3 to 6 MB.
PHOTO_BYTES_MAX = 8 * 1024 * 1024
# No format starts differently within this many bytes.
SIGNATURE_BYTES = 12
SUFFIXES = {"png": {".png"}, "jpeg": {".jpg", ".jpeg"}, "gif": {".gif"}, "webp": {".webp"}}


def sniff(start: bytes) -> str | None:
    """The image format that a file starting with these bytes has; None if it is none we take."""
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if start.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "webp"
    return None


def validate_photo(file: File) -> None:
    """Refuses what is too large, no image, or has a name that says something else than its content."""
    if file.size > PHOTO_BYTES_MAX:
        raise ValidationError(f"The photo is larger than {PHOTO_BYTES_MAX // (1024 * 1024)} MB.")
    file.seek(0)
    kind = sniff(file.read(SIGNATURE_BYTES))
    file.seek(0)
    if kind is None:
        raise ValidationError("This is no PNG, JPEG, GIF or WebP image.")
    if PurePath(file.name or "").suffix.lower() not in SUFFIXES[kind]:
        raise ValidationError(f"The file is a {kind.upper()} image, but its name does not say so.")
