"""Bad input through the whole stack, by the calls that nvcc's code makes: a fat binary registers itself, a kernel is launched.

Each is refused with the runtime's code and a reason, nothing runs, and the next good launch does. (Memory freed during use:
test_runtime_memory.py. The same faults by every instruction: test_checks_front.py.)
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from raw_cuda import Cuda
from test_fatbin import LZ4, PTX, SPECIFIC, ZSTD, image, literals, region

import vgpu

SUCCESS, INVALID_CONFIGURATION, INVALID_VALUE, INVALID_IMAGE, NO_IMAGE, INVALID_PTX = 0, 9, 1, 200, 209, 218
ILLEGAL_ADDRESS, TIMEOUT, LAUNCH_FAILURE = 700, 702, 719
STORE = b"""\
.version 9.0
.target sm_80
.address_size 64
.visible .entry k(.param .u64 out) {
.reg .b64 %rd<2>; .reg .b32 %r<2>; .reg .pred %p;
ld.param.u64 %rd1, [out]; mov.u32 %r1, 7;
// here
st.global.u32 [%rd1], %r1;
ret; }
"""


def store(here: str) -> bytes:
    return STORE.replace(b"// here", here.encode())


class Wrapper(ctypes.Structure):
    _fields_ = [
        ("magic", ctypes.c_uint32),
        ("version", ctypes.c_uint32),
        ("data", ctypes.c_void_p),
        ("more", ctypes.c_void_p),
    ]


Register = Callable[[bytes], int]


@pytest.fixture
def registered(cuda: Cuda) -> Iterator[Register]:
    """registered(fat binary): its kernel `k`, as the address of a host function."""
    kept: list[Any] = []
    handles: list[int] = []
    register = cuda.handle["__cudaRegisterFatBinary"]
    register.restype = ctypes.c_void_p

    def run(content: bytes) -> int:
        data = ctypes.create_string_buffer(content, len(content) + 64)  # zeros behind it, as a section has
        wrapper, stub = Wrapper(0x466243B1, 1, ctypes.addressof(data), 0), ctypes.create_string_buffer(1)
        kept.extend([data, wrapper, stub])
        handle = ctypes.c_void_p(register(ctypes.byref(wrapper)))
        handles.append(handle)
        none = ctypes.c_void_p()
        cuda.handle["__cudaRegisterFunction"](handle, stub, b"k", b"k", -1, none, none, none, none, none)
        cuda.handle["__cudaRegisterFatBinaryEnd"](handle)
        return ctypes.addressof(stub)

    yield run
    vgpu.reset()
    for handle in handles:
        cuda.handle["__cudaUnregisterFatBinary"](handle)


@pytest.fixture
def good(cuda: Cuda, registered: Register) -> Iterator[Callable[[], None]]:
    """good(): a launch of another, correct fat binary works."""
    pointer = cuda.malloc(4)
    kernel = registered(region(image(STORE)))

    def run() -> None:
        cuda("cudaMemset", pointer, 0, 4)
        cuda.launch(kernel, 1, 1, [pointer])
        assert cuda.download(pointer, np.zeros(1, np.uint32))[0] == 7

    yield run
    vgpu.reset()
    cuda("cudaFree", pointer)


def refused(cuda: Cuda, kernel: int, code: int, reason: str, good: Callable[[], None], **launch: Any) -> None:
    before = len(vgpu.counters())
    given = {"grid": 1, "block": 1, "smem": 0} | launch
    assert cuda.launch_code(kernel, given["grid"], given["block"], [0], given["smem"]) == code
    assert reason in vgpu.last_message()
    assert cuda.code("cudaGetLastError") == code
    assert cuda.code("cudaGetLastError") == SUCCESS, "a refused launch does not stick"
    assert len(vgpu.counters()) == before, "nothing ran"
    good()
    vgpu.assert_clean()


DAMAGED = {
    "no magic": (b"\0" * 64, INVALID_IMAGE, "magic"),
    "header cut off": (region(image(PTX)[:40]), INVALID_IMAGE, "header cut off"),
    "payload cut off": (region(image(PTX)[:100]), INVALID_IMAGE, "payload of"),
    "empty": (region(), NO_IMAGE, "holds nothing"),
    "LZ4 cut off": (region(image(literals(PTX)[:-5], flags=LZ4, size=len(PTX))), INVALID_IMAGE, "LZ4 block"),
    "zstd": (region(image(b"\x28\xb5\x2f\xfd" + b"\xff" * 30, flags=ZSTD, size=100)), INVALID_IMAGE, "zstd frame"),
    "text cut off": (region(image(STORE[: STORE.index(b"ret;")])), INVALID_PTX, "fat binary"),
    "not PTX": (region(image(b"int main() { return 0; }")), INVALID_PTX, "int"),
    "for a newer part": (region(image(STORE, arch=90)), NO_IMAGE, "holds no PTX for a100 (sm_80); it holds PTX compute_90"),
    "for exactly another part": (region(image(STORE, arch=75, flags=SPECIFIC)), NO_IMAGE, "PTX compute_75a"),
    "without the kernel": (region(image(STORE.replace(b"entry k", b"entry other"))), 98, "holds no kernel k"),
    "too much static shared memory": (
        region(image(store(".shared .align 4 .b8 s[49156]; st.shared.u32 [s], %r1;"))),
        INVALID_PTX,
        "49156 bytes of static shared memory; allowed: 49152",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_fat_binaries_that_cannot_be_used(
    cuda: Cuda, registered: Register, good: Callable[[], None], name: str
) -> None:
    content, code, reason = DAMAGED[name]
    refused(cuda, registered(content), code, reason, good)


def test_every_truncation_of_a_fat_binary_is_refused(
    cuda: Cuda, registered: Register, good: Callable[[], None]
) -> None:
    whole = region(image(literals(STORE), flags=LZ4, size=len(STORE)))
    for end in range(24, len(whole) - 8, 8):
        cut = whole[:8] + (end - 16).to_bytes(8, "little") + whole[16:end]
        kernel = registered(cut)
        assert cuda.launch_code(kernel, 1, 1, [0]) == INVALID_IMAGE, end
        assert vgpu.last_message()
        cuda.code("cudaGetLastError")
    good()
    vgpu.assert_clean()


@pytest.mark.parametrize(
    ("device", "code"), [("a100", NO_IMAGE), ("l4", SUCCESS), ("rtx4090", SUCCESS), ("h100", SUCCESS)]
)
def test_the_part_decides(cuda: Cuda, registered: Register, virtual_gpu: Any, device: str, code: int) -> None:
    virtual_gpu.configure(device=device)
    kernel = registered(region(image(STORE, arch=89)))
    pointer = cuda.malloc(4)
    assert cuda.launch_code(kernel, 1, 1, [pointer]) == code
    assert cuda.code("cudaDeviceSynchronize") == SUCCESS
    cuda("cudaFree", pointer)


LAUNCHES = {
    "no blocks": ({"grid": 0}, INVALID_CONFIGURATION, "grid (0, 1, 1)"),
    "too many rows of blocks": ({"grid": (1, 65536)}, INVALID_CONFIGURATION, "grid (1, 65536, 1)"),
    "too many layers of blocks": ({"grid": (1, 1, 65536)}, INVALID_CONFIGURATION, "grid (1, 1, 65536)"),
    "no threads": ({"block": 0}, INVALID_CONFIGURATION, "block (0, 1, 1)"),
    "too many threads": ({"block": 1025}, INVALID_CONFIGURATION, "block (1025, 1, 1)"),
    "too much shared memory": ({"smem": 49153}, INVALID_VALUE, "allowed: 49152"),
    "more shared memory than any block has": ({"smem": 1 << 33}, INVALID_VALUE, "8589934592 bytes"),
}


@pytest.mark.parametrize("name", LAUNCHES)
def test_launches_that_no_part_takes(cuda: Cuda, registered: Register, good: Callable[[], None], name: str) -> None:
    launch, code, reason = LAUNCHES[name]
    refused(cuda, registered(region(image(STORE))), code, reason, good, **launch)


HOST = np.zeros(1, np.uint32)
FAULTS = {  # code of the PTX before the store, address, error, report
    "null pointer": ("", 0, ILLEGAL_ADDRESS, "oob"),
    "almost null": ("", 16, ILLEGAL_ADDRESS, "oob"),
    "host pointer": ("", HOST.ctypes.data, ILLEGAL_ADDRESS, "host-pointer"),
    "address that no pointer has": ("", 0xDEAD_BEEF_DEAD_BEE0, ILLEGAL_ADDRESS, "oob"),
    "never ends": ("AGAIN: bra.uni AGAIN;", 0, TIMEOUT, "budget"),
    "never ends, waiting": ("AGAIN: nanosleep.u32 10; bra.uni AGAIN;", 0, TIMEOUT, "budget"),
    "unknown instruction": ("tcgen05.wait::ld.sync.aligned;", 0, LAUNCH_FAILURE, "unsupported"),
    "unknown modifier": ("add.wrong.u32 %r1, %r1, 1;", 0, LAUNCH_FAILURE, "unsupported"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_kernels_that_fail(
    cuda: Cuda, registered: Register, good: Callable[[], None], virtual_gpu: Any, name: str
) -> None:
    here, address, code, report = FAULTS[name]
    virtual_gpu.configure(budget=10000)
    kernel = registered(region(image(store(here))))
    assert cuda.launch_code(kernel, 1, 1, [address]) == SUCCESS, "a launch returns before its kernel runs"
    assert cuda.code("cudaDeviceSynchronize") == code
    assert [(r["code"], r["kernel"]) for r in virtual_gpu.reports()] == [(report, "k")]
    assert virtual_gpu.reports()[0]["ptx_line"] in (7, 8)
    assert cuda.code("cudaGetLastError") == cuda.code("cudaDeviceSynchronize") == code, "the context is dead"
    virtual_gpu.reset()
    assert HOST[0] == 0
    good()
