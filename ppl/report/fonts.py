"""Fonts for names of any script: DejaVu, and what the machine has for text that DejaVu lacks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

__all__ = ["dejavu", "installed_fonts"]


def dejavu(*, bold: bool = False) -> Path:
    """DejaVu Sans, which ships with matplotlib, so that it is there everywhere."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")


def installed_fonts(texts: Iterable[str]) -> dict[str, Path]:
    """For each text that DejaVu lacks, the first installed font that has all of it; none for where there is none.

    Args:
        texts: all that is to be drawn, so that the fonts are looked through once.

    Returns:
        Text -> font file.
    """
    open_texts = {text for text in texts if not text.isascii()}
    open_texts -= _covered(dejavu(), open_texts) if open_texts else set()
    if not open_texts:
        return {}
    from matplotlib.font_manager import findSystemFonts  # takes a moment

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
    if not font.scalable:  # bitmaps, as of emoji, which have no such sizes
        return set()
    return {text for text in texts if all(font.get_char_index(ord(letter)) for letter in text)}
