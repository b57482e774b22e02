#include "binding/program.h"
#include "kernels/gemm/gemm_few_rows.h"

namespace ivk::binding {

void bind_gemm_few_rows(py::module_& m) {
    m.def(
        "gemm_few_rows",
        [](py::handle x, py::handle weight, py::handle bias, py::handle y, int threads) {
            const TensorView views[] = {to_rows(x, "x"), to_view(weight, "weight"), to_view(bias, "bias"),
                                        to_rows(y, "y", true)};
            const Alone running("gemm_few_rows");
            gemm_few_rows(views[0], views[1], views[2], views[3], threads);
        },
        py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("y"), py::arg("threads") = 0,
        "See csrc/kernels/gemm/gemm_few_rows.h.");
}

}  // namespace ivk::binding
