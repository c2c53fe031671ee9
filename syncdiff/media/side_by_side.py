"""One video with the original beside the result."""

from pathlib import Path

from syncdiff.errors import InputError, raise_if_full
from syncdiff.server_tmpdir import RESULT_PREFIX, locked_tmpdir

HEIGHT = 720  # px at the most, of either side


def side_by_side(original: Path, result: Path, out: Path) -> Path:
    """Write `out` (mp4): `original` left, `result` right, at the same height, with the sound of `result`.

    Both must be files that a job wrote: they are decoded in this process. The shorter one holds its last frame. Returns
    `out`. Raises InputError where either cannot be read or `out` cannot be written."""
    from moviepy import VideoFileClip, clips_array

    try:
        with (
            locked_tmpdir(out.parent, RESULT_PREFIX) as folder,
            VideoFileClip(str(original), audio=False) as left,
            VideoFileClip(str(result)) as right,
        ):
            height = min(HEIGHT, max(left.h, right.h)) // 2 * 2
            sides = [side.resized((round(side.w * height / side.h / 2) * 2, height)) for side in (left, right)]
            both = clips_array([sides]).with_duration(right.duration).with_audio(right.audio)
            part = folder / "both.mp4"
            both.write_videofile(
                str(part), fps=right.fps, codec="libx264", audio_codec="aac", logger=None,
                temp_audiofile_path=str(folder), ffmpeg_params=["-pix_fmt", "yuv420p", "-movflags", "+faststart"],
            )  # fmt: skip
            part.replace(out)
    except OSError as error:
        raise_if_full(out.parent)
        raise InputError(f"{out.name} could not be made of {original.name} and {result.name}.") from error
    return out
