// The next token of every row of logits: the greedy one, or one drawn by inverse CDF.
//
//   argmax   tokens[r] = the index of the largest logit, the lowest among equals (-0 = 0)
//   sample   w[i] = e^((l[i] - max l) / temperature), tokens sorted by descending l, equal ones lower index first
//            top_k: the first top_k stay (0: all); top_p: of those, the first ones until their sum reaches top_p times
//            the sum of all that top_k left, at least one (1: all)
//            tokens[r] = the first token that stayed whose running sum exceeds uniform[r] * (sum of those that stayed)
//
// Everything after the load is fp64. A row without such a token is refused, the lowest such row by its number: NaN for
// argmax; NaN, +inf or nothing but -inf for sample.
//
//   name      shape    dtype              notes
//   logits    [B, V]   f32 | bf16 | f16   last dimension contiguous, any row stride; V >= 1
//   uniform   [B]      f64                contiguous, in [0, 1)
//   tokens    [B]      i64                contiguous
//
// Deterministic; a row's token depends on its own logits and uniform only. Workspace a thread: V floats for bf16 and
// f16, and 16 bytes for each token ranked: top_k of them, or as many as the running sum asks for (V for flat logits).
#pragma once

#include <cstdint>

#include "core/isa.h"
#include "core/tensor.h"

namespace ivk {

struct SampleParams {
    const void* logits;
    const double* uniform;  // null: argmax
    int64_t* tokens;        // -1: the row is refused
    int64_t vocab, stride;
    int64_t top_k;
    double temperature, top_p;
};

using SampleRows = void (*)(const SampleParams&, int64_t begin, int64_t end);
struct SampleTable {
    SampleRows argmax_f32, argmax_bf16, argmax_f16;
    SampleRows sample_f32, sample_bf16, sample_f16;
};
IVK_DECLARE_TABLE(SampleTable, sample_table)

// Each checks its contract, then runs on at most `threads` threads (0: the default cap).
void argmax(const TensorView& logits, const TensorView& tokens, int threads);
void sample(const TensorView& logits, const TensorView& uniform, const TensorView& tokens, double temperature,
            int64_t top_k, double top_p, int threads);

}  // namespace ivk
