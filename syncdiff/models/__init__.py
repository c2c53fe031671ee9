"""The compact profile's networks and its exact pixel codec."""

from syncdiff.late_imports import load_diffusers

load_diffusers()
