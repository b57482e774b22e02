"""The README's Python example runs as printed, on the demo's checkpoint and pictures of the names it uses."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from internvl_kernels.costs import model_parameters
from internvl_kernels.demo import checkpoint_path
from internvl_kernels.io.config import read_config

ROOT = Path(__file__).parents[2]


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    source = block.group(1).replace("path/to/InternVL3-1B", str(checkpoint_path()))
    names = re.findall(r'"([\w-]+\.(?:png|jpg))"', source)
    assert {"street.jpg", "a.png"} <= set(names)
    for number, name in enumerate(names):
        Image.new("RGB", (120 + 10 * number, 60), "white").save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    space = {"frames": [np.zeros((40, 60, 3), np.uint8)] * 2}
    exec(compile(source, "README.md", "exec"), space)
    assert len(space["answers"]) == 2
    assert [f.shape[1:] for f in space["features"]] == [(17, 128)] * 2


def test_the_demo_has_the_parameters_it_claims() -> None:
    claimed = re.search(r"([\d.]+) million parameters", (ROOT / "README.md").read_text())
    assert claimed is not None
    assert float(claimed.group(1)) == round(model_parameters(read_config(checkpoint_path())) / 1e6, 1)


def test_the_table_of_models_is_the_registrys() -> None:
    """Written by ``internvl-kernels models --markdown``, between its two marks."""
    from internvl_kernels.cli.models import markdown_table
    from internvl_kernels.registry import RELEASES

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text.partition("<!-- models -->\n")[2].partition("\n<!-- /models -->")[0]
    assert table == markdown_table(list(RELEASES)), "run: internvl-kernels models --markdown"
