"""Caches between a directory, the machine and a store that has its moods."""

from __future__ import annotations

import email.utils
import http.server
import pathlib
import threading
import time
from collections.abc import Iterator

import pytest

from fleet.agent.transfer import cache, run, store
from fleet.agent.transfer.tree import LocalTree


class MoodyStore:
    """Keeps objects, and answers with the statuses it was given before it does as asked."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, float]] = {}
        self.moods: list[int] = []
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked.append(("PUT", self.path, dict(self.headers)))
                if not outer.refuse(self):
                    outer.objects[self.path] = body, time.time()
                    self._say(200)

            def do_GET(self) -> None:
                outer.asked.append(("GET", self.path, dict(self.headers)))
                if outer.refuse(self):
                    return
                found = outer.objects.get(self.path)
                if found is None:
                    self._say(404)
                    return
                self.send_response(200)
                self.send_header("Last-Modified", email.utils.formatdate(found[1], usegmt=True))
                self.send_header("Content-Length", str(len(found[0])))
                self.end_headers()
                self.wfile.write(found[0])

            def _say(self, status: int) -> None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def refuse(self, handler) -> bool:
        if not self.moods:
            return False
        handler._say(self.moods.pop(0))
        return True

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def moody(monkeypatch) -> Iterator[MoodyStore]:
    monkeypatch.setattr(store, "DELAY_S", 0.01)
    made = MoodyStore()
    yield made
    made.close()


class Job:
    """A project directory and a cache directory."""

    def __init__(self, root: pathlib.Path, url: str) -> None:
        self.project, self.folder, self.url = root / "project", root / "cache", url
        self.project.mkdir(parents=True)

    def key(self, name: str = "k", **changes):
        signed = {"url": f"{self.url}/{name}?secret=1", "headers": {"x-mine": "yes"}}
        return {
            "name": name, "local": str(self.folder / "g" / name / "cache.zip"), "get": signed, "other": None,
            "put": signed, "ask": None, **changes,
        }  # fmt: skip

    def do(self, verb: str, *keys, paths=("deps",), tree=None, **changes) -> int:
        return run(
            {
                "do": verb, "root": str(self.project), "folder": str(self.folder), "format": "zip", "level": "default",
                "items": [{"paths": list(paths), "keys": list(keys) or [self.key()]}], "timeout_s": 20, "notes": [],
                "removes_torn": False, "is_told": True, **changes,
            },
            tree,
        )  # fmt: skip

    def fill(self, text: str = "kept") -> None:
        (self.project / "deps" / "empty").mkdir(parents=True, exist_ok=True)
        (self.project / "deps" / "one").write_text(text)
        (self.project / "deps" / "tool").write_text("#!")
        (self.project / "deps" / "tool").chmod(0o755)
        link = self.project / "deps" / "link"
        if not link.is_symlink():
            link.symlink_to("one")

    @property
    def local(self) -> pathlib.Path:
        return self.folder / "g" / "k" / "cache.zip"


@pytest.fixture
def job(tmp_path, moody) -> Job:
    return Job(tmp_path / "a", moody.url)


@pytest.fixture
def elsewhere(tmp_path, moody) -> Job:
    return Job(tmp_path / "b", moody.url)


@pytest.mark.parametrize("form", ["zip", "tarzstd", "zipzstd"])
def test_what_one_machine_saves_the_other_finds(job, elsewhere, form, capfd):
    job.fill()
    assert job.do("archive_cache", format=form) == 0
    assert elsewhere.do("restore_cache") == 0
    deps = elsewhere.project / "deps"
    assert (deps / "one").read_text() == "kept"
    assert (deps / "tool").stat().st_mode & 0o777 == 0o755
    assert (deps / "link").readlink() == pathlib.Path("one")
    assert (deps / "empty").is_dir()
    told = capfd.readouterr().out
    assert "WARNING" not in told
    assert "secret=1" not in told


def test_the_signed_headers_go_with_the_upload(job, moody):
    job.fill()
    job.do("archive_cache")
    ((method, path, headers),) = moody.asked
    assert (method, path, headers["x-mine"]) == ("PUT", "/k?secret=1", "yes")


@pytest.mark.parametrize(("moods", "is_saved"), [([503, 500], True), ([503, 500, 502], False), ([403], False)])
def test_a_failing_store_is_tried_three_times_and_a_refusing_one_once(job, moody, moods, is_saved, capfd):
    job.fill()
    moody.moods = list(moods)
    assert job.do("archive_cache") == 0
    assert bool(moody.objects) is is_saved
    assert len(moody.asked) == (1 if moods == [403] else 3)
    assert job.local.exists()
    assert "WARNING" in capfd.readouterr().out


@pytest.mark.parametrize(("moods", "code"), [([503, 503], 0), ([503] * 3, 1), ([403], 1), ([404, 404], 0)])
def test_what_could_not_be_fetched_is_told_when_it_is_worth_to_try_again(job, elsewhere, moody, moods, code):
    job.fill()
    job.do("archive_cache")
    moody.moods = list(moods)
    assert elsewhere.do("restore_cache", is_told=True) == code
    moody.moods = list(moods)
    assert elsewhere.do("restore_cache", is_told=False) == 0


def test_the_machines_archive_is_used_unless_the_stores_is_newer(job, moody, capfd):
    job.fill("old")
    job.do("archive_cache")
    assert job.do("restore_cache") == 0
    assert "is not older than the store's" in capfd.readouterr().out
    newer, _ = moody.objects["/k?secret=1"]
    job.fill("new")
    job.do("archive_cache")
    content, _ = moody.objects["/k?secret=1"]
    moody.objects["/k?secret=1"] = newer, time.time() + 60
    assert job.do("restore_cache") == 0
    assert (job.project / "deps/one").read_text() == "old"
    assert job.local.read_bytes() == newer != content


def test_the_other_naming_is_looked_for_when_the_own_has_nothing(job, elsewhere):
    job.fill()
    job.do("archive_cache", job.key("plain"))
    other = {"url": f"{job.url}/plain?secret=1", "headers": {}}
    assert elsewhere.do("restore_cache", elsewhere.key("hashed", other=other)) == 0
    assert (elsewhere.project / "deps/one").exists()


def test_a_torn_archive_is_removed_and_the_fallback_taken(job, elsewhere, moody, capfd):
    job.fill()
    job.do("archive_cache", job.key("old"))
    whole, at = moody.objects["/old?secret=1"]
    moody.objects["/k?secret=1"] = whole[: len(whole) // 2], at
    assert elsewhere.do("restore_cache", elsewhere.key(), elsewhere.key("old")) == 0
    assert not elsewhere.local.exists()
    assert (elsewhere.project / "deps/one").read_text() == "kept"
    assert "cannot be unpacked and is removed" in capfd.readouterr().out


def test_what_a_torn_archive_left_is_removed_when_that_is_wanted(job, elsewhere, moody):
    elsewhere.fill()
    (elsewhere.project / "mine").write_text("stays")
    moody.objects["/k?secret=1"] = b"PK nothing", time.time()
    assert elsewhere.do("restore_cache", removes_torn=True) == 1
    assert not (elsewhere.project / "deps").exists()
    assert (elsewhere.project / "mine").read_text() == "stays"


def test_nothing_to_save_saves_nothing(job, moody, capfd):
    assert job.do("archive_cache") == 0
    assert (moody.objects, job.local.exists()) == ({}, False)
    assert "no file matches" in capfd.readouterr().out


def test_without_zstd_the_cache_is_not_saved_and_the_job_goes_on(job, moody, monkeypatch, capfd):
    monkeypatch.setenv("PATH", "/nonexistent")
    job.fill()
    assert job.do("archive_cache", format="tarzstd") == 0
    assert moody.objects == {}
    assert "was not saved" in capfd.readouterr().out


def test_a_cache_directory_that_cannot_be_made_costs_the_cache_alone(job, capfd):
    job.folder.write_text("a file")
    job.fill()
    assert job.do("archive_cache") == 0
    assert job.do("restore_cache", is_told=False) == 0
    assert capfd.readouterr().out.count("WARNING") >= 2


def test_an_unanswered_question_goes_without_the_store(job, moody, monkeypatch, capfd):
    monkeypatch.setattr(cache.Asker, "ask", lambda _self, _what: None)
    job.fill()
    asking = job.key(get=None, put=None, ask={"do": "archive_cache"})
    assert job.do("archive_cache", asking) == 0
    assert job.local.exists()
    assert moody.asked == []
    assert "no manager answered" in capfd.readouterr().out


@pytest.mark.parametrize("protected", [False, True])
def test_where_the_cache_directory_is_in_containers_only_archives_lie_in_the_users_home(
    job, tmp_path, monkeypatch, protected
):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    job.fill()
    assert (
        job.do("archive_cache", root="/builds/of/containers", tree=LocalTree(str(job.project)), protected=protected)
        == 0
    )
    (archive,) = (tmp_path / "home" / ".fleet-caches").rglob("cache.zip")
    assert archive.relative_to(tmp_path / "home/.fleet-caches").parts[0] == ("protected" if protected else "open")
    assert not job.local.exists()


def test_the_notes_of_the_manager_are_told(job, capfd):
    job.do("restore_cache", job.key(get=None), notes=["there is no plugin"])
    assert "WARNING: there is no plugin" in capfd.readouterr().out
