"""`python -m syncdiff score`: how well lips and sound of a video, or of the videos in a folder, agree."""

from __future__ import annotations

import argparse
import json
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from syncdiff.cli.paths import refuse_address
from syncdiff.cli.terminal import STEPS_PER_FRAME, in_words, show_progress
from syncdiff.errors import InputError
from syncdiff.server_tmpdir import command_tmpdir

if TYPE_CHECKING:
    from syncdiff.sync.syncnet_v2 import SyncNet


@command_tmpdir()
def run_score(arguments: argparse.Namespace) -> int:
    """Score a video, or every video of a folder. Raises InputError."""
    refuse_address(arguments.video)

    from syncdiff.sync import syncnet_v2
    from syncdiff.weights import ask_on_terminal

    fetched = syncnet_v2.fetch_weights(ask_on_terminal) if arguments.fetch else None
    net = syncnet_v2.load(arguments.syncnet or fetched)
    return (score_folder if arguments.video.is_dir() else score_video)(arguments, net)


def score_video(arguments: argparse.Namespace, net: SyncNet | None) -> int:
    """Print the judge's scores of one video, and LSE where SyncNet is installed."""
    from syncdiff.job import Job
    from syncdiff.sync import syncnet_v2

    with closing(Job.ready().score(arguments.video)) as updates:
        scores = show_progress(updates, quiet=arguments.quiet, steps_per_frame=STEPS_PER_FRAME)
    lse, lse_needs = (), syncnet_v2.how_to_get()
    if net is not None:
        try:
            steps = as_progress(syncnet_v2.score_video(arguments.video, net, arguments.lse or "tracks"))
            lse = show_progress(steps, quiet=arguments.quiet)
        except InputError as sentence:  # the face detector's files are missing; the judge's score still counts
            lse_needs = str(sentence)
    if arguments.json:
        report = {"lse": [asdict(face) for face in lse]} if lse else {"lse": None, "lse_needs": lse_needs}
        print(json.dumps(asdict(scores) | report))
    else:
        print(in_words(scores))
        print("\n".join(map(in_words, lse)) or lse_needs)
    return 0


def score_folder(arguments: argparse.Namespace, net: SyncNet | None) -> int:
    """Print LSE of every video of a folder, and the mean. Raises InputError without SyncNet."""
    from syncdiff.sync import syncnet_v2

    if net is None:
        raise InputError(f"{arguments.video} is a folder, which only LSE scores. {syncnet_v2.how_to_get()}")
    steps = as_progress(syncnet_v2.score_folder(arguments.video, net, arguments.lse or "frame"))
    videos = show_progress(steps, quiet=arguments.quiet)
    mean = syncnet_v2.mean(videos)
    if arguments.json:
        report = [{"video": str(scored.video), "faces": [asdict(face) for face in scored.scores]} for scored in videos]
        print(json.dumps({"videos": report, "mean": mean and asdict(mean)}))
        return 0
    for scored in videos:
        for face in scored.scores:
            print(f"{scored.video.relative_to(arguments.video)}: {in_words(face)}")
    scorable = [face.scorable for scored in videos for face in scored.scores]
    means = f": LSE-C {mean.confidence:.3f}, LSE-D {mean.distance:.3f} ({mean.judge})" if mean else ""
    print(f"mean of {sum(scorable)} scored of {len(scorable)}{means}")
    return 0


def as_progress(steps: Generator[float, None, Any]) -> Iterator[Any]:
    """Yield fractions 0..1 as Progress, then the generator's return value, as `show_progress` takes them."""
    from syncdiff.progress import adapted
    from syncdiff.results import Progress

    yield (yield from adapted(steps, lambda done: Progress("scoring", round(100 * done), 100)))
