#include "binding/program.h"
#include "kernels/sample/sample.h"

namespace ivk::binding {

void bind_sample(py::module_& m) {
    m.def(
        "argmax",
        [](py::handle logits, py::handle tokens, int threads) {
            const TensorView views[] = {to_view(logits, "logits"), to_view(tokens, "tokens", true)};
            const Alone running("argmax");
            argmax(views[0], views[1], threads);
        },
        py::arg("logits"), py::arg("tokens"), py::arg("threads") = 0, "See csrc/kernels/sample/sample.h.");
    m.def(
        "sample",
        [](py::handle logits, py::handle uniform, py::handle tokens, double temperature, int64_t top_k, double top_p,
           int threads) {
            const TensorView views[] = {to_view(logits, "logits"), to_view(uniform, "uniform"),
                                        to_view(tokens, "tokens", true)};
            const Alone running("sample");
            sample(views[0], views[1], views[2], temperature, top_k, top_p, threads);
        },
        py::arg("logits"), py::arg("uniform"), py::arg("tokens"), py::arg("temperature"), py::arg("top_k"),
        py::arg("top_p"), py::arg("threads") = 0, "See csrc/kernels/sample/sample.h.");
}

}  // namespace ivk::binding
