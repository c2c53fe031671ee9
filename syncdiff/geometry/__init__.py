"""Crops of an upright face, the shape of a mouth, and warping one mouth to another shape."""
