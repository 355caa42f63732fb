from __future__ import annotations

import hashlib
import io
import pathlib
import subprocess
import sys
import zipfile

import fleet
from fleet.machine.bundle import agent_bundle, build


def test_the_same_files_make_the_same_bytes_in_whatever_order() -> None:
    first = build({"a.py": b"A = 1\n", "b.py": b"B = 2\n"})
    second = build({"b.py": b"B = 2\n", "a.py": b"A = 1\n"})
    assert first == second
    assert first.sha256 == hashlib.sha256(first.data).hexdigest()
    assert build({"a.py": b"A = 2\n", "b.py": b"B = 2\n"}).sha256 != first.sha256


def test_it_runs_as_a_program(tmp_path: pathlib.Path) -> None:
    source = b"import sys\ndef main():\n    print('argv', *sys.argv[1:])\n    return 3\n"
    path = tmp_path / "agent.pyz"
    path.write_bytes(build({"__init__.py": b"", "__main__.py": source}).data)
    done = subprocess.run([sys.executable, "-I", str(path), "serve"], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("argv serve\n", 3)


def test_the_agent_of_this_version_is_shipped_whole() -> None:
    bundle = agent_bundle()
    shipped = zipfile.ZipFile(io.BytesIO(bundle.data)).namelist()
    folder = pathlib.Path(fleet.__file__).parent / "agent"
    sources = {f"fleet_agent/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*.py")}
    assert set(shipped) == sources | {"__main__.py"}
    assert agent_bundle() is bundle
