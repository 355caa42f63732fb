"""Saving into the file: every byte that is not changed stays, and a crash leaves the old file or the new one."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import tomllib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.settings.editing import EntryNotFound, RunnerMatch, TextNotEdited, with_runner, with_values, without_runner
from fleet.settings.loading import load
from fleet.settings.writing import ConfigNotWritable, add_runner, remove_runner, set_token

TEXT = """\
# Managed by the platform team.
concurrent   =  10    # two hosts
check_interval = 3

[session_server]
  session_timeout = 1800

# the fast ones
[[runners]]
\tname = "fast"   # tab before, spaces after
  url = 'https://gitlab.example.com/'
  id = 7
  token = "old-token" # renewed by the manager
  executor = "instance"
  environment = [
    "A=1",   # one
    "B=2",
  ]
  # about the pool
  [runners.autoscaler]
    plugin = "local"
    [[runners.autoscaler.policy]]
      idle_count = 1

[fleet]
  # between two runners, which is legal
  state_dir = "/srv/fleet"

[[runners]]
  name = "slow"
  url = "https://gitlab.example.com"
  token = "$SLOW_TOKEN"
  pre_build_script = '''
[[runners]]
  token = "not a token"
'''
  executor = "shell"
# the end
"""
FAST = RunnerMatch(url="https://gitlab.example.com", id=7)
SLOW = RunnerMatch(url="https://gitlab.example.com", token="slow")
ENV = {"SLOW_TOKEN": "slow"}
OBTAINED, EXPIRES = datetime(2025, 1, 2, 3, 4, 5, 678, tzinfo=UTC), datetime(2025, 2, 1, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "config.toml"
    path.write_text(TEXT)
    path.chmod(0o600)
    return path


def test_a_new_token_changes_its_values_and_not_one_byte_more(path: pathlib.Path):
    set_token(path, FAST, ENV, token="new-token", obtained_at=OBTAINED, expires_at=EXPIRES, runner_id=7)
    expected = TEXT.replace(
        '  token = "old-token" # renewed by the manager\n',
        '  token = "new-token" # renewed by the manager\n'
        "  token_obtained_at = 2025-01-02T03:04:05Z\n"
        "  token_expires_at = 2025-02-01T00:00:00Z\n",
    )
    assert path.read_text() == expected
    set_token(path, FAST, ENV, token="newer", obtained_at=EXPIRES, expires_at=None)
    expected = expected.replace("new-token", "newer").replace("2025-02-01T00:00:00Z", "0001-01-01T00:00:00Z")
    assert path.read_text() == expected.replace("2025-01-02T03:04:05Z", "2025-02-01T00:00:00Z")


def test_an_entry_is_found_by_its_old_token_even_through_the_environment(path: pathlib.Path):
    set_token(path, SLOW, ENV, token="new", obtained_at=OBTAINED, expires_at=None, runner_id=9)
    text = path.read_text()
    assert text == TEXT.replace(
        '  token = "$SLOW_TOKEN"\n', '  token = "new"\n  id = 9\n  token_obtained_at = 2025-01-02T03:04:05Z\n'
    )
    assert 'token = "not a token"' in text


def test_our_own_write_is_known_by_its_hash(path: pathlib.Path):
    saved = set_token(path, FAST, ENV, token="new", obtained_at=OBTAINED, expires_at=EXPIRES)
    assert saved.changed
    assert load(path, ENV).content_hash == saved.content_hash
    again = set_token(path, FAST, ENV, token="new", obtained_at=OBTAINED, expires_at=EXPIRES)
    assert (again.changed, again.content_hash) == (False, saved.content_hash)


def test_an_entry_is_appended_with_its_tables(path: pathlib.Path):
    entry = {
        "name": 'with "quotes"',
        "url": "https://b",
        "id": 8,
        "token": "t",
        "token_obtained_at": OBTAINED.replace(microsecond=0),
        "token_expires_at": None,
        "executor": "instance",
        "autoscaler": {"plugin": "local", "fleet": {"pool": "p"}, "policy": [{"idle_count": 1}, {"idle_count": 2}]},
    }
    add_runner(path, entry)
    text = path.read_text()
    assert text.startswith(TEXT + "\n[[runners]]\n  name = ")
    added = tomllib.loads(text)["runners"][2]
    assert added == {key: value for key, value in entry.items() if value is not None}
    assert load(path, ENV).settings.pool_by_name["p"].policies[1].idle_count == 2


def test_a_file_that_does_not_exist_is_made_for_its_owner_only(tmp_path: pathlib.Path):
    path = tmp_path / "config.toml"
    add_runner(path, {"url": "https://b", "token": "t", "executor": "shell"})
    assert path.read_text() == (
        'concurrent = 1\n\n[[runners]]\n  url = "https://b"\n  token = "t"\n  executor = "shell"\n'
    )
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_entry_is_removed_with_its_tables_and_comments(path: pathlib.Path):
    remove_runner(path, FAST, ENV)
    start, end = TEXT.index("# the fast ones"), TEXT.index("[fleet]")
    assert path.read_text() == TEXT[:start] + TEXT[end:]
    remove_runner(path, RunnerMatch(name="slow"), ENV)
    assert "runners" not in tomllib.loads(path.read_text())


def test_mode_is_kept_and_no_other_file_is_left(path: pathlib.Path):
    path.chmod(0o640)
    set_token(path, FAST, ENV, token="new", obtained_at=None, expires_at=None)
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(path.parent) == ["config.toml"]


def test_the_owner_is_kept(path: pathlib.Path):
    if os.getuid() == 0:
        os.chown(path, 65534, 65534)
    before = path.stat()
    set_token(path, FAST, ENV, token="new", obtained_at=None, expires_at=None)
    after = path.stat()
    assert before.st_ino != after.st_ino
    assert (before.st_uid, before.st_gid) == (after.st_uid, after.st_gid)


def test_a_link_is_followed_and_stays(path: pathlib.Path, tmp_path: pathlib.Path):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.toml"
    link.symlink_to(path)
    set_token(link, FAST, ENV, token="new", obtained_at=None, expires_at=None)
    assert link.is_symlink()
    assert 'token = "new"' in path.read_text()


@pytest.mark.parametrize(
    ("which", "says"),
    [
        (RunnerMatch(url="https://gitlab.example.com", id=99), "no [[runners]] entry is of https://gitlab.example.com"),
        (RunnerMatch(url="https://other", id=7), "no [[runners]] entry"),
        (RunnerMatch(token="s3cret"), "is the one with this token"),
    ],
)
def test_an_entry_that_is_not_there_is_said_without_its_token(path: pathlib.Path, which: RunnerMatch, says: str):
    with pytest.raises(EntryNotFound) as caught:
        remove_runner(path, which, ENV)
    assert says in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert path.read_text() == TEXT


def test_two_entries_of_one_name_are_not_guessed_between(path: pathlib.Path):
    path.write_text(TEXT.replace('"slow"', '"fast"'))
    with pytest.raises(EntryNotFound, match="2 "):
        remove_runner(path, RunnerMatch(name="fast"), ENV)


def test_a_config_toml_that_cannot_be_written_is_a_typed_error_and_stays_as_it_was():
    program = (  # as another user where we are root, for whom nothing is read-only
        "import os, sys\n"
        "from fleet.settings.writing import ConfigNotWritable, remove_runner\n"
        "from fleet.settings.editing import RunnerMatch\n"
        "b'x'.decode('utf-8-sig')\n"  # loads the codec while it can be read
        "if os.getuid() == 0:\n"
        "    os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: remove_runner(sys.argv[1], RunnerMatch(name='slow'), {})\n"
        "except ConfigNotWritable as exc: print(exc.slug, exc)\n"
    )
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "config.toml"
        path.write_text(TEXT)
        path.chmod(0o644)
        path.parent.chmod(0o555)
        done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
        assert path.read_text() == TEXT
        path.parent.chmod(0o755)
    expected = f"config_not_writable {path} cannot be written: Permission denied; this user must be allowed to write"
    assert done.stdout.startswith(expected), done.stderr


def test_a_directory_that_is_gone_is_said(tmp_path: pathlib.Path):
    with pytest.raises(ConfigNotWritable, match="its directory does not exist"):
        add_runner(tmp_path / "none" / "config.toml", {"url": "u"})
    with pytest.raises(ConfigNotWritable, match="there is no such file"):
        remove_runner(tmp_path / "config.toml", FAST, ENV)


def test_a_broken_file_is_not_touched(path: pathlib.Path):
    path.write_text("[[runners]\n")
    with pytest.raises(ConfigNotWritable, match="config lint"):
        add_runner(path, {"url": "u"})
    assert path.read_text() == "[[runners]\n"


def test_entries_written_as_one_list_are_edited_where_that_is_possible(path: pathlib.Path):
    path.write_text('runners = [{ url = "https://a", id = 1, token = "t", executor = "shell" }]\n')
    which = RunnerMatch(url="https://a", id=1)
    set_token(path, which, {}, token="n", obtained_at=None, expires_at=None)
    assert path.read_text() == 'runners = [{ url = "https://a", id = 1, token = "n", executor = "shell" }]\n'
    with pytest.raises(ConfigNotWritable, match="write each entry as its own"):
        set_token(path, which, {}, token="n", obtained_at=OBTAINED, expires_at=None)
    with pytest.raises(ConfigNotWritable, match="write each entry as its own"):
        add_runner(path, {"url": "https://b"})
    with pytest.raises(ConfigNotWritable, match="by hand"):
        remove_runner(path, which, {})


def test_windows_line_ends_and_a_byte_order_mark_stay(path: pathlib.Path):
    content = b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode()
    path.write_bytes(content)
    set_token(path, FAST, ENV, token="old-token", obtained_at=OBTAINED, expires_at=None)
    line = b"  token_obtained_at = 2025-01-02T03:04:05Z\r\n"
    assert path.read_bytes() == content.replace(b"by the manager\r\n", b"by the manager\r\n" + line)
    add_runner(path, {"url": "https://b"})
    assert path.read_bytes().endswith(b'\r\n\r\n[[runners]]\r\n  url = "https://b"\r\n')


def test_a_file_without_a_newline_at_its_end(path: pathlib.Path):
    path.write_text('[[runners]]\nurl = "https://a"\nid = 1\ntoken = "t"')
    set_token(path, RunnerMatch(url="https://a", id=1), {}, token="n", obtained_at=OBTAINED, expires_at=None)
    assert path.read_text().endswith('token = "n"\ntoken_obtained_at = 2025-01-02T03:04:05Z\n')


def test_two_writers_at_once_lose_nothing(path: pathlib.Path):
    threads = [
        threading.Thread(target=add_runner, args=(path, {"url": f"https://h{number}", "token": "t"}))
        for number in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    urls = {entry["url"] for entry in tomllib.loads(path.read_text())["runners"]}
    assert {f"https://h{number}" for number in range(12)} <= urls


words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
entries = st.dictionaries(
    st.text("abc-_ .\"'", min_size=1, max_size=4).filter(lambda key: key not in {"id", "token", "url"}),
    words | st.integers(-(2**40), 2**40) | st.booleans() | st.lists(words, max_size=3),
    max_size=4,
)


@given(st.lists(entries, min_size=1, max_size=3), st.data())
def test_whatever_entries_hold_they_are_added_changed_and_removed(tables, data):
    text = ""
    for number, table in enumerate(tables):
        text = with_runner(text, {"url": "https://a", "id": number + 1, **table})
    chosen = data.draw(st.integers(1, len(tables)))
    which = RunnerMatch(url="https://a", id=chosen)
    token = data.draw(words)
    changed = with_values(text, which, {"token": token}, {})
    assert tomllib.loads(changed)["runners"][chosen - 1]["token"] == token
    left = tomllib.loads(without_runner(changed, which, {})).get("runners", [])
    assert [entry["id"] for entry in left] == [each for each in range(1, len(tables) + 1) if each != chosen]


def test_what_cannot_be_proved_is_not_written():
    with pytest.raises(TextNotEdited):
        without_runner('runners = [{ url = "https://a", id = 1 }]', RunnerMatch(url="https://a", id=1), {})
