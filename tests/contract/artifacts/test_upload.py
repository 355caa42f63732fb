"""Artifacts reach GitLab as it wants them, and every answer is met as GitLab Runner meets it."""

from __future__ import annotations

import gzip
import json
import os
import pathlib
import socket
import threading
import time
import zipfile

import pytest

ARCHIVE = {"paths": ["dist"], "format": "zip", "type": "archive"}


def stored(gitlab, stage, number=0):
    return pathlib.Path(gitlab.artifacts(stage.job.id)[number]["path"])


def test_an_archive_is_uploaded(gitlab, start, capfd):
    stage = start(("archive", "zip", "1 week"))
    assert stage.upload({**ARCHIVE, "name": "my name", "expire_in": "1 week"}) == 0
    (found,) = gitlab.artifacts(stage.job.id)
    assert (found["filename"], found["expire_in"]) == ("my name.zip", "1 week")
    with zipfile.ZipFile(found["path"]) as archive:
        assert archive.namelist() == ["dist/", "dist/a.txt", "dist/ü b.txt"]
    said = capfd.readouterr().out
    assert "Uploading artifacts...\ndist: found 3 matching artifact files and directories\n" in said
    assert f'Uploading artifacts as "archive" to coordinator... 201 Created  id={stage.job.id} correlation_id=' in said
    assert stage.job.token not in said


@pytest.mark.parametrize("name", ["ünï côdé", 'quo"te', "back\\slash", "100 %", "a;b", ""])
def test_names_of_all_kinds_arrive(gitlab, start, name):
    stage = start(("archive", "zip"))
    assert stage.upload({**ARCHIVE, "name": name}) == 0
    assert gitlab.artifacts(stage.job.id)[0]["filename"] == (name or "artifacts") + ".zip"


def test_reports_and_the_archive_are_uploaded_one_after_the_other(gitlab, start):
    stage = start(("archive", "zip"), ("junit", "gzip"), ("dotenv", "gzip"), ("metrics", "raw"))
    assert stage.upload(
        ARCHIVE,
        {"paths": ["report.xml"], "format": "gzip", "type": "junit", "name": "junit.xml"},
        {"paths": ["report.xml"], "format": "gzip", "type": "dotenv", "name": ".env"},
        {"paths": ["report.xml"], "format": "raw", "type": "metrics", "name": "metrics.txt"},
    ) == 0  # fmt: skip
    assert [each["filename"] for each in gitlab.artifacts(stage.job.id)] == [
        "artifacts.zip", "junit.xml.gz", ".env.gz", "metrics.txt",
    ]  # fmt: skip
    assert gzip.decompress(stored(gitlab, stage, 1).read_bytes()) == b"<testsuites/>"
    assert stored(gitlab, stage, 3).read_bytes() == b"<testsuites/>"


@pytest.mark.parametrize("form", ["tarzstd", "zipzstd"])
def test_formats_with_zstandard(gitlab, start, form):
    stage = start(("archive", form))
    assert stage.upload({**ARCHIVE, "format": form}) == 0


def test_no_matching_files_upload_nothing_and_fail_nothing(gitlab, start, capfd):
    stage = start(("junit", "gzip"))
    assert stage.upload({"paths": ["nothing/*.xml"], "format": "gzip", "type": "junit"}) == 0
    said = capfd.readouterr().out
    assert "WARNING: nothing/*.xml: no matching files" in said
    assert "ERROR: No files to upload" in said
    assert gitlab.artifacts(stage.job.id) == []


def test_raw_with_two_files_says_what_is_wrong(start, capfd):
    stage = start(("metrics", "raw"))
    assert stage.upload({"paths": ["dist/*"], "format": "raw", "type": "metrics"}) == 1
    assert "the format raw takes one file" in capfd.readouterr().out


def test_an_item_that_fails_does_not_keep_the_others(gitlab, start):
    stage = start(("metrics", "raw"), ("archive", "zip"))
    assert stage.upload({"paths": ["dist/*"], "format": "raw", "type": "metrics"}, ARCHIVE) == 1
    assert [each["artifact_type"] for each in gitlab.artifacts(stage.job.id)] == ["archive"]


@pytest.mark.parametrize(
    "answer",
    [(403, 1, "GitLab refuses the upload"), (413, 1, "maximum artifacts size"), (401, 1, "token"),
     (500, 3, "after 3 tries"), (404, 3, "after 3 tries"), (429, 3, "after 3 tries"), (503, 6, "after 6 tries")],
)  # fmt: skip
def test_each_answer_is_tried_as_often_as_it_should_be(gitlab, start, capfd, answer):
    status, tries, words = answer
    stage = start(("archive", "zip"))
    fault = gitlab.add_fault("status", "artifact_upload", status=status, count=None)
    assert stage.upload(ARCHIVE) == 1
    assert gitlab.fault_struck(fault) == tries
    said = capfd.readouterr().out
    assert words in said
    assert f'Uploading artifacts as "archive" to coordinator... {status} ' in said


