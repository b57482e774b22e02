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

void run_gemms(const std::vector<GemmParams>& products, int threads) {
    const GemmTable& table = IVK_SELECT(gemm_table);
    struct Share {
        int64_t product, panels, row_blocks, tiles, column_blocks;
    };
    std::vector<Share> shares;
    int64_t blocks = 0;
    for (size_t i = 0; i < products.size(); ++i) {
        const GemmParams& p = products[i];
        // Blocks of equal numbers of micro-panels.
        const bool staged = !p.weight.packed || p.weight.dtype != DType::f32;
        const int64_t panels = pieces(p.m, table.panel_rows), tiles = tiles_of(p.weight.n, p.weight.swiglu);
        const int64_t row_blocks = pieces(panels, (staged ? kStagedBlock : kRowBlock) / table.panel_rows);
        if (p.m > 0 && tiles > 0) shares.push_back({int64_t(i), panels, row_blocks, tiles, 1});
        blocks += row_blocks * (p.m > 0);
    }
    // Then columns, until every thread has a few pieces of work.
    const int64_t cap = threads == 0 ? default_threads() : threads;
    std::vector<int64_t> ends;  // of every share's items
    int64_t items = 0;
    for (Share& s : shares) {
        s.column_blocks = std::min(s.tiles, cap == 1 ? 1 : pieces(4 * cap, blocks));
        ends.push_back(items += s.row_blocks * s.column_blocks);
    }
    parallel_for(items, 1, threads, [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) {
            const size_t which = std::upper_bound(ends.begin(), ends.end(), item) - ends.begin();
            const Share& s = shares[which];
            const GemmParams& p = products[s.product];
            const int64_t own = item - (which ? ends[which - 1] : 0);
            const int64_t r = own / s.column_blocks, c = own % s.column_blocks;
            const int64_t first = s.panels * r / s.row_blocks * table.panel_rows;
            const int64_t last = std::min(p.m, s.panels * (r + 1) / s.row_blocks * table.panel_rows);
            table.block(p, first, last, s.tiles * c / s.column_blocks, s.tiles * (c + 1) / s.column_blocks);
        }
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
    require(!overlap(y, x) && !overlap(y, bias) && !overlap(y, scale) &&
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
