#include <string>

#include "core/check.h"
#include "core/cuda/dispatch.h"
#include "kernels/patch_embed/patch_embed_sm80_launch.cuh"

namespace ivk {
namespace {

constexpr int64_t kMostRows = (int64_t{1} << 31) - 1;  // blocks of a grid, and what device::Divider divides
constexpr int64_t kMostPixels = 4096;                  // values of a patch
constexpr int64_t kMostColumns = int64_t{1} << 30;

int64_t rows_of(const PatchEmbedParams& p) { return p.count * p.grid_rows * p.grid_cols; }
int64_t values_of(const PatchEmbedParams& p) { return 3 * p.patch * p.patch; }

// Bytes of weight that a copy may move; 2 where y's rows are no whole vectors either.
int piece_of(const PatchEmbedParams& p) {
    const int64_t s = size_of(p.dtype), stride = p.width > 1 ? p.stride_weight * s : 0;
    const auto weight = reinterpret_cast<uintptr_t>(p.weight);
    const bool halves = weight % 8 == 0 && values_of(p) * s % 8 == 0 && stride % 8 == 0;
    if (!halves || !aligned_addresses(p.bias, p.cls, p.pos, p.y) || !aligned_bytes(p.width * s)) return 2;
    return weight % 16 == 0 && stride % 16 == 0 ? 16 : 8;
}

// Whether patches move in units: a lane reads 12 bytes as three words, or four floats at once.
bool in_words(const PatchEmbedParams& p) {
    const int64_t s = size_of(p.tile_dtype), vector = p.tile_dtype == DType::u8 ? 4 : 4 * s;
    const auto whole = [&](int64_t stride) { return stride * s % vector == 0; };
    return p.patch == device::kPatch && p.grid_cols % device::kUnit == 0 &&
           reinterpret_cast<uintptr_t>(p.tiles) % vector == 0 && (p.count <= 1 || whole(p.stride_tile)) &&
           whole(p.stride_row) && (p.tile_dtype == DType::u8 || whole(p.stride_channel));
}

}  // namespace

bool supports_patch_embed_sm80(const PatchEmbedParams& p, const Device& on, std::string* why) {
    if (on.major < 8)
        *why = "needs compute capability 8.0, " + on.name + " has " + std::to_string(on.major) + "." +
               std::to_string(on.minor);
    else if (p.dtype == DType::f32)
        *why = "weight float32; allowed: bfloat16, float16";
    else if (values_of(p) > kMostPixels)
        *why = std::to_string(values_of(p)) + " values of a patch; allowed: at most " + std::to_string(kMostPixels);
    else if (p.width > kMostColumns || p.count > kMostRows || p.grid_rows > kMostRows || p.grid_cols > kMostRows ||
             (p.count + 1) * (p.grid_rows + 1) > kMostRows / (p.grid_cols + 1) ||
             patch_embed_blocks({128, 1}, rows_of(p), p.width) > kMostRows)
        *why = "allowed: fewer than " + std::to_string(kMostRows) + " patches and blocks";
    else
        return true;
    return false;
}

void patch_embed_sm80(const PatchEmbedParams& p, const Device& on, Stream stream, PatchEmbedPlan asked) {
    require(asked.columns == 0 || asked.columns == 128 || asked.columns == 256, "patch_embed: columns is ",
            asked.columns, "; allowed: 128, 256, 0");
    require(asked.each >= 0, "patch_embed: each is ", asked.each, "; allowed: 0 and more");
    if (p.count == 0 || p.width == 0) return;
    const int piece = piece_of(p);
    const bool wide = piece != 2 && device::kEmbedShared<256> <= on.shared_most;
    const PatchEmbedPlan plan = choose_patch_embed_plan(rows_of(p), p.width, on.multiprocessors, wide, asked);
    const auto divider = [](int64_t by) { return device::Divider(static_cast<uint32_t>(by)); };
    device::PatchEmbedArgs a{p,
                             static_cast<int>(values_of(p)),
                             static_cast<int>(patch_embed_panels(rows_of(p))),
                             plan.each,
                             static_cast<int>((p.width + plan.columns - 1) / plan.columns),
                             rows_of(p),
                             divider(p.grid_rows * p.grid_cols),
                             divider(p.grid_cols),
                             divider(p.patch * p.patch),
                             divider(p.patch),
                             {},
                             {},
                             in_words(p)};
    for (int c = 0; c < 3; ++c) {
        a.factor[c] = static_cast<float>(1.0 / (255.0 * p.std[c]));
        a.shift[c] = static_cast<float>(-static_cast<double>(p.mean[c]) / p.std[c]);
    }
    (p.dtype == DType::bf16 ? patch_embed_sm80_bf16 : patch_embed_sm80_f16)(a, plan.columns, piece, stream);
}

}  // namespace ivk
