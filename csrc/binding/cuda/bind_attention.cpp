#include "binding/cuda/array.h"
#include "core/cuda/device.h"
#include "kernels/attention/attention.h"

namespace ivk::binding {

void bind_attention_cuda(py::module_& m) {
    m.def(
        "attention",
        [](const Array* q, const Array* k, const Array* v, const Array* y, bool causal, double scale, int64_t window,
           const Array* sinks, uintptr_t stream) {
            Arguments args("attention");
            const TensorView logits = args.view(sinks, "sinks");
            const AttentionBatch problem =
                attention_problem(args.view(q, "q"), args.view(k, "k"), args.view(v, "v"), args.view(y, "y"), causal,
                                  scale, window, sinks ? &logits : nullptr);
            const py::gil_scoped_release release;
            const DeviceGuard guard(args.device());
            attention_cuda(problem, device(args.device()), stream_of(stream));
        },
        py::arg("q").none(false), py::arg("k").none(false), py::arg("v").none(false), py::arg("y").none(false),
        py::arg("causal"), py::arg("scale"), py::arg("window"), py::arg("sinks"), py::arg("stream"),
        "See csrc/kernels/attention/attention.h.");
}

}  // namespace ivk::binding
