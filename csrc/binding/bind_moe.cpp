#include "binding/program.h"
#include "kernels/moe/moe.h"

namespace ivk::binding {

void bind_moe(py::module_& m) {
    m.def(
        "moe_route",
        [](py::handle logits, py::handle weights, py::handle experts, bool normalize, int threads) {
            const TensorView views[] = {to_view(logits, "logits"), to_view(weights, "weights", true),
                                        to_view(experts, "experts", true)};
            const Alone running("moe_route");
            moe_route(views[0], views[1], views[2], normalize, threads);
        },
        py::arg("logits"), py::arg("weights"), py::arg("experts"), py::arg("normalize"), py::arg("threads") = 0,
        "See csrc/kernels/moe/moe.h.");
    m.def(
        "moe_permute",
        [](py::handle experts, py::handle order, py::handle offsets) {
            const TensorView views[] = {to_view(experts, "experts"), to_view(order, "order", true),
                                        to_view(offsets, "offsets", true)};
            const Alone running("moe_permute");
            moe_permute(views[0], views[1], views[2]);
        },
        py::arg("experts"), py::arg("order"), py::arg("offsets"), "See csrc/kernels/moe/moe.h.");
    m.def(
        "moe_combine",
        [](py::handle y, py::handle weights, py::handle order, py::handle out, int threads) {
            const TensorView views[] = {to_view(y, "y"), to_view(weights, "weights"), to_view(order, "order"),
                                        to_view(out, "out", true)};
            const Alone running("moe_combine");
            moe_combine(views[0], views[1], views[2], views[3], threads);
        },
        py::arg("y"), py::arg("weights"), py::arg("order"), py::arg("out"), py::arg("threads") = 0,
        "See csrc/kernels/moe/moe.h.");
}

}  // namespace ivk::binding
