#include "binding/program.h"
#include "kernels/pixel_shuffle/pixel_shuffle.h"

namespace ivk::binding {

void bind_pixel_shuffle(py::module_& m) {
    m.def(
        "pixel_shuffle",
        [](py::handle x, py::handle weight, py::handle bias, py::handle y, int64_t rows, int64_t cols, int64_t factor,
           bool column_major, bool drop_cls, float eps, int threads) {
            const TensorView views[] = {to_view(x, "x"), to_view(weight, "weight"), to_view(bias, "bias"),
                                        to_view(y, "y", true)};
            const Alone running("pixel_shuffle");
            pixel_shuffle(views[0], views[1], views[2], views[3], rows, cols, factor, column_major, drop_cls, eps,
                          threads);
        },
        py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("y"), py::arg("rows"), py::arg("cols"),
        py::arg("factor"), py::arg("column_major"), py::arg("drop_cls"), py::arg("eps"), py::arg("threads") = 0,
        "See csrc/kernels/pixel_shuffle/pixel_shuffle.h.");
}

}  // namespace ivk::binding
