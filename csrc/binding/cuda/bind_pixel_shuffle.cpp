#include "binding/cuda/array.h"
#include "core/cuda/device.h"
#include "kernels/pixel_shuffle/pixel_shuffle.h"

namespace ivk::binding {

void bind_pixel_shuffle_cuda(py::module_& m) {
    m.def(
        "pixel_shuffle",
        [](const Array* x, const Array* weight, const Array* bias, const Array* y, int64_t rows, int64_t cols,
           int64_t factor, bool column_major, bool drop_cls, float eps, uintptr_t stream) {
            Arguments args("pixel_shuffle");
            const PixelShuffleParams problem =
                pixel_shuffle_problem(args.view(x, "x"), args.view(weight, "weight"), args.view(bias, "bias"),
                                      args.view(y, "y"), rows, cols, factor, column_major, drop_cls, eps);
            const py::gil_scoped_release release;
            const DeviceGuard guard(args.device());
            pixel_shuffle_cuda(problem, device(args.device()), stream_of(stream));
        },
        py::arg("x").none(false), py::arg("weight"), py::arg("bias"), py::arg("y").none(false), py::arg("rows"),
        py::arg("cols"), py::arg("factor"), py::arg("column_major"), py::arg("drop_cls"), py::arg("eps"),
        py::arg("stream"), "See csrc/kernels/pixel_shuffle/pixel_shuffle.h.");
}

}  // namespace ivk::binding
