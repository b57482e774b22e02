#include "binding/program.h"
#include "kernels/image/image.h"

namespace ivk::binding {
namespace {

// The two structures of the Arrow C data interface (a public, frozen ABI), as far as they are read here.
struct ArrowSchema {
    const char *format, *name, *metadata;
    int64_t flags, n_children;
    ArrowSchema** children;
};
struct ArrowArray {
    int64_t length, null_count, offset, n_buffers, n_children;
    const void** buffers;
    ArrowArray** children;
};

// The memory of an image that exports four bytes per pixel, as a read-only uint8 array [height, width, 4]; None for
// another layout. The array keeps the exporter's memory alive.
py::object arrow_pixels(const py::handle& image, int64_t height, int64_t width) {
    const py::tuple pair = image.attr("__arrow_c_array__")();
    const auto* schema = static_cast<const ArrowSchema*>(PyCapsule_GetPointer(pair[0].ptr(), "arrow_schema"));
    const auto* array = static_cast<const ArrowArray*>(PyCapsule_GetPointer(pair[1].ptr(), "arrow_array"));
    if (schema == nullptr || array == nullptr) throw py::error_already_set();
    const bool four_bytes = schema->format != nullptr && std::string(schema->format) == "+w:4" &&
                            schema->n_children == 1 && std::string(schema->children[0]->format) == "C" &&
                            array->n_children == 1;
    if (!four_bytes || array->offset != 0 || array->length != height * width) return py::none();
    const ArrowArray& bytes = *array->children[0];
    if (bytes.n_buffers != 2 || bytes.offset != 0 || bytes.length != 4 * height * width) return py::none();
    py::array_t<uint8_t> view({height, width, int64_t{4}}, static_cast<const uint8_t*>(bytes.buffers[1]), pair[1]);
    view.attr("flags").attr("writeable") = false;
    return view;
}

}  // namespace

void bind_image(py::module_& m) {
    m.def(
        "tile_pixels",
        [](const py::list& bands, int64_t columns, int64_t rows, int64_t size, bool thumbnail, bool tall_first,
           py::handle tiles, int threads) {
            std::vector<TensorView> views;
            for (const py::handle band : bands) views.push_back(to_view(band, "pixels"));
            const TensorView out = to_view(tiles, "tiles", true);
            const Alone running("tile_pixels");
            tile_pixels(views, columns, rows, size, thumbnail, tall_first, out, threads);
        },
        py::arg("bands"), py::arg("columns"), py::arg("rows"), py::arg("size"), py::arg("thumbnail"),
        py::arg("tall_first"), py::arg("tiles"), py::arg("threads") = 0, "See csrc/kernels/image/image.h.");
    m.def("arrow_pixels", &arrow_pixels, py::arg("image"), py::arg("height"), py::arg("width"),
          "A Pillow image's own four-byte pixels without a copy, or None.");
}

}  // namespace ivk::binding
