#include "binding/convert.h"
#include "binding/cuda/array.h"
#include "core/cuda/device.h"
#include "kernels/rope/rope.h"

namespace ivk::binding {

void bind_rope_cuda(py::module_& m) {
    m.def(
        "qkv_rope",
        [](const Array* qkv, const Array* cos, const Array* sin, const Array* q_weight, const Array* k_weight,
           const Array* q, const Array* k, const Array* v, const Array* slots, float eps, uintptr_t stream) {
            Arguments args("qkv_rope");
            const RopeParams problem =
                rope_problem(args.view(qkv, "qkv"), args.view(cos, "cos"), args.view(sin, "sin"),
                             args.view(q_weight, "q_weight"), args.view(k_weight, "k_weight"), args.view(q, "q"),
                             args.view(k, "k"), args.view(v, "v"), args.view(slots, "slots"), eps, false);
            const py::gil_scoped_release release;
            const DeviceGuard guard(args.device());
            rope_cuda(problem, device(args.device()), stream_of(stream));
        },
        py::arg("qkv").none(false), py::arg("cos").none(false), py::arg("sin").none(false), py::arg("q_weight"),
        py::arg("k_weight"), py::arg("q").none(false), py::arg("k").none(false), py::arg("v").none(false),
        py::arg("slots"), py::arg("eps"), py::arg("stream"), "See csrc/kernels/rope/rope.h; slots in GPU memory.");
}

}  // namespace ivk::binding
