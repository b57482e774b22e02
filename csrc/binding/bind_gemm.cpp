#include "binding/program.h"
#include "core/check.h"
#include "kernels/gemm/gemm.h"

namespace ivk::binding {
void bind_gemm(py::module_& m) {
    m.def(
        "gemm",
        [](py::handle x, py::handle weight, py::object packed_rows, py::handle bias, py::handle scale,
           py::handle residual, py::handle y, const std::string& epilogue, int threads, float limit) {
            const TensorView w = to_view(weight, "weight"), from = to_rows(x, "x"), to = to_rows(y, "y", true);
            const TensorView b = to_view(bias, "bias"), s = to_view(scale, "scale");
            const TensorView r = residual.is_none() ? TensorView{} : to_rows(residual, "residual");
            const Epilogue kind = epilogue_named(epilogue);
            PackedWeight weights{
                w.data, w.dtype, 0, from.ndim == 2 ? from.shape[1] : 0, true, 0, kind == Epilogue::swiglu};
            if (packed_rows.is_none()) {
                weights = plain_weight(w, kind == Epilogue::swiglu);
            } else {
                weights.n = packed_rows.cast<int64_t>();
                require(weights.n >= 0 && w.ndim == 1 && w.contiguous() &&
                            w.shape[0] == packed_elements(weights.n, weights.k, weights.swiglu),
                        "gemm: weight is ", w, "; allowed: ", packed_elements(weights.n, weights.k, weights.swiglu),
                        " elements packed from [", weights.n, ", ", weights.k, "]");
            }
            perform({x, weight, bias, scale, residual, y},
                    [=] { gemm(from, weights, b, s, r, to, kind, limit, threads); });
        },
        py::arg("x"), py::arg("weight"), py::arg("packed_rows"), py::arg("bias"), py::arg("scale"), py::arg("residual"),
        py::arg("y"), py::arg("epilogue"), py::arg("threads") = 0, py::arg("limit") = 0.0f,
        "See csrc/kernels/gemm/gemm.h; packed_rows: N of a packed weight, or None for plain rows.");
}

}  // namespace ivk::binding
