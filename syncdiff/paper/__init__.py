"""The model of the SyncDiff paper. What it states and what was inferred, with sources: docs/paper.md.

denoiser   the U-Net, its noise schedule, VQ-f4 latents
avhubert   the speech encoder
frames     the square that is generated, and the mask in it
generator  autoregressive generation, frame after frame
released   networks by others, from files that are given
"""
