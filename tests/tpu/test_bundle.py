"""The bundle: made by pip from a folder in place of an index, and installed by setup.sh on workers without a network.

The package that it is about and uv, which passes its commands on to venv and pip, are made here.
"""

import base64
import hashlib
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from scaling.core.errors import UserError
from tests.commands import ROOT, error_of
from tests.tpu.cloud import ALIVE, FOUR_HOSTS, RUN, SLICE, Cloud, job_on
from tests.tpu.test_life import check_documented
from tpu.cloud import bundle, shipment
from tpu.cloud.gcloud import Gcloud
from tpu.cloud.worker import Source

BUNDLES = "gs://bucket/bundles"
PYTHON = "cpython-3.12.16+20261110-x86_64-unknown-linux-gnu-install_only_stripped.tar.gz"
UV = f"""#!/bin/bash
for last; do :; done
[ "$1" = venv ] && exec "$4" -m venv --without-pip "$last"
[ "$6" = --no-deps ] || exit 9
exec {sys.executable} -m pip install --prefix "$5" --ignore-installed --quiet --no-deps --require-hashes "${{@:10}}"
"""


def wheel(folder, name, version, files):
    """A package with these files; its name and hash as a line of requirements."""
    path, about = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    files = {
        **files,
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [
        f"{each},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},"
        for each, text in files.items()
    ]
    with zipfile.ZipFile(path, "w") as file:
        for each, text in {**files, f"{about}/RECORD": "\n".join([*rows, f"{about}/RECORD,,"])}.items():
            about_it = zipfile.ZipInfo(each)
            about_it.external_attr = 0o100755 << 16
            file.writestr(about_it, text)
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


@pytest.fixture(scope="session")
def stock(tmp_path_factory):
    """An index and a mirror as folders, and a folder `tpu` with pins of what they have."""
    root = tmp_path_factory.mktemp("stock")
    index, mirror, code = (root / name for name in ("index", "mirror/20261110", "tpu"))
    for folder in (index, mirror, code):
        folder.mkdir(parents=True)
    tiny = wheel(index, "tiny", "1.0", {"tiny.py": "size = 1\n"})
    uv = wheel(index, "uv", "0.13.9", {"uv-0.13.9.data/scripts/uv": UV})
    (root / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (root / "python3").chmod(0o755)
    with tarfile.open(mirror / PYTHON, "w:gz") as file:
        file.add(root / "python3", "python/bin/python3")
    digest = hashlib.sha256((mirror / PYTHON).read_bytes()).hexdigest()
    text = re.sub(r"PYTHON_SHA256=\w+", f"PYTHON_SHA256={digest}", (ROOT / "tpu" / "setup.sh").read_text())
    (code / "setup.sh").write_text(text)
    (code / "requirements.txt").write_text(f"{tiny}\nabsent==1.0 ; sys_platform == 'win32' --hash=sha256:{'0' * 64}\n")
    (code / "tools.txt").write_text(f"# what setup.sh needs\n{uv}\n")
    return root


def use(stock, code, monkeypatch):
    monkeypatch.setattr(bundle, "PINS", tuple(code / path.name for path in bundle.PINS))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(stock / "index"))
    monkeypatch.setenv("UV_PYTHON_INSTALL_MIRROR", (stock / "mirror").as_uri())


@pytest.fixture(scope="session")
def bundled(stock, tmp_path_factory):
    """A bucket with the bundle, and the copies that made it."""
    cloud = Cloud(tmp_path_factory.mktemp("bundled"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("PATH", cloud.path)
        use(stock, stock / "tpu", monkeypatch)
        bundle.make(Gcloud(False, 0.02), BUNDLES)
    return cloud.folder / "bucket", cloud.copies()


@pytest.fixture
def code(cloud, stock, monkeypatch):
    """A folder `tpu` with the pins, which a test may change."""
    use(stock, shutil.copytree(stock / "tpu", cloud.folder / "tpu"), monkeypatch)
    return cloud.folder / "tpu"


@pytest.fixture
def gcloud(code):
    return Gcloud(False, 0.02)


@pytest.fixture
def made(cloud, bundled, gcloud):
    """The folder of the bundle in the bucket."""
    shutil.copytree(bundled[0], cloud.folder / "bucket")
    return cloud.folder / "bucket" / bundle.place(BUNDLES).removeprefix("gs://")


class TestMaking:
    def test_it_is_made_once_and_its_manifest_comes_last(self, cloud, gcloud, made, bundled, capfd):
        bundle.make(gcloud, f"{BUNDLES}/")
        assert capfd.readouterr().out.splitlines()[-1] == f"{bundle.place(BUNDLES)} is there already"
        assert cloud.copies() == []
        assert len(bundled[1]) == 2
        assert bundled[1][-1][-1] == f"{bundle.place(BUNDLES)}/manifest"
        names = {"tiny-1.0-py3-none-any.whl", "uv-0.13.9-py3-none-any.whl", PYTHON}
        assert {path.name for path in made.iterdir()} == {*names, "manifest"}
        bundle.check(gcloud, BUNDLES)

    @pytest.mark.parametrize("lost", [pytest.param("manifest", marks=pytest.mark.long), "tiny-1.0-py3-none-any.whl"])
    def test_one_that_lacks_a_file_is_refused_and_completed(self, cloud, gcloud, made, lost):
        (made / lost).unlink()
        what = "its manifest" if lost == "manifest" else rf"{lost}, \d+ bytes"
        with pytest.raises(
            UserError, match=f"is incomplete: it lacks {what}; complete it with `python -m tpu.launch b"
        ):
            bundle.check(gcloud, BUNDLES)
        bundle.make(gcloud, BUNDLES)
        assert [copy[0].rpartition("/")[2] for copy in cloud.copies()] == list(dict.fromkeys([lost, "manifest"]))
        bundle.check(gcloud, BUNDLES)

    def test_other_requirements_are_another_bundle(self, code, gcloud, made):
        with (code / "requirements.txt").open("a") as file:
            file.write("# changed\n")
        with pytest.raises(
            UserError, match="has no bundle of this commit's requirements, only of others; make it with"
        ):
            bundle.check(gcloud, BUNDLES)
        assert bundle.place(BUNDLES).rpartition("/")[2] != made.name

    @pytest.mark.long
    def test_a_python_that_is_not_the_pinned_one_is_refused(self, cloud, code, gcloud):
        setup = code / "setup.sh"
        setup.write_text(re.sub(r"PYTHON_SHA256=\w+", f"PYTHON_SHA256={'0' * 64}", setup.read_text()))
        with pytest.raises(UserError, match=r"has the SHA-256 [0-9a-f]{64}, and setup.sh wants [0-9a-f]{64}"):
            bundle.make(gcloud, BUNDLES)
        assert not cloud.copies()

    def test_without_curl_nothing_is_downloaded(self, cloud, gcloud, monkeypatch):
        monkeypatch.setattr(shutil, "which", lambda name: None if name == "curl" else name)
        with pytest.raises(UserError, match="curl: is not on PATH"):
            bundle.make(gcloud, BUNDLES)
        assert not cloud.copies()

    def test_markers_are_those_of_the_workers_and_not_of_this_machine(self):
        text = (
            "a==1 ; python_full_version < '3.12' \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n    # via b\n"
            "a==2 ; python_full_version >= '3.12' \\\n    --hash=sha256:cc\nb==1 ; sys_platform == 'win32'\n"
        )
        assert bundle.needed(text, "3.12.16") == "a==2 --hash=sha256:cc\n"


@pytest.fixture
def job(cloud, code, made, monkeypatch):
    """A job on two workers that can reach nothing but the bucket."""
    if subprocess.run(["unshare", "--map-root-user", "--net", "true"], capture_output=True).returncode:
        pytest.skip("needs unshare: network namespaces of its own")
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "UV_PYTHON_INSTALL_MIRROR"):  # workers have none of these
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    job = job_on(cloud, ALIVE, target=FOUR_HOSTS)
    cloud.plan(ALIVE, workers=2, offline=True)
    archive = cloud.folder / "scaling.tgz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(code, "tpu")
    stored = shipment.stored(job.gcloud, archive, "1a2b3c4", "gs://bucket/run")
    job.source = Source(stored.code, stored.sha256, bundle.place(BUNDLES))
    return job


class TestWorkersWithoutNetwork:
    def test_they_have_the_same_environment(self, cloud, job):
        job.setup(cloud.folder)
        job.setup(cloud.folder)
        for k in range(2):
            python = cloud.folder / "workers" / str(k) / "scaling" / "venv" / "bin" / "python"
            assert subprocess.check_output([python, "-c", "import tiny; print(tiny.size)"], text=True) == "1\n"
        fetched = [source for source, *_ in cloud.copies() if source.endswith("/*")]
        assert fetched == [f"{bundle.place(BUNDLES)}/*"] * 2  # once for each worker

    @pytest.mark.parametrize(
        ("name", "hidden"),
        [
            pytest.param("tiny-1.0-py3-none-any.whl", False, id="package"),
            pytest.param("tiny-1.0-py3-none-any.whl", True, id="package and manifest", marks=pytest.mark.long),
            pytest.param(PYTHON, True, id="python and manifest", marks=pytest.mark.long),
        ],
    )
    def test_a_damaged_file_is_refused_by_its_name(self, cloud, job, made, name, hidden, capfd):
        damaged = made / name
        before = hashlib.sha256(damaged.read_bytes()).hexdigest()
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
        if hidden:
            after = hashlib.sha256(damaged.read_bytes()).hexdigest()
            (made / "manifest").write_text((made / "manifest").read_text().replace(before, after))
        with pytest.raises(UserError, match="failed with code 65"):
            job.setup(cloud.folder)
        error = capfd.readouterr().err
        if hidden and name != PYTHON:  # the pins are in the code, whatever the bucket says
            assert re.search("HASHES|hash", error)
            assert "tiny" in error
        else:
            assert error.count(f"{name}: is not the file that was bundled; delete the folder and make it again") == 2
        assert not list(cloud.folder.glob("workers/*/scaling/venv/ready"))

    def test_one_without_a_manifest_is_refused(self, cloud, job, made, capfd):
        (made / "manifest").unlink()
        with pytest.raises(UserError, match="failed with code 65"):
            job.setup(cloud.folder)
        assert capfd.readouterr().err.count("has no manifest; complete it with `bundle`") == 2

    def test_a_gcloud_that_fails_in_silence_is_named_by_its_code(self, cloud, job, code, made, tmp_path):
        silent = tmp_path / "silent"
        silent.mkdir()
        (silent / "gcloud").write_text("#!/bin/sh\nexit 7\n")
        (silent / "gcloud").chmod(0o755)
        environment = {"HOME": str(tmp_path), "PATH": f"{silent}:/usr/bin:/bin"}
        done = subprocess.run(
            ["bash", code / "setup.sh", "gs://bucket/b"], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 1
        assert done.stderr.endswith("gs://bucket/b: could not be fetched: gcloud ended with code 7\n")


class TestRefusals:
    """Before anything is paid for."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("bundle",), "--bundle: is missing; give --bundle=gs://BUCKET/PATH, where"),
            (("bundle", "--bundle=/bundles"), "--bundle=/bundles: give gs://BUCKET/PATH"),
            (("run", *RUN, "--bundle=s3://bucket/bundles"), "--bundle=s3://bucket/bundles: give gs://BUCKET/PATH"),
        ],
    )
    def test_one_that_is_not_in_a_bucket(self, launcher, arguments, message):
        assert error_of(launcher.launch(*arguments), 2).startswith(message)
        assert not launcher.rows("calls")

    def test_one_that_is_not_there_or_cannot_be_read(self, launcher):
        message = error_of(launcher.launch("run", *RUN, f"--bundle={BUNDLES}"), 2)
        assert message == (
            f"--bundle={BUNDLES}: has no bundle of this commit's requirements; make it with "
            f"`python -m tpu.launch bundle --bundle={BUNDLES}`"
        )
        refusal = "ERROR: (gcloud.storage.ls) gs://bucket not found: 404."
        launcher.plan(ALIVE, refuses={"storage ls": refusal})
        message = error_of(launcher.launch("run", *RUN, f"--bundle={BUNDLES}"), 2)
        assert message.startswith(f"--bundle={BUNDLES}: cannot be read: {refusal}; give a bucket that")
        assert not launcher.verbs()


def test_the_dry_run_shows_where_everything_comes_from(launcher):
    made = launcher.launch("bundle", f"--bundle={BUNDLES}", "--dry-run", path="/usr/bin:/bin")
    assert made.returncode == 0, made.stderr
    assert [word for line in made.stdout.splitlines() for word in line.split()[:1]] == [
        "gcloud", "gcloud", sys.executable, "curl", "gcloud", "gcloud",
    ]  # fmt: skip
    for verb, flags in (("run", RUN), ("setup", (*SLICE, "--workdir=gs://bucket/run", "--internal-ips"))):
        done = launcher.launch(verb, *flags, f"--bundle={BUNDLES}", "--dry-run", path="/usr/bin:/bin")
        assert re.search(rf"bash code/tpu/setup\.sh {BUNDLES}/[0-9a-f]{{16}};", done.stdout)
        assert " scp " not in done.stdout
        assert "need a way to PyPI" not in done.stdout
        commands = [shlex.split(line) for line in done.stdout.splitlines() if line.startswith("gcloud storage ")]
        for command in commands:
            check_documented(command[1:])
