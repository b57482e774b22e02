// Token embeddings with visual rows in their places, in one pass.
//
//   y[i] = ids[i] == image_id ? visual[number of image positions before i] : table[ids[i]]
//
//   name     shape    dtype              notes
//   ids      [n]      int64              any stride
//   table    [V, H]   f32 | bf16 | f16   rows contiguous, any row stride >= H
//   visual   [m, H]   as table           absent when there is no image position
//   y        [n, H]   as table           contiguous, apart from all inputs
//   image_id          absent: every id is a row of the table
//
// Refused before anything is written: a text id outside [0, V), a number of image positions other than m.
// A copy, so exact. Workspace 8 n bytes. Bytes: 2*n*H*s + 8*n (embed_bytes).
//
// CUDA (embed_sm80, compute capability 8.0 and newer): every problem of the contract with fewer than 2^31 rows; ids are
// read on the host. Where addresses, row strides and rows are multiples of 16 bytes a thread moves 16 bytes at once.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/isa.h"
#include "core/stream.h"
#include "core/tensor.h"

namespace ivk {

struct EmbedParams {
    const int64_t* source;  // [n]: a table row r as r, a visual row v as -1 - v
    const char* table;
    const char* visual;  // null without image positions
    char* y;
    int64_t row_bytes, rows, table_stride, visual_stride;  // bytes, n, bytes
    DType dtype;
};

using EmbedRows = void (*)(const EmbedParams&, int64_t begin, int64_t end);
struct EmbedTable {
    EmbedRows rows;
};
IVK_DECLARE_TABLE(EmbedTable, embed_table)

// The checked problem; throws UnsupportedError. `source` is where its own lie, in host memory.
EmbedParams embed_problem(const TensorView& ids, const TensorView& table, const TensorView& visual, const TensorView& y,
                          std::optional<int64_t> image_id, std::vector<int64_t>& source);
std::string describe(const EmbedParams&);
inline int64_t embed_bytes(const EmbedParams& p) { return p.rows * (2 * p.row_bytes + 8); }

bool supports_embed_sm80(const EmbedParams&, const Device&, std::string* why);
void embed_sm80(const EmbedParams&, Stream);
void embed_cuda(const EmbedParams&, const Device&, Stream);  // throws UnsupportedError with every variant's reason

// CPU, on at most `threads` threads (0: the default cap).
void embed(const TensorView& ids, const TensorView& table, const TensorView& visual, const TensorView& y,
           std::optional<int64_t> image_id, int threads);

}  // namespace ivk
