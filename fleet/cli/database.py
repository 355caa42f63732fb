"""`fleetctl db upgrade | current | new-key`: the database's schema, and the key that seals its secrets."""

from __future__ import annotations

import os
import pathlib

import click
from cryptography.fernet import Fernet

from fleet.cli.exits import Exit, Failed, Unreachable
from fleet.cli.files import settings_for
from fleet.cli.invocation import command, invocation
from fleet.cli.printing import note
from fleet.settings.manager import without_password
from fleet.settings.settings import Settings
from fleet.store import engine as schema


@click.group("db")
def db() -> None:
    """Look after the database and its secret key."""


def sqlite_file(settings: Settings) -> pathlib.Path | None:
    """The file of an SQLite database; None for a server."""
    url = settings.fleet.database.get_secret_value()
    return pathlib.Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None


def require_database(settings: Settings) -> None:
    """Looking must make no file: SQLite would make an empty one."""
    file = sqlite_file(settings)
    if file is not None and not file.exists():
        raise Unreachable(f"there is no database {file} yet: fleetctl up or fleetctl db upgrade makes it")


def revision_of(settings: Settings) -> tuple[str | None, str]:
    """The database's revision and the one that this program needs."""
    require_database(settings)
    engine = schema.open_engine(settings.fleet.database.get_secret_value())
    try:
        return schema.current(engine), schema.head()
    finally:
        engine.dispose()


@command("upgrade")
def upgrade() -> int:
    """Bring the database to what this fleetctl needs; makes it when there is none. `fleetctl up` does so by itself."""
    settings = settings_for(invocation())
    engine = schema.open_engine(settings.fleet.database.get_secret_value())
    try:
        changed = schema.upgrade(engine)
    finally:
        engine.dispose()
    where = without_password(settings.fleet.database.get_secret_value())
    done = "brought to" if changed else "already at"
    answer = {"database": where, "revision": schema.head(), "changed": changed}
    printer = invocation().printer
    if printer.as_json:
        printer.value(answer)
    else:
        click.echo(f"{where} is {done} revision {schema.head()}")
    return Exit.OK


@command("current")
def current() -> int:
    """Say at which revision the database is; ends with 1 when it is not the one that this fleetctl needs."""
    settings = settings_for(invocation())
    at, needed = revision_of(settings)
    where = without_password(settings.fleet.database.get_secret_value())
    printer = invocation().printer
    if printer.as_json:
        printer.value({"database": where, "revision": at, "needed": needed, "up_to_date": at == needed})
    else:
        click.echo(f"{where} is at revision {at or 'none: it is empty'}")
        if at != needed:
            note(f"this fleetctl needs {needed}: run fleetctl db upgrade")
    return Exit.OK if at == needed else Exit.NEGATIVE


@command("new-key")
@click.option("--file", "file", type=click.Path(path_type=pathlib.Path), help="Write it there with mode 0600.")
def new_key(file: pathlib.Path | None) -> int:
    """Make a secret key: print it, or write it to a new file. A key in use is never replaced."""
    key = Fernet.generate_key().decode()
    if file is None:
        click.echo(key)
        return Exit.OK
    try:
        number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as exc:
        raise Failed(
            f"{file} is there already and is left as it is: what is sealed with its key cannot be read with another"
        ) from exc
    except OSError as exc:
        raise Failed(f"{file} cannot be written: {exc.strerror}") from exc
    with os.fdopen(number, "w", encoding="ascii") as opened:
        opened.write(f"{key}\n")
        opened.flush()
        os.fsync(opened.fileno())
    note(f"wrote {file}; name it in [fleet] secret_key_file, and keep a copy: without it the database is lost")
    return Exit.OK


for each in (upgrade, current, new_key):
    db.add_command(each)
