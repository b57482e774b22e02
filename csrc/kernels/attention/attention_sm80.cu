#include <string>

#include "core/cuda/dispatch.h"
#include "kernels/attention/attention_sm80_launch.cuh"

namespace ivk {
namespace {

constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1;
constexpr int64_t kMostLength = int64_t{1} << 30;
constexpr int kDims[] = {64, 96, 128, 256};

int padded(int64_t dim) {
    for (int d : kDims)
        if (dim <= d) return d;
    return 0;
}

int shared_bytes(int dim) {  // with the largest tile
    switch (dim) {
        case 64:
            return device::FlashShape<64, 4>::kShared;
        case 96:
            return device::FlashShape<96, 4>::kShared;
        case 128:
            return device::FlashShape<128, 4>::kShared;
        default:
            return device::FlashShape<256, 4>::kShared;
    }
}

bool whole_vectors(const AttentionBatch& p) {
    const int64_t s = size_of(p.dtype);
    const auto even = [&](const AttentionBatch::Strides& at) {
        return aligned_bytes(at.batch * s, at.row * s, at.head * s);
    };
    return aligned_addresses(p.q, p.k, p.v, p.y, p.norm.weight) && aligned_bytes(p.dim * s) && even(p.of_q) &&
           even(p.of_k) && even(p.of_v) && even(p.of_y);
}

}  // namespace

bool supports_attention_sm80(const AttentionBatch& p, const Device& on, std::string* why) {
    const int dim = padded(p.dim);
    if (on.major < 8)
        *why = "needs compute capability 8.0, " + on.name + " has " + std::to_string(on.major) + "." +
               std::to_string(on.minor);
    else if (p.dtype == DType::f32 || p.kv_dtype != p.dtype)
        *why = std::string("q ") + name_of(p.dtype) + ", k and v " + name_of(p.kv_dtype) +
               "; allowed: bfloat16 or float16, the same for all";
    else if (p.causal || p.window > 0 || p.sinks != nullptr)
        *why = "causal, window and sinks are the cpu backend's";
    else if (!(p.scale >= 0))
        *why = "scale " + std::to_string(p.scale) + "; allowed: 0 and more";
    else if (p.keys > kMostLength || p.rows > kMostLength || p.batch * p.heads * ((p.rows + 63) / 64) > kMostBlocks)
        *why = "allowed: at most " + std::to_string(kMostLength) + " rows and keys, and " +
               std::to_string(kMostBlocks) + " blocks of 64 queries";
    else if (shared_bytes(dim) > on.shared_most)
        *why = std::to_string(shared_bytes(dim)) + " bytes of shared memory for heads of " + std::to_string(p.dim) +
               "; " + on.name + " has " + std::to_string(on.shared_most);
    else
        return true;
    return false;
}

void attention_sm80(const AttentionBatch& p, const Device& on, Stream stream, int asked) {
    if (p.rows == 0 || p.batch == 0 || p.heads == 0) return;
    const int dim = padded(p.dim);
    const int tile = asked >= 0 ? asked : choose_attention_tile(p.rows, p.batch * p.heads, on.multiprocessors);
    const auto run = dim == 64    ? attention_sm80_64
                     : dim == 96  ? attention_sm80_96
                     : dim == 128 ? attention_sm80_128
                                  : attention_sm80_256;
    run(p, attention_tile_count(p.dim) > 1 ? tile : 0, whole_vectors(p), stream);
}

}  // namespace ivk
