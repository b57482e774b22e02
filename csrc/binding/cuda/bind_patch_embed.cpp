#include <pybind11/stl.h>

#include "binding/cuda/array.h"
#include "core/cuda/device.h"
#include "kernels/patch_embed/patch_embed.h"

namespace ivk::binding {

void bind_patch_embed_cuda(py::module_& m) {
    m.def(
        "patch_embed",
        [](const Array* tiles, const Array* weight, const Array* bias, const Array* cls, const Array* pos,
           const Array* y, std::array<float, 3> mean, std::array<float, 3> std, int64_t patch, uintptr_t stream,
           int columns, int each) {
            Arguments args("patch_embed");
            const PatchEmbedParams problem =
                patch_embed_problem(args.view(tiles, "tiles"), args.view(weight, "weight"), args.view(bias, "bias"),
                                    args.view(cls, "cls"), args.view(pos, "pos"), args.view(y, "y"), mean, std, patch);
            const py::gil_scoped_release release;
            const DeviceGuard guard(args.device());
            patch_embed_cuda(problem, device(args.device()), stream_of(stream), {columns, each});
        },
        py::arg("tiles").none(false), py::arg("weight").none(false), py::arg("bias").none(false),
        py::arg("cls").none(false), py::arg("pos").none(false), py::arg("y").none(false), py::arg("mean"),
        py::arg("std"), py::arg("patch_size"), py::arg("stream"), py::arg("columns") = 0, py::arg("each") = 0,
        "See csrc/kernels/patch_embed/patch_embed.h. columns, each: of PatchEmbedPlan, for measurements.");
    m.def(
        "patch_embed_plan",
        [](int64_t rows, int64_t width, int multiprocessors, bool wide) {
            const PatchEmbedPlan plan = choose_patch_embed_plan(rows, width, multiprocessors, wide);
            return py::dict(py::arg("columns") = plan.columns, py::arg("each") = plan.each,
                            py::arg("blocks") = patch_embed_blocks(plan, rows, width),
                            py::arg("cost") = patch_embed_cost(plan, rows, width, multiprocessors));
        },
        py::arg("rows"), py::arg("width"), py::arg("multiprocessors"), py::arg("wide"),
        "How blocks share y [rows, width]; wide: shared memory holds what 256 columns need.");
}

}  // namespace ivk::binding
