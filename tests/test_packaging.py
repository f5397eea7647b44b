"""What is shipped, and what may be installed beside it: types, the oldest versions, and no way around either."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser

import pytest
from oldest import EXTRAS, FLOOR, SETUP, constraints, requirements

ROOT = SETUP.parent
PACKAGE = ROOT / "accelsim"
TEXT = SETUP.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def config():
    config = ConfigParser()
    config.read_string(TEXT)
    return config


def test_a_type_checker_is_told_that_there_are_types(config):
    assert (PACKAGE / "py.typed").is_file()
    shipped = {name: value.split(", ") for name, value in config["options.package_data"].items()}
    assert "py.typed" in shipped["accelsim"]


def test_every_package_is_shipped(config):
    found = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in PACKAGE.rglob("__init__.py")}
    assert found == set(config["options"]["packages"].split()) - {"accelsim.configs", "accelsim.traces"}


def test_nothing_is_exempt_from_types():
    """An ignored line says which rule and, where the rule is not a third party's fault, there is none."""
    lines = [line for path in PACKAGE.rglob("*.py") for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line for line in lines if re.search(r"# *type: *ignore(?!\[[a-z-]+\])", line)] == []
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "strict = true" in settings
    assert "ignore_errors" not in settings and "exclude" not in settings.replace("untyped_calls_exclude", "")


def test_the_oldest_versions_are_those_of_setup_cfg(config):
    floors = constraints(TEXT)
    lines = config["options"]["install_requires"].split("\n")
    for extra in EXTRAS:
        lines += config["options.extras_require"][extra].split("\n")
    named = [line.strip() for line in lines if line.strip()]
    assert named == requirements(TEXT) and len(named) > 20
    for line in named:
        name = re.split(r"[<>=!~,; \[]", line)[0]
        assert line.startswith(f"{name}>={floors[name]}")
    assert floors.keys() == {re.split(r"[<>=!~,; \[]", line)[0] for line in named}


def test_every_floor_is_a_version():
    """PyTorch's too, which no test installs at its oldest."""
    config = ConfigParser()
    config.read_string(TEXT)
    for extra, lines in config["options.extras_require"].items():
        for line in filter(None, map(str.strip, lines.splitlines())):
            assert FLOOR.fullmatch(line), f"{extra}: {line}"


@pytest.mark.parametrize(
    ("line", "instead"), [("numpy>=2.0", "numpy"), ("numpy>=2.0", "numpy<3"), ("plotly>=6.0,<8", "plotly>=5.0")]
)
def test_a_requirement_without_a_floor_is_noticed(line, instead):
    with pytest.raises(ValueError, match="NAME>=FLOOR"):
        constraints(TEXT.replace(line, instead, 1))


@pytest.mark.slow
def test_two_builds_of_a_wheel_are_the_same_bytes(tmp_path):
    """On other days, under another umask, from files of other dates and permissions."""
    pytest.importorskip("setuptools")
    digests = []
    for number, (mask, when, mode) in enumerate([(0o022, 10**9, 0o644), (0o077, 15 * 10**8, 0o600)]):
        copy = tmp_path / f"{number}" / "source"
        for name in ("accelsim", "configs", "traces"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
            shutil.copy(ROOT / name, copy)
        for path in filter(os.path.isfile, copy.rglob("*")):
            path.chmod(mode)
            os.utime(path, (when, when))
        env = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
        build = [sys.executable, "setup.py", "-q", "bdist_wheel", "--dist-dir", str(tmp_path / f"{number}")]
        done = subprocess.run(build, cwd=copy, env=env, umask=mask, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (wheel,) = (tmp_path / f"{number}").glob("*.whl")
        digests.append((wheel.name, hashlib.sha256(wheel.read_bytes()).hexdigest()))
    assert digests[0] == digests[1]


LOCK = ROOT / "requirements.lock"


def test_the_lock_has_every_requirement_with_digests_and_names_no_host(config):
    text = LOCK.read_text(encoding="utf-8")
    pinned = {name.lower().replace("_", "-"): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.M)}
    assert len(pinned) > 60 and "://" not in text and not re.search(r"^--", text, re.M)
    lines = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    for line in filter(None, map(str.strip, "\n".join(lines).splitlines())):
        name, floor = FLOOR.fullmatch(line).groups()[:2] if not line.startswith("#") else (None, None)
        if name:
            version = [int(part) for part in re.findall(r"\d+", pinned[name.lower().replace("_", "-")])]
            assert version >= [int(part) for part in re.findall(r"\d+", floor)], line
    for block in re.split(r"\n(?=\w)", text)[1:]:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block[:60]


@pytest.mark.skipif(not (ROOT / ".ci" / "run").is_file(), reason="not in a source distribution")
def test_ci_installs_every_extra_from_the_lock_alone():
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    installs = re.findall(r"^    pip install -q (.*)$", text, re.M)
    assert installs[:2] == ["--require-hashes -r requirements.lock", "--no-deps --no-build-isolation ."]
    assert not re.search(r"^stage .* pip install .*capture", text, re.M)


@pytest.mark.skipif(not (ROOT / ".ci" / "sbom").is_file(), reason="not in a source distribution")
def test_the_bill_of_materials_names_all_that_the_lock_pins():
    bill = json.loads(subprocess.run([sys.executable, ROOT / ".ci" / "sbom"], capture_output=True, check=True).stdout)
    text = LOCK.read_text(encoding="utf-8")
    assert bill["bomFormat"] == "CycloneDX" and bill["metadata"]["component"]["name"] == "accelsim"
    assert [f"{c['name']}=={c['version']}" for c in bill["components"]] == re.findall(r"^[\w.-]+==\S+", text, re.M)
    digests = [ref["hashes"][0]["content"] for c in bill["components"] for ref in c["externalReferences"]]
    assert digests == re.findall(r"sha256:([0-9a-f]{64})", text)
