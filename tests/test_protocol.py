"""The published evaluation: figures that are known beforehand, and runs over small films."""

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
from syncdiff.evaluation import input_sensitivity, paper_scores
from syncdiff.evaluation import perceptual_metrics as module
from syncdiff.evaluation.baselines import nearest_moments
from syncdiff.evaluation.input_sensitivity import evaluate_input_sensitivity
from syncdiff.evaluation.paper_drawing import estimate
from syncdiff.evaluation.paper_results import PUBLISHED_4, TALKLIP_PSNR, published
from syncdiff.evaluation.paper_scores import LipReading, faces_of, psnr, similarity, talklip_faces, talklip_psnr
from syncdiff.evaluation.perceptual_metrics import frechet_distance, load_inception, load_lpips
from syncdiff.evaluation.protocol import COLUMNS, evaluate_as_published
from syncdiff.faces import Gap
from syncdiff.job import Job
from syncdiff.options import PaperOptions, SampleOptions
from syncdiff.paper.avhubert import AVHubert
from syncdiff.paper.denoiser import PaperDenoiser, paper_schedule
from syncdiff.pipeline import SyncDiffPipeline
from syncdiff.training import lrs, prepare_lrs
from tests.fakes import write_video
from tests.released import small_vq, stirred

EXAMPLES = Path(__file__).parent.parent / "assets" / "examples"
CPU = torch.device("cpu")
BOX = np.array([90.0, 15, 230, 155], np.float32)


def noisy(level: float) -> tuple[np.ndarray, np.ndarray]:
    """A smooth picture [1, 256, 256, 3] and the same with Gaussian noise."""
    y, x = np.mgrid[:256, :256]
    truth = np.stack([64 + x / 2, 64 + y / 2, 128 + (x - y) / 4], -1)[None]
    drawn = truth + np.random.default_rng(0).normal(0, level, truth.shape)
    return (*(np.clip(np.rint(p), 0, 255).astype(np.uint8) for p in (drawn, truth)),)


def test_psnr_and_ssim_are_those_known_beforehand():
    a = np.full((2, 96, 96, 3), 100, np.uint8)
    assert psnr(a + 1, a) == pytest.approx(20 * np.log10(255))
    assert talklip_psnr(a + 1, a) == pytest.approx(20 * np.log10(255))
    assert psnr(a, a) is None
    assert talklip_psnr(a, a).tolist() == [100, 100]
    drawn, truth = noisy(20)
    assert similarity(truth, truth).tolist() == [1.0]
    assert 0.05 < similarity(drawn, truth)[0] < 0.5
    assert abs(similarity(*np.random.default_rng(0).integers(0, 256, (2, 1, 96, 96, 3), np.uint8))[0]) < 0.05


def test_wrapped_bytes_flatter():
    """Pairs of true and wrapped PSNR measured once for docs/paper.md; the wrapped one never gets below 27.9 dB."""
    for level, wrapped in ((4.0, 36.15), (5.9, 33.0), (13.6, 29.48), (19.2, 28.82)):
        drawn, truth = noisy(level)
        assert talklip_psnr(drawn, truth) == pytest.approx(wrapped, abs=0.35), level
        assert psnr(drawn, truth) <= talklip_psnr(drawn, truth) + 0.05, level
    a, b = np.random.default_rng(0).integers(0, 256, (2, 1, 256, 256, 3), dtype=np.uint8)
    assert talklip_psnr(a, b) == pytest.approx(27.9, abs=0.1)
    assert psnr(a, b) == pytest.approx(7.8, abs=0.1)


def test_word_error_rate_is_over_all_films_together(tmp_path):
    pytest.importorskip("jiwer", reason="no jiwer: the word error rate was NOT tested")
    (tmp_path / "read.tsv").write_text("1/a\tgood\n1/b.mp4\tTHE WEATHER\nGT/1/a\tGOOD EVENING ALL\n")
    reading = LipReading.of(f"reader={tmp_path / 'read.tsv'}")
    texts = {"1/a": "GOOD EVENING ALL", "1/b": "THE WEATHER", "1/c": "X"}
    rows = [{"film": film, "text": text} for film, text in texts.items()]
    assert reading.wer(rows, "ours") == pytest.approx(100 * 2 / 5)
    assert reading.wer(rows, "GT") == 0
    assert reading.wer(rows, "GT-Rec") is None
    assert reading.wer([{"film": "1/a", "text": None}], "ours") is None
    with pytest.raises(InputError, match="give the lip reader's name"):
        LipReading.of(f"reader={tmp_path / 'none.tsv'}")