@pytest.mark.parametrize("status", [500, 503, 502])
def test_the_archive_is_made_anew_for_the_next_try(gitlab, start, status):
    stage = start(("archive", "zip"))
    gitlab.add_fault("status", "artifact_upload", status=status, count=2)
    assert stage.upload(ARCHIVE) == 0
    assert zipfile.ZipFile(stored(gitlab, stage)).testzip() is None


@pytest.mark.parametrize("kind", ["reset_body", "lost_answer"])
def test_a_connection_that_breaks_is_tried_again(gitlab, start, kind):
    stage = start(("archive", "zip"))
    gitlab.add_fault(kind, "artifact_upload", count=2)
    assert stage.upload(ARCHIVE) == 0


def test_307_names_another_server(gitlab, start, capfd):
    stage = start(("archive", "zip"))
    elsewhere = gitlab.url.replace("127.0.0.1", "localhost")
    gitlab.add_fault("status", "artifact_upload", status=307, headers={"Location": f"{elsewhere}/somewhere/else?x=1"})
    assert stage.upload(ARCHIVE) == 0
    assert "307 Temporary Redirect" in capfd.readouterr().out
    assert len(gitlab.artifacts(stage.job.id)) == 1


def test_307_counts_as_a_try(gitlab, start):
    stage = start(("archive", "zip"))
    fault = gitlab.add_fault(
        "status", "artifact_upload", status=307, count=None, headers={"Location": f"{gitlab.url}/x"}
    )
    assert stage.upload(ARCHIVE) == 1
    assert gitlab.fault_struck(fault) == 3


def test_a_server_that_never_answers_is_given_up(gitlab, start, capfd):
    stage = start(("archive", "zip"))
    gitlab.add_fault("delay", "artifact_upload", seconds=30, count=None)
    began = time.monotonic()
    assert stage.upload(ARCHIVE, header_timeout_s=0.3) == 1
    assert time.monotonic() - began < 10
    assert "did not answer in time" in capfd.readouterr().out
    gitlab.lift_fault()


def test_a_server_that_takes_nothing_is_given_up(start, project, capfd):
    (project / "dist" / "large").write_bytes(os.urandom(30_000_000))
    with socket.create_server(("127.0.0.1", 0)) as server:
        stage = start(("archive", "zip"))
        stage.api = f"http://127.0.0.1:{server.getsockname()[1]}/api/v4/"
        assert stage.upload(ARCHIVE, timeout_s=1) == 1
    said = capfd.readouterr().out
    assert "took nothing more until the time" in said


def test_an_answer_before_the_body_is_over_is_heard(start, project, capfd):
    """As a proxy answers 413: at once, reading no further."""
    (project / "dist" / "large").write_bytes(os.urandom(30_000_000))

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(100)
            connection.sendall(
                b"HTTP/1.1 413 Request Entity Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 20):  # what is in the pipes, so that the answer is not lost to a reset
                pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        stage = start(("archive", "zip"))
        stage.api = f"http://127.0.0.1:{server.getsockname()[1]}/api/v4/"
        assert stage.upload(ARCHIVE) == 1
        thread.join()
    assert "413 Request Entity Too Large" in capfd.readouterr().out


def test_a_machine_without_a_way_to_gitlab_says_so(start, capfd):
    stage = start(("archive", "zip"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    stage.api = f"http://127.0.0.1:{port}/api/v4/"
    assert stage.upload(ARCHIVE) == 1
    said = capfd.readouterr().out
    assert f"127.0.0.1:{port} cannot be reached: Connection refused" in said
    assert f"the machine needs a way to http://127.0.0.1:{port}/api/v4/" in said


def test_an_unreadable_file_is_named(start, project, capfd, monkeypatch):
    real = os.open

    def refuse(path, *arguments, **named):
        if path == "a.txt":
            raise PermissionError(13, "Permission denied", path)
        return real(path, *arguments, **named)

    stage = start(("archive", "zip"))
    monkeypatch.setattr(os, "open", refuse)
    assert stage.upload(ARCHIVE) == 1
    assert "dist/a.txt: Permission denied" in capfd.readouterr().out


def test_progress_is_told_when_it_is_wanted(start, project, capfd):
    (project / "dist" / "large").write_bytes(os.urandom(5_000_000))
    stage = start(("archive", "zip"))
    assert stage.upload(ARCHIVE, meter_s=0.0001) == 0
    assert "Uploaded 1" in capfd.readouterr().out


def test_the_provenance_statement_lies_beside_the_files(gitlab, start, project):
    given = {
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {"buildDefinition": {}, "runDetails": {"builder": {"id": "x"}, "metadata": {"invocationID": "7"}}},
    }
    stage = start(("archive", "zip"))
    assert stage.upload({**ARCHIVE, "name": "out"}, metadata=given) == 0
    with zipfile.ZipFile(stored(gitlab, stage)) as archive:
        statement = json.loads(archive.read("out-metadata.json"))
    assert [each["name"] for each in statement["subject"]] == ["dist/a.txt", "dist/ü b.txt"]
    assert len(statement["subject"][0]["digest"]["sha256"]) == 64
    assert statement["predicate"]["runDetails"]["metadata"]["startedOn"].endswith("Z")
    assert not (project / "out-metadata.json").exists()
