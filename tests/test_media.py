"""Files in: every kind of video, photo and sound arrives with its pictures, its clock and its sound where they belong."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_fixtures import (
    click_at,
    decode,
    luma,
    make_sound,
    make_video,
    number_in,
    numbered,
    psnr,
    turn_in_file,
)

from syncdiff.media import SAMPLE_RATE, open_clip, open_speech
