"""The picture of a case: its busiest slice, turned the same way however the axes lie."""

import io

import numpy as np
import pytest
from matplotlib.image import imread

from lesion_core.segmentation.overlay import OUTLINE, UNSURE, overlay_png, png

SHAPE = (40, 50, 6)


def case():
    image = np.zeros(SHAPE, np.float32)
    image[4:36, 4:46] = np.linspace(50, 150, 42)[None, :, None]
    mask = np.zeros(SHAPE, bool)
    mask[8:18, 30:40, 4] = True
    disagreement = np.zeros(SHAPE, np.float32)
    disagreement[24:28, 10:14, 4] = 0.5
    return image, mask, disagreement


def pixels(content):
    return np.rint(255 * imread(io.BytesIO(content))[..., :3]).astype(int)


def test_outline_and_disagreement_stand_where_they_are():
    picture = pixels(overlay_png(*case(), np.diag([-1.0, 1, 3, 1])))
    assert picture.shape == (550, 440, 3)  # 50 rows and 40 columns, 11 times
    outlined = (picture == OUTLINE).all(-1)
    rows, columns = np.nonzero(outlined)
    # x leads left: column 0 is the patient's right; y leads to the front, which is up.
    assert (rows.min(), rows.max()) == (110, 219) and (columns.min(), columns.max()) == (88, 197)
    assert outlined.sum() == 4 * 110 - 4  # one pixel wide
    assert (picture == UNSURE).all(-1).sum() == (4 * 11) ** 2


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 0, 2), (0, 2, 1)])
def test_the_picture_does_not_depend_on_the_order_of_the_axes(order):
    affine = np.diag([-1.0, 1, 3, 1])
    turned = affine.copy()
    turned[:3, :3] = affine[:3, :3][:, order]
    volumes = [volume.transpose(order) for volume in case()]
    assert overlay_png(*volumes, turned) == overlay_png(*case(), affine)


def test_sides_are_as_long_as_in_the_patient_and_nothing_is_no_error():
    flat = np.zeros((8, 10, 4), np.float32)
    picture = pixels(overlay_png(flat, flat > 0, flat, np.diag([1.0, 2, 1, 1])))
    assert picture.shape[0] == 20 / 8 * picture.shape[1] and not picture.any()


def test_a_png_is_read_back_to_the_bit():
    values = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(pixels(png(values)), values)
