"""Marks of redrawn lips, and their detection. Imports no model and no job.

Nothing is imported here: `manifest` is run as a process of its own for every file that is read.

label      small words in the corner of every frame
watermark  invisible, in the redrawn mouth
manifest   a signed C2PA manifest in the file
verify     all three, read back from any file, in plain words
"""
