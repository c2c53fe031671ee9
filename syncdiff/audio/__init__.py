"""Sound features. This file holds the sample rate alone, so that the decode worker imports no torch."""

SAMPLE_RATE = 16_000  # Hz, of every voice that a network hears
