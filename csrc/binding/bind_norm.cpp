#include "binding/program.h"
#include "kernels/norm/norm.h"

namespace ivk::binding {

void bind_norm(py::module_& m) {
    m.def(
        "norm",
        [](py::handle x, py::handle branch, py::handle scale, py::handle weight, py::handle bias, py::handle h,
           py::handle y, float eps, bool rms, int threads, bool once) {
            const TensorView rows = to_rows(x, "x"), added = to_rows(branch, "branch"),
                             factor = to_view(scale, "scale");
            const TensorView w = to_view(weight, "weight"), b = to_view(bias, "bias");
            const TensorView sum = to_rows(h, "h", true), to = to_rows(y, "y", true);
            const NormKind kind = once ? NormKind::rms_once : rms ? NormKind::rms : NormKind::layer;
            perform({x, branch, scale, weight, bias, h, y},
                    [=] { norm(rows, added, factor, w, b, sum, to, eps, kind, threads); });
        },
        py::arg("x"), py::arg("branch"), py::arg("scale"), py::arg("weight"), py::arg("bias"), py::arg("h"),
        py::arg("y"), py::arg("eps"), py::arg("rms"), py::arg("threads") = 0, py::arg("once") = false,
        "See csrc/kernels/norm/norm.h.");
}

}  // namespace ivk::binding
