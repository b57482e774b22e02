#include <string>

#include "core/cuda/dispatch.h"
#include "kernels/gemm/gemm_sm80_launch.cuh"

namespace ivk {
namespace {

constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1;
constexpr int64_t kMostColumns = int64_t{1} << 30;

bool whole_vectors(const GemmParams& p) {
    const int64_t s = size_of(p.dtype), wide = size_of(p.stream);
    const int64_t columns = p.epilogue == Epilogue::swiglu ? p.weight.n / 2 : p.weight.n;  // of y, gate and up
    return aligned_addresses(p.x, p.weight.data, p.bias, p.scale, p.residual, p.y, p.fold.columns) &&
           aligned_bytes(p.weight.k * s, columns * s, p.stride_x * s, p.weight.stride * s, p.stride_y * wide,
                         p.residual ? p.stride_r * wide : 0);
}

int tile_of(const GemmParams& p, const Device& on, int asked) {
    const bool gated = p.epilogue == Epilogue::swiglu;
    if (!whole_vectors(p)) return kSmallestGemmTile;
    if (asked >= 0) return asked;
    return choose_gemm_tile(p.m, gemm_columns(p.weight.n, gated), p.weight.k, on.multiprocessors, gated);
}

}  // namespace

bool supports_gemm_sm80(const GemmParams& p, const Device& on, std::string* why) {
    if (on.major < 8)
        *why = "needs compute capability 8.0, " + on.name + " has " + std::to_string(on.major) + "." +
               std::to_string(on.minor);
    else if (p.dtype == DType::f32 || p.weight.dtype != p.dtype)
        *why = std::string("x ") + name_of(p.dtype) + ", weight " + name_of(p.weight.dtype) +
               "; allowed: bfloat16 or float16, the same for both";
    else if (p.weight.packed || p.rows != nullptr)
        *why = "packed weights and chosen rows are the cpu backend's";
    else if (p.epilogue == Epilogue::swiglu && (p.fold.rows != nullptr || p.fold.result != nullptr))
        *why = "swiglu goes without folded norm and statistics";
    else if (p.weight.k > kMostColumns || p.weight.n > kMostColumns || p.m > kMostBlocks)
        *why = "allowed: K and N up to " + std::to_string(kMostColumns) + ", M up to " + std::to_string(kMostBlocks);
    else if (gemm_blocks(kGemmTiles[tile_of(p, on, -1)], p.m, p.weight.n) > kMostBlocks)
        *why = "more than " + std::to_string(kMostBlocks) + " blocks";
    else
        return true;
    return false;
}

void gemm_sm80(const GemmParams& p, const Device& on, Stream stream, int asked) {
    if (p.m == 0 || p.weight.n == 0) return;
    const bool bf16 = p.dtype == DType::bf16;
    const auto run = p.epilogue != Epilogue::swiglu ? (bf16 ? gemm_sm80_bf16 : gemm_sm80_f16)
                                                    : (bf16 ? gemm_sm80_gated_bf16 : gemm_sm80_gated_f16);
    const int tile = tile_of(p, on, asked);
    require(p.epilogue != Epilogue::swiglu || gemm_takes_gates(kGemmTiles[tile]), "gemm: tile ", kGemmTiles[tile].name,
            " with swiglu; allowed: one whose warps have 64 columns");
    run(p, tile, whole_vectors(p), stream);
}

}  // namespace ivk
