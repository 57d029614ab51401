"""Operations on pictures. Rows without one pass; a picture that cannot be decoded is quarantined.

Changed pictures are written as PNG with 8 bits a channel: 16-bit greys keep their upper half, palettes and CMYK become
RGB, animations their first frame. Pictures are turned upright by their EXIF orientation first. A colour profile is
dropped, not applied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from flywheel.media import Undecodable, decode_image, encode_png
from flywheel.record import Outcome, Outcomes, Record, drop, quarantine

if TYPE_CHECKING:
    from PIL.Image import Image

Side = Annotated[int, Field(ge=1, le=16_384)]
WHITE = 255


def image_resize(
    rows: Iterable[Record],
    size: Side | Annotated[list[Side], Field(min_length=2, max_length=2)],
    mode: Literal["fit", "crop", "stretch"] = "fit",
) -> Outcomes:
    """Resize pictures to `size` pixels, one number for a square or `[width, height]`, with a Lanczos filter.

    `fit` keeps the whole picture and its proportions inside of the size, so that one side may be shorter; `crop` fills
    the size and cuts what sticks out, the same on both sides; `stretch` fills it without regard to proportions. A
    picture that has the size already keeps its bytes. Quarantines `corrupt_image`, `unsupported_image`, `bomb`.
    """
    from PIL import Image, ImageOps

    width, height = (size, size) if isinstance(size, int) else size
    lanczos = Image.Resampling.LANCZOS
    methods: dict[str, Callable[[Image.Image], Image.Image]] = {
        "fit": lambda image: ImageOps.contain(image, (width, height), lanczos),
        "crop": lambda image: ImageOps.fit(image, (width, height), lanczos),
        "stretch": lambda image: image.resize((width, height), lanczos),
    }

    def resize(row: Record, image: Image.Image) -> Record:
        if image.size == (width, height):
            return row
        return row.with_fields(image=encode_png(methods[mode](plain(image))))

    for row in rows:
        yield _with_picture(row, resize)


def image_normalize(rows: Iterable[Record], mode: Literal["RGB", "L"] = "RGB") -> Outcomes:
    """Write pictures as PNG in colour (`RGB`) or grey (`L`, ITU-R 601 luma): upright, opaque, without metadata.

    What shines through is laid on white. Quarantines `corrupt_image`, `unsupported_image`, `bomb`.
    """
    for row in rows:
        yield _with_picture(row, lambda row, image: row.with_fields(image=encode_png(_opaque(image).convert(mode))))


def image_filter(
    rows: Iterable[Record],
    min_side: Annotated[int, Field(ge=1)] = 16,
    max_aspect_ratio: Annotated[float | None, Field(ge=1)] = None,
    min_contrast: Annotated[int, Field(ge=0, le=255)] = 4,
) -> Outcomes:
    """Drop pictures of no use: `tiny_image`, `aspect_ratio`, `blank_image`.

    Tiny: the shorter side has fewer than `min_side` pixels. Aspect ratio: the longer side is more than
    `max_aspect_ratio` times the shorter. Blank: in no channel are the least and the greatest value `min_contrast`
    (of 255) apart. Quarantines `corrupt_image`, `unsupported_image`, `bomb`.
    """

    def judge(row: Record, image: Image) -> Outcome:
        short, long = sorted(image.size)
        if short < min_side:
            return drop(row, "tiny_image", f"{image.width} x {image.height}")
        if max_aspect_ratio is not None and long > max_aspect_ratio * short:
            return drop(row, "aspect_ratio", f"{image.width} x {image.height}")
        if _contrast(image) < min_contrast:
            return drop(row, "blank_image")
        return row

    for row in rows:
        yield _with_picture(row, judge)


def plain(image: Image) -> Image:
    """The picture in L, LA, RGB or RGBA with 8 bits a channel. Raises Undecodable for numbers without a fixed range."""
    from PIL import Image

    if image.mode in ("I", "F"):
        raise Undecodable("unsupported_image", f"pixels of mode {image.mode} have no fixed range")
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        return image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _opaque(image: Image) -> Image:
    from PIL import Image

    image = plain(image)
    if image.mode not in ("LA", "RGBA"):
        return image
    ground = Image.new("RGBA", image.size, (WHITE,) * 4)
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("L" if image.mode == "LA" else "RGB")


def _contrast(image: Image) -> int:
    extrema: Any = _opaque(image).getextrema()
    channels = [extrema] if isinstance(extrema[0], int | float) else extrema
    return max(int(high) - int(low) for low, high in channels)


def _with_picture(row: Record, change: Callable[[Record, Image], Outcome]) -> Outcome:
    if row.image is None:
        return row
    try:
        return change(row, decode_image(row.image))
    except Undecodable as error:
        return quarantine(row, error.reason, error.detail)
