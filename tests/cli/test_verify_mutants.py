"""verify goes red for every kernel that is off by one, and stays green for the kernels as they are.

The sources are copied, built once for the baseline instruction set without optimisation, and then rebuilt with one edit at
a time. The built module stands in a copy of the installed package, which comes first on PYTHONPATH.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import internvl_kernels

ROOT = Path(__file__).parents[2]
KERNELS = "csrc/kernels"

# Family, op that must fail, file below csrc/kernels, exact source (matches once), replacement. No edit reads or writes out of bounds.
MUTANTS: list[tuple[str, str, str, str, str]] = [
    ("norm", "rms_norm", "../core/simd_norm.h",
        "squares / static_cast<float>(cols) + eps",
        "squares / static_cast<float>(cols + 1) + eps"),
    ("norm", "layer_norm", "../core/simd_norm.h",
        "const float count = static_cast<float>(cols);",
        "const float count = static_cast<float>(cols + 1);"),
    ("norm", "add_norm", "norm/norm_cpu.cpp",
        "+ r * p.stride_branch;",
        "+ (r > 0 ? r - 1 : r) * p.stride_branch;"),
    ("gemm", "swiglu", "gemm/swiglu_cpu.cpp",
        "const T* up = gate + p.cols;",
        "const T* up = gate + p.cols - 1;"),
    ("gemm", "linear_residual", "gemm/gemm_cpu.cpp",
        "row * p.stride_r + j",
        "(row > 0 ? row - 1 : row) * p.stride_r + j"),
    ("gemm", "linear_swiglu", "gemm/gemm_cpu.cpp",
        "const f32x16 up = load(from + kPanel);",
        "const f32x16 up = load(from);"),
    ("gemm", "linear_gelu", "../core/simd_product.h",
        "to[i * count + r] = as_float(rows[r][i]);",
        "to[i * count + r] = as_float(rows[r][i > 0 ? i - 1 : i]);"),
    ("gemm", "linear", "gemm/gemm_few_rows_cpu.cpp",
        "return load_tail(from, p.k - whole);",
        "return load_tail(from, p.k - whole - 1);"),
    ("attention", "attention", "attention/attention_cpu.cpp",
        "s.keys - s.rows + row_of(query) + 1 :",
        "std::max<int64_t>(1, s.keys - s.rows + row_of(query)) :"),
    ("attention", "cached_attention", "attention/attention.cpp",
        "at(v_cache, first * p.v_row)",
        "at(v_cache, (first > 0 ? first - 1 : 0) * p.v_row)"),
    ("attention", "cached_attention", "attention/attention_decode_cpu.cpp",
        "for (int64_t key = 0; key < count; ++key) {",
        "for (int64_t key = 0; key < count - (count > 1); ++key) {"),
    ("patch_embed", "patch_embed", "patch_embed/patch_embed_cpu.cpp",
        "= table.value[1][pixel[1]];",
        "= table.value[1][pixel[0]];"),
    ("patch_embed", "patch_embed", "patch_embed/patch_embed_cpu.cpp",
        "row % p.patch) * p.stride_row",
        "(row + 1) % p.patch) * p.stride_row"),
    ("patch_embed", "patch_embed", "patch_embed/patch_embed_cpu.cpp",
        "static_cast<const T*>(p.pos) + r * p.width;",
        "static_cast<const T*>(p.pos) + (r > 0 ? r - 1 : 0) * p.width;"),
    ("pixel_shuffle", "pixel_shuffle", "pixel_shuffle/pixel_shuffle_cpu.cpp",
        "(r * p.cols + c) *",
        "(r * p.cols + (c > 0 ? c - 1 : c)) *"),
    ("embed", "embed_tokens", "embed/embed_cpu.cpp",
        "(-1 - row) * p.visual_stride",
        "(row < -1 ? -2 - row : 0) * p.visual_stride"),
    ("rope", "qkv_rope", "rope/rope_cpu.cpp",
        "p.cos + r * p.stride_cos",
        "p.cos + (r > 0 ? r - 1 : r) * p.stride_cos"),
    ("rope", "qkv_rope_append", "rope/rope_cpu.cpp",
        "std::memcpy(v + h * p.stride_v_head,",
        "std::memcpy(v + (h > 0 ? h - 1 : h) * p.stride_v_head,"),
    ("moe", "moe_route", "moe/moe_cpu.cpp",
        "index[place] = i + l;",
        "index[place] = i + l + 1;"),
    ("moe", "moe_experts", "gemm/gemm_grouped.cpp",
        "rows.as<const int64_t>() + at[e]",
        "rows.as<const int64_t>() + at[0]"),
    ("moe", "moe_combine", "moe/moe_cpu.cpp",
        "for (int64_t j = 1; j < p.k; ++j)",
        "for (int64_t j = 1; j + 1 < p.k; ++j)"),
    ("moe", "moe_permute", "moe/moe.cpp",
        "]++] = t * k + j;",
        "]++] = t * k + (j + 1) % k;"),
    ("sample", "argmax", "sample/sample_cpu.cpp",
        "best.index = i + (found - lane);",
        "best.index = i + (found - lane) + 1;"),
    ("sample", "sample", "sample/sample_cpu.cpp",
        "std::min<int64_t>(place,",
        "std::min<int64_t>(place + 1,"),
    ("image", "tile_pixels", "image/image_cpu.cpp",
        "strip + window.first *",
        "strip + (window.first > 0 ? window.first - 1 : 0) *"),
    ("image", "tile_pixels", "image/image_cpu.cpp",
        "window_[k] = slot(window.first + k);",
        "window_[k] = slot(window.first + (k > 0 ? k - 1 : 0));"),
]  # fmt: skip


# Imports torch once and forks a fresh ``internvl-kernels`` for every line of standard input: arguments, and where to print.
SERVER = """
import json, os, sys
import torch
for line in sys.stdin:
    arguments, output = json.loads(line)
    child = os.fork()
    if child == 0:
        with open(output, "w") as file:
            os.dup2(file.fileno(), 1)
        from internvl_kernels.cli import app
        try:
            app(arguments)
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(end.code or 0)
        os._exit(70)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass
