"""Decoded pictures of any kind -> upright, progressive, 8-bit, SDR yuv as it is encoded. Runs in the decode worker."""

from __future__ import annotations

from dataclasses import astuple
from fractions import Fraction
from typing import Any

import av
import av.error
import av.filter
import av.video
import numpy as np

from syncdiff.media.clip import Colour, sws_matrix
from syncdiff.media.tonemap import TRANSFERS, write_cube

PIX_FMTS = {True: ("yuv420p", "yuvj420p"), False: ("yuv444p", "yuvj444p")}  # by whether both sides are even
MATRIX_NAMES = {1: "bt709", 4: "fcc", 5: "smpte170m", 7: "smpte240m", 9: "bt2020"}  # by swscale's number
# signs of a, b, c, d of a display matrix -> the filters that apply it
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

CLOCKWISE = {0: (), 90: ("transpose=clock",), 180: ("hflip", "vflip"), 270: ("transpose=cclock",)}  # by degrees


class FrameNormalizer:
    """Converts all pictures of a video to the size and pixel format of the first, turned by `clockwise` degrees.

    Even sizes become yuv420p, which every browser plays. H.264 cannot crop 4:2:0 to an odd size, so odd sizes become
    yuv444p: the size is kept, but players that need 4:2:0 (Safari) cannot play the result."""

    def __init__(self, first: av.VideoFrame, stream: av.video.VideoStream | None, clockwise: int = 0) -> None:
        turn = _turn(first)
        self._filters = (*TURNS[turn], *CLOCKWISE[clockwise])
        sideways = (turn[0] == 0) != (clockwise in (90, 270))  # as stored in the file
        self._size = (first.width, first.height)
        aspect = (stream.sample_aspect_ratio if stream else None) or Fraction(1)
        self.aspect = 1 / aspect if sideways else aspect
        self.width, self.height = self._size[::-1] if sideways else self._size
        self._even = self.width % 2 == self.height % 2 == 0
        self._hdr = first.color_trc in TRANSFERS and not first.format.is_rgb
        self.colour = self._colour(first)
        self._interlaced = False
        self._notes: dict[str, str] = self._first_notes()
        self._shape: tuple[Any, ...] = ()
        self._graph: av.filter.Graph | None = None

    @property
    def notes(self) -> list[str]:
        """Sentences on what was changed in the pictures so far."""
        return list(self._notes.values())

    def facts(self) -> dict[str, Any]:
        """Size, colour and pixel aspect for the Clip."""
        colour, aspect = astuple(self.colour), str(self.aspect)
        return {"width": self.width, "height": self.height, "colour": colour, "aspect": aspect}

    def push(self, image: av.VideoFrame) -> list[av.VideoFrame]:
        """Normalise one picture; returns those that are ready, in order. A picture may come out at a later call."""
        image = self._on_white(image)
        self._interlaced |= image.interlaced_frame
        shape = (image.width, image.height, image.format.name, image.colorspace, image.color_range, self._interlaced)
        ready = []
        if self._shape != shape:
            ready = self.flush()
            self._shape, self._graph = shape, self._build(image)
        if self._graph is None:
            return [*ready, self._tagged(image)]
        self._graph.vpush(image)
        return [*ready, *self._pull(self._graph)]

    def flush(self) -> list[av.VideoFrame]:
        """The pictures that are still in the filters."""
        graph, self._graph, self._shape = self._graph, None, ()
        if graph is None:
            return []
        graph.vpush(None)
        return self._pull(graph)

    def _pull(self, graph: av.filter.Graph) -> list[av.VideoFrame]:
        pictures = []
        while True:
            try:
                pictures.append(self._tagged(graph.vpull()))
            except (av.error.BlockingIOError, av.error.EOFError):
                return pictures

    def _tagged(self, picture: av.VideoFrame) -> av.VideoFrame:
        picture.colorspace, picture.color_range = self.colour.matrix, 2 if self.colour.full else 1
        picture.color_primaries, picture.color_trc = self.colour.primaries, self.colour.transfer
        return picture

    def _on_white(self, image: av.VideoFrame) -> av.VideoFrame:
        """The picture without transparency, over white."""
        if not any(component.is_alpha for component in image.format.components):
            return image
        pixels = image.to_ndarray(format="rgba")
        alpha = pixels[..., 3:].astype(np.uint16)
        if alpha.min() < 255:
            self._notes["alpha"] = "The picture has transparent parts; they were laid on white."
        opaque = (255 - ((255 - pixels[..., :3].astype(np.uint16)) * alpha + 127) // 255).astype(np.uint8)
        plain = av.VideoFrame.from_ndarray(opaque, format="rgb24")
        plain.pts, plain.time_base = image.pts, image.time_base
        return plain

    def _colour(self, first: av.VideoFrame) -> Colour:
        if self._hdr:
            return Colour(1, 1, 1, full=False)
        if first.format.is_rgb or any(component.is_alpha for component in first.format.components):
            return Colour(1, 1, 13, full=False)
        full = first.color_range == 2 or first.format.name.startswith("yuvj")
        return Colour(first.colorspace, first.color_primaries, first.color_trc, full)

    def _first_notes(self) -> dict[str, str]:
        notes = {}
        if self._hdr:
            notes["hdr"] = "The video is HDR; it was tone-mapped to standard range."
        if not self._even:
            size = f"{self.width}x{self.height}"
            notes["odd"] = f"The picture has an odd size, {size}; it is kept, but Safari may not play it."
        return notes

    def _build(self, image: av.VideoFrame) -> av.filter.Graph | None:
        """The filters for pictures like this one; None where nothing needs to be changed."""
        same = image.format.name in PIX_FMTS[self._even] and (image.width, image.height) == self._size
        if (image.width, image.height) != self._size:
            self._notes["size"] = (
                f"The picture changes its size on the way, to {image.width}x{image.height}; that part was fitted into "
                f"the first size, {self._size[0]}x{self._size[1]}, with black bars."
            )
        if self._interlaced:
            self._notes["interlaced"] = "The video is interlaced; it was deinterlaced."
        if same and not self._filters and not self._hdr and not self._interlaced:
            return None
        deinterlace = ["bwdif=mode=send_frame:deint=interlaced"] if self._interlaced else []
        steps = [*deinterlace, *self._to_sdr(image), *self._filters, f"format={PIX_FMTS[self._even][0]}"]
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
        fitted = f"{W}:{H}:force_original_aspect_ratio=decrease"  # no change where the size is the first one's
        scale = f"scale={fitted}:flags=bicubic+accurate_rnd+full_chroma_int"
        if not image.format.is_rgb:
            scale += f":in_color_matrix={matrix_in}:in_range={'full' if full else 'limited'}"
        matrix_out = MATRIX_NAMES[sws_matrix(self.colour.matrix, image.height)]
        bars = [f"pad={W}:{H}:(ow-iw)/2:(oh-ih)/2"] if (image.width, image.height) != self._size else []
        out = f"out_color_matrix={matrix_out}:out_range={'full' if self.colour.full else 'limited'}"
        if not self._hdr:
            return [f"{scale}:{out}", *bars]
        write_cube("hdr.cube", TRANSFERS[image.color_trc])
        to_yuv = f"scale=flags=bicubic+accurate_rnd:{out}"
        return [scale, "format=gbrp16le", "lut3d=file=hdr.cube:interp=tetrahedral", to_yuv, *bars]


def _turn(image: av.VideoFrame) -> tuple[int, int, int, int]:
    """The key of TURNS for the picture's display matrix; of one that is not a multiple of 90 degrees, no turn."""
    data = image.side_data.get("DISPLAYMATRIX")
    if data is None:
        return (1, 0, 0, 1)
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), "<i4")[:9].tolist()
    largest = max(abs(a), abs(b), abs(c), abs(d)) or 1
    turn = tuple(round(value / largest) for value in (a, b, c, d))
    return turn if turn in TURNS else (1, 0, 0, 1)
