"""The published evaluation: figures that are known beforehand, and a run over two films with a pipeline that copies."""

from __future__ import annotations

import csv
import hashlib
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from syncdiff.errors import InputError
from syncdiff.evaluation import input_sensitivity, protocol
from syncdiff.evaluation import perceptual_metrics as module
from syncdiff.evaluation.baselines import most_alike
from syncdiff.evaluation.input_sensitivity import evaluate_input_sensitivity
from syncdiff.evaluation.paper_results import TOLD_BY_4, WRAPPED, published
from syncdiff.evaluation.perceptual_metrics import load_inception, load_lpips
from syncdiff.evaluation.protocol import (
    COLUMNS,
    LipReading,
    evaluate_as_published,
    faces_of,
    frechet,
    psnr,
    similarity,
    word_errors,
    wrapped_psnr,
)
from syncdiff.options import SampleOptions
from syncdiff.paper import PaperDenoiser, paper_schedule
from syncdiff.paper.avhubert import AVHubert
from syncdiff.pipeline import SyncDiffPipeline
from syncdiff.training import lrs
from tests.released import small_vq, stirred

EXAMPLES = Path(__file__).parent.parent / "assets" / "examples"


def noisy(level: float) -> tuple[np.ndarray, np.ndarray]:
    """A smooth picture [1, 256, 256, 3] and the same with Gaussian noise."""
    y, x = np.mgrid[:256, :256]
    truth = np.stack([64 + x / 2, 64 + y / 2, 128 + (x - y) / 4], -1)[None]
    drawn = truth + np.random.default_rng(0).normal(0, level, truth.shape)
    return (*(np.clip(np.rint(p), 0, 255).astype(np.uint8) for p in (drawn, truth)),)


def test_psnr_of_one_level_is_known():
    a = np.full((2, 96, 96, 3), 100, np.uint8)
    assert psnr(a + 1, a) == pytest.approx(20 * np.log10(255))
    assert wrapped_psnr(a + 1, a) == pytest.approx(20 * np.log10(255))
    assert psnr(a, a) is None


@pytest.mark.parametrize(("level", "wrapped"), [(4.0, 36.15), (5.9, 33.0), (13.6, 29.48), (19.2, 28.82)])
def test_wrapped_bytes_flatter(level, wrapped):
    """Pairs of true and wrapped PSNR measured once for docs/paper.md; the wrapped one never gets below 27.9 dB."""
    drawn, truth = noisy(level)
    assert wrapped_psnr(drawn, truth) == pytest.approx(wrapped, abs=0.35)
    assert psnr(drawn, truth) <= wrapped_psnr(drawn, truth) + 0.05


def test_random_pictures_wrapped_read_27_9_db():
    a, b = np.random.default_rng(0).integers(0, 256, (2, 1, 256, 256, 3), dtype=np.uint8)
    assert wrapped_psnr(a, b) == pytest.approx(27.9, abs=0.1)
    assert psnr(a, b) == pytest.approx(7.8, abs=0.1)


def test_similarity_is_scikit_images():
    metrics = pytest.importorskip("skimage.metrics", reason="no scikit-image: SSIM was NOT compared with its")
    drawn, truth = noisy(20)
    theirs = metrics.structural_similarity(
        drawn[0],
        truth[0],
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
    )
    assert similarity(drawn, truth) == pytest.approx(theirs, abs=1e-4)


def test_frechet_distance_of_gaussians_is_known():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (200_000, 2)) * (1, 2), rng.normal(0, 1, (200_000, 2)) * (3, 1) + (0, 2)
    assert frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet(a, b) == pytest.approx(4 + (3 - 1) ** 2 + (2 - 1) ** 2, rel=0.02)


@pytest.mark.parametrize(
    ("said", "read", "errors"),
    [("A B C", "a b c", 0), ("A B C", "A C", 1), ("A B", "A X B Y", 2), ("A B C", "", 3), ("A B C", "C A B", 2)],
)
def test_word_errors(said, read, errors):
    assert word_errors(said, read) == (errors, len(said.split()))


def test_faces_are_cut_where_the_boxes_are():
    image = np.zeros((200, 200, 3), np.uint8)
    image[40:140, 60:160] = 255
    boxes = np.array([[60.0, 40, 160, 140], [np.nan] * 4, [60, 40, 260, 240]])
    faces = faces_of([image] * 3, boxes)
    assert faces.shape == (2, 96, 96, 3)
    assert (faces[0] == 255).all()
    assert (faces[1] == 0).any()


