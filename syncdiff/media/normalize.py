"""Decoded pictures of any kind -> upright, 8-bit, SDR yuv as it will be encoded. Runs inside the intake process."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import av.filter
import numpy as np

from syncdiff.media.clip import Colour, sws_matrix
from syncdiff.media.tonemap import TRANSFERS, write_cube

AS_IT_IS = {True: ("yuv420p", "yuvj420p"), False: ("yuv444p", "yuvj444p")}
MATRIX_NAMES = {1: "bt709", 4: "fcc", 5: "smpte170m", 7: "smpte240m", 9: "bt2020"}  # by swscale's number
# where a display matrix sends x and y (signs of a, b, c, d) -> the filters that do it
TURNS = {
    (1, 0, 0, 1): (),
    (-1, 0, 0, 1): ("hflip",),
    (1, 0, 0, -1): ("vflip",),
    (-1, 0, 0, -1): ("hflip", "vflip"),
    (0, 1, 1, 0): ("transpose=cclock_flip",),
    (0, 1, -1, 0): ("transpose=clock",),
    (0, -1, 1, 0): ("transpose=cclock",),
    (0, -1, -1, 0): ("transpose=clock_flip",),
}


class FrameNormalizer:
    """Brings every picture of a video into the shape the first one decides.

    Even sizes become yuv420p, which every browser plays. H.264 cannot crop 4:2:0 to an odd size, so odd sizes become
    yuv444p: the size stays what it was, at the price of players that only know 4:2:0 (Safari)."""

    def __init__(self, first: av.VideoFrame, stream: av.video.VideoStream | None) -> None:
        turn = _turn(first)
        self._filters = TURNS[turn]
        self._size = (first.width, first.height)
        aspect = (stream.sample_aspect_ratio if stream else None) or Fraction(1)
        self.aspect = aspect if turn[0] else 1 / aspect
        self.width, self.height = self._size if turn[0] else self._size[::-1]
        self._even = self.width % 2 == self.height % 2 == 0
        self._hdr = first.color_trc in TRANSFERS and not first.format.is_rgb
        self.colour = self._colour(first)
        self.notes = self._notes()
        self._graph: tuple[Any, av.filter.Graph | None] = (None, None)

    def facts(self) -> dict[str, Any]:
        """What the Clip shall know of its pictures."""
        colour = [self.colour.matrix, self.colour.primaries, self.colour.transfer, self.colour.full]
        return {"width": self.width, "height": self.height, "colour": colour, "aspect": str(self.aspect)}

    def __call__(self, image: av.VideoFrame) -> av.VideoFrame:
        """The picture upright and tagged."""
        shape = (image.width, image.height, image.format.name, image.colorspace, image.color_range)
        if self._graph[0] != shape:
            self._graph = shape, self._build(image)
        graph = self._graph[1]
        if graph is None:
            picture = image
        else:
            graph.vpush(image)
            picture = graph.vpull()
        picture.colorspace, picture.color_range = self.colour.matrix, 2 if self.colour.full else 1
        picture.color_primaries, picture.color_trc = self.colour.primaries, self.colour.transfer
        return picture

    def _colour(self, first: av.VideoFrame) -> Colour:
        if self._hdr:
            return Colour(1, 1, 1, full=False)
        if first.format.is_rgb:
            return Colour(1, 1, 13, full=False)
        full = first.color_range == 2 or first.format.name.startswith("yuvj")
        return Colour(first.colorspace, first.color_primaries, first.color_trc, full)

    def _notes(self) -> list[str]:
        notes = []
        if self._hdr:
            notes.append("The video is HDR; it was tone-mapped to standard range.")
        if not self._even:
            size = f"{self.width}x{self.height}"
            notes.append(f"The picture has an odd size, {size}; it is kept, but Safari may not play it.")
        return notes

    def _build(self, image: av.VideoFrame) -> av.filter.Graph | None:
        """The filters from this kind of picture to the common one; None when there is nothing to do."""
        same = image.format.name in AS_IT_IS[self._even] and (image.width, image.height) == self._size
        if same and not self._filters and not self._hdr:
            return None
        steps = [*self._to_sdr(image), *self._filters, f"format={AS_IT_IS[self._even][0]}"]
        graph = av.filter.Graph()
        source = f"video_size={image.width}x{image.height}:pix_fmt={image.format.name}:time_base=1/1000"
        nodes = [graph.add("buffer", f"{source}:colorspace={image.colorspace}:range={image.color_range}")]
        for step in steps:
            filter_name, _, arguments = step.partition("=")
            nodes.append(graph.add(filter_name, arguments or None))
        nodes.append(graph.add("buffersink"))
        graph.link_nodes(*nodes).configure()
        return graph

    def _to_sdr(self, image: av.VideoFrame) -> list[str]:
        W, H = self._size
        matrix_in = MATRIX_NAMES[sws_matrix(image.colorspace, image.height)]
        full = image.color_range == 2 or image.format.name.startswith("yuvj")
        said = f"scale={W}:{H}:flags=bicubic+accurate_rnd+full_chroma_int"
        if not image.format.is_rgb:
            said += f":in_color_matrix={matrix_in}:in_range={'full' if full else 'limited'}"
        matrix_out = MATRIX_NAMES[sws_matrix(self.colour.matrix, image.height)]
        out = f"out_color_matrix={matrix_out}:out_range={'full' if self.colour.full else 'limited'}"
        if not self._hdr:
            return [f"{said}:{out}"]
        write_cube("hdr.cube", TRANSFERS[image.color_trc])
        back = f"scale=flags=bicubic+accurate_rnd:{out}"
        return [said, "format=gbrp16le", "lut3d=file=hdr.cube:interp=tetrahedral", back]


def _turn(image: av.VideoFrame) -> tuple[int, int, int, int]:
    data = image.side_data.get("DISPLAYMATRIX")
    if data is None:
        return (1, 0, 0, 1)
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), "<i4")[:9].tolist()
    largest = max(abs(a), abs(b), abs(c), abs(d)) or 1
    turn = tuple(round(value / largest) for value in (a, b, c, d))
    return turn if turn in TURNS else (1, 0, 0, 1)
