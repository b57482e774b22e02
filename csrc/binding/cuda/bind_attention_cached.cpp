#include <pybind11/stl.h>

#include <array>

#include "binding/cuda/array.h"
#include "core/cuda/device.h"
#include "core/cuda/memory.h"
#include "kernels/attention/attention_cached.h"

namespace ivk::binding {

void bind_attention_cached_cuda(py::module_& m) {
    m.def(
        "cached_attention",
        [](const Array* q, const Array* k_cache, const Array* v_cache, const Array* y,
           const std::vector<std::array<int64_t, 4>>& spans, double scale, int64_t window, const Array* sinks,
           bool decode, const Array* pages, int64_t page_size, uintptr_t stream) {
            Arguments args("cached_attention");
            const TensorView logits = args.view(sinks, "sinks"), table = args.view(pages, "pages");
            std::vector<AttentionSpan> parts;
            for (const auto& s : spans) parts.push_back({s[0], s[1], s[2], s[3]});
            const AttentionOptions options{
                scale, window, sinks ? &logits : nullptr, decode, pages ? &table : nullptr, page_size};
            CachedAttention problem = cached_problem(args.view(q, "q"), args.view(k_cache, "k_cache"),
                                                     args.view(v_cache, "v_cache"), args.view(y, "y"), parts, options);
            const std::vector<CachedTile> tiles = cached_tiles(parts, cached_tile_rows(problem.dim));
            const int64_t bytes = int64_t(tiles.size() * sizeof(CachedTile));
            const py::gil_scoped_release release;
            const DeviceGuard guard(args.device());
            const DeviceMemory held(bytes);
            copy_bytes(held.data(), tiles.data(), bytes, stream_of(stream));
            problem.tiles = static_cast<const CachedTile*>(held.data());
            problem.tile_count = int(tiles.size());
            cached_attention_cuda(problem, device(args.device()), stream_of(stream));
            synchronize(stream_of(stream));  // the tiles are given back
        },
        py::arg("q").none(false), py::arg("k_cache").none(false), py::arg("v_cache").none(false),
        py::arg("y").none(false), py::arg("spans"), py::arg("scale"), py::arg("window"), py::arg("sinks"),
        py::arg("decode"), py::arg("pages"), py::arg("page_size"), py::arg("stream"),
        "See csrc/kernels/attention/attention_cached.h; pages in GPU memory.");
}

}  // namespace ivk::binding
