"""Batches: what a list means, shards that cover it once, resuming, and a film that fails alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from syncdiff.cli.batch import Film, films_of, run_films, shard_of
from syncdiff.errors import InputError


def touch(folder, *names):
    for name in names:
        (folder / name).write_bytes(b"")


def test_a_folder_pairs_videos_with_sounds_of_the_same_name(tmp_path):
    touch(tmp_path, "anna.mp4", "anna.wav", "bob.mov", "carl.jpg", "carl.ogg", "notes.txt")
    out = tmp_path / "out"
    assert [film.out.name for film in films_of(tmp_path, out, None)] == ["anna.mp4", "carl.mp4"]
    one = films_of(tmp_path, out, tmp_path / "anna.wav")
    assert [film.face.name for film in one] == ["anna.mp4", "bob.mov", "carl.jpg"]
    assert {film.voice.name for film in one} == {"anna.wav"}


def test_a_csv_names_films_beside_itself(tmp_path):
    (tmp_path / "list.csv").write_text("face,voice,out\na.mp4,a.wav,one.mp4\nb.mp4,b.wav,sub/two.mp4\n")
    films = films_of(tmp_path / "list.csv", None, None)
    assert films[1] == Film(tmp_path / "b.mp4", tmp_path / "b.wav", tmp_path / "sub" / "two.mp4")


def test_a_bad_list_is_one_sentence(tmp_path, subtests):
    for text, words in [
        ("face,out\na,b\n", "lacks the column voice"),
        ("face,voice,out\na.mp4,,x.mp4\n", "Line 2 .* not complete"),
        ("face,voice,out\n", "names no film"),
        ("face,voice,out\na,b,x.mp4\nc,d,x.mp4\n", "result of a and c"),
        ("face,voice,out\na,b,x.mp4\nc,d,sub/../x.mp4\n", "result of a and c"),
        ("face,voice,out\na.mp4,b,c.mp4\nd.mp4,b,sub/../a.mp4\n", "a.mp4 is an input as well as a result"),
    ]:
        with subtests.test(words):
            (tmp_path / "list.csv").write_text(text)
            with pytest.raises(InputError, match=words):
                films_of(tmp_path / "list.csv", None, None)


def test_shards_cover_every_film_once():
    films = [Film(f"{i}", "v", f"{i}.mp4") for i in range(10)]
    parts = [shard_of(films, f"{i}/3") for i in (1, 2, 3)]
    assert sorted((film.face for part in parts for film in part), key=int) == [str(i) for i in range(10)]
    for bad in ("0/3", "4/3", "x", "1-3"):
        with pytest.raises(InputError, match="i/n"):
            shard_of(films, bad)


def test_it_goes_on_where_it_stopped_and_a_failed_film_fails_alone(tmp_path):
    films = [Film(tmp_path / f"{name}.mp4", tmp_path / "v.wav", tmp_path / "out" / f"{name}.mp4") for name in "abc"]
    (tmp_path / "out").mkdir()
    films[0].out.write_bytes(b"done")
    asked, lines = [], []

    def make(film):
        asked.append(film.face.stem)
        if film.face.stem == "b":
            raise InputError("No face was found.")
        return SimpleNamespace(frames=5)

    assert run_films(films, make, lines.append) == 1
    assert asked == ["b", "c"]
    assert "No face was found." in lines[0]
    assert lines[-1].startswith("1 made, 1 were there, 1 failed")


def test_a_result_that_can_be_nowhere_fails_alone(tmp_path):
    touch(tmp_path, "file")
    outs = [tmp_path / "file" / "a.mp4", tmp_path / ("x" * 300 + ".mp4"), tmp_path / "b.mp4"]
    lines = []

    def make(film):
        if film.out == outs[1]:
            raise InputError("File name too long.")  # as the command's own check
        return SimpleNamespace(frames=5)

    assert run_films([Film(tmp_path / "f.mp4", tmp_path / "v.wav", out) for out in outs], make, lines.append) == 2
    assert "cannot be made" in lines[0]
    assert lines[-1].startswith("1 made, 0 were there, 2 failed")
