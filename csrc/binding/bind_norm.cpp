#include "binding/convert.h"
#include "kernels/norm/norm.h"

namespace ivk::binding {

void bind_norm(py::module_& m) {
    m.def(
        "norm",
        [](py::handle x, py::handle branch, py::handle scale, py::handle weight, py::handle bias, py::handle h,
           py::handle y, float eps, bool rms, int threads) {
            const TensorView views[] = {to_rows(x, "x"),           to_rows(branch, "branch"), to_view(scale, "scale"),
                                        to_view(weight, "weight"), to_view(bias, "bias"),     to_rows(h, "h", true),
                                        to_rows(y, "y", true)};
            py::gil_scoped_release release;
            norm(views[0], views[1], views[2], views[3], views[4], views[5], views[6], eps,
                 rms ? NormKind::rms : NormKind::layer, threads);
        },
        py::arg("x"), py::arg("branch"), py::arg("scale"), py::arg("weight"), py::arg("bias"), py::arg("h"),
        py::arg("y"), py::arg("eps"), py::arg("rms"), py::arg("threads") = 0, "See csrc/kernels/norm/norm.h.");
}

}  // namespace ivk::binding