def test_faces_are_cut_where_the_boxes_are_and_only_from_drawn_frames():
    image = np.zeros((200, 200, 3), np.uint8)
    image[40:140, 60:160] = 255
    boxes = np.array([[60.0, 40, 160, 140], [np.nan] * 4, [60, 40, 260, 240], [0, 0, 9, 9]])
    faces = faces_of([image] * 4, boxes, np.array([True, False, True, False]))
    assert faces.shape == (2, 96, 96, 3)
    assert (faces[0] == 255).all()
    assert (faces[1] == 0).any()
    with pytest.raises(InputError, match="none of its frames has a face box and was drawn"):
        faces_of([image] * 4, boxes, np.zeros(4, bool))
    image = np.zeros((160, 200, 3), np.uint8)
    image[32:128, 52:148] = 255
    faces = talklip_faces([image] * 2, np.array([[np.nan] * 4, [-20.4, 40.9, 100.9, 160]]))
    assert (faces[0] == 255).all()  # TalkLip takes the centre where there is no box
    assert faces.shape == (2, 96, 96, 3)


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
        "pytorch_fid/fid_score.py": """import numpy as np
def calculate_frechet_distance(mu1, sigma1, mu2, sigma2):
    roots = np.sqrt(np.linalg.eigvals(sigma1 @ sigma2).astype(complex)).real.sum()
    return np.square(mu1 - mu2).sum() + np.trace(sigma1) + np.trace(sigma2) - 2 * roots
""",
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
    for name in ("lpips", "pytorch_fid", "pytorch_fid.inception", "pytorch_fid.fid_score"):
        sys.modules.pop(name, None)


