"""AWQ's and MXFP4's codes as the numbers they stand for, by loops over single elements; and what does not fit together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from internvl_kernels import CheckpointError
from internvl_kernels.io.checkpoint import load_weights, read_config, save_checkpoint
from internvl_kernels.io.quantized import Sources, read_sources
from internvl_kernels.models import LanguageModel, storage
from internvl_kernels.testing.checkpoints import random_weights, tiny_config

COLUMN_OF_NIBBLE = (0, 2, 4, 6, 1, 3, 5, 7)
FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def pack(codes: torch.Tensor) -> torch.Tensor:
    """AWQ's words of codes ``[rows, columns]``, nibble by nibble."""
    words = torch.zeros(len(codes), codes.shape[1] // 8, dtype=torch.int64)
    for nibble, column in enumerate(COLUMN_OF_NIBBLE):
        words |= codes[:, column::8].long() << (4 * nibble)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).int()


def awq(weight: torch.Tensor, group: int, seed: int = 0) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Random codes for a weight ``[out, in]``, and the numbers they stand for."""
    generator = torch.Generator().manual_seed(seed)
    outer, inner = weight.shape
    codes = torch.randint(0, 16, (inner, outer), generator=generator)
    zeros = torch.randint(0, 16, (inner // group, outer), generator=generator)
    scales = ((torch.rand(inner // group, outer, generator=generator) + 0.5) * inner**-0.5 / 8).half()
    numbers = torch.empty(outer, inner)
    for i in range(inner):
        for o in range(outer):
            numbers[o, i] = float(codes[i, o] - zeros[i // group, o]) * float(scales[i // group, o])
    return {"qweight": pack(codes), "qzeros": pack(zeros), "scales": scales}, numbers


def quantised(folder: Path, text: str) -> dict[str, torch.Tensor]:
    """Writes a model whose language model's linear layers are AWQ's; returns the canonical weights it stands for."""
    config = tiny_config(text)
    weights = random_weights(config)
    save_checkpoint(weights, config, folder / "plain")
    stored = load_file(folder / "plain/model.safetensors")
    for number, name in enumerate(list(stored)):
        linear = name.startswith("language_model.model.layers.") and stored[name].ndim == 2
        if linear:
            parts, numbers = awq(stored.pop(name), 16, number)
            for part, tensor in parts.items():
                stored[name.removesuffix("weight") + part] = tensor
            stored[f"expected {name}"] = numbers
    expected = {n: stored.pop(n) for n in list(stored) if n.startswith("expected ")}
    (folder / "awq").mkdir()
    text_file = (folder / "plain/config.json").read_text()
    quantisation = '"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 16, "version": "gemm"}, '
    (folder / "awq/config.json").write_text(text_file.replace("{", "{" + quantisation, 1))
    save_file(stored, folder / "awq/model.safetensors")
    plain = stored | {n.removeprefix("expected "): t for n, t in expected.items()}
    plain = {n: t for n, t in plain.items() if not n.endswith(("qweight", "qzeros", "scales"))}
    (folder / "numbers").mkdir()
    (folder / "numbers/config.json").write_text(text_file)
    save_file({n: t.contiguous() for n, t in plain.items()}, folder / "numbers/model.safetensors")
    return load_weights(folder / "numbers", read_config(folder / "numbers"), "float32", progress=False)


@pytest.mark.parametrize("text", ["internlm2", "qwen2", "phi3"])
def test_awq_is_read_as_its_numbers(tmp_path: Path, text: str) -> None:
    expected = quantised(tmp_path, text)
    config = read_config(tmp_path / "awq")
    got = load_weights(tmp_path / "awq", config, "float32", progress=False)
    assert sorted(got) == sorted(expected)
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor), name
    place = storage(config, torch.float32)
    packed = load_weights(tmp_path / "awq", config, "float32", progress=False, storage=place)
    ids = torch.arange(12).reshape(2, 6)
    plain, kept = (LanguageModel(config.language, w, backend="cpu").logits(ids) for w in (got, packed))
    assert torch.equal(plain, kept)


def test_mxfp4_is_read_as_its_numbers(tmp_path: Path) -> None:
    config = tiny_config("gpt_oss", text_overrides={"hidden_size": 64, "expert_size": 96, "intermediate_size": 96})
    save_checkpoint(random_weights(config), config, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    generator = torch.Generator().manual_seed(2)
    for name in [n for n in stored if n.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        experts, inner, outer = stored.pop(name).shape
        stored[f"{name}_blocks"] = torch.randint(0, 256, (experts, outer, inner // 32, 16), generator=generator).byte()
        stored[f"{name}_scales"] = torch.randint(110, 130, (experts, outer, inner // 32), generator=generator).byte()
    save_file(stored, tmp_path / "model.safetensors")
    weights = load_weights(tmp_path, read_config(tmp_path), "float32", progress=False)

    def number(name: str, expert: int, row: int, column: int) -> float:
        group, place = divmod(column, 32)
        byte = int(stored[f"{name}_blocks"][expert, row, group, place // 2])
        code = byte >> 4 if place % 2 else byte & 15
        scale = 2.0 ** (int(stored[f"{name}_scales"][expert, row, group]) - 127)
        return (-1 if code >= 8 else 1) * FP4[code % 8] * scale

    at = "language_model.model.layers.1.mlp.experts."
    gate_up, down = weights["language.layers.1.experts.gate_up"], weights["language.layers.1.experts.down"]
    for expert in range(4):
        for row in range(96):
            for column in range(0, 64, 5):
                assert gate_up[expert, row, column] == number(f"{at}gate_up_proj", expert, 2 * row, column)
                assert gate_up[expert, 96 + row, column] == number(f"{at}gate_up_proj", expert, 2 * row + 1, column)
        for row in range(64):
            for column in range(0, 96, 7):
                assert down[expert, row, column] == number(f"{at}down_proj", expert, row, column)


def test_a_scale_of_mxfp4_that_is_no_number(tmp_path: Path) -> None:
    blocks, scales = torch.full((1, 2, 1, 16), 0x21).byte(), torch.tensor([[[0], [255]]]).byte()
    save_file({"w_blocks": blocks, "w_scales": scales}, tmp_path / "model.safetensors")
    source = read_sources(tmp_path)["w"]
    got = Sources().read(source, 0, 64).view(32, 2)
    assert got[:, 1].isnan().all()
    assert got[:2, 0].tolist() == [0.5 * 2.0**-127, 2.0**-127]


def wrong(folder: Path, change: dict[str, torch.Tensor | None]) -> None:
    parts, _ = awq(torch.empty(16, 32), 16)
    tensors = {f"a.{name}": tensor for name, tensor in parts.items()} | {
        "b_blocks": torch.zeros(2, 4, 3, 16).byte(),
        "b_scales": torch.zeros(2, 4, 3).byte(),
    }
    save_file({n: t for n, t in (tensors | change).items() if t is not None}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"a.qzeros": None}, "missing tensor: a.qzeros"),
        ({"a.scales": None}, "missing tensor: a.scales"),
        ({"b_scales": None}, "missing tensor: b_scales"),
        ({"a.qweight": torch.zeros(32, 2)}, "a.qweight is F32"),
        ({"a.qweight": torch.zeros(31, 2, dtype=torch.int32)}, r"allowed: \[in, out/8\]"),
        ({"a.qweight": torch.zeros(0, 2, dtype=torch.int32)}, "of 2 dimensions"),
        ({"a.qzeros": torch.zeros(2, 3, dtype=torch.int32)}, r"qzeros \[2, 3\]"),
        ({"a.scales": torch.zeros(2, 8).half()}, r"scales \[2, 8\]"),
        ({"a.weight": torch.zeros(16, 32)}, "both plain and quantised"),
        ({"b_blocks": torch.zeros(2, 4, 3, 8).byte()}, r"b_blocks \[2, 4, 3, 8\]"),
        ({"b_scales": torch.zeros(2, 3, 3).byte()}, r"scales \[2, 3, 3\]"),
    ],
)
def test_parts_that_do_not_fit(tmp_path: Path, change: dict[str, torch.Tensor | None], words: str) -> None:
    wrong(tmp_path, {})
    assert {n: s.shape for n, s in read_sources(tmp_path).items()} == {"a.weight": (16, 32), "b": (2, 96, 4)}
    wrong(tmp_path, change)
    with pytest.raises(CheckpointError, match=words):
        read_sources(tmp_path)
