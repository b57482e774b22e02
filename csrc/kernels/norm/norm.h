// Norms over the last dimension, alone or fused with the residual branch before them.
//
//   norm       y = n(x) * weight + bias
//              LayerNorm: n(x) = (x - mean) * rsqrt(var + eps), var biased;  RMSNorm: n(x) = x * rsqrt(mean(x^2) +
//              eps), no bias
//   add_norm   h = x + scale * branch;  y = norm(h)      scale is the layer scale [cols], or null for 1
//   add_scaled h = x + scale * branch                                the same without weight and y
//
// Rounding: statistics, sums and products in fp32. LayerNorm and h round once, at the store. RMSNorm rounds n(x) to y's
// dtype before the weight (the published Llama/Qwen/InternViT order), then the product; rms_once rounds the product
// alone (GPT-OSS's order). y is computed from the rounded h.
//
//   name          shape          dtype              notes
//   x, branch     [rows, cols]   f32 | bf16 | f16   last dimension contiguous, any row stride >= cols
//   scale         [cols]         as x               or absent
//   weight        [cols]         as x               contiguous; absent with y for add_scaled; of bf16 | f16 also where
//   x
//                                                   is f32: a residual stream in fp32 before 16-bit products
//   bias          [cols]         as weight          or absent; absent for RMSNorm
//   h, y          [rows, cols]   as x, as weight    h may be x or branch; y may be x (norm) or branch, not h
//
// Deterministic; a row's bits depend on that row alone. Workspace 0. Errors: UnsupportedError with the whole problem.
// Bytes: norm 2*rows*cols*s, add_norm 4*rows*cols*s, and the vectors once (norm_bytes).
//
// CUDA (norm_sm80, compute capability 8.0 and newer): every problem of the contract with cols <= 2^30. Where all
// addresses, row strides and rows are multiples of 16 bytes a thread moves 16 bytes at once; other problems go element
// by element and give the same bits. Up to 4096 vectors of 16 bytes a row stays in registers; longer rows are read
// again by each pass.
#pragma once

#include <cstdint>
#include <string>

#include "core/device.h"
#include "core/isa.h"
#include "core/stream.h"
#include "core/tensor.h"

namespace ivk {

enum class NormKind : int { layer, rms, rms_once };

struct NormParams {
    const void* x;       // [rows, cols]
    const void* branch;  // [rows, cols] or null: plain norm
    const void* scale;   // [cols] or null
    const void* weight;  // [cols]; null: no norm, y is null too
    const void* bias;    // [cols] or null
    void* h;             // [rows, cols]; null without branch
    void* y;             // [rows, cols]; null without weight
    int64_t rows, cols;
    int64_t stride_x, stride_branch, stride_h, stride_y;  // elements
    float eps;
    DType dtype;  // of x, branch, scale, h
    DType out;    // of weight, bias, y: dtype, or with x of f32 any
    NormKind kind;
    // CUDA: rows in pairs, the odd ones `apart` elements after the even ones and with this weight (q and k of a row).
    const void* second_weight = nullptr;
    int64_t apart = 0;
};

using NormRows = void (*)(const NormParams&, int64_t begin, int64_t end);
struct NormTable {
    NormRows f32, bf16, f16, f32_bf16, f32_f16;
};
IVK_DECLARE_TABLE(NormTable, norm_table)

// The checked problem; throws UnsupportedError.
NormParams norm_problem(const TensorView& x, const TensorView& branch, const TensorView& scale,
                        const TensorView& weight, const TensorView& bias, const TensorView& h, const TensorView& y,
                        float eps, NormKind kind);
// norm of columns [0, cols) and [cols, 2 cols) of x [rows, 2 cols], each with its weight.
NormParams norm_pair_problem(const TensorView& x, const TensorView& first_weight, const TensorView& second_weight,
                             const TensorView& y, float eps, NormKind kind);
std::string describe(const NormParams&);

// Each input read once and each output written once.
inline int64_t norm_bytes(const NormParams& p) {
    const int64_t in = p.rows * (p.branch ? 3 : 1) + (p.scale ? 1 : 0);
    const int64_t out = (p.weight ? p.rows + 1 : 0) + (p.bias ? 1 : 0) + (p.second_weight ? 1 : 0);
    return (in * size_of(p.dtype) + out * size_of(p.out)) * p.cols;
}

bool supports_norm_sm80(const NormParams&, const Device&, std::string* why);
void norm_sm80(const NormParams&, Stream);
void norm_cuda(const NormParams&, const Device&, Stream);  // throws UnsupportedError with every variant's reason

// CPU: checks the contract, then runs on at most `threads` threads (0: the default cap).
void norm(const TensorView& x, const TensorView& branch, const TensorView& scale, const TensorView& weight,
          const TensorView& bias, const TensorView& h, const TensorView& y, float eps, NormKind kind, int threads);

}  // namespace ivk
