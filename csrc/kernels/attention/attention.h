// Attention of several sequences, keys shared in groups (GQA): y = softmax(scale * q k^T) v per head.
//
//   name   shape              dtype              notes
//   q, y   [rows, Hq, d]      f32 | bf16 | f16   a sequence's rows; d contiguous, any strides of rows and heads
//   k, v   [keys, Hkv, d]     f32 | bf16 | f16   a sequence's keys; one dtype; Hq a multiple of Hkv, d from 1 to 256
//   sinks  [Hq]               as q               or none; contiguous
//   pages  [n]                i64                or none; contiguous: where a sequence's keys lie, below
//
// causal: the rows are the last ones of the sequence, and row i sees keys 0 .. keys - rows + i. Head h reads key head
// h / (Hq / Hkv). y is apart from q, k and v.
// window > 0 (with causal): a row sees the last `window` of those keys, its own among them; 0: all. sinks: head h's
// logit joins the sum of its softmax, unscaled and without a value: y = sum(e^s v) / (e^sink + sum(e^s)).
//
// All arithmetic in fp32, one rounding at the store. Prefill: scores are chains of fused multiply-adds over d; keys are
// taken in blocks of kKeyBlock counted from the sequence's first, with the running maximum and sum of each row (online
// softmax); within a block the products with v are a chain over the keys. So a row's bits depend on its own q, on the
// keys it sees and on whether the ISA level fuses, not on the rows beside it, the chunk that brings it, or the threads.
// Keys that no row of the call sees are not read; one that some rows see is multiplied by 0 for the others, so a NaN or
// Inf in v reaches the rows of its block. Decode (one row of each sequence): scores are sums over d of 16 chains in a
// fixed tree; keys are taken in ranges of kDecodeRange counted from the sequence's first, reduced apart (values as a
// chain) and joined in ascending order. Every key that the row sees is read once, where it lies, and no other. A row's
// bits depend on its own q, keys, window and sink alone; they are not prefill's. Pages: key i of a sequence lies at
// slot pages[first + i / page_size] * page_size + i % page_size, page_size >= 1. The slots change no bit.
//
// CUDA (attention_sm80, compute capability 8.0 and newer): batches of one length of bf16 or f16 heads, not causal, no
// sinks, scale >= 0. Products by mma.m16n8k16, ascending from zero; keys in blocks of 64 (d 97 to 128: 48) from the
// first; probabilities are rounded to the dtype before they meet v, their sum is of the unrounded ones. Warps beyond
// the last row, and steps of 16 keys beyond the last key, are not multiplied. Vectors of 16 bytes or single elements:
// equal bits. RMSNorm of q and k on the way: attention_norm.h. No workspace.
//
// Floor: 4 * rows * seen keys * d * Hq flops; bytes (2 rows Hq + 2 keys Hkv) * d * s. Workspace: attention_scratch
// floats a thread, kept for the next call; decode Hq * decode_scratch, and for the call Hq * decode_width a range where
// a sequence has several.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/isa.h"
#include "core/panels.h"
#include "core/stream.h"
#include "core/tensor.h"
#include "kernels/attention/attention_norm.h"

namespace ivk {

constexpr int64_t kMostHeadDim = 256, kKeyBlock = 192;  // a multiple of every micro-kernel's rows
constexpr int64_t kDecodeRange = 64;                    // a page of the KV cache
struct AttentionSequence {
    const void *q, *k, *v;
    void* y;
    int64_t rows, keys;
    const int64_t* pages;  // of the caches that k and v are; null: k and v are the first key's

    int64_t place(int64_t key, int64_t page_size) const {
        return pages ? pages[key / page_size] * page_size + key % page_size : key;
    }
};

struct AttentionParams {
    std::vector<AttentionSequence> sequences;
    DType dtype, kv_dtype;
    int64_t heads, kv_heads, dim;
    // Elements between rows and between heads.
    int64_t q_row, q_head, k_row, k_head, v_row, v_head, y_row, y_head;
    float scale;
    bool causal;
    int64_t window, page_size;  // window 0: none
    const void* sinks;          // of dtype, or null
};

// Sequences of one length: what the CUDA kernels take.
struct AttentionBatch {
    const void *q, *k, *v;
    void* y;
    int64_t batch, rows, keys, heads, kv_heads, dim;
    struct Strides {
        int64_t batch, row, head;  // elements
    } of_q, of_k, of_v, of_y;
    float scale;
    DType dtype, kv_dtype;
    bool causal;
    int64_t window;
    const void* sinks;
    AttentionNormParams norm;
};
// Of [B, L, Hq, d] and [B, S, Hkv, d]; throws UnsupportedError.
AttentionBatch attention_problem(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& y,
                                 bool causal, double scale, int64_t window, const TensorView* sinks,
                                 const AttentionNorm& norm = {});
std::string describe(const AttentionBatch&);
// Each operand read once and y written once.
inline int64_t attention_bytes(const AttentionBatch& p) {
    return 2 * p.batch * p.dim * (p.rows * p.heads * size_of(p.dtype) + p.keys * p.kv_heads * size_of(p.kv_dtype)) +
           (p.norm.weight ? 4 * (p.batch * (p.rows + p.keys) + p.heads * p.dim) : 0);
}
bool supports_attention_sm80(const AttentionBatch&, const Device&, std::string* why);
void attention_sm80(const AttentionBatch&, const Device&, Stream, int tile);
// Throws UnsupportedError with every variant's reason. tile: of attention_tiles.h; -1: the one that costs least.
void attention_cuda(const AttentionBatch&, const Device&, Stream, int tile = -1);

// q, y [B, L, Hq, d], k, v [B, S, Hkv, d].
void attention(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& y, bool causal,
               double scale, int64_t window, const TensorView* sinks, int threads);

}  // namespace ivk
