// RMSNorm of q and of k applied on the way: what surrounds attention in place of a launch of its own.
//
//   name      shape      dtype   notes
//   q_factor  [B, L]     f32     contiguous: 1 / root of the mean square of a row of q, all heads together
//   k_factor  [B, S]     f32     contiguous: the same of k
//   weight    [Hq, d]    f32     contiguous: q's norm weight times k's
//
//   score_ij = scale * k_factor_j * sum over d of t(q_id * (q_factor_i * weight_hd)) * k_jd      t: rounding to the
//   dtype
//
// Elsewhere as attention.h. k is read as it lies: its factor meets the scores. Factors come from row_factors
// (norm/statistics.h). CUDA alone.
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace ivk {

struct AttentionNorm {
    TensorView q_factor, k_factor, weight;
};

// The same, checked; all of them or none.
struct AttentionNormParams {
    const float *q_factor = nullptr, *k_factor = nullptr, *weight = nullptr;
};

}  // namespace ivk
