#include "kernels/embed/embed.h"

#include "core/parallel.h"

namespace ivk {

void embed(const TensorView& ids, const TensorView& table, const TensorView& visual, const TensorView& y,
           std::optional<int64_t> image_id, int threads) {
    std::vector<int64_t> source;
    const EmbedParams params = embed_problem(ids, table, visual, y, image_id, source);
    const EmbedTable& kernels = IVK_SELECT(embed_table);
    parallel_for(params.rows, 1 + (1 << 16) / params.row_bytes, threads,
                 [&](int64_t begin, int64_t end) { kernels.rows(params, begin, end); });
}

}  // namespace ivk
