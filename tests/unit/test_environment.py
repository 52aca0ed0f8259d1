"""The environment door without processes of its own: device choice, locks, stamps, requirements, pip's words."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher.environment import build, devices, errors, locks, own, pip, reference, suites, venv
from launcher.environment.interpreter import base_python
from launcher.environment.place import Place, Stamp
from launcher.environment.progress import Progress, format_bytes, format_seconds

REQUIREMENTS = locks.DIRECTORY


def smi(directory: Path, body: str) -> None:
    """Put a fake nvidia-smi with this shell body first in PATH's only directory."""
    directory.mkdir(exist_ok=True)
    program = directory / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)


@pytest.fixture
def smi_path(tmp_path, monkeypatch):
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
    return directory


# One row per kind of machine: what nvidia-smi prints, the device that must come out.
MACHINES = [
    ("Tesla P100-PCIE-16GB, 535.104.05, 6.0", "cu118"),
    ("Tesla V100-SXM2-32GB, 550.54.15, 7.0", "cu118"),
    ("Tesla T4, 525.60.13, 7.5", "cu126"),
    ("Tesla T4, 525.60.12, 7.5", "cu118"),
    ("NVIDIA A100-SXM4-80GB, 470.199.02, 8.0", "cu118"),
    ("NVIDIA A100-SXM4-80GB, 560.35.03, 8.0", "cu126"),
    ("NVIDIA GeForce RTX 3090, 580.95.05, 8.6", "cu126"),
    ("NVIDIA GeForce RTX 4090, 550.54.15, 8.9", "cu126"),
    ("NVIDIA H100 80GB HBM3, 535.104.05, 9.0", "cu126"),
    ("NVIDIA B200, 575.51.03, 10.0", "cu129"),
    ("NVIDIA GeForce RTX 5090, 580.65.06, 12.0", "cu129"),
    ("NVIDIA H100 80GB HBM3, 470.199.02, 9.0", "cpu"),
    ("Tesla K80, 470.199.02, 3.7", "cpu"),
    ("GeForce GTX 980 Ti, 550.163.01, 5.2", "cpu"),
]


@pytest.mark.parametrize(("line", "device"), MACHINES)
def test_auto_device_of_a_machine(smi_path, line, device):
    smi(smi_path, f"echo '{line}'")
    choice = devices.choose("auto", machine="x86_64")
    assert choice.device == device
    assert line.split(",")[0] in choice.reason
    assert bool(choice.warnings) == (device == "cpu")


def test_every_gpu_of_a_machine_must_fit(smi_path):
    smi(smi_path, "echo 'Tesla V100, 550.54.15, 7.0'; echo 'NVIDIA H100, 550.54.15, 9.0'")
    choice = devices.choose("auto", machine="x86_64")
    assert choice.device == "cpu"
    assert "V100" in choice.warnings[0]
    assert "H100" in choice.warnings[0]


def test_drivers_that_do_not_know_compute_cap(smi_path):
    smi(
        smi_path,
        'case "$*" in *compute_cap*) echo \'Field "compute_cap" is not a valid field to query.\'; exit 2;; esac\n'
        "echo 'Tesla T4, 460.32.03'",
    )
    assert devices.choose("auto", machine="x86_64").device == "cu118"


def test_no_nvidia_smi(smi_path):
    choice = devices.choose("auto", machine="x86_64")
    assert (choice.device, choice.warnings) == ("cpu", ())
    assert "no nvidia-smi" in choice.reason


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo 'NVIDIA-SMI has failed because it could not reach the driver' >&2; exit 9", "exit code 9"),
        ("echo 'No devices were found'", "No devices were found"),
        ("true", "nothing"),
        ("echo 'Tesla T4, [N/A], 7.5'", "[N/A]"),
    ],
)
def test_nvidia_smi_that_fails_means_cpu_and_is_said(smi_path, body, words):
    smi(smi_path, body)
    choice = devices.choose("auto", machine="x86_64")
    assert choice.device == "cpu"
    assert words in choice.reason
    assert choice.warnings


def test_nvidia_smi_that_hangs_is_ended_with_its_children(smi_path, tmp_path):
    smi(smi_path, f"sleep 300 & echo $! > {tmp_path}/child; wait")
    query = devices.query_gpus(timeout_s=0.5)
    assert "did not answer within 0.5 s" in query.problem
    child = int((tmp_path / "child").read_text())
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or ") Z " in Path(f"/proc/{child}/stat").read_text():
            break
        time.sleep(0.05)
    else:
        pytest.fail("the hanging query left a process behind")


