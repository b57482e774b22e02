#include <string>

#include "kernels/attention/attention_sm80_causal_launch.cuh"

namespace ivk {
namespace {

constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1;
constexpr int64_t kLeastPage = 64;  // a block of keys lies in two at most

int padded(int64_t dim) { return dim <= 64 ? 64 : dim <= 96 ? 96 : dim <= 128 ? 128 : 256; }

int shared_bytes(int dim) {
    const int of[] = {device::FlashShape<64, kCausalWarps>::kShared, device::FlashShape<96, kCausalWarps>::kShared,
                      device::FlashShape<128, kCausalWarps>::kShared, device::FlashShape<256, kCausalWarps>::kShared};
    return 16 + of[dim == 64 ? 0 : dim == 96 ? 1 : dim == 128 ? 2 : 3];
}

bool whole_vectors(const CachedAttention& p) {
    const int64_t s = size_of(p.dtype);
    return aligned_addresses(p.q, p.k, p.v, p.y) &&
           aligned_bytes(p.dim * s, p.q_row * s, p.q_head * s, p.k_row * s, p.k_head * s, p.v_row * s, p.v_head * s,
                         p.y_row * s, p.y_head * s);
}

}  // namespace

int cached_tile_rows(int64_t dim) { return attention_tile_rows(kCausalWarps, padded(dim)); }

bool supports_attention_sm80_causal(const CachedAttention& p, const Device& on, std::string* why) {
    if (on.major < 8)
        *why = "needs compute capability 8.0, " + on.name + " has " + std::to_string(on.major) + "." +
               std::to_string(on.minor);
    else if (p.dtype == DType::f32 || p.kv_dtype != p.dtype)
        *why = std::string("q ") + name_of(p.dtype) + ", caches " + name_of(p.kv_dtype) +
               "; allowed: bfloat16 or float16, the same for all";
    else if (!(p.scale >= 0))
        *why = "scale " + std::to_string(p.scale) + "; allowed: 0 and more";
    else if (p.page_size > 0 && (p.page_size < kLeastPage || (p.page_size & (p.page_size - 1)) != 0))
        *why = "pages of " + std::to_string(p.page_size) + "; allowed: a power of 2, " + std::to_string(kLeastPage) +
               " and more";
    else if (p.heads * p.tile_count > kMostBlocks)
        *why = "allowed: at most " + std::to_string(kMostBlocks) + " blocks of rows";
    else if (shared_bytes(padded(p.dim)) > on.shared_most)
        *why = std::to_string(shared_bytes(padded(p.dim))) + " bytes of shared memory for heads of " +
               std::to_string(p.dim) + "; " + on.name + " has " + std::to_string(on.shared_most);
    else
        return true;
    return false;
}

void attention_sm80_causal(const CachedAttention& p, Stream stream) {
    if (p.tile_count == 0 || p.heads == 0) return;
    const int dim = padded(p.dim);
    const auto run = dim == 64    ? attention_sm80_causal_64
                     : dim == 96  ? attention_sm80_causal_96
                     : dim == 128 ? attention_sm80_causal_128
                                  : attention_sm80_causal_256;
    run(p, whole_vectors(p), stream);
}

}  // namespace ivk
