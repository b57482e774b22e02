#include <pybind11/stl.h>

#include "binding/program.h"
#include "kernels/patch_embed/patch_embed.h"

namespace ivk::binding {

void bind_patch_embed(py::module_& m) {
    const char* doc = "See csrc/kernels/patch_embed/patch_embed.h.";
    m.def(
        "patchify",
        [](py::handle tiles, py::handle a, std::array<float, 3> mean, std::array<float, 3> std, int64_t patch,
           int threads) {
            const TensorView from = to_view(tiles, "tiles"), to = to_view(a, "patches", true);
            const Alone running("patchify");
            patchify(from, to, mean, std, patch, threads);
        },
        py::arg("tiles"), py::arg("patches"), py::arg("mean"), py::arg("std"), py::arg("patch_size"),
        py::arg("threads") = 0, doc);
    m.def(
        "add_positions",
        [](py::handle product, py::handle cls, py::handle pos, py::handle y, int threads) {
            const TensorView views[] = {to_view(product, "product"), to_view(cls, "cls"), to_view(pos, "pos"),
                                        to_view(y, "y", true)};
            const Alone running("add_positions");
            add_positions(views[0], views[1], views[2], views[3], threads);
        },
        py::arg("product"), py::arg("cls"), py::arg("pos"), py::arg("y"), py::arg("threads") = 0, doc);
}

}  // namespace ivk::binding
