#include "binding/cuda/array.h"
#include "core/cuda/device.h"
#include "kernels/gemm/gemm.h"
#include "kernels/gemm/gemm_tiles.h"

namespace ivk::binding {

void bind_gemm_cuda(py::module_& m) {
    m.def(
        "gemm",
        [](const Array* x, const Array* weight, const py::none&, const Array* bias, const Array* scale,
           const Array* residual, const Array* y, const std::string& epilogue, uintptr_t stream,
           const std::string& tile, const Array* rows, const Array* columns, float eps, bool rms,
           const Array* statistics, float limit) {
            Arguments args("gemm");
            const TensorView from = args.rows(x, "x");
            const Epilogue kind = epilogue_named(epilogue);
            const GemmParams problem = gemm_problem(
                from, plain_weight(args.view(weight, "weight"), kind == Epilogue::swiglu), args.view(bias, "bias"),
                args.view(scale, "scale"), args.rows(residual, "residual"), args.rows(y, "y"), kind,
                {args.view(rows, "rows"), args.view(columns, "columns"), args.view(statistics, "statistics"), eps, rms},
                limit);
            const int shape = tile.empty() ? -1 : gemm_tile_named(tile);
            const py::gil_scoped_release release;
            const DeviceGuard guard(args.device());
            gemm_cuda(problem, device(args.device()), stream_of(stream), shape);
        },
        py::arg("x").none(false), py::arg("weight").none(false), py::arg("packed_rows"), py::arg("bias"),
        py::arg("scale"), py::arg("residual"), py::arg("y").none(false), py::arg("epilogue"), py::arg("stream"),
        py::arg("tile") = "", py::arg("rows") = nullptr, py::arg("columns") = nullptr, py::arg("eps") = 0.0f,
        py::arg("rms") = false, py::arg("statistics") = nullptr, py::arg("limit") = 0.0f,
        "See csrc/kernels/gemm/gemm.h; packed_rows: None, packed weights are the cpu backend's. tile: a name of "
        "gemm_tiles(), for measurements. rows to statistics: csrc/kernels/gemm/gemm_fold.h.");
    m.def(
        "gemm_tiles",
        [](int64_t rows, int64_t columns, int64_t inner, int multiprocessors) {
            py::list all;
            const int chosen = choose_gemm_tile(rows, columns, inner, multiprocessors);
            for (int i = 0; i < kGemmTileCount; ++i) {
                const GemmTile& t = kGemmTiles[i];
                all.append(py::dict(py::arg("name") = t.name, py::arg("rows") = t.bm, py::arg("columns") = t.bn,
                                    py::arg("threads") = gemm_threads(t), py::arg("shared") = gemm_shared_bytes(t),
                                    py::arg("blocks") = gemm_blocks(t, rows, columns),
                                    py::arg("cost") = gemm_cost(t, rows, columns, inner, multiprocessors),
                                    py::arg("chosen") = i == chosen));
            }
            return all;
        },
        py::arg("m"), py::arg("n"), py::arg("k"), py::arg("multiprocessors"),
        "The tiles of y [m, n] and what each would cost the busiest multiprocessor, in multiply-adds.");
}

}  // namespace ivk::binding
