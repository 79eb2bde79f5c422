"""Write docs/pictures/thumbnails/: a small copy of each shipped model's picture, for the README's table.

usage: python docs/tools/thumbnails.py        (`make thumbnails`)
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "docs" / "pictures" / "thumbnails"
WIDTH = 320
"""Pixels. Ten of these files take 150 KB."""


def sources() -> dict[str, Path]:
    """Each shipped model's name and picture. A model without a picture of its own has one in docs/pictures."""
    folders = sorted(path.parent for path in (REPOSITORY / "models").glob("*/manifest.json"))
    elsewhere = REPOSITORY / "docs" / "pictures"
    return {
        folder.name: own if (own := folder / "picture.jpg").is_file() else elsewhere / f"{folder.name}.jpg"
        for folder in folders
    }


def main() -> None:
    """Write them all anew."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, source in sources().items():
        picture = Image.open(source).convert("RGB")
        height = round(picture.height * WIDTH / picture.width)
        small = picture.resize((WIDTH, height), Image.Resampling.LANCZOS)
        small.save(FOLDER / f"{name}.jpg", quality=78, optimize=True)


if __name__ == "__main__":
    main()
