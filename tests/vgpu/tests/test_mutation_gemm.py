"""Other authors' kernels with one synchronisation missing or altered: every one that CUTLASS's GEMMs execute is found in
every schedule, or is in the list below with the reason why nothing changes without it.

What was found, instruction by instruction: tests/logs/2026-11-23-vgpu-mutation.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mutation import FOUND, MODES, SAME, SYNC, changes_of, judge
from raw_cuda import Cuda
from test_strangers import FLAGS, Gemm

import vgpu

pytestmark = pytest.mark.slow  # nvcc takes 20 s for each

NAMES = ["bf16-gelu", "f16-split", "tf32", "s8", "f16-transposed"]
SHAPES = [(128, 128, 320), (128, 128, 512), (128, 64, 128), (128, 128, 256), (128, 128, 128)]
TRIED = [19, 25, 24, 23, 23]  # mutants: fewer would mean that some are skipped

EARLY = "shared memory is used for the first time behind it"
DRAIN = "every group that is not empty has been waited for"
TWICE = "another barrier follows, with nothing between that touches shared memory"
# (GEMM, number of the synchronisation in the PTX) -> why nothing changes without it. What waits for one group less is not
# listed: it waits for more than it must.
EQUIVALENT = {
    (0, 0): EARLY,
    **dict.fromkeys(((0, 10), (0, 11), (1, 8), (1, 9), (2, 9), (2, 10), (3, 8), (3, 9), (4, 8), (4, 9)), DRAIN),
    **dict.fromkeys(((0, 12), (1, 10), (1, 12), (1, 21), (2, 11), (2, 20), (3, 10), (3, 11), (4, 10), (4, 19)), TWICE),
}  # fmt: skip
# Barriers of which one is enough: together they are needed.
TOGETHER = {0: (12, 17), 2: (11, 20), 4: (10, 19)}


@pytest.fixture(params=range(5), ids=NAMES)
def which(request: pytest.FixtureRequest) -> int:
    return int(request.param)


class Mutants:
    def __init__(self, gemm: Gemm, shape: tuple[int, int, int]) -> None:
        self.gemm, self.shape = gemm, shape
        with vgpu.options(lines=True):
            error, result, _ = gemm(*shape, keep_counters=True)
        assert (error, gemm.findings) == (0, [])
        self.expected = result.tobytes()
        self.lines = [line for line in gemm.lines if SYNC.match(line["opcode"])]

    def run(self, mode: vgpu.Mode, changes: str) -> tuple[set[str], bytes]:
        kernel = self.lines[0]["function"]
        with vgpu.mode(mode), vgpu.options(mutate=f"{kernel}@{changes}", budget=20_000_000):
            error, result, _ = self.gemm(*self.shape)
        codes = {report["code"] for report in self.gemm.findings}
        assert bool(error) == bool(codes)
        return codes, result.tobytes()

    def judge(self, changes: str) -> Any:
        return judge(lambda mode: self.run(mode, changes), self.expected, MODES)


def test_every_synchronisation(cuda: Cuda, which: int, compiled: Callable[..., Path]) -> None:
    library = compiled("strangers.cu", *FLAGS, f"-DSTRANGER={which}", suffix=".so")
    mutants = Mutants(Gemm(cuda, library, which), SHAPES[which])
    tried, unseen = 0, set()
    for number, line in enumerate(mutants.lines):
        if not line["executed"]:  # of a split or of an epilogue that this call does not take
            continue
        for change in changes_of(line["opcode"]):
            verdict = mutants.judge(f"{line['ptx_line']}:{change}")
            same = change == "-1" or (which, number) in EQUIVALENT
            print(f"| {NAMES[which]} | {number} | `{line['opcode']}` | {line['executed']} | {change} | {verdict.text} | "
                  f"{('waits for more' if change == '-1' else EQUIVALENT[which, number]) if same else ''} |")  # fmt: skip
            assert verdict.name == (SAME if same else FOUND), (number, line["opcode"], change, verdict)
            assert verdict.reported_everywhere == (not same), (number, line["opcode"], change, verdict)
            tried += 1
            unseen |= {(which, number)} if same and change != "-1" else set()
    assert tried == TRIED[which]
    assert unseen == {place for place in EQUIVALENT if place[0] == which}, "no entry of the list is out of date"
    if which in TOGETHER:
        both = ",".join(f"{mutants.lines[n]['ptx_line']}:delete" for n in TOGETHER[which])
        assert mutants.judge(both).reported_everywhere, "one of these barriers is enough; none is not"


@pytest.mark.parametrize("order", [b"acquire", b"release"])
def test_a_semaphore_without_order(cuda: Cuda, compiled: Callable[..., Path], tmp_path: Path, order: bytes) -> None:
    """Blocks that add to one result in turn: the word that passes from block to block must carry the order along."""
    library = compiled("strangers.cu", *FLAGS, "-DSTRANGER=1", suffix=".so")
    image = library.read_bytes()
    start = image.index(b".version 9")
    at = image.index(b"global." + order + b".gpu", start)
    assert at < image.index(b"\0", start), "not in the PTX"
    changed = tmp_path / f"{order.decode()}.so"
    while at != -1:  # every one of them; the text keeps its length
        image = image[: at + 7] + b"relaxed" + image[at + 14 :]
        at = image.find(b"global." + order + b".gpu", at)
    changed.write_bytes(image)
    intact, mutant = Gemm(cuda, library, 1), Gemm(cuda, changed, 1)
    for mode in MODES:
        with vgpu.mode(mode):
            intact(*SHAPES[1])
            assert intact.findings == []
            error, _, _ = mutant(*SHAPES[1])
        assert error
        assert {report["code"] for report in mutant.findings} == {"race"}, mode
