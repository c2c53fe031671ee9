"""Noise schedule, sampler and losses."""