def test_an_explicit_device_is_taken_and_objections_are_said(smi_path):
    smi(smi_path, "echo 'Tesla V100, 470.57.02, 7.0'")
    choice = devices.choose("cu130", machine="x86_64")
    assert choice.device == "cu130"
    assert any("580.65.6" in warning for warning in choice.warnings)
    assert any("V100" in warning for warning in choice.warnings)
    assert devices.choose("cu118", machine="x86_64").warnings == ()


def test_gpu_wheels_are_for_x86_64_only(smi_path):
    smi(smi_path, "echo 'NVIDIA GH200, 570.10, 9.0'")
    assert devices.choose("auto", machine="aarch64").device == "cpu"


def test_index_of_a_device(monkeypatch):
    monkeypatch.delenv("BERT4DOC_PADDLE_INDEX", raising=False)
    assert devices.index_url("cu126") == "https://www.paddlepaddle.org.cn/packages/stable/cu126/"
    monkeypatch.setenv("BERT4DOC_PADDLE_INDEX", "file:///mirror/")
    assert devices.index_url("cu129") == "file:///mirror/cu129/"


def test_identity_is_what_sha256sum_prints():
    names = sorted(path.name for path in REQUIREMENTS.glob("*.lock"))
    printed = subprocess.run(["sha256sum", "--", *names], cwd=REQUIREMENTS, capture_output=True, text=True, check=True)
    assert printed.stdout.rstrip("\n") == locks.identity()


@pytest.mark.parametrize("python", ["3.10.0", "3.11.9", "3.12.1"])
def test_shipped_lock_pins_every_direct_requirement_within_its_range(python):
    for group in ("base", "quickstart", "test"):
        pins = {pin.name.lower().replace("_", "-"): pin for pin in locks.read_pins([group], python)}
        for requirement in own.read_requirements(REQUIREMENTS / f"{group}.in"):
            pin = pins[requirement.name.lower().replace("_", "-")]
            assert own.satisfies(pin.version, requirement.ranges), f"{pin.name} {pin.version} is not in {requirement}"


def test_shipped_lock_is_hashed_carries_no_index_and_no_cuda():
    assert locks.extras() == ["quickstart", "test"]
    for path in REQUIREMENTS.glob("*.lock"):
        text = path.read_text()
        assert "://" not in text
        assert not re.search(r"^\s*-(?!-hash=sha256:)", text, re.MULTILINE)
        for pin in locks.parse_lock(path):
            assert "--hash=sha256:" in pin.text
            assert not re.match(r"(nvidia|torch|triton|cuda)", pin.name), pin.name
    base = {pin.name: pin.version for pin in locks.read_pins(["base"], "3.11.0")}
    assert base["paddlepaddle"] == devices.PADDLE_VERSION


def test_a_lock_line_that_is_not_a_pin_is_named(tmp_path):
    (tmp_path / "base.lock").write_text("a==1 \\\n    --hash=sha256:00\n-e .\n")
    with pytest.raises(errors.SetupError, match=r"base\.lock:3: .*-e \."):
        locks.parse_lock(tmp_path / "base.lock")


def test_pins_of_a_lock(tmp_path):
    (tmp_path / "base.lock").write_text(
        "# comment\n"
        "a==1.0 ; python_full_version < '3.11' \\\n    --hash=sha256:aa \\\n    --hash=sha256:ab\n    # via b\n"
        "a==2.0 ; python_full_version >= '3.11' \\\n    --hash=sha256:ac\n"
        "b==3.0b4 \\\n    --hash=sha256:ba\n"
        "c==1 ; sys_platform == 'win32' \\\n    --hash=sha256:ca\n"
    )
    old = locks.read_pins(["base"], "3.10.13", tmp_path)
    assert [(pin.name, pin.version) for pin in old] == [("a", "1.0"), ("b", "3.0b4")]
    assert old[0].text.splitlines()[1:] == ["    --hash=sha256:aa \\", "    --hash=sha256:ab"]
    assert [pin.version for pin in locks.read_pins(["base"], "3.11.0", tmp_path)] == ["2.0", "3.0b4"]


@pytest.mark.parametrize(
    ("marker", "holds"),
    [
        ("", True),
        ("python_full_version < '3.11'", False),
        ("python_full_version >= '3.11'", True),
        ("python_full_version == '3.11.*'", True),
        ("python_full_version == '3.1.*'", False),
        ("python_full_version < '3.11' and sys_platform == 'linux'", False),
        ("python_full_version < '3.11' or sys_platform == 'linux'", True),
        ("platform_python_implementation != 'PyPy'", True),
        ("sys_platform == 'win32'", False),
    ],
)
def test_markers(marker, holds):
    assert locks.marker_holds(marker, "3.11.2") is holds


