#include "binding/convert.h"
#include "kernels/image/image.h"

namespace ivk::binding {

void bind_image(py::module_& m) {
    m.def(
        "tile_pixels",
        [](const py::list& bands, int64_t columns, int64_t rows, int64_t size, bool thumbnail, bool tall_first,
           py::handle tiles, int threads) {
            std::vector<TensorView> views;
            for (const py::handle band : bands) views.push_back(to_view(band, "pixels"));
            const TensorView out = to_view(tiles, "tiles", true);
            py::gil_scoped_release release;
            tile_pixels(views, columns, rows, size, thumbnail, tall_first, out, threads);
        },
        py::arg("bands"), py::arg("columns"), py::arg("rows"), py::arg("size"), py::arg("thumbnail"),
        py::arg("tall_first"), py::arg("tiles"),
        py::arg("threads") = 0, "See csrc/kernels/image/image.h.");
}

}  // namespace ivk::binding
