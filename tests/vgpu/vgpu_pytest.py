"""pytest plugin: CUDA tests on a GPU where there is one, else on the virtual GPU, under several schedules.

cuda_backend     "real" or "virtual"; on the virtual GPU a test runs once per mode and must leave no finding
virtual_gpu      the virtual GPU alone, in its default mode; findings are for the test to read
vgpu_mode        the virtual GPU under each mode, for tests that compare results between modes
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Iterator
from types import ModuleType

import pytest

import vgpu


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("cuda")
    group.addoption(
        "--cuda",
        choices=("auto", "real", "virtual", "off"),
        default="auto",
        help="where CUDA kernels run: a GPU (real), the virtual GPU, nowhere; auto takes a GPU if there is one",
    )
    group.addoption(
        "--vgpu-device", default="a100", help="part that the virtual GPU stands for: a100, l4, rtx4090, h100"
    )


# What ran on the virtual GPU in this session, for the last line of its summary.
_totals = {"launches": 0, "tests": 0, "findings": 0}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _totals["tests"]:
        text = "virtual GPU: {launches} launches in {tests} tests (a test counts once per mode), {findings} findings"
        terminalreporter.write_line(text.format(**_totals))


def _real_gpus() -> int:
    """GPUs of the driver, asked without the CUDA runtime."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    return count.value if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def _backend(config: pytest.Config) -> str:
    """real, virtual, or the reason why CUDA tests are skipped."""
    chosen = config.getoption("--cuda")
    if chosen == "off":
        return "--cuda=off"
    if importlib.util.find_spec("internvl_kernels") is None or not importlib.util.find_spec("internvl_kernels._cuda"):
        return "the package has no CUDA part: build it with IVK_CUDA=1"
    if chosen == "auto":
        return "real" if _real_gpus() else vgpu.unfit_host() or "virtual"
    return str(chosen)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "rows: single PTX instructions; -m rows --cuda=real runs them on a real GPU")
    config.addinivalue_line(
        "markers", "modes(*modes): vgpu modes that a CUDA test runs under, instead of the small matrix"
    )


def _modes(metafunc: pytest.Metafunc) -> list[object]:
    """Three modes by default and all of them under ``slow``, or those of the test's own marker."""
    marker = metafunc.definition.get_closest_marker("modes")
    if marker:
        return [pytest.param(mode, id=str(mode)) for mode in marker.args]
    more = vgpu.FULL[len(vgpu.SMALL) :]
    return [pytest.param(mode, id=str(mode)) for mode in vgpu.SMALL] + [
        pytest.param(mode, id=str(mode), marks=pytest.mark.slow) for mode in more
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "vgpu_mode" in metafunc.fixturenames:
        metafunc.parametrize("vgpu_mode", _modes(metafunc), indirect=True)
    if "_cuda_mode" in metafunc.fixturenames:
        where = _backend(metafunc.config)
        gpu = [pytest.param(None, id="gpu" if where == "real" else "skip")]
        metafunc.parametrize("_cuda_mode", _modes(metafunc) if where == "virtual" else gpu, indirect=True)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Take the runtime's name before an earlier test brings the real library; calls are refused until a test activates."""
    used = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    fits = vgpu.unfit_host() is None or session.config.getoption("--cuda") == "virtual"
    if fits and ("_vgpu" in used or ("cuda_backend" in used and _backend(session.config) == "virtual")):
        vgpu.load()


@pytest.fixture(scope="session")
def fit_host(request: pytest.FixtureRequest) -> None:
    """Where the virtual GPU cannot run, its tests are skipped and say why; --cuda=virtual lets them fail instead."""
    unfit = vgpu.unfit_host()
    if unfit and request.config.getoption("--cuda") != "virtual":
        pytest.skip(unfit)


@pytest.fixture(scope="session")
def _vgpu(request: pytest.FixtureRequest, fit_host: None) -> ModuleType:
    vgpu.activate(device=request.config.getoption("--vgpu-device"), print=False)
    return vgpu


@pytest.fixture
def vgpu_mode(request: pytest.FixtureRequest, _vgpu: ModuleType) -> Iterator[vgpu.Mode]:
    vgpu.reset()
    with vgpu.mode(request.param):
        yield request.param
    vgpu.reset()


@pytest.fixture
def _cuda_mode(request: pytest.FixtureRequest) -> Iterator[vgpu.Mode | None]:
    if request.param is None:
        yield None
        return
    request.getfixturevalue("_vgpu")
    vgpu.reset()
    with vgpu.mode(request.param):
        yield request.param


@pytest.fixture
def cuda_backend(request: pytest.FixtureRequest, _cuda_mode: vgpu.Mode | None) -> Iterator[str]:
    where = _backend(request.config)
    if where not in ("real", "virtual"):
        pytest.skip(where)
    yield where
    if _cuda_mode is not None:
        vgpu.finish()
        _totals["launches"] += vgpu.launch_count()
        _totals["tests"] += 1
        _totals["findings"] += len(vgpu.reports())
        vgpu.assert_clean()
        vgpu.reset()


@pytest.fixture
def virtual_gpu(_vgpu: ModuleType) -> Iterator[ModuleType]:
    _vgpu.reset()
    before = _vgpu.state()["config"]
    yield _vgpu
    _vgpu.reset()
    after = _vgpu.state()["config"]
    _vgpu.configure(**{key: value for key, value in before.items() if after[key] != value})
