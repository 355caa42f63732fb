"""An archive is a stranger's: what would leave the directory is refused with a line, the rest is unpacked."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile

import pytest

from fleet.agent.transfer.tree import TreeError
from tests.unit.agent.transfer.archives import packed, unpacked


def zipped(*entries: tuple[str, str, int]) -> bytes:
    """A zip of (name, content, mode with type)."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, content, mode in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16 or 1  # zipfile fills in a 0
            made.writestr(info, content)
    return out.getvalue()


def gzipped_tar(*infos: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT) as made:
        for info in infos:
            made.addfile(info, io.BytesIO(b"x" * info.size))
    return out.getvalue()


FILE, LINK = stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "a/../evil", ".."])
def test_names_that_lead_out_are_refused(tmp_path, capfd, name):
    unpacked(zipped((name, "evil", FILE), ("good", "good", FILE)), tmp_path / "in")
    assert (tmp_path / "in" / "good").read_text() == "good"
    assert sorted(os.listdir(tmp_path)) == ["in"]
    assert os.listdir(tmp_path / "in") == ["good"]
    assert f"{name}: not unpacked: its name leads out" in capfd.readouterr().out


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "a/../../x", "/"])
def test_links_that_lead_out_are_refused(tmp_path, capfd, target):
    unpacked(zipped(("link", target, LINK), ("good", "good", FILE)), tmp_path / "in")
    assert os.listdir(tmp_path / "in") == ["good"]
    assert "link: not unpacked: it is a link that leads out" in capfd.readouterr().out


def test_links_that_lead_out_together_are_refused(tmp_path):
    chain = zipped(("a/b/c/x", "../../..", LINK), ("y", "a/b/c/x/../secret", LINK), ("z", "y/more", LINK))
    unpacked(chain, tmp_path / "in")
    assert not os.path.lexists(tmp_path / "in" / "y")
    assert os.path.lexists(tmp_path / "in" / "a" / "b" / "c" / "x")


def test_such_links_may_be_kept_on_demand(tmp_path):
    unpacked(zipped(("venv/bin/python", "/usr/bin/python3", LINK)), tmp_path / "in", keep_links=True)
    assert os.readlink(tmp_path / "in" / "venv" / "bin" / "python") == "/usr/bin/python3"


def test_nothing_is_written_through_a_link_of_the_archive(tmp_path):
    (tmp_path / "outside").mkdir()
    data = zipped(("link", str(tmp_path / "outside"), LINK), ("link/evil", "evil", FILE))
    unpacked(data, tmp_path / "in")
    assert os.listdir(tmp_path / "outside") == []
    assert (tmp_path / "in" / "link" / "evil").read_text() == "evil"


def test_nothing_is_written_through_a_link_of_the_project_that_leads_out(tmp_path, capfd):
    (tmp_path / "outside").mkdir()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "outside")
    unpacked(zipped(("link/evil", "evil", FILE), ("link/deep/er", "evil", FILE)), tmp_path / "in")
    assert os.listdir(tmp_path / "outside") == []
    assert "link/evil: not unpacked: a link on the way" in capfd.readouterr().out


def test_a_link_of_the_project_that_stays_inside_is_followed(tmp_path):
    (tmp_path / "in" / "real").mkdir(parents=True)
    (tmp_path / "in" / "link").symlink_to("real")
    (tmp_path / "in" / "whole").symlink_to(tmp_path / "in" / "real")
    unpacked(zipped(("link/a", "a", FILE), ("whole/b", "b", FILE)), tmp_path / "in")
    assert sorted(os.listdir(tmp_path / "in" / "real")) == ["a", "b"]


def test_a_file_replaces_a_link_and_does_not_write_through_it(tmp_path):
    (tmp_path / "outside").write_text("untouched")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x").symlink_to(tmp_path / "outside")
    unpacked(zipped(("x", "new", FILE)), tmp_path / "in")
    assert (tmp_path / "outside").read_text() == "untouched"
    assert (tmp_path / "in" / "x").read_text() == "new"


