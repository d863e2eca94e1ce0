"""What is installed: pinned for every Python, of known licence; and nothing asks the network unless it is told to."""

import importlib.metadata
import json
import subprocess
import sys
import textwrap
import tomllib
import zipfile

import pytest

from tests.commands import ROOT, environment, train_command
from tests.supply import FILES, PYTHONS, TOOLS, audit, licence, licences, missing, pinned, pins

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = dict(zip(FILES, ((), ("tpu",), ("dev",)), strict=True))


# Other versions than the pinned ones, as in `make test-latest`, state other requirements and licences.
PINNED_HERE = {pin.version for pin in pinned(FILES[0]) if pin.name == "jax"} == {importlib.metadata.version("jax")}
of_pinned = pytest.mark.skipif(not PINNED_HERE, reason="needs the pinned environment")


def wanted(file):
    extras = PROJECT["optional-dependencies"]
    return [*PROJECT["dependencies"], *(each for extra in EXTRAS[file] for each in extras[extra])]


class TestPins:
    @pytest.mark.parametrize(("file", "least"), [*((file, 51) for file in FILES), (TOOLS, 2)])
    def test_every_one_has_a_version_and_hashes(self, file, least):
        found = pinned(file)
        assert len(found) >= least
        assert [str(pin.requirement) for pin in found if not pin.hashes or "*" in pin.version] == []

    @pytest.mark.parametrize("python", PYTHONS)
    @pytest.mark.parametrize("file", FILES)
    def test_they_meet_every_requirement_on_every_python(self, file, python):
        assert missing(pinned(file), wanted(file), python) == []

    @of_pinned
    def test_a_requirement_of_a_dependency_that_is_not_pinned_is_found(self):
        kept = [pin for pin in pinned(FILES[0]) if pin.name != "opt-einsum"]
        assert missing(kept, wanted(FILES[0]), "3.12") == ["jax requires opt_einsum"]
        assert missing(kept, ["jax>=99"], "3.12") == ["pyproject.toml requires jax>=99"]

    def test_a_pin_for_another_python_is_none(self):
        for_one = pins("numpy==2.1 ; python_full_version < '3.12' \\\n    --hash=sha256:" + "0" * 64)
        assert for_one[0].hashes == ("0" * 64,)
        assert missing(for_one, ["numpy"], "3.11") == []
        assert missing(for_one, ["numpy"], "3.12") == ["pyproject.toml requires numpy"]


class TestLicences:
    @of_pinned
    def test_the_page_is_of_these_pins(self):
        assert (ROOT / "docs" / "licences.md").read_text() == licences(), "python -m tests.supply licences > docs/…"

    def test_what_runs_may_be_used_in_any_work(self):
        """No licence that would ask anything of a program that imports the package."""
        names = {pin.name for pin in pinned("requirements.txt") if any(map(pin.holds, PYTHONS))}
        assert [name for name in names if not licence(name) or "GPL" in licence(name)] == []


class TestAudit:
    @pytest.mark.parametrize(
        ("affected", "found"),
        [
            ({"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.1"}]}]}, True),
            ({"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}]}, False),
            ({"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"last_affected": "2.0"}]}]}, True),
            ({"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "2.0.1"}]}]}, False),
            ({"ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}]}, False),
            ({"versions": ["1.9", "2.0.0", "no version"]}, True),
            ({"versions": ["2.0rc1"]}, False),
        ],
    )
    def test_versions_and_ranges(self, tmp_path, affected, found):
        advisory = {"id": "X-1", "summary": "reads what it should not", "affected": [{**affected}]}
        advisory["affected"][0]["package"] = {"ecosystem": "PyPI", "name": "Some_Package"}
        others = {**advisory, "id": "X-2", "withdrawn": "2026-01-01T00:00:00Z"}
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
            archive.writestr("X-1.json", json.dumps(advisory))
            archive.writestr("X-2.json", json.dumps(others))
        said = audit(pins("some-package==2.0 --hash=sha256:" + "0" * 64), tmp_path / "all.zip")
        assert said == ["some-package 2.0: X-1 reads what it should not"] * found


# An address of the internet is neither looked up nor connected to: the first attempt ends the process.
OFFLINE = """
import os, socket, sys
def forbid(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        local = event in ("socket.connect", "socket.sendto") and args[0].family == socket.AF_UNIX
        if not local:
            os.write(2, f"NETWORK {event} {args[1:]}\\n".encode())
            os._exit(86)
sys.addaudithook(forbid)
"""


def offline(code, cwd=ROOT):
    """Runs code without a network: the first attempt in Python ends it, and there is no network interface where the
    kernel allows that.
    """
    isolated = ["unshare", "--net", "--map-root-user"]
    can = subprocess.run([*isolated, "true"], capture_output=True, check=False).returncode == 0
    line = [*(isolated if can else []), sys.executable, "-c", OFFLINE + textwrap.dedent(code)]
    return subprocess.run(line, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=600, check=False)


class TestNetwork:
    def test_an_attempt_would_be_noticed(self):
        done = offline("import urllib.request; urllib.request.urlopen('http://localhost:1')")
        assert done.returncode == 86, done.stderr
        assert "NETWORK socket.getaddrinfo" in done.stderr

    def test_no_import_asks_it(self):
        code = """
        import importlib, pkgutil
        import scaling, tpu
        for package in (scaling, tpu):
            for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
                if not module.name.endswith("__main__"):
                    importlib.import_module(module.name)
        """
        done = offline(code)
        assert done.returncode == 0, done.stderr[-2000:]

    @pytest.mark.long
    def test_no_run_without_a_bucket_or_a_hub_asks_it(self, tmp_path):
        train = train_command(tmp_path / "run", {"steps": 5})[3:]
        code = f"""
        from scaling import cli
        for command, arguments in (
            ("train", {train}),
            ("probe", ["--checkpoint={tmp_path}/run", "--source=scenes?size=16&count=60"]),
            ("prune", ["--checkpoint={tmp_path}/run", "--rule=keep", "--keep=0", "--output={tmp_path}/pruned"]),
            ("describe", ["--model=vit_b"]),
        ):
            code = cli.call(f"scaling.{{command}}", arguments)
            assert code == 0, (command, code)
        """
        done = offline(code)
        assert done.returncode == 0, done.stderr[-2000:]
