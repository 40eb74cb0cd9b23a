"""Linear alignment of one image with another: stored transforms, or found by SimpleITK.

All transforms here map points of the fixed image to points of the moving one, which is what
resampling onto the fixed grid needs.  Found ones are the same to the bit on every run: one
thread, and a fixed seed for the jitter of the points that are compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import SimpleITK as sitk

from lesion_core.paths import read_text


def read_transform(path: Path) -> sitk.AffineTransform:
    """Read an ITK text file with one 3D affine, whatever the class's name in it.

    The Ljubljana archive's are of class MatrixOffsetTransformBase, which SimpleITK reads but
    cannot use.

    Raises:
        ValueError: not such a file.
    """
    fields = {"Parameters": 12, "FixedParameters": 3}
    found: dict[str, list[float]] = {}
    lines = read_text(path).splitlines()
    try:
        for line in lines:
            key, _, numbers = line.partition(":")
            if key.strip() in fields:
                if key.strip() in found:
                    raise ValueError("more than one transform")
                found[key.strip()] = [float(number) for number in numbers.split()]
        for key, length in fields.items():
            if len(found.get(key, [])) != length:
                raise ValueError(f"{len(found.get(key, []))} {key}")
        transform = sitk.AffineTransform(3)
        transform.SetFixedParameters(found["FixedParameters"])
        transform.SetParameters(found["Parameters"])
        transform.GetInverse()
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(
            f"{path}: no usable transform ({reason}); expected an ITK text file with one 3D "
            "affine: 12 Parameters and 3 FixedParameters"
        ) from None
    return transform


def rigid(
    fixed: sitk.Image, moving: sitk.Image, fixed_mask: sitk.Image | None = None
) -> sitk.Euler3DTransform:
    """Align rigidly: rotation and translation by Mattes mutual information, from coarse to fine.

    Begins with the centres of mass on each other; only the fixed mask, if any, is compared.
    """
    with one_thread():
        start = sitk.Euler3DTransform(
            sitk.CenteredTransformInitializer(
                fixed,
                moving,
                sitk.Euler3DTransform(),
                sitk.CenteredTransformInitializerFilter.MOMENTS,
            )
        )
        _method(fixed_mask, start).Execute(fixed, moving)
    return start


def affine(
    fixed: sitk.Image, moving: sitk.Image, fixed_mask: sitk.Image | None = None
) -> sitk.AffineTransform:
    """Align with twelve degrees of freedom, by the same means, beginning with `rigid`."""
    first = rigid(fixed, moving, fixed_mask)
    start = sitk.AffineTransform(3)
    start.SetCenter(first.GetCenter())
    start.SetMatrix(first.GetMatrix())
    start.SetTranslation(first.GetTranslation())
    with one_thread():
        _method(fixed_mask, start).Execute(fixed, moving)
    return start


def resample(
    moving: sitk.Image,
    grid: sitk.Image,
    transform: sitk.Transform,
    interpolator: int = sitk.sitkBSpline,
) -> sitk.Image:
    """The moving image on another's grid; 0 where it does not reach."""
    return sitk.Resample(moving, grid, transform, interpolator, 0.0)


@contextmanager
def one_thread() -> Iterator[None]:
    """SimpleITK computes with one thread in this block.

    Sums by several threads would differ in the last bits from run to run.
    """
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)


def _method(fixed_mask: sitk.Image | None, start: sitk.Transform) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(40)
    if fixed_mask is not None:
        method.SetMetricFixedMask(fixed_mask)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.25, 1)  # the seed: even regular points are jittered
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 200, 0.5)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([6, 3, 1.5])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(start, True)
    return method