def test_versions_order_as_pip_orders_them():
    ordered = ["0.9", "1.0.dev1", "1.0a1", "1.0b2", "1.0b10", "1.0rc1", "1.0", "1.0.1", "1.10", "2"]
    shuffled = ordered[5:] + ordered[:5]
    assert sorted(shuffled, key=own.sort_key) == ordered
    assert own.sort_key("3.3.1+cu126") == own.sort_key("3.3.1") == own.sort_key("3.3.1.0")


@pytest.mark.parametrize(
    ("version", "text", "inside"),
    [
        ("1.26.4", "numpy>=1.26,<2", True),
        ("2.0.0", "numpy>=1.26,<2", False),
        ("2.0.0rc1", "numpy>=1.26,<2", False),
        ("3.0.0b4", "paddlenlp>=3.0.0b4,<3.1", True),
        ("3.0.0b3", "paddlenlp>=3.0.0b4,<3.1", False),
        ("3.0.0", "paddlenlp>=3.0.0b4,<3.1", True),
        ("1.0", "x!=1.0", False),
        ("1.0.0", "x==1.0", True),
        ("9", "x", True),
    ],
)
def test_ranges(tmp_path, version, text, inside):
    (tmp_path / "base.in").write_text(f"# head\n\n{text}   # why\n")
    (requirement,) = own.read_requirements(tmp_path / "base.in")
    assert own.satisfies(version, requirement.ranges) is inside
    assert str(requirement) == text


def test_own_interpreter_is_told_what_it_lacks(tmp_path):
    (tmp_path / "base.in").write_text("pytest>=1\npytest-timeout<0.1\nno-such-package-here>=2,<3\n")
    with pytest.raises(errors.SetupError) as raised:
        own.check((), tmp_path)
    said = str(raised.value)
    assert raised.value.exit_code == 2
    assert "lacks 2 of the 3 packages" in said
    assert re.search(r"no-such-package-here +>=2,<3 +not installed", said)
    assert re.search(r"pytest-timeout +<0.1 +\d", said)
    assert f"{sys.executable} -m pip install 'pytest-timeout<0.1' 'no-such-package-here>=2,<3'" in said


def test_paddle_gpu_counts_as_paddle(tmp_path, monkeypatch):
    metadata = tmp_path / "paddlepaddle_gpu-3.3.1.post126.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: paddlepaddle-gpu\nVersion: 3.3.1.post126\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    wanted = own.Requirement("paddlepaddle", ((">=", "3.3"), ("<", "3.4")))
    assert own.find_lacks([wanted]) == []
    assert own.find_lacks([own.Requirement("paddlepaddle", ((">=", "3.4"),))])[0].found == "3.3.1.post126"


def test_stamp_survives_the_round_trip():
    stamp = Stamp("aa  base.lock\nbb  test.lock", "3.11.2", "/opt/my python/bin/python3.11", "cu126", ("test",))
    assert Stamp.parse(stamp.text()) == stamp
    assert stamp.text().startswith(f"{stamp.identity}\n")
    bare = Stamp("aa  base.lock", "3.11.2", "/p", "cpu", ())
    assert Stamp.parse(bare.text()) == bare
    for broken in ("", "nonsense", "aa  base.lock\n", "\0\0\0"):
        assert Stamp.parse(broken) is None


def test_place_has_no_environment_without_a_working_python(tmp_path):
    place = Place(tmp_path)
    assert place.current() is None
    environment = tmp_path / ".venv.d" / "env-00"
    (environment / "bin").mkdir(parents=True)
    place.commit(environment, Stamp("aa  base.lock", "3.11.2", sys.executable, "cpu", ()))
    assert place.current() is None
    (environment / "bin" / "python").symlink_to(sys.executable)
    assert place.current() == Stamp("aa  base.lock", "3.11.2", sys.executable, "cpu", ())
    (environment / "bin" / "python").unlink()
    (environment / "bin" / "python").symlink_to("/no/longer/there")
    assert place.current() is None


def test_a_venv_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    with pytest.raises(errors.SetupError, match=r"was not made by run\.sh") as raised:
        Place(tmp_path).check_link()
    assert raised.value.exit_code == 2