def test_the_published_rows_are_the_papers():
    lrs2, lrs3 = published("1", "LRS2"), published("1", "LRS3")
    assert round(100 * (lrs2["SyncDiff"]["LSE-C"] / lrs2["DiffTalk"]["LSE-C"] - 1), 1) in (27.6, 27.7)
    assert round(100 * (lrs3["SyncDiff"]["LSE-C"] / lrs3["DiffTalk"]["LSE-C"] - 1), 1) == 42.1  # not 62.3
    for table, row in (("3", "Rnd + Prv-"), ("5", "NP = 1"), ("6", "NF = 9")):  # the final model under other names
        assert published(table)[row] == lrs2["SyncDiff"]
    assert published("2")["AV-HuBERT"] == published("3")["Rnd"]
    assert published("2")["DeepSpeech"] == lrs2["DiffTalk"]


# --- other people's networks, here small ones of our own under their names


@pytest.fixture
def backbones(tmp_path, monkeypatch) -> Path:
    """Packages that look as theirs do from outside, and files under their names in torch's folder."""
    packages, files = tmp_path / "packages", tmp_path / "hub" / "checkpoints"
    files.mkdir(parents=True)
    names = {}
    for constant in ("ALEXNET", "INCEPTION"):
        torch.save(torch.nn.Conv2d(3, 8, 5, stride=4).state_dict(), files / "new.pth")
        digest = hashlib.sha256((files / "new.pth").read_bytes()).hexdigest()
        names[constant] = f"{constant.lower()}-{digest[:8]}.pth"
        (files / "new.pth").rename(files / names[constant])
        monkeypatch.setattr(module, constant, names[constant])
    load = f"""import torch
def load(name):
    net = torch.nn.Conv2d(3, 8, 5, stride=4)
    net.load_state_dict(torch.load("{files}/" + name, weights_only=True))
    return net
"""
    sources = {
        "lpips/__init__.py": load
        + f"""
class LPIPS(torch.nn.Module):
    def __init__(self, net, verbose):
        super().__init__()
        assert net == "alex"
        self.net = load("{names["ALEXNET"]}")
    def forward(self, a, b):
        assert -1 <= a.min() < -0.5 and 0.5 < a.max() <= 1 and a.shape[1:] == (3, 96, 96)
        return (self.net(a) - self.net(b)).square().mean((1, 2, 3), keepdim=True)
""",
        "pytorch_fid/__init__.py": "",
        "pytorch_fid/inception.py": load
        + f"""
class InceptionV3(torch.nn.Module):
    BLOCK_INDEX_BY_DIM = {{2048: 3}}
    def __init__(self, blocks):
        super().__init__()
        assert blocks == [3]
        self.net = load("{names["INCEPTION"]}")
    def forward(self, x):
        assert 0 <= x.min() and x.max() <= 1
        return [self.net(x).mean((2, 3), keepdim=True)]
""",
    }
    for name, source in sources.items():
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).write_text(source)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.syspath_prepend(packages)
    yield files
    for name in ("lpips", "pytorch_fid", "pytorch_fid.inception"):
        sys.modules.pop(name, None)


