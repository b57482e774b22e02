"""Machines that cannot run the virtual GPU: they say so, and its tests are skipped for that reason and no other."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vgpu
from internvl_kernels.ops._backend import cpu

ROOT = Path(__file__).parents[3]
PLUGIN = """
import sys
from pathlib import Path
sys.path.insert(0, {vgpu!r})
import vgpu
vgpu.CPUINFO = Path({cpuinfo!r})
"""


@pytest.fixture
def old_processor(tmp_path: Path) -> Path:
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nflags\t\t: fpu sse4_2 avx fma4 avx512_fake\nbugs\t\t: avx2 fma\n")
    return path


@pytest.mark.parametrize(
    ("machine", "flags", "found"),
    [
        ("x86_64", "fpu avx f16c fma avx2", None),
        ("x86_64", "fpu avx avx2_not fma f16c", "x86_64 without avx2"),
        ("x86_64", "fpu", "x86_64 without avx2, fma, f16c"),
        ("aarch64", "fpu avx fma avx2", "aarch64"),
    ],
)
def test_who_can_run_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: str, flags: str, found: str | None
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(vgpu, "CPUINFO", tmp_path / "cpuinfo")
    vgpu.CPUINFO.write_text(f"processor\t: 0\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
    reason = vgpu.unfit_host()
    if found is None:
        assert reason is None
    else:
        assert reason == f"the virtual GPU needs an x86-64 processor with AVX2, FMA and F16C; this machine is {found}"
        monkeypatch.delenv("VGPU_BUILD", raising=False)
        with pytest.raises(vgpu.VirtualGpuError, match=re.escape(reason)):
            vgpu.build()


def test_a_machine_with_avx2_is_fit() -> None:
    """The CPU kernels look for AVX2 by themselves: both must find the same, or tests would be skipped in silence."""
    if "v3" not in cpu().built_isas():
        pytest.skip("this build of the CPU kernels does not look for AVX2")
    assert ("v3" in cpu().available_isas()) == (vgpu.unfit_host() is None)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="imitates an x86-64 processor")
def test_its_tests_are_skipped_and_say_why(old_processor: Path, tmp_path: Path) -> None:
    (tmp_path / "old_processor.py").write_text(PLUGIN.format(vgpu=str(ROOT / "tests/vgpu"), cpuinfo=str(old_processor)))
    files = ["test_exec_first.py", "test_ptx_errors.py", "test_ops_integer.py", "test_runtime_errors.py"]
    paths = [str(ROOT / "tests/vgpu/tests" / name) for name in files]
    where = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-p", "old_processor", "-p", "no:cacheprovider", "-q", *paths]
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_ADDOPTS"} | {"PYTHONPATH": where}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ skipped(, \d+ deselected)? in ", done.stdout.splitlines()[-1]), done.stdout
    reasons = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    assert reasons
    assert all("this machine is x86_64 without avx2, fma, f16c" in line for line in reasons), reasons


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="imitates an x86-64 processor")
def test_asked_for_by_name_it_fails(old_processor: Path, tmp_path: Path) -> None:
    (tmp_path / "old_processor.py").write_text(PLUGIN.format(vgpu=str(ROOT / "tests/vgpu"), cpuinfo=str(old_processor)))
    where = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-p", "old_processor", "-p", "no:cacheprovider", "-q", "--cuda=virtual"]
    done = subprocess.run(
        [*command, str(ROOT / "tests/vgpu/tests/test_runtime_errors.py")],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": where},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    assert "this machine is x86_64 without avx2, fma, f16c" in done.stdout + done.stderr


def test_rows_on_the_real_runtime() -> None:
    """--cuda=real: on a GPU the rows pass there, elsewhere every one is skipped and says why."""
    file = ROOT / "tests/vgpu/tests/test_ops_control.py"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-m", "rows", "--cuda=real", str(file)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_ADDOPTS"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    if " passed" not in done.stdout.splitlines()[-1]:
        reasons = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
        assert reasons
        assert all("--cuda=real: " in line or "needs the CUDA runtime" in line for line in reasons), reasons
