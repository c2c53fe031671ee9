"""Marks that say that lips were redrawn, and their detection.

label      visible words in the corner of every frame
watermark  invisible, in the redrawn mouth
manifest   a signed C2PA manifest in the file
verify     detects all three in any file, and describes them in sentences

This file imports nothing: `manifest` starts as a process of its own for every file that is read.
"""