def test_lpips_and_fid_where_their_networks_are(backbones):
    drawn, truth = np.random.default_rng(0).integers(0, 256, (2, 40, 96, 96, 3), dtype=np.uint8)  # two pieces
    distance, features = load_lpips(CPU), load_inception(CPU)
    assert distance(truth, truth) == 0
    assert distance(drawn, truth) == pytest.approx(
        np.mean([distance(a[None], b[None]) for a, b in zip(drawn, truth, strict=True)])
    )
    assert features(truth).shape == (40, 8)
    assert np.allclose(features(truth)[33:34], features(truth[33:34]), atol=1e-6)
    assert frechet_distance(features(truth), features(truth)) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(features(drawn // 4), features(truth)) > 0.01
    rng = np.random.default_rng(0)  # Gaussians: means and covariances are handed over in the package's order
    a, b = rng.normal(0, 1, (200_000, 2)) * (1, 2), rng.normal(0, 1, (200_000, 2)) * (3, 1) + (0, 2)
    assert frechet_distance(a, b) == pytest.approx(4 + (3 - 1) ** 2 + (2 - 1) ** 2, rel=0.02)


def test_without_their_files_lpips_and_fid_say_what_they_need(backbones):
    alexnet, inception = backbones / module.ALEXNET, backbones / module.INCEPTION
    alexnet.unlink()
    inception.write_bytes(b"another network, or a program")
    needs = "LPIPS needs the package lpips (pip install 'syncdiff[eval]') and"
    assert load_lpips(CPU) == f"{needs} {alexnet.name} in {backbones}."
    found = hashlib.sha256(inception.read_bytes()).hexdigest()
    expected = f"FID is left out: {inception} has the sha256 {found}; expected one that begins as its name ends."
    assert load_inception(CPU) == expected


def test_the_most_alike_moment_is_found_a_few_at_a_time():
    own, new = np.random.default_rng(0).normal(size=(2, 600, 4)).astype(np.float32)
    apart = np.square(new[:, None] - own[None]).sum(-1)
    apart[np.abs(np.subtract.outer(np.arange(600), np.arange(600))) < 15] = np.inf
    assert (nearest_moments(own, new, 15) == apart.argmin(1)).all()


# --- a run


class Copies:
    """A job, and its pipeline, whose result is the film as it was, drawn but for its first tenth of a second."""

    vae, profile = None, "compact"

    @property
    def pipe(self) -> Copies:
        return self

    def __init__(self) -> None:
        self.voices: list[str] = []

    def __call__(self, face, voice, out, options):
        self.voices.append(Path(voice).name)
        shutil.copy(face, out)
        yield SimpleNamespace(frames=10, passed_through=(Gap(0.0, 0.1, "turned away"),), video=out)


@pytest.fixture(scope="module")
def lrs2(tmp_path_factory) -> Path:
    """LRS2's layout: two speakers of 0.4 s, 10 frames."""
    folder = tmp_path_factory.mktemp("lrs2")
    for speaker, words in (("1", "GOOD EVENING"), ("2", "THE WEATHER")):
        (folder / "main" / speaker).mkdir(parents=True)
        write_video(folder / "main" / speaker / "00001.mp4", seconds=0.4)
        (folder / "main" / speaker / "00001.txt").write_text(f"Text:  {words}\n")
    (folder / "test.txt").write_text("1/00001 MD\n2/00001 NF\n")
    return folder


@pytest.fixture
def corpus(lrs2, tmp_path, monkeypatch) -> Path:
    """The films prepared; boxes and landmarks are given, to be quick. The second film's face is missed in 4 frames."""

    def boxes(images):
        made = np.tile(BOX, (len(images), 1))
        made[4:8] = made[4:8] if one.name == "1/00001" else np.nan
        return made

    for one in lrs.utterances(lrs2, lrs2 / "test.txt"):
        prepare_lrs.prepare_film(one, tmp_path / "prepared", boxes)
    monkeypatch.setattr(paper_scores, "opening", lambda images: np.sin(np.arange(len(images))))
    monkeypatch.setattr(paper_scores.syncnet_v2, "load", lambda: None)
    return tmp_path / "prepared"


@pytest.fixture(scope="module")
def pipe() -> SyncDiffPipeline:
    torch.manual_seed(0)
    net = stirred(PaperDenoiser(widths=(32, 64), layers=1, head=16, speech_width=64)).eval()
    return SyncDiffPipeline(net, AVHubert(width=64, layers=1, hidden=8).eval(), paper_schedule(), small_vq())


def read(path: Path) -> dict[str, dict[str, str]]:
    with path.open() as file:
        return {row.pop("method"): row for row in csv.DictReader(file)}


def test_a_run_over_two_films(corpus, lrs2, tmp_path):
    (tmp_path / "read.tsv").write_text("1/00001\tGOOD MORNING\n2/00001.mp4\tTHE WEATHER\nGT/1/00001\tGOOD EVENING\n")
    job, out = Copies(), tmp_path / "run"
    choices = {"listed": lrs2 / "test.txt", "voices": ["foreign", "silence"], "lips": True}
    told = evaluate_as_published(job, corpus, out, SampleOptions(label=False), **choices)
    assert sorted(job.voices) == ["00001.mp4", "00001.mp4", *["voice.wav"] * 4]  # their own, the other's, silence
    rows = read(out / "table.csv")
    assert list(rows)[:2] == ["GT", "ours"]
    ours = rows["ours"]
    assert (ours["films"], ours["frames"], ours["not drawn"]) == ("2", "20", "8")  # 2 and 6: its first two, and 4
    assert (ours["SSIM"], ours["lips r"], ours["silence lips r"]) == ("1.000", "1.000", "1.000")
    assert [rows["GT"][column] for column in ("films", "SSIM", "PSNR", TALKLIP_PSNR)] == ["2", "1.000", "-", "-"]
    assert ours["PSNR"] == ours["LSE-C"] == ours["WER"] == "-"  # equal pictures have none; no SyncNet, no lip reader
    assert ours[TALKLIP_PSNR] == "100.000"
    assert rows["SyncDiff (published, LRS2)"][TALKLIP_PSNR] == "32.390"
    assert told == (out / "table.md").read_text().rstrip("\n")
    for note in ("8 of 20 frames were not drawn, in 2 of 2", "LPIPS needs", "FID needs", "For LSE-C", "WER needs"):
        assert any(line.startswith(note) for line in told.splitlines()), note
    assert len(told.splitlines()[0].split("|")) == len(COLUMNS) + 3
    evaluate_as_published(job, corpus, out, SampleOptions(label=False), **choices)
    assert len(job.voices) == 6  # what was drawn is not drawn again
    told = evaluate_as_published(job, corpus, tmp_path / "other", SampleOptions(), number="3", others=[out])
    methods = [line.split("|")[1].strip() for line in told.splitlines() if line.startswith("|")]
    assert methods[2:5] == ["GT", "ours", "ours, run"]
    assert methods[5:] == [f"{row} (published, LRS2)" for row in published("3")]
    with pytest.raises(InputError, match="holds no table of a run"):
        evaluate_as_published(job, corpus, tmp_path / "x", SampleOptions(), others=[tmp_path])


def test_frames_that_were_not_drawn_are_not_scored_as_ours(corpus, pipe, tmp_path, capsys):
    """A network of noise: scored in all frames, the four of film 2 that passed through would raise its PSNR."""
    out, options = tmp_path / "run", PaperOptions(steps=1, label=False)
    told = evaluate_as_published(Job(pipe), corpus, out, options, batch=2)
    assert "2 films, 20 frames, 1 steps each: about 0.0" in capsys.readouterr().err
    assert "4 of 20 frames were not drawn, in 1 of 2 films" in told
    rows = read(out / "table.csv")
    methods = ["GT", "GT-Rec", "ours"]
    assert list(rows)[:6] == [*methods, *(f"{method}, films drawn throughout" for method in methods)]
    ours, whole = rows["ours"], rows["ours, films drawn throughout"]
    assert (ours["films"], ours["not drawn"], whole["films"], whole["not drawn"]) == ("2", "4", "1", "0")
    assert abs(float(ours["PSNR"]) - float(whole["PSNR"])) < 1 < 20 - float(ours["PSNR"])
    films = {(row["film"], row["method"]): row for row in csv.DictReader((out / "films.csv").open())}
    second = films["2/00001", "ours"]
    assert float(second[TALKLIP_PSNR]) > float(films["1/00001", "ours"][TALKLIP_PSNR]) + 3  # there all frames count
    assert float(rows["GT-Rec"]["SSIM"]) < 0.99  # its autoencoder has random weights, and is scored in the same frames
    before = set(tmp_path.rglob("*.mp4"))
    assert len(before) == 4
    evaluate_as_published(Job(pipe), corpus, out, options, batch=2)
    assert "films, " not in capsys.readouterr().err
    few, many = (estimate(pipe, frames, 2, 1) for frames in ([5, 5], [500, 500]))
    assert 0 < few < many


def test_columns_as_talklip_pool_all_frames(corpus, lrs2, tmp_path, monkeypatch):
    """Five frames at 100 dB and fifteen at 20: 40 dB, not the 60 of a mean over the two films."""
    given = [np.full(5, 100.0)] * 2 + [np.full(15, 20.0)] * 2  # of the films' truth, and of ours
    monkeypatch.setattr(paper_scores, "talklip_psnr", lambda drawn, truth: given.pop(0))
    evaluate_as_published(Copies(), corpus, tmp_path / "run", SampleOptions())
    assert read(tmp_path / "run" / "table.csv")["ours"][TALKLIP_PSNR] == "40.000"


def test_processes_share_the_films_and_the_last_writes_the_table(corpus, tmp_path, monkeypatch):
    alone = evaluate_as_published(Copies(), corpus, tmp_path / "alone", SampleOptions())
    monkeypatch.setenv("WORLD_SIZE", "2")
    told = []
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        told.append(evaluate_as_published(Copies(), corpus, tmp_path / "shared", SampleOptions()))
    assert told[0] == "1 of 2 films are still to be scored, by other processes or another start."
    assert told[1] == alone


def test_a_measure_installed_later_is_taken(corpus, tmp_path, monkeypatch):
    job = Copies()
    evaluate_as_published(job, corpus, tmp_path / "run", SampleOptions())
    monkeypatch.setattr(paper_scores, "load_lpips", lambda device: lambda drawn, truth: 0.25)
    evaluate_as_published(job, corpus, tmp_path / "run", SampleOptions())
    assert read(tmp_path / "run" / "table.csv")["ours"]["LPIPS"] == "0.250"
    assert len(job.voices) == 2


def test_what_the_u_net_does_not_get_does_not_move_it(corpus, lrs2, pipe, tmp_path, monkeypatch):
    """Table 4: a network without the identity frame, and one whose weights ignore everything that shows the pose."""
    monkeypatch.setattr(input_sensitivity, "SPREAD", 2)
    small = {"widths": (32, 64), "layers": 1, "head": 16, "speech_width": 64}
    without, ignoring = stirred(PaperDenoiser(**small, identity=False)), stirred(PaperDenoiser(**small))
    with torch.no_grad():
        ignoring.unet.conv_in.weight[:, 3:6] = 0  # the masked frame
        ignoring.unet.conv_in.weight[:, 9:] = 0  # the previous one
    figures = {}
    for name, net in (("without", without), ("ignoring", ignoring)):
        made = SyncDiffPipeline(net.eval(), pipe.speech, paper_schedule(), pipe.vae)
        others = [tmp_path / "without"] if name == "ignoring" else []
        evaluate_input_sensitivity(made, corpus, tmp_path / name, listed=lrs2 / "test.txt", others=others)
        rows = read(tmp_path / name / "table-4.csv")
        figures[name] = [float(rows["ours"][column]) for column in PUBLISHED_4]
    assert figures["without"][0] == figures["ignoring"][1] == 0
    assert figures["without"][1] > 0.001 < figures["ignoring"][0]
    assert rows["ours"]["films"] == "2"
    assert list(rows)[1:] == ["ours, without", "Rnd (published)", "Rnd + Prv- (published)"]
    assert rows["Rnd + Prv- (published)"] == {"films": "-", "identity alone": "0.075", "pose alone": "0.328"}
    with pytest.raises(InputError, match="Table 4 is about the paper's U-Net"):
        evaluate_input_sensitivity(SimpleNamespace(profile="compact"), corpus, tmp_path / "x")


def test_a_film_that_fails_in_one_voice_counts_for_no_row(corpus, tmp_path):
    class Falters(Copies):
        def __call__(self, face, voice, out, options):
            if Path(voice).name == "voice.wav" and "/2/" in str(face):
                raise InputError("The face went away.")
            return super().__call__(face, voice, out, options)

    told = evaluate_as_published(Falters(), corpus, tmp_path / "run", SampleOptions(), voices=["silence"])
    assert "2/00001 is left out: The face went away." in told
    with (tmp_path / "run" / "films.csv").open() as file:
        rows = [(row["film"], row["method"]) for row in csv.DictReader(file)]
    assert rows == [("1/00001", "GT"), ("1/00001", "ours")]
    assert not list((tmp_path / "run").rglob(".*"))


def test_films_refused_and_films_gone_are_named(corpus, tmp_path):
    """One film was refused when it was prepared, another one's file is gone since."""
    lrs.write_whole(corpus / "3" / "00001.refused.txt", lambda path: path.write_text("No face was found."))
    (corpus / "2" / "00001.npz").write_bytes(b"")
    told = evaluate_as_published(Copies(), corpus, tmp_path / "run", SampleOptions())
    assert "3/00001 is left out: No face was found." in told
    assert "2/00001 is left out: " in told

    def refuses(*_):
        raise InputError("No face was found in the video.")
        yield

    refusing = type("Refusing", (Copies,), {"__call__": refuses})()
    with pytest.raises(InputError, match="1/00001 is left out: No face was found"):
        evaluate_as_published(refusing, corpus, tmp_path / "other", SampleOptions())


def test_a_drawing_without_a_face_keeps_its_row():
    """A film drawn so badly that no face is found must not leave the means better than they are."""
    lips = paper_scores.opening([np.full((160, 160, 3), 90, np.uint8)] * 6)
    assert np.isnan(lips).all()
    assert paper_scores._r(lips, np.arange(6.0)) is None
