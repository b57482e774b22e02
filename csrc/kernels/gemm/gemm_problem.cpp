#include <cmath>
#include <sstream>

#include "core/check.h"
#include "core/statistics.h"
#include "kernels/gemm/gemm_table.h"

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

GemmFoldParams checked_fold(const GemmFold& f, const TensorView& x, const PackedWeight& weight, const TensorView& bias,
                            const TensorView& y) {
    GemmFoldParams p;
    const int64_t m = x.shape[0], n = weight.n, parts = statistics_parts(n);
    require(f.rows.defined() == f.columns.defined(), "gemm: rows is ", f.rows, ", columns ", f.columns,
            "; allowed: a norm's statistics and columns together");
    if (f.rows.defined()) {
        check_statistics("gemm", "rows", f.rows, statistics_parts(weight.k), m);
        require(f.columns.dtype == DType::f32 && f.columns.ndim == 2 && f.columns.shape[0] == n &&
                    f.columns.shape[1] == 2 && f.columns.contiguous(),
                "gemm: columns is ", f.columns, "; allowed: contiguous float32 [", n, ", 2]");
        require(!bias.defined() && f.eps > 0.0f, "gemm: bias is ", bias, ", eps ", f.eps,
                "; allowed with a norm folded in: no bias but that in columns, and an eps greater than 0");
        require(!overlap(y, f.rows) && !overlap(y, f.columns), "gemm: y is ", y, "; allowed: apart from the inputs");
        p.rows = f.rows.as<float>(), p.rows_apart = f.rows.stride[0], p.columns = f.columns.as<float>();
        p.eps = f.eps, p.rms = f.rms;
    }
    if (f.result.defined()) {
        p.parts = f.result.shape[0];
        require(f.result.ndim == 3 && p.parts <= parts && y.dtype == x.dtype && x.dtype != DType::f32,
                "gemm: statistics is ", f.result, ", y ", y, "; allowed: at most ", parts,
                " parts of a y of x's dtype, bfloat16 or float16");
        check_statistics("gemm", "statistics", f.result, p.parts, m);
        require(!overlap(f.result, y) && !overlap(f.result, x) && !overlap(f.result, bias) &&
                    !overlap(f.result, f.rows) && !overlap(f.result, f.columns) &&
                    !overlap(f.result, memory_of(weight)),
                "gemm: statistics is ", f.result, "; allowed: apart from the other tensors");
        p.result = f.result.as<float>(), p.result_apart = f.result.stride[0];
    }
    return p;
}

const char* name_of(Epilogue e) {
    constexpr const char* kNames[] = {"linear", "gelu", "swiglu", "residual"};
    return kNames[static_cast<int>(e)];
}

}  // namespace

PackedWeight plain_weight(const TensorView& w, bool swiglu) {
    require(w.ndim == 2 && (w.shape[1] <= 1 || w.stride[1] == 1) && (w.shape[0] <= 1 || w.stride[0] >= w.shape[1]),
            "gemm: weight is ", w, "; allowed: [N, K], rows with a contiguous last dimension");
    return {w.data, w.dtype, w.shape[0], w.shape[1], false, w.stride[0], swiglu};
}

Epilogue epilogue_named(const std::string& name) {
    for (Epilogue e : {Epilogue::linear, Epilogue::gelu, Epilogue::swiglu, Epilogue::residual})
        if (name == name_of(e)) return e;
    throw UnsupportedError("gemm: epilogue is " + name + "; allowed: linear, gelu, swiglu, residual");
}

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

GemmParams gemm_problem(const TensorView& x, const PackedWeight& weight, const TensorView& bias,
                        const TensorView& scale, const TensorView& residual, const TensorView& y, Epilogue epilogue,
                        const GemmFold& fold, float limit) {
    require(x.ndim == 2 && is_real(x.dtype), "gemm: x is ", x, "; allowed: [M, K] of float32, bfloat16 or float16");
    const bool gated = epilogue == Epilogue::swiglu, adds = epilogue == Epilogue::residual;
    require(is_real(weight.dtype) && weight.k >= 1 && weight.k == x.shape[1] && weight.n >= 0, "gemm: weight is ",
            name_of(weight.dtype), "[", weight.n, ", ", weight.k, "], x is ", x,
            "; allowed: [N, K] of float32, bfloat16 or float16 with x's K >= 1");
    require(!gated || (weight.n % 2 == 0 && weight.swiglu), "gemm: weight has ", weight.n,
            " rows; allowed for swiglu: an even number, packed gate beside up");
    require(gated || !weight.swiglu, "gemm: weight is packed for swiglu; allowed: that epilogue alone");
    const int64_t columns = gated ? weight.n / 2 : weight.n;
    require(limit == 0.0f || (gated && limit > 0.0f && std::isfinite(limit)), "gemm: limit is ", limit,
            "; allowed: above 0 and finite, with swiglu, or 0 for none");
    check_rows("x", x, x.shape[0], weight.k, x.dtype);
    const DType stream = adds && residual.dtype == DType::f32 ? DType::f32 : x.dtype;
    check_rows("y", y, x.shape[0], columns, stream);
    check_vector("bias", bias, weight.n, x.dtype);
    check_vector("scale", scale, weight.n, x.dtype);
    require(residual.defined() == adds && (adds || !scale.defined()), "gemm: residual is ", residual, ", scale ", scale,
            "; allowed: both with the residual epilogue alone, which needs a residual");
    if (adds) check_rows("residual", residual, x.shape[0], columns, stream);
    require(!overlap(y, x) && !overlap(y, memory_of(weight)) && !overlap(y, bias) && !overlap(y, scale) &&
                (!adds || same_place(y, residual) || !overlap(y, residual)),
            "gemm: y is ", y, "; allowed: apart from the inputs, or residual itself");
    return {x.data,     x.stride[0],   nullptr,
            x.dtype,    weight,        bias.data,
            scale.data, residual.data, residual.stride[0],
            y.data,     y.stride[0],   x.shape[0],
            epilogue,   stream,        checked_fold(fold, x, weight, bias, y),
            limit};
}

std::string describe(const GemmParams& p) {
    std::ostringstream text;
    text << name_of(p.epilogue) << " of " << name_of(p.dtype) << "[" << p.m << ", " << p.weight.k << "] row stride "
         << p.stride_x << (p.rows ? ", chosen rows" : "") << ", weight " << name_of(p.weight.dtype) << "[" << p.weight.n
         << ", " << p.weight.k << "]";
    if (p.weight.packed)
        text << " packed";
    else
        text << " row stride " << p.weight.stride;
    if (p.limit > 0.0f) text << ", clamped at " << p.limit;
    if (p.residual != nullptr) text << ", residual " << name_of(p.stream) << " of row stride " << p.stride_r;
    if (p.fold.rows != nullptr) text << ", " << (p.fold.rms ? "RMSNorm" : "LayerNorm") << " of x folded in";
    if (p.fold.result != nullptr) text << ", statistics of " << p.fold.parts << " parts";
    text << ", result of row stride " << p.stride_y << ", addresses x " << p.x << " weight " << p.weight.data
         << " bias " << p.bias << " scale " << p.scale << " residual " << p.residual << " y " << p.y;
    return text.str();
}

}  // namespace ivk
