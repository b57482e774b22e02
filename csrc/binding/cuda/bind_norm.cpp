#include "binding/cuda/array.h"
#include "core/cuda/device.h"
#include "kernels/norm/norm.h"

namespace ivk::binding {

void bind_norm_cuda(py::module_& m) {
    m.def(
        "norm",
        [](const Array* x, const Array* branch, const Array* scale, const Array* weight, const Array* bias,
           const Array* h, const Array* y, float eps, bool rms, uintptr_t stream, bool once) {
            Arguments args("norm");
            const NormParams problem = norm_problem(args.rows(x, "x"), args.rows(branch, "branch"),
                                                    args.view(scale, "scale"), args.view(weight, "weight"),
                                                    args.view(bias, "bias"), args.rows(h, "h"), args.rows(y, "y"), eps,
                                                    once  ? NormKind::rms_once
                                                    : rms ? NormKind::rms
                                                          : NormKind::layer);
            const py::gil_scoped_release release;
            const DeviceGuard guard(args.device());
            norm_cuda(problem, device(args.device()), stream_of(stream));
        },
        py::arg("x").none(false), py::arg("branch"), py::arg("scale"), py::arg("weight"), py::arg("bias"), py::arg("h"),
        py::arg("y"), py::arg("eps"), py::arg("rms"), py::arg("stream"), py::arg("once") = false,
        "See csrc/kernels/norm/norm.h.");
    m.def(
        "norm_pair",
        [](const Array* x, const Array* first, const Array* second, const Array* y, float eps, bool rms,
           uintptr_t stream) {
            Arguments args("norm");
            const NormParams problem = norm_pair_problem(args.rows(x, "x"), args.view(first, "first weight"),
                                                         args.view(second, "second weight"), args.rows(y, "y"), eps,
                                                         rms ? NormKind::rms : NormKind::layer);
            const py::gil_scoped_release release;
            const DeviceGuard guard(args.device());
            norm_cuda(problem, device(args.device()), stream_of(stream));
        },
        py::arg("x").none(false), py::arg("first").none(false), py::arg("second").none(false), py::arg("y").none(false),
        py::arg("eps"), py::arg("rms"), py::arg("stream"),
        "Both halves of x's rows in one launch. See csrc/kernels/norm/norm.h.");
}

}  // namespace ivk::binding
