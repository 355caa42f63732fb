"""Artifacts of earlier jobs come to the project directory, and the token stays with GitLab."""

from __future__ import annotations

import io
import stat
import zipfile

import pytest


def zipped(**files: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/"), content)
    return out.getvalue()


@pytest.fixture
def offered(gitlab):
    """A dependency with artifacts in it."""

    def offer(content=None, name="build", **files):
        data = zipped(**(files or {"out__x.txt": "x"})) if content is None else content
        return gitlab.dependency(gitlab.offer_artifacts(data), name=name)

    return offer


def test_artifacts_are_unpacked_in_order(start, offered, project, capfd):
    first, second = offered(shared="one", a="a"), offered(shared="two", b="b", name="second build")
    assert start().download(first, second) == 0
    assert (project / "shared").read_text() == "two"
    assert (project / "a").read_text() + (project / "b").read_text() == "ab"
    said = capfd.readouterr().out
    assert f"Downloading artifacts for build ({first['id']})...\n" in said
    assert f"Downloading artifacts for second build ({second['id']})..." in said
    assert f"Downloading artifacts from coordinator... ok  id={first['id']}" in said
    assert first["token"] not in said
    assert "X-Signature" not in said


def test_what_one_job_uploads_another_one_downloads(gitlab, start, project):
    stage = start(("archive", "zip"))
    stage.upload({"paths": ["dist"], "format": "zip", "type": "archive"})
    (project / "dist" / "a.txt").unlink()
    assert stage.download(gitlab.dependency(stage.job.id)) == 0
    assert (project / "dist" / "a.txt").read_text() == "a" * 1000


@pytest.mark.parametrize("answer", [(401, "unauthorized"), (403, "forbidden"), (404, "not found")])
def test_some_answers_are_final(gitlab, start, offered, capfd, answer):
    status, words = answer
    fault = gitlab.add_fault("status", "artifact_download", status=status, count=None)
    assert start().download(offered()) == 1
    assert gitlab.fault_struck(fault) == 1
    assert f"were not downloaded: {words}" in capfd.readouterr().out


def test_others_are_tried_three_times(gitlab, start, offered, capfd):
    fault = gitlab.add_fault("status", "artifact_download", status=500, count=None)
    assert start().download(offered()) == 1
    assert gitlab.fault_struck(fault) == 3
    assert "after 3 tries" in capfd.readouterr().out


def test_expired_artifacts_say_what_to_do(gitlab, start, offered, capfd):
    dependency = offered()
    gitlab.expire_artifacts(dependency["id"])
    assert start().download(dependency) == 1
    assert "run that job again" in capfd.readouterr().out


def test_storage_that_fails_is_gone_round(gitlab, start, offered, project, capfd):
    """The first try is direct, the second goes through GitLab."""
    gitlab.add_fault("status", "object_storage", status=503, count=None)
    assert start().download(offered()) == 0
    assert (project / "out" / "x.txt").read_text() == "x"
    assert "503" in capfd.readouterr().out


def test_half_an_object_is_not_unpacked(gitlab, start, offered, project, capfd):
    gitlab.add_fault("truncated_json", "object_storage", count=None)
    assert start().download(offered()) == 0
    assert "hung up after" in capfd.readouterr().out
    assert (project / "out" / "x.txt").read_text() == "x"


def test_without_direct_download_gitlab_itself_sends(gitlab, start, offered):
    fault = gitlab.add_fault("status", "object_storage", status=500, count=None)
    assert start().download(offered(), direct=False) == 0
    assert gitlab.fault_struck(fault) == 0


def test_a_redirect_without_end_is_left(gitlab, start, offered, capfd):
    url = f"{gitlab.url}/api/v4/jobs/900001/artifacts"
    gitlab.add_fault("status", "artifact_download", status=302, headers={"Location": url}, count=None)
    assert start().download(offered()) == 1
    assert "redirects more than 10 times" in capfd.readouterr().out


def test_a_damaged_archive_fails_and_says_so(start, offered, capfd):
    assert start().download(offered(content=zipped(x="x" * 1000)[:-40])) == 1
    assert "were not unpacked: the archive is damaged" in capfd.readouterr().out


def test_an_evil_archive_harms_nothing(start, offered, project, capfd):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("../../evil", "evil")
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc")
        archive.writestr("link/evil", "evil")
        archive.writestr("good", "good")
    assert start().download(offered(content=out.getvalue())) == 0
    assert (project / "good").read_text() == "good"
    assert not (project.parent / "evil").exists()
    assert not (project.parent.parent / "evil").exists()
    assert not (project / "link").is_symlink()
    assert "../../evil: not unpacked" in capfd.readouterr().out


def test_nothing_but_the_files_is_left(start, offered, project):
    start().download(offered())
    assert sorted(each.name for each in project.parent.iterdir()) == ["project"]
