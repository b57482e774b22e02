"""A process without torch: both families on numpy arrays, DeviceArrays and another library's DLPack."""

import sys

sys.modules["torch"] = None  # an import of it raises

import numpy as np  # noqa: E402

import internvl_kernels as ivk  # noqa: E402

rng = np.random.default_rng(0)
x, branch = rng.standard_normal((2, 5, 200), np.float32)
weight, bias = rng.standard_normal((2, 200), np.float32)
h, y = ivk.ops.add_norm(ivk.DeviceArray(x), branch, weight, bias)
assert isinstance(y, ivk.DeviceArray), type(y)
total = x + branch
expected = (total - total.mean(-1, keepdims=True)) / np.sqrt(total.var(-1, keepdims=True) + 1e-6) * weight + bias
np.testing.assert_array_equal(h.numpy(), total)
np.testing.assert_allclose(y.numpy(), expected, atol=1e-5)

tiles = rng.standard_normal((2, 17, 24), np.float32)
tokens = ivk.ops.pixel_shuffle(ivk.DeviceArray(tiles))
blocks = tiles[:, 1:].reshape(2, 2, 2, 2, 2, 24).transpose(0, 1, 3, 2, 4, 5).reshape(2, 4, 96)
np.testing.assert_array_equal(tokens.numpy(), blocks)
host = ivk.ops.pixel_shuffle(tiles, backend="cuda")
assert isinstance(host, np.ndarray)
np.testing.assert_array_equal(host, blocks)


class Foreign:
    shape = tokens.shape

    def __dlpack__(self, *, stream: int) -> object:
        return tokens.__dlpack__(stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        return tokens.__dlpack_device__()


normed = ivk.ops.rms_norm(Foreign(), np.ones(96, np.float32))
np.testing.assert_allclose(np.square(normed.numpy()).mean(-1), 1.0, rtol=1e-4)
print("all good")
