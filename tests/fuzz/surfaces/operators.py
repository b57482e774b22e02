"""Every op of ``ivk.ops``: right under testing/tolerances.py whatever form its tensors come in, and inputs left as they were; or
refused by name. A new op is here with its signature and a maker (op_arguments.py)."""

from __future__ import annotations

import contextlib
import inspect
from typing import Any

import numpy as np
import torch

import internvl_kernels as ivk
from fuzz.op_arguments import Maker
from fuzz.op_calls import REFERENCE_ONLY, Case, by_reference, make_case, plain_arguments, results
from fuzz.op_oddities import NoPlainError, plain
from fuzz.values import Rng
from internvl_kernels import ops, reference
from internvl_kernels.ops import PackedWeight
from internvl_kernels.testing.compare import compare, same_bits
from internvl_kernels.testing.tolerances import EPS

ERRORS = (ivk.UnsupportedError, ivk.BackendError, MemoryError)
WEIGHT = 20
STRICT = True  # a warning is a find
EXPECTED_WARNINGS = (
    ".*[Nn]ested", "torch.quantize", ".*PendingDeprecation", ".*array subclass.*matrix", ".*not writable", ".*Complex", ".*quantiz",
)  # fmt: skip
WRITTEN = {
    "add_norm": "x",
    "add_scaled": "x",
    "linear_residual": "residual",
    "vision_qk_norm": "qkv",
}  # with inplace=True
case = make_case


def _call(made: Case) -> Any:
    given = {name: value for name, value in made.given.items() if not name.startswith("plain ")}
    if made.door == "reference module":
        function = getattr(reference, made.op, None)
        if function is None:
            raise ivk.BackendError("no such reference")
        return function(**{n: v for n, v in given.items() if n in inspect.signature(function).parameters})
    if "backend" in inspect.signature(getattr(ops, made.op)).parameters:
        given["backend"] = made.door
    return getattr(ops, made.op)(**given)


def check(given: Case) -> None:
    before: dict[str, Any] | None = None
    with contextlib.suppress(NoPlainError):
        before = plain_arguments(given.given)
    try:
        result = _call(given)
    except (ivk.UnsupportedError, MemoryError) as error:
        if not str(error).startswith(f"{given.op}: "):
            raise AssertionError(f"a refusal that does not name the op: {error}") from None
        if (
            before is not None
            and not given.strange
            and not any(":" in o or o.startswith("out") for o in given.oddities)
        ):
            _refused_as_well(given, before, error)
        raise
    _inputs_unchanged(given, before)
    if given.op in ("uniforms", "choose_grid", "statistics_space") or isinstance(result, PackedWeight):
        _check_others(given, result, before)
        return
    found = results(result)
    for tensor in found:
        assert isinstance(tensor, (torch.Tensor, np.ndarray)), f"a result that is a {type(tensor).__name__}"
    meta = any(isinstance(t, torch.Tensor) and t.device.type != "cpu" for t in found)
    if meta or all(0 in tensor.shape for tensor in found):
        return  # the reference on tensors without memory; nothing
    assert before is not None or given.door == "reference module" or given.door == "reference", (
        "a result from what is no plain tensor"
    )
    if before is None or given.door in ("reference", "reference module") or given.op in REFERENCE_ONLY:
        return
    _compare(given, found, before)


def _refused_as_well(given: Case, before: dict[str, Any], error: Exception) -> None:
    """Plain arguments of a maker are refused only by what both backends refuse."""
    if given.door in ("cuda", "gpu", "", "reference module") or "256" in str(error):
        return
    if any(isinstance(v, torch.Tensor) and v.dtype == torch.float64 for v in before.values()):
        return  # which only some kernels have
    try:
        by_reference(given.op, before)
    except (ivk.UnsupportedError, NoPlainError):
        return
    raise AssertionError(f"refused, though the reference takes it: {error}")


def _inputs_unchanged(given: Case, before: dict[str, Any] | None) -> None:
    if before is None:
        return
    written = {
        "out",
        "tell",
        "k_cache" if given.op == "qkv_rope_append" else "",
        "v_cache" if given.op == "qkv_rope_append" else "",
    }
    if isinstance(given.given.get("inplace"), (bool, np.bool_)) and given.given["inplace"]:
        written.add(WRITTEN.get(given.op, ""))
    if any(o.startswith("out of kind") and o[-1] in "56" for o in given.oddities):
        return  # shares memory with the result, as was asked
    for name, value in given.given.items():
        if (
            name not in written
            and not name.startswith("plain ")
            and isinstance(before.get(name), torch.Tensor)
            and before[name].dtype != torch.complex128
            and not isinstance(value, PackedWeight)
        ):
            same_bits(plain(value), before[name], f"{given.op}: {name} was written to:")


