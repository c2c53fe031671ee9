"""`python -m syncdiff sync`: one film."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING

from syncdiff.cli.paths import checked_output, refuse_address
from syncdiff.cli.terminal import STEPS_PER_FRAME, in_words, show_progress
from syncdiff.errors import InputError
from syncdiff.server_tmpdir import RESULT_PREFIX, command_tmpdir, locked_tmpdir

if TYPE_CHECKING:
    from pathlib import Path

    from syncdiff.results import Result


@command_tmpdir()  # covers the import of torch, which leaves an empty folder in the temporary one
def run_sync(arguments: argparse.Namespace) -> int:
    """Redraw one film and print its report. Raises InputError."""
    for path in (arguments.face, arguments.voice):
        refuse_address(path)
    out = checked_output(arguments.out, (arguments.face, arguments.voice))
    compared = arguments.compare and checked_output(arguments.compare, (arguments.face, arguments.voice))
    if compared and compared.resolve() == out.resolve():
        raise InputError(f"The result and the comparison would both be {out.name}: name two files.")

    from syncdiff.job import Job  # takes seconds to import; a wrong path is refused before
    from syncdiff.media.side_by_side import side_by_side
    from syncdiff.options import OPTIONS
    from syncdiff.weights.folders import resolve_weights

    weights, profile = resolve_weights(arguments.weights, arguments.profile)
    tail, correct = "trim" if arguments.trim else None, arguments.correct_offset
    options = OPTIONS[profile].of(
        steps=arguments.steps, seed=arguments.seed, face=arguments.index, tail=tail, correct_offset=correct
    )
    with locked_tmpdir(out.parent, RESULT_PREFIX) if compared else nullcontext() as folder:
        job = Job.ready(weights, arguments.attention, source_copy=compared is not None)
        target = folder / out.name if folder else out  # the job's copy of the source must not replace a user's file
        with closing(job(arguments.face, arguments.voice, target, options)) as updates:
            steps_per_frame = STEPS_PER_FRAME | {"drawing": options.steps + 1}
            result = show_progress(updates, quiet=arguments.quiet, steps_per_frame=steps_per_frame)
        if compared:
            result.video.replace(out)
            side_by_side(result.source, out, compared)
    if arguments.json:
        report = result.report() | {"video": str(out)}
        del report["source"]  # its file is gone
        print(json.dumps(report))
    else:
        print("\n".join(summary(result, out)))
    return 0


def summary(result: Result, out: Path) -> Iterator[str]:
    """The lines that `sync` prints about the result, which lies at `out`."""
    seconds = ", ".join(f"{stage} {took:.1f} s" for stage, took in result.seconds.items())
    yield f"{out}: {result.frames} frames ({seconds}; peak memory {result.peak_memory_mib:.0f} MiB)"
    for gap in result.passed_through:
        yield f"{gap.start:.1f} to {gap.end:.1f} s is left as it was: {gap.reason}"
    yield from result.notes
    yield f"source: {in_words(result.source_scores)}"
    yield f"result: {in_words(result.result_scores)}"
    yield from (f"source: {in_words(face)}" for face in result.source_lse)
    yield from (f"result: {in_words(face)}" for face in result.result_lse)
    if result.lse_needs:
        yield result.lse_needs
