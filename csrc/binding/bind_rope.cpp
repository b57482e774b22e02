#include <array>

#include "binding/program.h"
#include "kernels/rope/rope.h"

namespace ivk::binding {

void bind_rope(py::module_& m) {
    m.def(
        "qkv_rope",
        [](py::handle qkv, py::handle cos, py::handle sin, py::handle q_weight, py::handle k_weight, py::handle q,
           py::handle k, py::handle v, py::handle slots, float eps, int threads) {
            const std::array<TensorView, 9> t = {
                to_view(qkv, "qkv"),           to_view(cos, "cos"),           to_view(sin, "sin"),
                to_view(q_weight, "q_weight"), to_view(k_weight, "k_weight"), to_view(q, "q", true),
                to_view(k, "k", true),         to_view(v, "v", true),         to_view(slots, "slots")};
            perform({qkv, cos, sin, q_weight, k_weight, q, k, v, slots},
                    [=] { qkv_rope(t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], eps, threads); });
        },
        py::arg("qkv"), py::arg("cos"), py::arg("sin"), py::arg("q_weight"), py::arg("k_weight"), py::arg("q"),
        py::arg("k"), py::arg("v"), py::arg("slots"), py::arg("eps"), py::arg("threads") = 0,
        "See csrc/kernels/rope/rope.h.");
}

}  // namespace ivk::binding
