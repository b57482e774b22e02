#include <pybind11/stl.h>

#include "binding/convert.h"
#include "binding/cuda/array.h"
#include "core/cuda/device.h"
#include "core/cuda/memory.h"
#include "kernels/embed/embed.h"

namespace ivk::binding {

void bind_embed_cuda(py::module_& m) {
    m.def(
        "embed",
        [](py::handle ids, const Array* table, const Array* visual, const Array* y, std::optional<int64_t> image_id,
           uintptr_t stream) {
            Arguments args("embed_tokens");
            std::vector<int64_t> source;
            EmbedParams problem = embed_problem(to_view(ids, "input_ids"), args.view(table, "table"),
                                                args.view(visual, "visual"), args.view(y, "y"), image_id, source);
            const py::gil_scoped_release release;
            const DeviceGuard guard(args.device());
            const DeviceMemory rows(problem.rows * int64_t(sizeof(int64_t)));
            copy_bytes(rows.data(), source.data(), problem.rows * int64_t(sizeof(int64_t)), stream_of(stream));
            problem.source = static_cast<const int64_t*>(rows.data());
            embed_cuda(problem, device(args.device()), stream_of(stream));
            synchronize(stream_of(stream));  // the list of rows is given back
        },
        py::arg("input_ids"), py::arg("table").none(false), py::arg("visual"), py::arg("y").none(false),
        py::arg("image_id"), py::arg("stream"), "See csrc/kernels/embed/embed.h; input_ids in host memory.");
}

}  // namespace ivk::binding
