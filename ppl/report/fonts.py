"""Fonts for names in any script: DejaVu Sans, and installed fonts for letters that DejaVu lacks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

__all__ = ["dejavu", "installed_fonts"]


def dejavu(*, bold: bool = False) -> Path:
    """Return the file of DejaVu Sans, which is part of matplotlib and so exists on every machine."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")


def installed_fonts(texts: Iterable[str]) -> dict[str, Path]:
    """Find an installed font for each text that has letters which DejaVu lacks.

    Args:
        texts: all texts at once, since searching the installed fonts takes time.

    Returns:
        Text -> the first installed font that has all its letters. Texts without a font, and those that DejaVu can
        draw, are left out.
    """
    open_texts = {text for text in texts if not text.isascii()}
    open_texts -= _covered(dejavu(), open_texts) if open_texts else set()
    if not open_texts:
        return {}
    from matplotlib.font_manager import findSystemFonts  # slow to import

    found: dict[str, Path] = {}
    for path in map(Path, sorted(findSystemFonts())):
        covered = _covered(path, open_texts)
        found |= dict.fromkeys(covered, path)
        open_texts -= covered
        if not open_texts:
            break
    return found


def _covered(path: Path, texts: set[str]) -> set[str]:
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(str(path))
    except (OSError, RuntimeError):
        return set()
    if not font.scalable:  # bitmap fonts, such as emoji, have fixed sizes
        return set()
    return {text for text in texts if all(font.get_char_index(ord(letter)) for letter in text)}