def _compare(given: Case, found: list[Any], before: dict[str, Any]) -> None:
    scale = given.given.get("scale")
    if isinstance(scale, (int, float)) and abs(scale) > 16:  # a softmax of errors in the scores
        return
    if "packed" in given.oddities and any(
        before[n].dtype != before["x"].dtype for n in ("weight", "gate_up") if n in before
    ):
        return  # products of two dtypes, which the reference has not
    wide = {name: _widen(value) for name, value in before.items()}
    try:
        same, high = results(by_reference(given.op, before)), results(by_reference(given.op, wide))
    except ivk.UnsupportedError as error:
        raise AssertionError(f"computed, but the reference says {error}") from None
    if given.op == "qkv_rope_append":
        found = [*found, given.given["k_cache"], given.given["v_cache"]]
        same, high = [*same, before["k_cache"], before["v_cache"]], [*high, wide["k_cache"], wide["v_cache"]]
    assert len(found) == len(same), f"{len(found)} results, the reference has {len(same)}"
    for ours, theirs, exact in zip(found, same, high):
        ours = plain(ours)
        name = str(ours.dtype).removeprefix("torch.")
        _right(ours, theirs, exact, given.op, name if name in EPS else "float32")
    out = given.given.get("out")
    if out is not None:
        same_bits(
            plain(out),
            plain(found[0] if given.op == "qkv_rope_append" else found[-1]),
            "out, beside what was returned,",
        )


def _right(ours: torch.Tensor, theirs: torch.Tensor, exact: torch.Tensor, op: str, dtype: str) -> None:
    """By the table. Its limits are of many elements; of a few, of two ways of torch's through float64, and where torch itself left
    the path of float64 (16-bit scores that overflow, Inf that its convolution spreads), float64 is the measure."""
    try:
        compare(ours, theirs, exact, op, dtype)
    except AssertionError:
        if not ours.is_floating_point() or ours.shape != theirs.shape:
            raise
        strayed = not torch.equal(theirs.isfinite(), exact.to(theirs.dtype).isfinite())
        few = ours.numel() < 512 or dtype == "float64"
        if not (few or strayed) or not torch.equal(ours.isfinite(), exact.to(ours.dtype).isfinite()):
            raise
        clean = exact.double().nan_to_num(0, 0, 0)
        scale = clean.abs().amax(-1, keepdim=True).clamp_min(1e-6 * float(clean.abs().max()) + 1e-30)
        error, usual = (float(((t.double().nan_to_num(0, 0, 0) - clean) / scale).abs().max()) for t in (ours, theirs))
        if error > (0.0 if strayed else 4 * usual) + 8 * EPS[dtype]:
            raise


def _widen(value: Any) -> Any:
    if isinstance(value, list):
        return [_widen(v) for v in value]
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _check_others(given: Case, result: Any, before: dict[str, Any] | None) -> None:
    if given.op == "uniforms":
        assert bool(np.all((np.asarray(result) >= 0) & (np.asarray(result) < 1)))
    elif given.op == "choose_grid":
        known = {"min_tiles": 1, "max_tiles": 12, **given.given}
        assert known["min_tiles"] <= result[0] * result[1] <= known["max_tiles"]
    elif (
        isinstance(result, PackedWeight)
        and before is not None
        and len(result.shape) == 2
        and before["weight"].isfinite().all()
    ):
        weight = before["weight"]
        x = Maker(Rng(3), str(weight.dtype).removeprefix("torch.")).integers(0, 5, 3, weight.shape[1]).to(weight.dtype)
        op = "linear_swiglu" if result.gated else "linear"
        name = "gate_up" if result.gated else "weight"
        actual = getattr(ops, op)(x, result, threads=1)
        same, high = (by_reference(op, {"x": _cast(x), name: _cast(weight)}) for _cast in (lambda t: t, _widen))
        compare(actual, same, high, op, str(weight.dtype).removeprefix("torch."))


def show(given: Case) -> str:
    def said(value: Any) -> str:
        if isinstance(value, (torch.Tensor, np.ndarray)):
            strides = (
                value.stride()
                if isinstance(value, torch.Tensor) and value.layout == torch.strided
                else getattr(value, "strides", "")
            )
            return f"{type(value).__name__} {value.dtype} {list(value.shape)} strides {strides}"
        return f"{value!r:.200}"

    return f"{given.op} by {given.door!r}, {given.oddities}: " + ", ".join(
        f"{k}={said(v)}" for k, v in given.given.items()
    )