def test_sweep_keeps_what_is_in_use_and_what_a_process_runs_from(tmp_path):
    place = Place(tmp_path)
    for name in ("env-00", "env-11", "env-22"):
        (place.store / name / "bin").mkdir(parents=True)
    place.link.symlink_to(".venv.d/env-00")
    program = place.store / "env-11" / "bin" / "python"
    program.symlink_to(sys.executable)
    with subprocess.Popen([program, "-I", "-c", "print(1, flush=True); input()"], stdin=-1, stdout=-1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        assert place.sweep() == 1
        assert sorted(path.name for path in place.store.glob("env-*")) == ["env-00", "env-11"]
        process.communicate(b"\n")
    assert place.sweep() == 1
    assert [path.name for path in place.store.glob("env-*")] == ["env-00"]


def test_setup_log_is_private_even_where_one_was_planted(tmp_path):
    place = Place(tmp_path)
    place.store.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("kept")
    place.log.symlink_to(victim)
    place.open_log()
    assert stat.S_IMODE(place.log.stat().st_mode) == 0o600
    assert not place.log.is_symlink()
    assert victim.read_text() == "kept"


def test_too_little_room_is_said_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "CPU_BYTES", 10**18)
    plan = build.make_plan(devices.Choice("cpu", "asked for"), ())
    place = Place(tmp_path)
    with pytest.raises(errors.SetupError, match=r"Too little room .* about 1000000000\.0 GB needed") as raised:
        build.build(place, plan, Progress())
    assert raised.value.exit_code == 73
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / ".venv.d").write_text("a file")
    with pytest.raises(errors.SetupError, match="Cannot write") as raised, Place(tmp_path).locked(Progress()):
        pass
    assert raised.value.exit_code == 73


def test_pip_gets_the_network_settings_and_nothing_that_moves_the_target(monkeypatch, tmp_path):
    for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_NO_DEPS", "PYTHONPATH", "PYTHONHOME", "PIP_REQUIREMENT"):
        monkeypatch.setenv(name, "/elsewhere")
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    environment = pip.pip_environment(tmp_path)
    assert "/elsewhere" not in environment.values()
    assert environment["PIP_USER"] == "0"
    assert environment["PIP_INDEX_URL"] == "https://mirror.example/simple"
    assert environment["HTTPS_PROXY"] == "http://proxy.example:3128"
    assert environment["TMPDIR"] == str(tmp_path)


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", 73, "disk is full"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", 69, "not the one in the lock"),
        (
            "Looking in indexes: https://me:secret@mirror.example/simple\n"
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'\n"
            "ERROR: No matching distribution found for a==1",
            69,
            "could not be reached",
        ),
        ("ERROR: No matching distribution found for a==1", 69, "does not have a package"),
        ("ERROR: [Errno 13] Permission denied: '/x'", 73, "could not write"),
        ("something new", 69, "exit code 1"),
    ],
)
def test_what_pip_says_in_plain_words(said, code, words):
    error = pip.explain_failure(said, 1, Path("/p/setup.log"))
    assert error.exit_code == code
    assert words in str(error)
    assert "/p/setup.log" in str(error)
    assert "Next:" in str(error)
    assert "secret" not in str(error)


