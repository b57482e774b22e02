#include "binding/program.h"
#include "kernels/gemm/swiglu.h"

namespace ivk::binding {

void bind_swiglu(py::module_& m) {
    m.def(
        "swiglu",
        [](py::handle x, py::handle y, int threads) {
            const TensorView from = to_rows(x, "x"), to = to_rows(y, "y", true);
            const Alone running("swiglu");
            swiglu(from, to, threads);
        },
        py::arg("x"), py::arg("y"), py::arg("threads") = 0, "See csrc/kernels/gemm/swiglu.h.");
}

}  // namespace ivk::binding
