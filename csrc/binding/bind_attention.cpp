#include <pybind11/stl.h>

#include <array>
#include <optional>

#include "binding/program.h"
#include "kernels/attention/attention_table.h"

namespace ivk::binding {
namespace {

struct Optional {
    std::optional<TensorView> given;
    Optional(py::handle tensor, const char* name) {
        if (!tensor.is_none()) given = to_view(tensor, name);
    }
    const TensorView* view() const { return given ? &*given : nullptr; }
};

}  // namespace

void bind_attention(py::module_& m) {
    m.def(
        "attention",
        [](py::handle q, py::handle k, py::handle v, py::handle y, bool causal, double scale, int64_t window,
           py::handle sinks, int threads) {
            const TensorView views[] = {to_view(q, "q"), to_view(k, "k"), to_view(v, "v"), to_view(y, "y", true)};
            const Optional heads(sinks, "sinks");
            const Alone running("attention");
            attention(views[0], views[1], views[2], views[3], causal, scale, window, heads.view(), threads);
        },
        py::arg("q"), py::arg("k"), py::arg("v"), py::arg("y"), py::arg("causal"), py::arg("scale"),
        py::arg("window") = 0, py::arg("sinks") = py::none(), py::arg("threads") = 0,
        "See csrc/kernels/attention/attention.h.");
    m.def(
        "cached_attention",
        [](py::handle q, py::handle k_cache, py::handle v_cache, py::handle y,
           const std::vector<std::array<int64_t, 4>>& spans, double scale, int64_t window, py::handle sinks,
           bool decode, py::handle pages, int64_t page_size, int threads) {
            const std::array<TensorView, 4> t = {to_view(q, "q"), to_view(k_cache, "k_cache"),
                                                 to_view(v_cache, "v_cache"), to_view(y, "y", true)};
            const Optional heads(sinks, "sinks"), table(pages, "pages");
            Spans parts;
            for (const auto& s : spans) parts.push_back({s[0], s[1], s[2], s[3]});
            perform({q, k_cache, v_cache, y, sinks, pages}, parts, [=](const Spans& now) {
                const AttentionOptions options{scale, window, heads.view(), decode, table.view(), page_size};
                cached_attention(t[0], t[1], t[2], t[3], now, options, threads);
            });
        },
        py::arg("q"), py::arg("k_cache"), py::arg("v_cache"), py::arg("y"), py::arg("spans"), py::arg("scale"),
        py::arg("window") = 0, py::arg("sinks") = py::none(), py::arg("decode") = false, py::arg("pages") = py::none(),
        py::arg("page_size") = 0, py::arg("threads") = 0, "See csrc/kernels/attention/attention.h.");
    m.def(
        "attention_scratch",
        [](int64_t dim) { return int64_t(sizeof(float)) * attention_scratch(most_queries(dim), dim); }, py::arg("dim"),
        "Bytes that a thread keeps for attention with heads of dim.");
}

}  // namespace ivk::binding
