import io

import numpy as np
import pytest
from PIL import Image

from flywheel.process.images import image_filter, image_normalize, image_resize
from flywheel.record import Quarantined, Record, provenance_id

COLOURS = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)


def row(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    data = buffer.getvalue()
    return Record(provenance_id("s", "p", data), image=data, label="cat", origin={"source": "s", "path": "p.png"})


def opened(record):
    image = Image.open(io.BytesIO(record.image))
    image.load()
    return image


def one(outcomes):
    (found,) = outcomes
    return found


PLAIN = row(Image.fromarray(COLOURS))


@pytest.mark.parametrize(
    ("mode", "size", "expected"),
    [
        ("fit", 30, (30, 20)),
        ("crop", 30, (30, 30)),
        ("stretch", 30, (30, 30)),
        ("fit", [120, 120], (120, 80)),
        ("crop", [50, 20], (50, 20)),
    ],
)
def test_pictures_get_their_size(mode, size, expected):
    changed = one(image_resize([PLAIN], size=size, mode=mode))
    assert opened(changed).size == expected
    assert (changed.id, changed.label, changed.origin) == (PLAIN.id, "cat", PLAIN.origin)


def test_a_picture_of_the_right_size_keeps_its_bytes_and_cropping_keeps_the_middle():
    assert one(image_resize([PLAIN], size=[60, 40], mode="stretch")) is PLAIN
    striped = np.zeros((20, 60), np.uint8)
    striped[:, 20:40] = 255
    middle = opened(one(image_resize([row(Image.fromarray(striped))], size=20, mode="crop")))
    assert np.asarray(middle).min() > 200


def test_normalising_makes_upright_opaque_pictures_of_one_mode_without_metadata():
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "secret place"
    changed = opened(one(image_normalize([row(Image.fromarray(COLOURS), "JPEG", exif=exif)])))
    assert (changed.format, changed.mode, changed.size, changed.info) == ("PNG", "RGB", (40, 60), {})
    clear = opened(one(image_normalize([row(Image.new("RGBA", (20, 20), (255, 0, 0, 0)))], mode="L")))
    assert (clear.mode, clear.getextrema()) == ("L", (255, 255))


def test_every_mode_is_normalised():
    image = Image.fromarray(COLOURS)
    deep = Image.fromarray((COLOURS[:, :, 0].astype(np.uint16) << 8) + 7)
    rows = [row(image.convert(mode)) for mode in ("1", "L", "LA", "P", "RGBA")] + [
        row(image.convert("CMYK"), "JPEG"),
        row(deep),
    ]
    found = list(image_normalize(rows))
    assert {opened(r).mode for r in found} == {"RGB"}
    np.testing.assert_array_equal(np.asarray(opened(found[-1]))[:, :, 1], COLOURS[:, :, 0])
    assert [r.image for r in image_normalize(found)] == [r.image for r in found]


def test_pictures_of_no_use_are_left_out_with_the_reason():
    wide = row(Image.fromarray(np.tile(COLOURS, (1, 4, 1))))
    rows = [
        PLAIN,
        row(Image.fromarray(COLOURS[:8])),
        wide,
        row(Image.new("RGB", (64, 64), (9, 200, 30))),
        PLAIN.with_fields(image=PLAIN.image[:300]),
        Record("t", text="no picture"),
    ]
    found = list(image_filter(rows, max_aspect_ratio=3))
    assert [getattr(r, "reason", "kept") for r in found] == [
        "kept",
        "tiny_image",
        "aspect_ratio",
        "blank_image",
        "corrupt_image",
        "kept",
    ]
    assert isinstance(found[4], Quarantined)
    assert (found[4].path, found[4].source) == ("p.png", "s")
    assert list(image_filter([wide])) == [wide]


@pytest.mark.parametrize("operation", [image_normalize, lambda rows: image_resize(rows, 8)])
def test_what_cannot_be_changed_is_quarantined(operation):
    endless = row(Image.fromarray(np.zeros((30, 30), np.float32)), "TIFF")
    rows = [PLAIN.with_fields(image=b"GIF89a"), endless, Record("t", text="x")]
    assert [getattr(r, "reason", "kept") for r in operation(rows)] == ["corrupt_image", "unsupported_image", "kept"]
