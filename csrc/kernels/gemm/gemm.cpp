#include "kernels/gemm/gemm.h"

#include <algorithm>

#include "core/check.h"
#include "core/parallel.h"

namespace ivk {
namespace {

bool is_real(DType dtype) { return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16; }

void check_rows(const char* name, const TensorView& v, int64_t rows, int64_t columns, DType dtype) {
    require(v.ndim == 2 && v.shape[0] == rows && v.shape[1] == columns && v.dtype == dtype &&
                (columns <= 1 || v.stride[1] == 1) && (rows <= 1 || v.stride[0] >= columns),
            "gemm: ", name, " is ", v, "; allowed: [", rows, ", ", columns, "] of ", name_of(dtype),
            ", rows with a contiguous last dimension that do not overlap");
}

void check_vector(const char* name, const TensorView& v, int64_t n, DType dtype) {
    require(!v.defined() || (v.ndim == 1 && v.shape[0] == n && v.dtype == dtype && v.contiguous()), "gemm: ", name,
            " is ", v, "; allowed: a contiguous vector of ", n, " ", name_of(dtype));
}

int64_t pieces(int64_t n, int64_t each) { return (n + each - 1) / each; }

}  // namespace

TensorView memory_of(const PackedWeight& w, int64_t count, int64_t each) {
    TensorView v;
    v.data = const_cast<void*>(w.data);
    v.dtype = w.dtype;
    v.ndim = 1;
    v.stride[0] = 1;
    const int64_t own = w.packed ? packed_elements(w.n, w.k, w.swiglu) : w.n > 0 ? (w.n - 1) * w.stride + w.k : 0;
    v.shape[0] = count > 0 ? (count - 1) * each + own : 0;
    return v;
}

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
          const TensorView& residual, const TensorView& y, Epilogue epilogue, int threads) {
    require(x.ndim == 2 && is_real(x.dtype), "gemm: x is ", x, "; allowed: [M, K] of float32, bfloat16 or float16");
    const bool gated = epilogue == Epilogue::swiglu, adds = epilogue == Epilogue::residual;
    require(is_real(weight.dtype) && weight.k >= 1 && weight.k == x.shape[1] && weight.n >= 0, "gemm: weight is ",
            name_of(weight.dtype), "[", weight.n, ", ", weight.k, "], x is ", x,
            "; allowed: [N, K] of float32, bfloat16 or float16 with x's K >= 1");
    require(!gated || (weight.n % 2 == 0 && weight.swiglu), "gemm: weight has ", weight.n,
            " rows; allowed for swiglu: an even number, packed gate beside up");
    require(gated || !weight.swiglu, "gemm: weight is packed for swiglu; allowed: that epilogue alone");
    const int64_t columns = gated ? weight.n / 2 : weight.n;
    check_rows("x", x, x.shape[0], weight.k, x.dtype);
    check_rows("y", y, x.shape[0], columns, x.dtype);
    check_vector("bias", bias, weight.n, x.dtype);
    check_vector("scale", scale, weight.n, x.dtype);
    require(residual.defined() == adds && (adds || !scale.defined()), "gemm: residual is ", residual, ", scale ", scale,
            "; allowed: both with the residual epilogue alone, which needs a residual");
    if (adds) check_rows("residual", residual, x.shape[0], columns, x.dtype);
    require(!overlap(y, x) && !overlap(y, memory_of(weight)) && !overlap(y, bias) && !overlap(y, scale) &&
                (!adds || same_place(y, residual) || !overlap(y, residual)),
            "gemm: y is ", y, "; allowed: apart from the inputs, or residual itself");
    run_gemms({{x.data, x.stride[0], nullptr, x.dtype, weight, bias.data, scale.data, residual.data, residual.stride[0],
                y.data, y.stride[0], x.shape[0], epilogue}},
              threads);
}

void pack_weight(const TensorView& weight, const TensorView& packed, bool swiglu, int threads) {
    require(weight.ndim == 2 && is_real(weight.dtype) && weight.shape[1] >= 1 &&
                (weight.shape[1] <= 1 || weight.stride[1] == 1) && weight.stride[0] >= weight.shape[1],
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
