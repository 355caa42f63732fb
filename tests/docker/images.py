"""Images for the tests, made with `docker import` from small root file systems; no network, a second or two at most.

`busy` is busybox alone. `full` has bash, git, git-lfs and the usual programs, taken from this host with the libraries
they need, so that it does what this host does. The others are `busy` with one thing changed each.
"""

from __future__ import annotations

import dataclasses
import fcntl
import functools
import io
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Mapping

from tests.docker.engine import Engine, NoDocker

PREFIX = "fleet-test"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1234:1234:app:/home/app:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
GROUP = "root:x:0:\napp:x:1234:\nnogroup:x:65534:\n"
PROGRAMS = (
    "bash", "sh", "ls", "cat", "cp", "mv", "rm", "ln", "mkdir", "rmdir", "touch", "chmod", "chown", "head", "tail",
    "tr", "sort", "uniq", "wc", "seq", "sleep", "true", "false", "test", "env", "printf", "echo", "date", "id",
    "uname", "pwd", "basename", "dirname", "readlink", "realpath", "stat", "du", "df", "dd", "tee", "cut", "mktemp",
    "timeout", "nproc", "sha256sum", "md5sum", "base64", "od", "find", "xargs", "grep", "sed", "awk", "tar", "gzip",
    "gunzip", "zip", "unzip", "zstd", "ps", "hostname", "kill", "git", "git-lfs", "curl", "ldd", "yes", "mount",
)  # fmt: skip
ENTRY = '#!/bin/sh\necho "entrypoint of uid $(id -u)"\nexport FROM_ENTRYPOINT=yes\nexec "$@"\n'
WEB = '#!/bin/sh\necho "web says $GREETING" >&2\nmkdir -p /www; echo "hello from web $GREETING" >/www/index.html\n'
WEB += 'trap "exit 0" TERM\nhttpd -f -p "${PORT:-8080}" -h /www "$@" & wait $!\n'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Files of the root, what is changed in the image's configuration, and whether busybox is in it."""

    changes: tuple[str, ...] = ('CMD ["sh"]',)
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    kind: str = "busy"


RECIPES = {
    "busy": Recipe(),
    "full": Recipe(kind="full", changes=('CMD ["bash"]',)),
    "nonroot": Recipe(changes=("USER app", 'CMD ["sh"]', "WORKDIR /home/app")),
    "fullnonroot": Recipe(kind="full", changes=("USER app", 'CMD ["bash"]', "WORKDIR /home/app")),
    "noshell": Recipe(kind="noshell", changes=('CMD ["/true"]',)),
    "entry": Recipe(files={"/entry": ENTRY}, changes=('ENTRYPOINT ["/entry"]', 'CMD ["sh"]')),
    "web": Recipe(files={"/web": WEB}, changes=('CMD ["/web"]', "EXPOSE 8080/tcp")),
    "silent": Recipe(changes=('CMD ["sleep", "3600"]', "EXPOSE 8080/tcp")),
    "dying": Recipe(
        files={"/dying": "#!/bin/sh\necho 'cannot open the database' >&2\nexit 3\n"},
        changes=('CMD ["/dying"]', "EXPOSE 8080/tcp"),
    ),
    "asks": Recipe(changes=('CMD ["sh"]', "ENV FROM_IMAGE=of-the-image", "WORKDIR /tmp", "VOLUME /kept")),
}


def image(engine: Engine, name: str) -> str:
    """The reference of an image on this engine, made when it is not there."""
    reference = f"{PREFIX}/{name}:1"
    with (engine.home / f"image-{name}").open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if engine.run("image", "inspect", reference).returncode != 0:
            recipe = RECIPES[name]
            changes = [word for change in (f"ENV PATH={PATH}", *recipe.changes) for word in ("--change", change)]
            engine.docker("import", *changes, "-", reference, input=root_of(recipe))
    return reference


