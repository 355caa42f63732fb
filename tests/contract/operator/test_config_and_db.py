"""`fleetctl config` and `fleetctl db`, and how the command line fails."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import sqlite3
import subprocess
import sys

GOOD = """[[runners]]
  name = "one"
  url = "https://gitlab.example"
  id = 7
  token = "hidden-word"
  executor = "shell"
"""


def test_lint_says_what_is_wrong_with_file_line_and_key(fleetctl, config) -> None:
    config.write_text("concurrent = 1\nchek_interval = 3\n")
    said = fleetctl("config", "lint", "-c", config)
    assert said.code == 3
    assert f"{config}:2: error" in said.out
    assert "check_interval" in said.out


def test_lint_is_content_with_warnings_and_tells_them(fleetctl, config) -> None:
    config.write_text("concurrent = 1\n")
    said = fleetctl("config", "lint", "-c", config, "--output", "json")
    assert said.code == 0
    assert said.json["valid"] is True
    assert [each["severity"] for each in said.json["problems"]] == ["warning"]


def test_show_prints_what_is_in_force_and_no_secret(fleetctl, config) -> None:
    config.write_text(GOOD)
    said = fleetctl("config", "show", "-c", config)
    assert said.code == 0, said.err
    assert "check_interval = 3" in said.out
    assert "hidden-word" not in said.out
    assert fleetctl("--output", "json", "config", "show", "-c", config).json["runners"][0]["name"] == "one"


def test_a_file_that_is_not_there_is_a_wrong_configuration(fleetctl, config) -> None:
    said = fleetctl("config", "show", "-c", config)
    assert said.code == 3
    assert str(config) in said.err
    assert "Traceback" not in said.err


def test_the_database_is_looked_at_made_and_looked_at_again(fleetctl, config, tmp_path) -> None:
    config.write_text(f'[fleet]\nstate_dir = "{tmp_path}/s"\n{GOOD}')
    assert fleetctl("db", "current", "-c", config).code == 4
    assert not pathlib.Path(f"{tmp_path}/s/fleet.sqlite").exists()
    said = fleetctl("db", "upgrade", "-c", config, "--output", "json")
    assert said.code == 0, said.err
    assert said.json["changed"] is True
    assert fleetctl("db", "upgrade", "-c", config, "--output", "json").json["changed"] is False
    said = fleetctl("db", "current", "-c", config, "--output", "json")
    assert said.code == 0
    assert said.json["up_to_date"] is True


def test_a_database_of_a_newer_fleet_is_not_touched(fleetctl, config, sqlite_url, tmp_path) -> None:
    with contextlib.closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    config.write_text(f'[fleet]\nstate_dir = "{tmp_path}/s"\ndatabase = "{sqlite_url}"\n{GOOD}')
    assert fleetctl("db", "current", "-c", config).code == 1
    said = fleetctl("db", "upgrade", "-c", config)
    assert said.code == 4
    assert "9999" in said.err


def test_a_server_that_does_not_answer_is_told_without_its_password(fleetctl, config, tmp_path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config.write_text(
        f'[fleet]\nstate_dir = "{tmp_path}/s"\ndatabase = "postgresql://ci:hidden-word@127.0.0.1:{port}/x"\n{GOOD}'
    )
    said = fleetctl("db", "upgrade", "-c", config)
    assert said.code == 4
    assert str(port) in said.err
    assert "hidden-word" not in said.err


def test_a_new_key_is_written_once(fleetctl, tmp_path) -> None:
    file = tmp_path / "key"
    assert fleetctl("db", "new-key", "--file", file).code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_text()
    said = fleetctl("db", "new-key", "--file", file)
    assert said.code == 1
    assert file.read_text() == before
    assert len(fleetctl("db", "new-key").out.strip()) == 44


def test_an_unknown_word_is_a_wrong_command_line(fleetctl) -> None:
    said = fleetctl("nonsense")
    assert said.code == 2
    assert "nonsense" in said.err


def test_the_file_is_named_by_the_environment_or_before_the_command(fleetctl, config) -> None:
    config.write_text(GOOD)
    assert fleetctl("list", "--output", "json", CONFIG_FILE=str(config)).json[0]["name"] == "one"
    assert fleetctl("-c", config, "--output", "json", "list").json[0]["name"] == "one"


def fleetctl_process(*arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "CONFIG_FILE"}
    return subprocess.run(
        [sys.executable, "-m", "fleet.cli.main", *arguments],
        capture_output=True, text=True, timeout=60, env=environment, check=False, **more,
    )  # fmt: skip


def test_help_names_every_command_and_loads_none_of_them() -> None:
    code = (
        "import sys\nfrom fleet.cli.main import run\ncode = run(['--help'])\n"
        "heavy = {'sqlalchemy', 'pydantic', 'paramiko', 'httpx', 'rich'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)\nsys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert done.stderr.strip() == "[]"
    assert "reset-token" in done.stdout
    assert "explain" in done.stdout


def test_the_version_is_told() -> None:
    assert "fleetctl" in fleetctl_process("--version").stdout


def test_a_reader_that_goes_away_is_no_error_message(config: pathlib.Path) -> None:
    config.write_text("\n".join(["[[runners]]\n  url = 'https://g.example'\n  executor = 'shell'"] * 3000))
    process = subprocess.Popen(
        [sys.executable, "-m", "fleet.cli.main", "list", "-c", str(config)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(30) == 141
    assert said == ""


def test_json_problems_can_be_read_by_programs(config: pathlib.Path) -> None:
    config.write_text("concurrent = 'x'\n")
    done = fleetctl_process("config", "lint", "-c", str(config), "--output", "json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["problems"][0]["key"] == "concurrent"
