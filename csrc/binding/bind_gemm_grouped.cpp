#include "binding/program.h"
#include "core/check.h"
#include "kernels/gemm/gemm_grouped.h"

namespace ivk::binding {

void bind_gemm_grouped(py::module_& m) {
    m.def(
        "gemm_grouped",
        [](py::handle x, py::handle rows, py::handle offsets, py::handle weight, py::object packed_rows,
           py::handle bias, py::handle y, bool gated, float limit, int threads) {
            const TensorView from = to_view(x, "x"), index = to_view(rows, "rows"), at = to_view(offsets, "offsets");
            const TensorView w = to_view(weight, "weight"), to = to_view(y, "y", true), shift = to_view(bias, "bias");
            PackedWeight matrices{w.data, w.dtype, 0, from.ndim == 2 ? from.shape[1] : 0, true, 0, gated};
            const bool packed = !packed_rows.is_none();
            require(w.ndim == (packed ? 2 : 3) && w.contiguous() &&
                        (w.dtype == DType::f32 || w.dtype == DType::bf16 || w.dtype == DType::f16) &&
                        at.numel() == w.shape[0] + 1,
                    "gemm_grouped: weight is ", w, ", offsets ", at,
                    "; allowed: dense, float32, bfloat16 or float16, one offset more than experts");
            matrices.n = packed ? packed_rows.cast<int64_t>() : w.shape[1];
            matrices.packed = packed;
            matrices.stride = packed ? 0 : w.shape[2];
            const int64_t each = packed ? packed_elements(matrices.n, matrices.k, gated) : matrices.n * matrices.k;
            require(matrices.n >= 0 && (packed ? w.shape[1] == each : w.shape[2] == matrices.k) &&
                        (!gated || matrices.n % 2 == 0),
                    "gemm_grouped: weight is ", w, ", x ", from, "; allowed: x's K, and an even N when gated");
            const Alone running("gemm_grouped");
            gemm_grouped(from, index, at, matrices, each, shift, to, gated ? Epilogue::swiglu : Epilogue::linear, limit,
                         threads);
        },
        py::arg("x"), py::arg("rows"), py::arg("offsets"), py::arg("weight"), py::arg("packed_rows"), py::arg("bias"),
        py::arg("y"), py::arg("gated"), py::arg("limit") = 0.0f, py::arg("threads") = 0,
        "See csrc/kernels/gemm/gemm_grouped.h; packed_rows: N of packed weights, or None for plain ones.");
}

}  // namespace ivk::binding