def test_lpips_and_fid_where_their_networks_are(backbones):
    drawn, truth = np.random.default_rng(0).integers(0, 256, (2, 40, 96, 96, 3), dtype=np.uint8)  # two pieces
    distance, features = load_lpips(), load_inception()
    assert distance(truth, truth) == 0
    assert distance(drawn, truth) == pytest.approx(
        np.mean([distance(a[None], b[None]) for a, b in zip(drawn, truth, strict=True)])
    )
    assert features(truth).shape == (40, 8)
    assert np.allclose(features(truth)[33:34], features(truth[33:34]), atol=1e-6)
    assert frechet(features(truth), features(truth)) == pytest.approx(0, abs=1e-6)
    assert frechet(features(drawn // 4), features(truth)) > 0.01


def test_without_their_files_lpips_and_fid_say_what_they_need(backbones):
    alexnet, inception = backbones / module.ALEXNET, backbones / module.INCEPTION
    alexnet.unlink()
    inception.write_bytes(b"another network, or a program")
    assert load_lpips() == f"LPIPS is not told: it needs the package lpips and {alexnet.name} in {backbones}."
    found = hashlib.sha256(inception.read_bytes()).hexdigest()
    expected = f"FID is not told: {inception} has the sha256 {found}; expected one that begins as its name ends."
    assert load_inception() == expected


def test_the_most_alike_moment_is_found_a_few_at_a_time():
    own, new = np.random.default_rng(0).normal(size=(2, 600, 4)).astype(np.float32)
    apart = np.square(new[:, None] - own[None]).sum(-1)
    apart[np.abs(np.subtract.outer(np.arange(600), np.arange(600))) < 15] = np.inf
    assert (most_alike(own, new, 15) == apart.argmin(1)).all()


# --- a run


class Copies:
    """A job, and its pipeline, whose result is the film as it was."""

    vae = None

    @property
    def pipe(self) -> Copies:
        return self

    def __init__(self) -> None:
        self.voices: list[Path] = []

    def __call__(self, face, voice, out, options):
        self.voices.append(Path(voice))
        shutil.copy(face, out)
        Path(out).with_name(Path(out).stem + ".source.mp4").touch()
        yield "done"


@pytest.fixture
def corpus(tmp_path, monkeypatch) -> Path:
    """Two speakers of 0.6 s; boxes and landmarks are given, to be quick."""
    from tests.fakes import write_video

    for speaker, words in (("1", "GOOD EVENING"), ("2", "THE WEATHER")):
        (tmp_path / "lrs2" / "main" / speaker).mkdir(parents=True)
        write_video(tmp_path / "lrs2" / "main" / speaker / "00001.mp4", seconds=0.6)
        (tmp_path / "lrs2" / "main" / speaker / "00001.txt").write_text(f"Text:  {words}\n")
    (tmp_path / "lrs2" / "test.txt").write_text("1/00001 MD\n2/00001 NF\n")
    box = np.array([90.0, 15, 230, 155])
    monkeypatch.setattr(protocol, "find_boxes", lambda video, finder: np.tile(box, (15, 1)))
    monkeypatch.setattr(protocol, "opening", lambda images: np.sin(np.arange(len(images))))
    monkeypatch.setattr(protocol.syncnet_v2, "load", lambda: None)
    return tmp_path / "lrs2"


def test_a_run_over_two_films(corpus, tmp_path):
    (tmp_path / "read.tsv").write_text("1/00001\tGOOD MORNING\n2/00001.mp4\tTHE WEATHER\nGT/1/00001\tGOOD EVENING\n")
    pipe, out = Copies(), tmp_path / "run"
    choices = {"listed": corpus / "test.txt", "read": f"AV-HuBERT Large={tmp_path / 'read.tsv'}"}
    told = evaluate_as_published(pipe, corpus, out, SampleOptions(label=False), **choices)
    assert len(pipe.voices) == 6  # each film by its own voice, by the other's, by silence
    assert pipe.voices[1] == corpus / "main" / "2" / "00001.mp4"
    assert pipe.voices[4] == corpus / "main" / "1" / "00001.mp4"
    with (out / "table.csv").open() as file:
        rows = {row["maker"]: row for row in csv.DictReader(file)}
    assert list(rows)[:2] == ["GT", "ours"]
    ours = rows["ours"]
    assert (ours["films"], ours["SSIM"], ours["WER"], ours["lips r"]) == ("2", "1.000", "25.000", "1.000")
    assert (rows["GT"]["films"], rows["GT"]["SSIM"], rows["GT"]["PSNR"], rows["GT"]["WER"]) == (
        "2",
        "1.000",
        "-",
        "0.000",
    )
    assert ours["PSNR"] == ours["LSE-C"] == "-"  # equal pictures have none; no SyncNet here
    assert rows["SyncDiff (published, LRS2)"][WRAPPED] == "32.390"
    assert told == (out / "table.md").read_text().rstrip("\n")
    for missing in ("LPIPS", "FID", "LSE-C", "WER is of AV-HuBERT Large."):
        assert any(line.startswith(missing) for line in told.splitlines())
    assert len(told.splitlines()[0].split("|")) == len(COLUMNS) + 3
    evaluate_as_published(pipe, corpus, out, SampleOptions(label=False), **choices)
    assert len(pipe.voices) == 6  # what was drawn is not drawn again
    told = evaluate_as_published(pipe, corpus, tmp_path / "other", SampleOptions(), number="3", others=[out])
    makers = [line.split("|")[1].strip() for line in told.splitlines() if line.startswith("|")]
    assert makers[2:5] == ["GT", "ours", "ours, run"]
    assert makers[5:] == [f"{row} (published, LRS2)" for row in published("3")]
    with pytest.raises(InputError, match="holds no table of a run"):
        evaluate_as_published(pipe, corpus, tmp_path / "x", SampleOptions(), others=[tmp_path])


def test_what_the_u_net_is_not_told_does_not_move_it(corpus, tmp_path, monkeypatch):
    """Table 4: a network without the identity frame, and one that is deaf to everything else that shows the pose."""
    monkeypatch.setattr(lrs, "_boxes", lambda images, finder: np.tile([90.0, 15, 230, 155], (15, 1)))
    monkeypatch.setattr(input_sensitivity, "SPREAD", 2)
    small = {"widths": (32, 64), "layers": 1, "head": 16, "speech_width": 64}
    without, deaf = stirred(PaperDenoiser(**small, identity=False)), stirred(PaperDenoiser(**small))
    with torch.no_grad():
        deaf.unet.conv_in.weight[:, 3:6] = 0  # the masked frame
        deaf.unet.conv_in.weight[:, 9:] = 0  # the previous one
    speech = AVHubert(width=64, layers=1, hidden=8).eval()
    figures = {}
    for name, net in (("without", without), ("deaf", deaf)):
        pipe = SyncDiffPipeline(net.eval(), speech, paper_schedule(), small_vq())
        others = [tmp_path / "without"] if name == "deaf" else []
        evaluate_input_sensitivity(pipe, corpus, tmp_path / name, listed=corpus / "test.txt", others=others)
        with (tmp_path / name / "table-4.csv").open() as file:
            rows = {row.pop("maker"): row for row in csv.DictReader(file)}
        figures[name] = [float(rows["ours"][column]) for column in TOLD_BY_4]
    assert figures["without"][0] == figures["deaf"][1] == 0
    assert figures["without"][1] > 0.001 < figures["deaf"][0]
    assert rows["ours"]["films"] == "2"
    assert list(rows)[1:] == ["ours, without", "Rnd (published)", "Rnd + Prv- (published)"]
    assert rows["Rnd + Prv- (published)"] == {"films": "-", "identity alone": "0.075", "pose alone": "0.328"}
    with pytest.raises(InputError, match="Table 4 is about the paper's U-Net"):
        evaluate_input_sensitivity(SimpleNamespace(profile="compact"), corpus, tmp_path / "x")


def test_a_film_that_fails_late_counts_for_no_row(corpus, tmp_path, monkeypatch):
    """The silent voice of the second film fails, when its other rows and its features are already there."""

    class Falters(Copies):
        def __call__(self, face, voice, out, options):
            if Path(voice).name == "hush.wav" and "/2/" in str(face):
                raise InputError("The face went away.")
            return super().__call__(face, voice, out, options)

    monkeypatch.setattr(protocol, "load_inception", lambda: lambda pictures: pictures[:, :3, 0, 0].astype(float))
    benches, made = [], protocol.Bench
    monkeypatch.setattr(protocol, "Bench", lambda *given: benches.append(made(*given)) or benches[0])
    told = evaluate_as_published(Falters(), corpus, tmp_path / "run", SampleOptions())
    assert "main/2/00001 is left out: The face went away." in told
    with (tmp_path / "run" / "films.csv").open() as file:
        assert [(row["film"], row["maker"]) for row in csv.DictReader(file)] == [
            ("main/1/00001", "GT"),
            ("main/1/00001", "ours"),
        ]
    assert {maker: len(films) for maker, films in benches[0].features.items()} == {"GT": 1, "ours": 1}
    assert not list((tmp_path / "run").rglob(".*"))


def test_a_film_without_a_box_is_left_out_in_words():
    with pytest.raises(InputError, match="none of its frames has a face box"):
        faces_of([np.zeros((200, 200, 3), np.uint8)], np.full((1, 4), np.nan))


def test_a_film_that_cannot_be_drawn_is_named(corpus, tmp_path):
    def refuses(*_):
        raise InputError("No face was found in the video.")
        yield

    refusing = type("Refusing", (Copies,), {"__call__": refuses})()
    with pytest.raises(InputError, match="1/00001 is left out: No face was found"):
        evaluate_as_published(refusing, corpus, tmp_path / "run", SampleOptions())


def test_a_drawing_without_a_face_keeps_its_row():
    """A film drawn so badly that no face is found must not leave the means better than they are."""
    lips = protocol.opening([np.full((160, 160, 3), 90, np.uint8)] * 6)
    assert np.isnan(lips).all()
    assert protocol._r(lips, np.arange(6.0)) is None


def test_a_lip_reader_without_words_is_refused(tmp_path):
    with pytest.raises(InputError, match="give the lip reader's name"):
        LipReading.of(f"reader={tmp_path / 'none.tsv'}")