class Workshop:
    sources: Path
    package: Path
    build: Path
    server: subprocess.Popen[str] | None = None

    @property
    def environment(self) -> dict[str, str]:
        environment = {**os.environ, "PYTHONPATH": str(self.package.parent), "OMP_NUM_THREADS": "1"}
        environment.pop("IVK_ISA", None)
        return environment

    def make(self) -> None:
        self._run("cmake", "--build", str(self.build))
        (module,) = self.build.glob("_cpu*.so")
        target = self.package / module.name
        target.unlink(missing_ok=True)
        shutil.copy(module, target)

    def configure(self) -> None:
        options = ["-DIVK_ISAS=isa_base", "-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O0"]
        self._run(
            "cmake", "-S", str(self.sources), "-B", str(self.build), "-G", "Ninja", f"-DPython_EXECUTABLE={sys.executable}", *options
        )  # fmt: skip

    def verify(self) -> tuple[int, dict[str, Any]]:
        """Exit code and report of ``internvl-kernels verify`` with the module that stands in the workshop."""
        if self.server is None:
            command = [sys.executable, "-c", SERVER]
            pipe = subprocess.PIPE
            self.server = subprocess.Popen(command, env=self.environment, stdin=pipe, stdout=pipe, text=True)
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        output = self.build / "report.json"
        output.unlink(missing_ok=True)
        print(json.dumps([["verify", "--json", "--no-model"], str(output)]), file=self.server.stdin, flush=True)
        code = int(self.server.stdout.readline())
        text = output.read_text()
        assert text, f"verify ended with {code} and no report"
        report = json.loads(text)
        assert Path(report["extension"]).parent == self.package, "verify did not load the module of the workshop"
        return code, report

    def _run(self, *command: str) -> None:
        tools = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        done = subprocess.run(command, env={**os.environ, "PATH": tools}, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    folder = tmp_path_factory.mktemp("mutants")
    shop = Workshop(folder / "sources", folder / "packages" / "internvl_kernels", folder / "build")
    shutil.copytree(ROOT / "csrc", shop.sources / "csrc")
    shutil.copy(ROOT / "CMakeLists.txt", shop.sources)
    installed = Path(internvl_kernels.__file__).parent
    shutil.copytree(installed, shop.package, ignore=shutil.ignore_patterns("_cpu*", "__pycache__"))
    shop.configure()
    shop.make()
    yield shop
    if shop.server is not None:
        assert shop.server.stdin is not None
        shop.server.stdin.close()
        shop.server.wait(timeout=60)
        assert shop.server.stdout is not None
        shop.server.stdout.close()


@pytest.fixture
def mutated(workshop: Workshop, request: pytest.FixtureRequest) -> Iterator[Workshop]:
    name, source, replacement = request.param
    file = workshop.sources / KERNELS / name
    text = file.read_text()
    assert text.count(source) == 1, f"{name}: {source!r} stands there {text.count(source)} times; it must match once"
    file.write_text(text.replace(source, replacement))
    try:
        workshop.make()
        yield workshop
    finally:
        file.write_text(text)


def test_kernels_as_they_are_pass(workshop: Workshop) -> None:
    code, report = workshop.verify()
    assert code == 0, report["failed_families"]
    assert report["ok"]
    assert report["isas"] == ["base"]


def test_the_command_itself_turns_red(workshop: Workshop) -> None:
    """The same through the command line, as a user would run it."""
    command = [sys.executable, "-m", "internvl_kernels.cli", "verify", "--op", "norm"]
    done = subprocess.run(command, env=workshop.environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, "all ok" in done.stdout) == (0, True), done.stdout + done.stderr
    file = workshop.sources / KERNELS / MUTANTS[0][2]
    text = file.read_text()
    file.write_text(text.replace(*MUTANTS[0][3:]))
    try:
        workshop.make()
        done = subprocess.run(command, env=workshop.environment, capture_output=True, text=True, timeout=300)
    finally:
        file.write_text(text)
        workshop.make()
    assert done.returncode == 1
    assert "FAILED: norm" in done.stdout
    assert "rms_norm" in done.stdout


@pytest.mark.parametrize(
    ("mutated", "family", "op"), [((file, source, new), family, op) for family, op, file, source, new in MUTANTS],
    indirect=["mutated"], ids=[f"{family}-{op}-{i}" for i, (family, op, *_) in enumerate(MUTANTS)],
)  # fmt: skip
def test_one_kernel_off_by_one_fails(mutated: Workshop, family: str, op: str) -> None:
    code, report = mutated.verify()
    assert code == 1
    assert not report["ok"]
    assert family in report["failed_families"]
    assert op in [f["name"] for f in report["findings"] if not f["ok"]]


@pytest.mark.parametrize(("name", "source"), [(file, source) for _, _, file, source, _ in MUTANTS])
def test_edits_match_the_sources_once(name: str, source: str) -> None:
    """Said here in no time; the edits themselves need a build."""
    assert (ROOT / KERNELS / name).read_text().count(source) == 1


def test_every_family_has_a_mutant() -> None:
    families = {p.name for p in (ROOT / KERNELS).iterdir() if p.is_dir()}
    assert families == {family for family, *_ in MUTANTS}
