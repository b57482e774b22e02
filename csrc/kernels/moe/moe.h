// Mixture of experts around the expert matrices: choose, group by expert, combine.
//
//   route    p = softmax(logits) over all E; experts = the k largest logits, equal ones (-0 = 0) lower index first;
//            weights = p[experts], divided by their sum when `normalize`
//   permute  order = the flat indices t * k + j sorted by expert, stable; e owns order[offsets[e] .. offsets[e + 1])
//   combine  out[t] = sum_j weights[t, j] * y[i_j] with order[i_j] = t * k + j, j = 0 .. k - 1 in that order
//
// Rounding: route in fp32, one rounding at the store. Normalised weights are e^(l - max) over the sum of the chosen
// ones: the full softmax's denominator cancels. combine: products and running sum in fp32, one rounding at the store.
// A row whose logits hold NaN, +inf or only -inf has no softmax: weights NaN, experts 0 .. k - 1.
//
//   name      shape        dtype              notes
//   logits    [n, E]       f32 | bf16 | f16   last dimension contiguous, any row stride; 1 <= k <= E
//   weights   [n, k]       as logits, as y    route writes it contiguous; combine: last dimension contiguous
//   experts   [n, k]       i64                route writes it contiguous; permute takes any strides, values 0 .. E - 1
//   order     [n * k]      i64                contiguous; combine demands a permutation of 0 .. n * k - 1
//   offsets   [E + 1]      i64                contiguous
//   y         [n * k, H]   f32 | bf16 | f16   last dimension contiguous
//   out       [n, H]       as y               contiguous, apart from y
//
// Deterministic; a row's bits depend on that row alone. permute runs on one thread. Workspace: k floats a thread,
// combine n * k int64. Bytes: route n * (E * s + k * (s + 8)), combine (n * k + n) * H * s + 2 * n * k * 8.
#pragma once

#include <cstdint>

#include "core/isa.h"
#include "core/tensor.h"

namespace ivk {

struct MoeRouteParams {
    const void* logits;
    void* weights;
    int64_t* experts;
    int64_t num_experts, k, stride_logits;
    bool normalize;
};

struct MoeCombineParams {
    const void* y;
    const void* weights;
    const int64_t* row_of;  // [n * k]: the row of y that holds choice t * k + j
    void* out;
    int64_t k, cols, stride_y, stride_weights;
};

using MoeRoute = void (*)(const MoeRouteParams&, int64_t begin, int64_t end);
using MoeCombine = void (*)(const MoeCombineParams&, int64_t begin, int64_t end);
struct MoeTable {
    MoeRoute route_f32, route_bf16, route_f16;
    MoeCombine combine_f32, combine_bf16, combine_f16;
};
IVK_DECLARE_TABLE(MoeTable, moe_table)

// Each checks its contract, then runs on at most `threads` threads (0: the default cap).
void moe_route(const TensorView& logits, const TensorView& weights, const TensorView& experts, bool normalize,
               int threads);
void moe_permute(const TensorView& experts, const TensorView& order, const TensorView& offsets);
void moe_combine(const TensorView& y, const TensorView& weights, const TensorView& order, const TensorView& out,
                 int threads);

}  // namespace ivk
