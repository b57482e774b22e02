#include <pybind11/stl.h>

#include "binding/program.h"
#include "kernels/embed/embed.h"

namespace ivk::binding {

void bind_embed(py::module_& m) {
    m.def(
        "embed",
        [](py::handle ids, py::handle table, py::handle visual, py::handle y, std::optional<int64_t> image_id,
           int threads) {
            const TensorView views[] = {to_view(ids, "input_ids"), to_view(table, "table"), to_view(visual, "visual"),
                                        to_view(y, "y", true)};
            const Alone running("embed");
            embed(views[0], views[1], views[2], views[3], image_id, threads);
        },
        py::arg("input_ids"), py::arg("table"), py::arg("visual"), py::arg("y"), py::arg("image_id"),
        py::arg("threads") = 0, "See csrc/kernels/embed/embed.h.");
}

}  // namespace ivk::binding
