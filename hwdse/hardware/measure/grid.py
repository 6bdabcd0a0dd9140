"""The standard grid of layer shapes: what a profile is made of where no network is given."""

from __future__ import annotations

from hwdse.hardware.lut import ShapeKey
from hwdse.hardware.measure.subject import LayerShape

__all__ = ["standard_grid"]

# Output rows and channels of the stages of common image networks.
STAGES = ((32, 16), (56, 64), (28, 128), (14, 256), (7, 512))
MOBILE_STAGES = ((112, 32), (56, 96), (28, 144), (14, 384), (7, 960))
WIDTHS = ((384, 384), (384, 1536), (1536, 384), (768, 3072))
ATTENTION = ((64, 128), (128, 64))


def standard_grid() -> tuple[LayerShape, ...]:
    """Return layers of every class between some hundred thousand and some hundred million MACs, each shape once."""
    shapes = [
        LayerShape.conv((3, 32), 3, 2, 112),
        LayerShape.conv((3, 64), 7, 2, 112),
        LayerShape.conv((3, 16), 3, 1, 32),
    ]
    for size, channels in STAGES:
        shapes.append(LayerShape.conv((channels, channels), 3, 1, size))
        shapes.append(LayerShape.conv((channels // 2, channels), 3, 2, size))
        shapes.append(LayerShape.conv((channels, channels), 1, 1, size))
        shapes.append(LayerShape.conv((channels, 4 * channels), 1, 1, size))
        shapes.append(LayerShape.conv((channels, channels), 3, 1, size, groups=4))
    for size, channels in MOBILE_STAGES:
        shapes.append(LayerShape.conv((channels, channels), 3, 1, size, groups=channels))
        shapes.append(LayerShape.conv((channels, channels), 3, 2, max(size // 2, 1), groups=channels))
        shapes.append(LayerShape.conv((channels, max(channels // 6, 8)), 1, 1, size))
    for features in WIDTHS:
        shapes += [LayerShape.linear(features, rows=rows) for rows in (1, 16, 128)]
    shapes += [LayerShape.linear((1280, 1000)), LayerShape.linear((512, 10)), LayerShape.linear((64, 10))]
    for inner, columns in ATTENTION:
        shapes += [
            LayerShape(ShapeKey("matmul", inner, columns, (), (), 1, (heads, rows)))
            for heads, rows in ((6, 128), (12, 128), (4, 64))
        ]
    return tuple(dict.fromkeys(shapes))
