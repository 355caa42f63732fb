"""What is archived comes out again as it was, and other programs can read it."""

from __future__ import annotations

import gzip
import io
import os
import random
import shutil
import subprocess
import zipfile

import pytest

from fleet.agent.transfer import archive
from fleet.agent.transfer.tree import FILE, Entry, LocalTree, TreeError
from tests.unit.agent.transfer.archives import Sink, listing, packed, unpacked

PACKERS = ["zip", "tarzstd", "zipzstd"]


@pytest.fixture
def project(tmp_path):
    """Files of all kinds: empty, small, larger than a piece, odd names, modes, links, folders."""
    root = tmp_path / "project"
    noise = random.Random(1).randbytes(700_000)
    for path, content, mode in (
        ("plain.txt", b"words " * 1000, 0o644),
        ("empty", b"", 0o600),
        ("run.sh", b"#!/bin/sh\n", 0o755),
        ("noise.bin", noise, 0o640),
        ("large.txt", b"0123456789" * 200_000, 0o644),
        ("deep/er/ünï côdé 日本.txt", "ü".encode(), 0o644),
        ("deep/with space/a b", b"x" * 70, 0o444),
    ):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(mode)
    (root / "hollow").mkdir(mode=0o750)
    (root / "link").symlink_to("plain.txt")
    (root / "deep" / "up").symlink_to("../empty")
    (root / "dangling").symlink_to("nowhere/at/all")
    with open(os.fsencode(root) + b"/latin-\xe9", "wb") as file:
        file.write(b"not UTF-8")
    for path in (root, *root.rglob("*")):
        if not path.is_symlink():
            os.utime(path, (1_700_000_001, 1_700_000_001))
    return root


@pytest.mark.parametrize("form", PACKERS)
@pytest.mark.parametrize("level", ["fastest", "default", "slowest"])
def test_all_comes_out_as_it_went_in(project, tmp_path, form, level):
    made = unpacked(packed(project, form, level), tmp_path / "out")
    assert listing(tmp_path / "out") == listing(project)
    assert made == len(listing(project))


@pytest.mark.parametrize("form", PACKERS)
def test_equal_files_give_equal_bytes(project, form):
    assert packed(project, form) == packed(project, form)


def test_pythons_own_zipfile_finds_nothing_wrong(project):
    with zipfile.ZipFile(io.BytesIO(packed(project))) as found:
        assert found.testzip() is None
        assert found.read("plain.txt") == b"words " * 1000
        assert "deep/er/ünï côdé 日本.txt" in found.namelist()
        assert found.getinfo("run.sh").external_attr >> 16 == 0o100755
        assert found.getinfo("hollow/").is_dir()


def test_unzip_finds_nothing_wrong(project, tmp_path):
    file = tmp_path / "x.zip"
    file.write_bytes(packed(project))
    done = subprocess.run(["unzip", "-t", str(file)], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout


def test_more_entries_than_a_short_directory_can_count(tmp_path):
    sink = Sink()
    contents = ((Entry(f"f{number}", FILE, size=1), io.BytesIO(b"x")) for number in range(70_000))
    archive.write("zip", contents, sink)
    with zipfile.ZipFile(io.BytesIO(sink.data)) as found:
        assert len(found.namelist()) == 70_000
    assert unpacked(sink.data, tmp_path / "out") == 70_000


def test_a_file_that_takes_64_bit_sizes(monkeypatch, tmp_path):
    monkeypatch.setattr("fleet.agent.transfer.zipping.LARGE", 1_000_000)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "large").write_bytes(b"abc" * 1_000_000)
    data = packed(tmp_path / "in")
    with zipfile.ZipFile(io.BytesIO(data)) as found:
        assert found.testzip() is None
    unpacked(data, tmp_path / "out")
    assert (tmp_path / "out" / "large").read_bytes() == b"abc" * 1_000_000


def test_a_file_that_grows_is_cut_where_it_was_long(tmp_path):
    sink = Sink()
    archive.write("zip", [(Entry("log", FILE, size=300_000), io.BytesIO(b"x" * 500_000))], sink)
    with zipfile.ZipFile(io.BytesIO(sink.data)) as found:
        assert len(found.read("log")) == 300_000


def test_a_file_that_shrinks_is_as_long_as_it_is(tmp_path):
    sink = Sink()
    archive.write("zip", [(Entry("log", FILE, size=600_000), io.BytesIO(b"x" * 500_000))], sink)
    with zipfile.ZipFile(io.BytesIO(sink.data)) as found:
        assert len(found.read("log")) == 500_000


def test_gzip_has_one_member_for_each_file(project):
    data = packed(project, "gzip", paths=("plain.txt", "run.sh"))
    assert gzip.decompress(data) == b"words " * 1000 + b"#!/bin/sh\n"


def test_gzip_takes_no_links(project):
    with pytest.raises(TreeError, match="link is no regular file"):
        packed(project, "gzip", paths=("link",))


def test_raw_is_the_file_itself(project):
    assert packed(project, "raw", paths=("noise.bin",)) == (project / "noise.bin").read_bytes()


def test_raw_takes_one_file(project):
    with pytest.raises(TreeError, match="takes one file"):
        packed(project, "raw", paths=("noise.bin", "plain.txt"))


def test_an_unknown_format_names_the_known_ones(project):
    with pytest.raises(TreeError, match="use one of zip"):
        packed(project, "rar")


def test_without_zstd_the_error_names_it(project, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(TreeError, match="no `zstd` program"):
        packed(project, "tarzstd")


def test_what_the_sink_raises_reaches_the_caller_and_no_process_is_left(project):
    class Full:
        def write(self, data: bytes) -> None:
            raise RuntimeError("full")

    tree = LocalTree(str(project))
    entries = [tree.entry("noise.bin")] * 20
    with pytest.raises(RuntimeError, match="full"):
        archive.write("tarzstd", tree.read(entries), Full())
    tree.close()


@pytest.mark.parametrize(
    ("name", "form", "wanted"),
    [
        ("", "zip", "artifacts.zip"),
        ("junit.xml", "gzip", "junit.xml.gz"),
        ("x/y z", "zip", "y z.zip"),
        ("metrics.txt", "raw", "metrics.txt"),
        ("a", "tarzstd", "a.tar.zst"),
        ("a", "zipzstd", "a.zip"),
        ("dir/", "zip", "dir.zip"),
    ],
)
def test_archives_are_named_as_gitlab_runner_names_them(name, form, wanted):
    assert archive.file_name(name, form) == wanted
