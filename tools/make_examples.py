"""Make the comparisons that the page shows at first: `python tools/make_examples.py [--steps N]`, or `make examples`.

Runs every pair of assets/examples/examples.json through the shipped weights and writes KEY-compared.mp4 beside it, the
original left and the result right, and preview.jpg, the picture that other sites show for a link to the page."""

import argparse
import shutil
import tempfile
from pathlib import Path

import av
from PIL import Image, ImageOps

from syncdiff.job import Job
from syncdiff.media.side_by_side import side_by_side
from syncdiff.options import SampleOptions
from syncdiff.web.examples import EXAMPLES, examples

PREVIEW = 1200, 630  # px, as the sites want it
MOMENT = 1.0  # s of the comparison that the preview shows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=SampleOptions().steps, help="denoising steps a frame")
    options = SampleOptions(steps=parser.parse_args().steps)
    job = Job.ready()
    with tempfile.TemporaryDirectory(prefix="syncdiff-") as folder:
        for example in examples().values():
            *_, result = job(example.face, example.voice, Path(folder) / f"{example.key}.mp4", options)
            both = side_by_side(result.source, result.video, Path(folder) / example.compared.name)
            shutil.copyfile(both, example.compared)
            print(example.compared, *result.notes, result.result_scores, sep="\n  ")
    first = next(iter(examples().values()))
    with av.open(str(first.compared)) as container:
        frame = next(frame for frame in container.decode(video=0) if frame.time >= MOMENT)
        picture = ImageOps.fit(frame.to_image(), PREVIEW, Image.Resampling.LANCZOS)
    picture.save(EXAMPLES / "preview.jpg", quality=85)


if __name__ == "__main__":
    main()
