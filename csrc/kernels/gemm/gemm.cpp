#include <algorithm>

#include "core/check.h"
#include "core/parallel.h"
#include "kernels/gemm/gemm_table.h"

namespace ivk {
namespace {

int64_t pieces(int64_t n, int64_t each) { return (n + each - 1) / each; }

}  // namespace

void run_gemms(const std::vector<GemmParams>& products, int threads) {
    const GemmTable& table = IVK_SELECT(gemm_table);
    const int64_t cap = threads == 0 ? default_threads() : threads;
    // Rows of x in blocks of equal numbers of micro-panels, as many for every thread.
    struct Share {
        const GemmParams* p;
        int64_t panels, blocks, tiles;
    };
    std::vector<Share> shares;
    int64_t blocks = 0;
    for (const GemmParams& p : products) {
        const int64_t panels = pieces(p.m, table.panel_rows), tiles = tiles_of(p.weight.n, p.weight.swiglu);
        int64_t own = pieces(panels, (p.weight.packed ? kRowBlock : kStagedBlock) / table.panel_rows);
        if (products.size() == 1 && own > cap) own = std::min(panels, pieces(own, cap) * cap);
        if (p.m > 0 && tiles > 0) shares.push_back({&p, panels, own, tiles});
        blocks += own * (p.m > 0 && tiles > 0);
    }
    // Columns are parted where blocks are few, and in the last ones, so that no thread waits long for another.
    struct Work {
        const GemmParams* p;
        int64_t m_begin, m_end, t_begin, t_end;
    };
    std::vector<Work> work;
    const int64_t parts = cap == 1 ? 1 : blocks < 4 * cap ? pieces(4 * cap, std::max<int64_t>(blocks, 1)) : 4;
    int64_t left = blocks;
    for (const Share& s : shares)
        for (int64_t r = 0; r < s.blocks; ++r, --left) {
            const int64_t columns = std::min(s.tiles, left <= cap || blocks < 4 * cap ? parts : 1);
            const int64_t begin = s.panels * r / s.blocks * table.panel_rows;
            const int64_t end = std::min(s.p->m, s.panels * (r + 1) / s.blocks * table.panel_rows);
            for (int64_t c = 0; c < columns; ++c)
                work.push_back({s.p, begin, end, s.tiles * c / columns, s.tiles * (c + 1) / columns});
        }
    parallel_for(int64_t(work.size()), 1, threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
            table.block(*work[i].p, work[i].m_begin, work[i].m_end, work[i].t_begin, work[i].t_end);
    });
}

void gemm(const TensorView& x, const PackedWeight& weight, const TensorView& bias, const TensorView& scale,
          const TensorView& residual, const TensorView& y, Epilogue epilogue, float limit, int threads) {
    run_gemms({gemm_problem(x, weight, bias, scale, residual, y, epilogue, {}, limit)}, threads);
}

void pack_weight(const TensorView& weight, const TensorView& packed, bool swiglu, int threads) {
    require(weight.ndim == 2 &&
                (weight.dtype == DType::f32 || weight.dtype == DType::bf16 || weight.dtype == DType::f16) &&
                weight.shape[1] >= 1 && (weight.shape[1] <= 1 || weight.stride[1] == 1) &&
                weight.stride[0] >= weight.shape[1],
            "pack_weight: weight is ", weight,
            "; allowed: [N, K] of float32, bfloat16 or float16, K >= 1, rows with a contiguous last dimension");
    const int64_t n = weight.shape[0], k = weight.shape[1];
    require(!swiglu || n % 2 == 0, "pack_weight: weight is ", weight, "; allowed with swiglu: an even number of rows");
    require(packed.ndim == 1 && packed.dtype == weight.dtype && packed.contiguous() &&
                packed.shape[0] == packed_elements(n, k, swiglu) && !overlap(packed, weight),
            "pack_weight: packed is ", packed, "; allowed: a contiguous vector of ", packed_elements(n, k, swiglu), " ",
            name_of(weight.dtype), " apart from weight");
    const PackTiles pack = IVK_SELECT(gemm_table).pack;
    const PackedWeight plain{weight.data, weight.dtype, n, k, false, weight.stride[0], swiglu};
    parallel_for(tiles_of(n, swiglu), 1, threads,
                 [&](int64_t begin, int64_t end) { pack(plain, packed.data, begin, end); });
}

}  // namespace ivk