def test_devices_pipes_and_hard_links_are_refused(tmp_path, capfd):
    infos = []
    for name, kind in (("null", tarfile.CHRTYPE), ("disk", tarfile.BLKTYPE), ("pipe", tarfile.FIFOTYPE)):
        info = tarfile.TarInfo(name)
        info.type = kind
        infos.append(info)
    hard = tarfile.TarInfo("hard")
    hard.type, hard.linkname = tarfile.LNKTYPE, "/etc/passwd"
    good = tarfile.TarInfo("good")
    good.size = 3
    unpacked(gzipped_tar(*infos, hard, good), tmp_path / "in")
    assert os.listdir(tmp_path / "in") == ["good"]
    said = capfd.readouterr().out
    assert all(f"{name}: not unpacked" in said for name in ("null", "disk", "pipe", "hard"))
    unpacked(zipped(("fifo", "", stat.S_IFIFO | 0o644)), tmp_path / "in")
    assert os.listdir(tmp_path / "in") == ["good"]


def test_special_bits_are_not_unpacked(tmp_path):
    unpacked(zipped(("su", "x", stat.S_IFREG | 0o4755)), tmp_path / "in")
    assert (tmp_path / "in" / "su").stat().st_mode & 0o7777 == 0o755


def test_a_folder_without_write_permission_is_filled_first(tmp_path):
    unpacked(zipped(("d/", "", stat.S_IFDIR | 0o555), ("d/x", "x", FILE)), tmp_path / "in")
    assert (tmp_path / "in" / "d" / "x").read_text() == "x"
    assert (tmp_path / "in" / "d").stat().st_mode & 0o777 == 0o555
    (tmp_path / "in" / "d").chmod(0o755)


def test_an_archive_without_modes_gives_usual_ones(tmp_path):
    unpacked(zipped(("x", "x", 0), ("d/", "", 0)), tmp_path / "in")
    assert (tmp_path / "in" / "x").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "in" / "d").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("cut", [3, 50, 200, -1, -30])
def test_a_damaged_zip_is_said_to_be_so(tmp_path, cut):
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "x").write_bytes(os.urandom(5000))
    with pytest.raises(TreeError, match=r"damaged|no archive"):
        unpacked(packed(tmp_path / "from")[:cut], tmp_path / "in")


def test_changed_content_is_damage(tmp_path):
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "x").write_bytes(bytes(5000))
    data = bytearray(packed(tmp_path / "from"))
    data[45] ^= 0xFF
    with pytest.raises(TreeError, match="damaged"):
        unpacked(bytes(data), tmp_path / "in")


@pytest.mark.parametrize("form", ["tarzstd", "gzip"])
def test_damaged_archives_of_other_formats(tmp_path, form):
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "x").write_bytes(os.urandom(500_000))
    with pytest.raises(TreeError, match="damaged"):
        unpacked(packed(tmp_path / "from", form)[:-20_000], tmp_path / "in", name="x.gz")


def test_a_page_of_html_is_no_archive(tmp_path):
    with pytest.raises(TreeError, match="no archive"):
        unpacked(b"<html>Sign in</html>", tmp_path / "in")


def test_encrypted_entries_are_refused(tmp_path, capfd):
    data = bytearray(zipped(("x", "x", FILE)))
    at = data.index(b"PK\x01\x02") + 8
    data[at : at + 2] = struct.pack("<H", 1)
    unpacked(bytes(data), tmp_path / "in")
    assert "x: not unpacked: it is encrypted" in capfd.readouterr().out


def test_a_plain_gzip_becomes_one_file(tmp_path):
    unpacked(gzip.compress(b"one") + gzip.compress(b"two"), tmp_path / "in", name="report.xml.gz")
    assert (tmp_path / "in" / "report.xml").read_bytes() == b"onetwo"


def test_control_characters_of_a_name_are_not_shown(tmp_path, capfd):
    unpacked(zipped(("../\x1b[31mred\nline", "x", FILE)), tmp_path / "in")
    said = capfd.readouterr().out
    assert "../?[31mred?line" in said


def test_only_so_many_refusals_are_told(tmp_path, capfd):
    unpacked(zipped(*((f"../{number}", "x", FILE) for number in range(50))), tmp_path / "in")
    said = capfd.readouterr().out
    assert said.count("not unpacked:") == 20
    assert "30 further entries were not unpacked" in said
