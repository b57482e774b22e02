#include "binding/convert.h"
#include "kernels/gemm/gemm.h"

namespace ivk::binding {
namespace {

template <Activation kind>
void run(py::handle x, py::handle y, int threads) {
    const TensorView from = to_rows(x, "x"), to = to_rows(y, "y", true);
    py::gil_scoped_release release;
    activation(from, to, kind, threads);
}

}  // namespace

void bind_gemm(py::module_& m) {
    const char* doc = "See csrc/kernels/gemm/gemm.h.";
    m.def("swiglu", &run<Activation::swiglu>, py::arg("x"), py::arg("y"), py::arg("threads") = 0, doc);
    m.def("gelu", &run<Activation::gelu>, py::arg("x"), py::arg("y"), py::arg("threads") = 0, doc);
}

}  // namespace ivk::binding
