"""Parity on this machine: every op on every instruction set against the reference, and a model against itself on the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import ops, reference
from .._lazy import torch
from ..ops._backend import cpu
from .compare import compare, same_bits
from .invariance import instruction_set
from .parity import Problem

if TYPE_CHECKING:
    from rich.table import Table

    from ..model import Model

MODEL_LIMIT = 2e-4  # relative L2 error of hidden states and logits in float32
ANSWER_TOKENS = 16  # compared of each answer
Step = Callable[[str], None]


@dataclass
class Finding:
    """One row of the report: an op over all its problems, or one quantity of the model."""

    family: str
    name: str
    checks: int = 0
    worst: float = 0.0  # error as a share of what is allowed
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems and self.checks > 0

    def take(self, what: str, check: Callable[[], float]) -> None:
        """Run ``check``; its share of the allowed error counts, and anything it raises is a problem."""
        self.checks += 1
        try:
            share = check()
        except Exception as error:
            self.problems.append(
                f"{what}: {'' if isinstance(error, AssertionError) else type(error).__name__ + ': '}{error}"
            )
            return
        self.worst = max(self.worst, share)
        if not share <= 1.0:
            self.problems.append(f"{what}: {share:.3g} times the allowed error")


@dataclass
class Report:
    """What was checked; prints as a table."""

    isas: tuple[str, ...]
    findings: list[Finding]
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return bool(self.findings) and all(f.ok for f in self.findings)

    @property
    def failed_families(self) -> list[str]:
        return sorted({f.family for f in self.findings if not f.ok})

    def to_dict(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "failed_families": self.failed_families,
            "isas": list(self.isas),
            "extension": cpu().__file__,
            "seconds": self.seconds,
            "findings": [{**asdict(f), "ok": f.ok} for f in self.findings],
        }

    def __rich__(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        checks = sum(f.checks for f in self.findings)
        table = Table(title=f"{checks} checks on {', '.join(self.isas)} in {self.seconds:.1f} s", title_justify="left")
        for name in ("family", "op", "checks", "worst error / allowed", ""):
            table.add_column(name, justify="right" if name in ("checks", "worst error / allowed") else "left")
        family = None
        for f in self.findings:
            if family not in (None, f.family):
                table.add_section()
            table.add_row(
                f.family if f.family != family else "",
                f.name,
                str(f.checks),
                "exact" if f.worst == 0.0 else "< 0.01" if f.worst < 0.005 else f"{f.worst:.2f}",
                Text("ok", "green") if f.ok else Text("FAIL", "bold red"),
            )
            family = f.family
        return table


def verify_ops(problems: Iterable[Problem], isas: Sequence[str], step: Step = lambda text: None) -> list[Finding]:
    """Each problem in each dtype: the cpu kernel on each instruction set, on one thread and on two, against the reference."""
    findings: dict[str, Finding] = {}
    for problem in problems:
        step(f"{problem.family}: {problem.op}")
        finding = findings.setdefault(problem.op, Finding(problem.family, problem.op))
        for dtype in problem.dtypes:
            expected: list[Any] = []
            for isa in isas:
                with instruction_set(isa):
                    finding.take(f"{problem.label}, {dtype}, {isa}", partial(_check, problem, dtype, expected))
    return list(findings.values())


def _check(problem: Problem, dtype: str, expected: list[Any]) -> float:
    """Share of the allowed error. ``expected`` keeps the two reference results for the next instruction set."""
    if not expected:
        expected += [_reference(problem, dtype, wide=False), _reference(problem, dtype, wide=True)]
    same, high = expected
    actual = _kernel(problem, dtype, threads=1)
    share = compare(actual, same, high, problem.op, "float32" if dtype == "uint8" else dtype)
    same_bits(_kernel(problem, dtype, threads=2), actual, f"{problem.op} on two threads")
    return share


def _kernel(problem: Problem, dtype: str, threads: int) -> list[Any]:
    arguments, options = problem.make(dtype)
    result = getattr(ops, problem.op)(*arguments, **options, **problem.run, threads=threads, backend="cpu")
    return _results(result, arguments, problem)


def _reference(problem: Problem, dtype: str, wide: bool) -> list[Any]:
    arguments, options = problem.make(dtype)
    if wide:
        arguments, options = [_widen(a) for a in arguments], {k: _widen(v) for k, v in options.items()}
    return _results(getattr(reference, problem.op)(*arguments, **options), arguments, problem)


def _results(result: Any, arguments: list[Any], problem: Problem) -> list[Any]:
    parts = list(result) if isinstance(result, tuple) else [result]
    return parts + [arguments[i] for i in problem.changed]


def _widen(value: Any) -> Any:
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def verify_model(
    path: str | Path, question: str, pictures: Sequence[tuple[Any, str]], step: Step = lambda text: None
) -> list[Finding]:
    """A checkpoint on the cpu backend against the same one on the reference, in float32.

    pictures: (image, name) pairs. Compared are hidden states of every layer, visual tokens, logits, and greedy answers.
    """
    from ..model import load

    step("model: loading")
    kernels, plain = (load(path, backend=name, progress=False) for name in ("cpu", "reference"))
    rows = {name: Finding("model", name) for name in ("hidden states", "visual tokens", "logits", "answers")}
    for image, name in pictures:
        step(f"model: {name}")
        _check_picture(kernels, plain, question, image, name, rows)
    return list(rows.values())


def _check_picture(
    kernels: Model, plain: Model, question: str, image: Any, name: str, rows: dict[str, Finding]
) -> None:
    tiles = kernels.tile(image).pixels
    ids = [kernels.prompt_ids(question, image)]
    layers = list(range(kernels.config.vision.num_layers + 1))

    def share(call: Callable[[Model], Any]) -> float:
        return max(_relative(a, b) for a, b in zip(call(kernels), call(plain))) / MODEL_LIMIT

    rows["hidden states"].take(name, lambda: share(lambda m: m.vision(tiles, layers=layers)))
    rows["visual tokens"].take(name, lambda: share(lambda m: [m.encode_tiles(tiles)]))
    rows["logits"].take(name, lambda: share(lambda m: [m.logits(ids, tiles)]))
    answers = (m.chat(question, image, max_new_tokens=ANSWER_TOKENS) for m in (kernels, plain))
    rows["answers"].take(name, lambda: _equal(*answers))


def _relative(actual: Any, expected: Any) -> float:
    if actual.shape != expected.shape:
        raise AssertionError(f"shape {list(actual.shape)}; expected {list(expected.shape)}")
    return float((actual - expected).double().norm() / expected.double().norm())


def _equal(actual: str, expected: str) -> float:
    if actual != expected:
        raise AssertionError(f"answer {actual!r}; the reference says {expected!r}")
    return 0.0


def isas() -> tuple[str, ...]:
    return tuple(cpu().available_isas())


__all__ = ["MODEL_LIMIT", "Finding", "Report", "isas", "verify_model", "verify_ops"]