def test_python_without_ensurepip_uses_another_pip(tmp_path, monkeypatch):
    """Debian's python3 without python3-venv: the installed pip serves, and without any pip the remedy is named."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(venv, "SYSTEM_WHEELS", tmp_path / "none")
    log = tmp_path / "log"
    if venv._pip_version((base_python(), "-m", "pip")) >= (22, 3):
        command = venv.create(tmp_path / "one", log)
        assert command[1:3] == ("-m", "pip")
        where = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        assert where.stdout.startswith("pip ")
    monkeypatch.setattr(venv, "_pip_version", lambda command: ())
    with pytest.raises(errors.SetupError, match=r"apt-get install python3\.\d+-venv") as raised:
        venv.create(tmp_path / "two", log)
    assert raised.value.exit_code == 69


def test_requirements_of_the_gpu_wheel(tmp_path):
    metadata = tmp_path / "paddlepaddle_gpu-3.3.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Name: paddlepaddle-gpu\nRequires-Dist: numpy>=1.21\n"
        "Requires-Dist: nvidia-cublas-cu12==12.6.4.1; platform_system == 'Linux'\n"
        "Requires-Dist: x; extra == 'dev'\n\nRequires-Dist: in the description\n"
    )
    lines = build._requirements_of(tmp_path)
    assert lines == ["numpy>=1.21", "nvidia-cublas-cu12==12.6.4.1; platform_system == 'Linux'"]
    assert [build._project_name(line) for line in lines] == ["numpy", "nvidia-cublas-cu12"]


def test_suites(tmp_path):
    for name in ("unit", "golden"):
        (tmp_path / "tests" / name).mkdir(parents=True)
    (tmp_path / "tests" / "unit" / "test_a.py").touch()
    assert suites.pytest_arguments([], tmp_path) == ["tests/unit", "tests/golden", "-m", "not campaign"]
    assert suites.pytest_arguments(["fast", "-x"], tmp_path) == ["tests/unit", "-m", "not slow", "-x"]
    quick = ["-m", "not campaign"]
    assert suites.pytest_arguments(["-k", "a"], tmp_path) == ["tests/unit", "tests/golden", *quick, "-k", "a"]
    assert suites.pytest_arguments(["tests/unit/test_a.py::x"], tmp_path) == [*quick, "tests/unit/test_a.py::x"]


def test_numbers_for_people():
    assert (format_seconds(75.2), format_bytes(1_500_000), format_bytes(2_000_000_000)) == ("1:15", "1.5 MB", "2.0 GB")


def test_nothing_but_the_standard_library_is_imported():
    script = (
        "import sys; sys.path.append(sys.argv[1]); import launcher.environment.cli, launcher.environment.suites; "
        "print(*sorted({name.split('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, str(root)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    assert done.stdout.split() == ["__main__", "launcher"]


# The reference of the alignment


def test_the_reference_lock_is_hashed_and_leaves_pytorch_to_a_version(monkeypatch):
    assert sorted(path.name for path in reference.DIRECTORY.iterdir()) == ["align.in", "align.lock"]
    text = (reference.DIRECTORY / "align.lock").read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-(?!-hash=sha256:)", text, re.MULTILINE)
    for python in ("3.10.0", "3.11.9", "3.12.1"):
        pins = {locks.canonical_name(pin.name): pin for pin in locks.read_pins(["align"], python, reference.DIRECTORY)}
        assert all("--hash=sha256:" in pin.text for pin in pins.values())
        assert not [name for name in pins if re.match(r"(nvidia|torch|triton|cuda)", name)]
        for requirement in own.read_requirements(reference.DIRECTORY / "align.in"):
            assert own.satisfies(pins[locks.canonical_name(requirement.name)].version, requirement.ranges)
    assert re.fullmatch(r"torch==\d+\.\d+\.\d+", reference.TORCH)
    before = reference.wanted_identity()
    monkeypatch.setattr(reference, "TORCH", "torch==2.99.0")
    assert reference.wanted_identity() != before, "another PyTorch is another environment"


def test_the_two_environments_do_not_touch_each_other(tmp_path):
    own_place, other = Place(tmp_path), Place(tmp_path, reference.NAME)
    for name in ("env-00", "env-11", "align-00", "align-11"):
        (own_place.store / name / "bin").mkdir(parents=True)
        (own_place.store / name / "bin" / "python").symlink_to(sys.executable)
    own_place.commit(own_place.store / "env-00", Stamp("aa  base.lock", "3.11.2", "/p", "cpu", ()))
    other.commit(other.store / "align-00", Stamp("bb  align.lock\ntorch==1", "3.11.2", "/p", "cpu", ("align",)))
    assert os.readlink(tmp_path / ".venv") == ".venv.d/env-00"
    assert os.readlink(tmp_path / ".venv.d" / "align") == "align-00"
    current = other.current()
    assert current is not None
    assert current.identity == "bb  align.lock\ntorch==1"
    assert own_place.sweep() == 1
    assert other.sweep() == 1
    left = {path.name for path in own_place.store.iterdir()}
    assert left >= {"env-00", "align-00", "align"}
    assert not left & {"env-11", "align-11"}
    assert own_place.log != other.log


def test_a_complete_reference_is_used_as_it_is_and_an_old_one_is_made_anew(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(reference, "_make", lambda place, progress: made.append(place.name))
    place = Place(tmp_path, reference.NAME)
    reference.ensure(place)
    assert made == ["align"]
    environment = place.store / "align-00"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").symlink_to(sys.executable)
    place.commit(environment, Stamp(reference.wanted_identity(), "3.11.2", "/p", "cpu", ("align",)))
    reference.ensure(place)
    assert made == ["align"]
    monkeypatch.setattr(reference, "TORCH", "torch==2.99.0")
    reference.ensure(place)
    assert made == ["align", "align"]


def test_a_reference_that_cannot_be_fetched_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    place = Place(tmp_path, reference.NAME)
    with pytest.raises(errors.SetupError, match="does not have a package") as raised:
        reference.ensure(place)
    assert raised.value.exit_code == 69
    assert sorted(path.name for path in place.store.iterdir()) == ["lock", "setup-align.log"]
    monkeypatch.setattr(reference, "NEEDED_BYTES", 10**18)
    with pytest.raises(errors.SetupError, match="Too little room") as raised:
        reference.ensure(place)
    assert raised.value.exit_code == 73
