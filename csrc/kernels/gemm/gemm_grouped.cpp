#include "kernels/gemm/gemm_grouped.h"

#include <cmath>

#include "core/check.h"
#include "kernels/gemm/gemm_table.h"

namespace ivk {

void gemm_grouped(const TensorView& x, const TensorView& rows, const TensorView& offsets, const PackedWeight& weight,
                  int64_t expert_stride, const TensorView& bias, const TensorView& y, Epilogue epilogue, float limit,
                  int threads) {
    const bool gated = epilogue == Epilogue::swiglu;
    require(gated || epilogue == Epilogue::linear, "gemm_grouped: allowed epilogues: linear, swiglu");
    require(limit == 0.0f || (gated && limit > 0.0f && std::isfinite(limit)), "gemm_grouped: limit is ", limit,
            "; allowed: above 0 and finite, with swiglu, or 0 for none");
    require(x.ndim == 2 && weight.k >= 1 && x.shape[1] == weight.k && (x.shape[1] <= 1 || x.stride[1] == 1) &&
                (x.shape[0] <= 1 || x.stride[0] >= x.shape[1]) &&
                (x.dtype == DType::f32 || x.dtype == DType::bf16 || x.dtype == DType::f16),
            "gemm_grouped: x is ", x, "; allowed: rows of ", weight.k, " float32, bfloat16 or float16");
    const int64_t m = rows.defined() ? rows.numel() : x.shape[0], columns = gated ? weight.n / 2 : weight.n;
    require(y.ndim == 2 && y.shape[0] == m && y.shape[1] == columns && y.dtype == x.dtype && y.contiguous() &&
                !overlap(y, x) && !overlap(y, memory_of(weight, offsets.numel() - 1, expert_stride)),
            "gemm_grouped: y is ", y, "; allowed: [", m, ", ", columns,
            "] of x's dtype, contiguous, apart from x and weight");
    require(!rows.defined() || (rows.ndim == 1 && rows.dtype == DType::i64 && rows.contiguous()),
            "gemm_grouped: rows is ", rows, "; allowed: a contiguous int64 vector");
    require(offsets.ndim == 1 && offsets.dtype == DType::i64 && offsets.contiguous() && offsets.shape[0] >= 1,
            "gemm_grouped: offsets is ", offsets, "; allowed: a contiguous int64 vector, one longer than the experts");
    for (int64_t i = 0; rows.defined() && i < m; ++i) {
        const int64_t row = rows.as<const int64_t>()[i];
        require(0 <= row && row < x.shape[0], "gemm_grouped: rows[", i, "] is ", row, "; allowed: 0 to ",
                x.shape[0] - 1);
    }
    const int64_t* const at = offsets.as<const int64_t>();
    const int64_t experts = offsets.shape[0] - 1;
    require(at[0] == 0 && at[experts] == m, "gemm_grouped: offsets go from ", at[0], " to ", at[experts],
            "; allowed: from 0 to ", m);

    require(!bias.defined() || (bias.ndim == 2 && bias.shape[0] == experts && bias.shape[1] == weight.n &&
                                bias.dtype == x.dtype && bias.contiguous() && !overlap(y, bias)),
            "gemm_grouped: bias is ", bias, "; allowed: contiguous [", experts, ", ", weight.n,
            "] of x's dtype, apart from y");

    std::vector<GemmParams> products;
    for (int64_t e = 0; e < experts; ++e) {
        require(at[e] <= at[e + 1], "gemm_grouped: offsets[", e + 1, "] is ", at[e + 1], "; allowed: at least ", at[e]);
        if (at[e] == at[e + 1]) continue;
        const auto skip = [](void* data, int64_t elements, DType dtype) {
            return static_cast<void*>(static_cast<char*>(data) + elements * size_of(dtype));
        };
        PackedWeight own = weight;
        own.data = skip(const_cast<void*>(weight.data), e * expert_stride, weight.dtype);
        GemmParams p{};
        p.x = rows.defined() ? x.data : skip(x.data, at[e] * x.stride[0], x.dtype);
        p.stride_x = x.stride[0];
        p.rows = rows.defined() ? rows.as<const int64_t>() + at[e] : nullptr;
        p.dtype = p.stream = x.dtype;
        p.weight = own;
        p.y = skip(y.data, at[e] * columns, y.dtype);
        p.stride_y = columns;
        if (bias.defined()) p.bias = skip(bias.data, e * weight.n, x.dtype);
        p.limit = limit;
        p.m = at[e + 1] - at[e];
        p.epilogue = epilogue;
        products.push_back(p);
    }
    run_gemms(products, threads);
}

}  // namespace ivk