def root_of(recipe: Recipe) -> bytes:
    """The root file system as a tar archive."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        if recipe.kind == "noshell":
            archive.add(_found("busybox", "busybox-static"), "true")
            return _closed(archive, written)
        if recipe.kind == "full":
            _add_from_host(archive)
        else:
            _add_busybox(archive)
        _add_texts(archive, {"/etc/passwd": PASSWD, "/etc/group": GROUP, **recipe.files})
        for name, mode, owner in (("tmp", 0o1777, 0), ("root", 0o700, 0), ("home/app", 0o755, 1234)):
            _add_folder(archive, name, mode, owner)
        return _closed(archive, written)


def _closed(archive: tarfile.TarFile, written: io.BytesIO) -> bytes:
    archive.close()
    return written.getvalue()


def _found(program: str, package: str) -> str:
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/bin:/usr/bin")
    if path is None:
        raise NoDocker(f"there is no program {program} for the images: install Debian's `{package}`")
    return os.path.realpath(path)


def _add_folder(archive: tarfile.TarFile, name: str, mode: int, owner: int = 0) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, mode, owner, owner
    archive.addfile(entry)


def _add_texts(archive: tarfile.TarFile, texts: Mapping[str, str]) -> None:
    for path, text in texts.items():
        entry = tarfile.TarInfo(path.lstrip("/"))
        entry.mode, entry.size = 0o755 if text.startswith("#!") else 0o644, len(text.encode())
        archive.addfile(entry, io.BytesIO(text.encode()))


def _add_link(archive: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name.lstrip("/"))
    entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, target, 0o777
    archive.addfile(entry)


def _add_busybox(archive: tarfile.TarFile) -> None:
    busybox = _found("busybox", "busybox-static")
    archive.add(busybox, "bin/busybox")
    for applet in subprocess.run([busybox, "--list"], capture_output=True, check=True, text=True).stdout.split():
        if applet != "busybox":
            _add_link(archive, f"bin/{applet}", "busybox")


def _add_from_host(archive: tarfile.TarFile) -> None:
    for name in ("bin", "sbin", "lib", "lib64"):
        if os.path.islink(f"/{name}"):
            _add_link(archive, name, os.readlink(f"/{name}"))
    for path in sorted(_host_files()):
        archive.add(path, path.lstrip("/"), recursive=False)


@functools.cache
def _host_files() -> frozenset[str]:
    """The programs of `full`, what they are linked to, and what git needs beside them; where links lead, too."""
    found: set[str] = set()
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    needed = [path for name in PROGRAMS if (path := shutil.which(name)) is not None]
    if {"bash", "git", "git-lfs", "curl", "zip"} & set(missing):
        raise NoDocker(f"this host lacks programs for the image `full`: {', '.join(missing)}")
    core = subprocess.run(["git", "--exec-path"], capture_output=True, check=True, text=True).stdout.strip()
    needed += _below(core, "/usr/share/git-core/templates", "/etc/ssl/certs/ca-certificates.crt")
    for path in needed:
        found |= _with_targets(path)
    programs = [path for path in found if _is_program(path)]
    told = subprocess.run(["ldd", *programs], capture_output=True, check=False, text=True).stdout
    for library in set(re.findall(r"(?:=> |^\t)(/\S+) \(0x", told, re.MULTILINE)):
        found |= _with_targets(library)
    return frozenset(found)


def _below(*roots: str) -> Iterable[str]:
    for root in roots:
        if os.path.isfile(root):
            yield root
        for folder, _, names in os.walk(root):
            yield from (os.path.join(folder, name) for name in names)


def _with_targets(path: str) -> set[str]:
    """The path with its folders resolved, and every link on the way to the file itself."""
    found = set()
    while True:
        path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        if not os.path.lexists(path) or path in found:
            return found
        found.add(path)
        if not os.path.islink(path):
            return found
        path = os.path.join(os.path.dirname(path), os.readlink(path))


def _is_program(path: str) -> bool:
    if os.path.islink(path) or not os.access(path, os.X_OK):
        return False
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"
