#include "binding/cuda/array.h"
#include "core/cuda/device.h"
#include "kernels/attention/attention.h"
#include "kernels/attention/attention_tiles.h"

namespace ivk::binding {

void bind_attention_cuda(py::module_& m) {
    m.def(
        "attention",
        [](const Array* q, const Array* k, const Array* v, const Array* y, bool causal, double scale, int64_t window,
           const Array* sinks, uintptr_t stream, const std::string& tile, const Array* q_factor, const Array* k_factor,
           const Array* weight) {
            Arguments args("attention");
            const TensorView logits = args.view(sinks, "sinks");
            const AttentionBatch problem = attention_problem(
                args.view(q, "q"), args.view(k, "k"), args.view(v, "v"), args.view(y, "y"), causal, scale, window,
                sinks ? &logits : nullptr,
                {args.view(q_factor, "q_factor"), args.view(k_factor, "k_factor"), args.view(weight, "weight")});
            const int shape = tile.empty() ? -1 : attention_tile_named(tile);
            const py::gil_scoped_release release;
            const DeviceGuard guard(args.device());
            attention_cuda(problem, device(args.device()), stream_of(stream), shape);
        },
        py::arg("q").none(false), py::arg("k").none(false), py::arg("v").none(false), py::arg("y").none(false),
        py::arg("causal"), py::arg("scale"), py::arg("window"), py::arg("sinks"), py::arg("stream"),
        py::arg("tile") = "", py::arg("q_factor") = nullptr, py::arg("k_factor") = nullptr, py::arg("weight") = nullptr,
        "See csrc/kernels/attention/attention.h; tile: a name of attention_tiles(), for measurements, heads up to 64 "
        "or "
        "of 97 to 128.");
    m.def(
        "attention_tiles",
        [](int64_t rows, int64_t heads, int multiprocessors) {
            py::list all;
            const int chosen = choose_attention_tile(rows, heads, multiprocessors);
            for (int i = 0; i < kAttentionTileCount; ++i) {
                const AttentionTile& t = kAttentionTiles[i];
                all.append(py::dict(py::arg("name") = t.name, py::arg("threads") = t.warps * 32,
                                    py::arg("blocks") = attention_tiles(rows, t.warps * 32) * heads,
                                    py::arg("cost") = attention_cost(t, rows, heads, multiprocessors),
                                    py::arg("chosen") = i == chosen));
            }
            return all;
        },
        py::arg("rows"), py::arg("heads"), py::arg("multiprocessors"),
        "The blocks of queries of heads up to 64 or of 97 to 128, and each one's cost.");
}

}  // namespace ivk::binding
