#include "binding/cuda/array.h"
#include "core/cuda/device.h"
#include "kernels/image/image.h"

namespace ivk::binding {

void bind_image_cuda(py::module_& m) {
    m.def(
        "tile_pixels",
        [](const Array* pixels, int64_t columns, int64_t rows, int64_t size, bool thumbnail, bool tall_first,
           const Array* tiles, uintptr_t stream) {
            Arguments args("tile_pixels");
            const TensorView from = args.view(pixels, "pixels");
            const ImageParams problem =
                image_problem(from, columns, rows, size, thumbnail, tall_first, args.view(tiles, "tiles"));
            const py::gil_scoped_release release;
            const DeviceGuard guard(args.device());
            image_cuda(problem, device(args.device()), stream_of(stream));
        },
        py::arg("pixels").none(false), py::arg("columns"), py::arg("rows"), py::arg("size"), py::arg("thumbnail"),
        py::arg("tall_first"), py::arg("tiles").none(false), py::arg("stream"), "See csrc/kernels/image/image.h.");
}

}  // namespace ivk::binding
