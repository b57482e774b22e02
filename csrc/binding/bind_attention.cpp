#include <pybind11/stl.h>

#include <array>

#include "binding/convert.h"
#include "kernels/attention/attention.h"

namespace ivk::binding {

void bind_attention(py::module_& m) {
    m.def(
        "attention",
        [](py::handle q, py::handle k, py::handle v, py::handle y, bool causal, double scale, int threads) {
            const TensorView views[] = {to_view(q, "q"), to_view(k, "k"), to_view(v, "v"), to_view(y, "y", true)};
            py::gil_scoped_release release;
            attention(views[0], views[1], views[2], views[3], causal, scale, threads);
        },
        py::arg("q"), py::arg("k"), py::arg("v"), py::arg("y"), py::arg("causal"), py::arg("scale"),
        py::arg("threads") = 0, "See csrc/kernels/attention/attention.h.");
    m.def(
        "cached_attention",
        [](py::handle q, py::handle k_cache, py::handle v_cache, py::handle y,
           const std::vector<std::array<int64_t, 4>>& spans, double scale, int threads) {
            const TensorView views[] = {to_view(q, "q"), to_view(k_cache, "k_cache"), to_view(v_cache, "v_cache"),
                                        to_view(y, "y", true)};
            std::vector<AttentionSpan> parts;
            for (const auto& s : spans) parts.push_back({s[0], s[1], s[2], s[3]});
            py::gil_scoped_release release;
            cached_attention(views[0], views[1], views[2], views[3], parts, scale, threads);
        },
        py::arg("q"), py::arg("k_cache"), py::arg("v_cache"), py::arg("y"), py::arg("spans"), py::arg("scale"),
        py::arg("threads") = 0, "See csrc/kernels/attention/attention.h.");
}

}  // namespace ivk::binding
