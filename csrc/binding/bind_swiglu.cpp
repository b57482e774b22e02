#include "binding/program.h"
#include "kernels/gemm/swiglu.h"

namespace ivk::binding {

void bind_swiglu(py::module_& m) {
    m.def(
        "swiglu",
        [](py::handle x, py::handle y, float limit, int threads) {
            const TensorView from = to_rows(x, "x"), to = to_rows(y, "y", true);
            const Alone running("swiglu");
            swiglu(from, to, limit, threads);
        },
        py::arg("x"), py::arg("y"), py::arg("limit") = 0.0f, py::arg("threads") = 0, "See csrc/kernels/gemm/swiglu.h.");
}

}  // namespace ivk::binding
