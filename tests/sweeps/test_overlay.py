"""Pictures of predictions: every pixel has the colour of what it is."""

import numpy as np

from sweeps.tracking.overlay import COLOURS, STRIPE, overlays


def packed(mask):
    return np.packbits(np.array(mask, bool)).tobytes()


def shown(case="a", height=1, width=4, reference=(1, 1, 0, 0), **changes):
    grey = np.zeros((height, width), np.uint8).tobytes()
    row = {"case": case, "height": height, "width": width, "row_mm": 1.0, "column_mm": 1.0}
    row |= {"images": [b"not this", grey], "reference": packed(reference)}
    return row | changes


def test_ignored_voxels_are_striped_on_the_coloured_side():
    ignored = packed([0, 0, 1, 1, 1, 1])
    row = shown(width=6, reference=(1, 0, 0, 0, 0, 0), ignore=ignored)
    (picture,) = overlays([{"case": "a", "prediction": packed([0] * 6)}], [row])
    pixels = picture.pixels[0, :: picture.pixels.shape[0]]
    assert not pixels[:6].any()
    assert [tuple(pixel) for pixel in pixels[8:]] == [(0, 0, 0)] * 2 + [(STRIPE,) * 3, (0, 0, 0)]


def test_found_missed_and_false_voxels_have_their_colours():
    (picture,) = overlays([{"case": "a", "prediction": packed([1, 0, 1, 0])}], [shown()])
    times = picture.pixels.shape[0]
    assert picture.pixels.shape == (times, 8 * times, 3) and times >= 256
    pixels = picture.pixels[0, ::times]
    assert not pixels[:4].any()  # the image as it is
    found, missed, false, nothing = pixels[4:]
    for pixel, name in ((found, "found"), (missed, "missed"), (false, "false")):
        np.testing.assert_array_equal(pixel, (0.65 * np.array(COLOURS[name])).astype(np.uint8))
    assert not nothing.any()


def test_pixels_keep_the_shape_of_voxels():
    (picture,) = overlays([{"case": "a", "prediction": packed([0, 0, 0, 0])}], [shown(row_mm=3.0)])
    height, width, _ = picture.pixels.shape
    assert height / (width / 8) == 3


def test_pictures_of_a_trial_have_one_size():
    predicted = [{"case": name, "prediction": packed([0] * 12)} for name in "ab"]
    cohort = [
        shown("a", 3, 4, [0] * 12),
        shown("b", 4, 3, [0] * 12),
        shown("c", 9, 9, [0] * 81),
    ]
    assert len({picture.pixels.shape for picture in overlays(predicted, cohort)}) == 1
    assert overlays([], cohort) == []
