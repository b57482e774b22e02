#include "kernels/patch_embed/patch_embed.h"

#include "core/check.h"
#include "core/parallel.h"

namespace ivk {
namespace {

bool is_float(DType dtype) { return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16; }

}  // namespace

void patchify(const TensorView& tiles, const TensorView& a, std::array<float, 3> mean, std::array<float, 3> std,
              int64_t patch, int threads) {
    require(tiles.ndim == 4 && patch >= 1, "patch_embed: tiles is ", tiles, " with patch_size ", patch,
            "; allowed: four dimensions, patches of at least 1 pixel");
    require(is_float(a.dtype), "patch_embed: weight is ", name_of(a.dtype), "; allowed: float32, bfloat16, float16");
    const bool bytes = tiles.dtype == DType::u8;
    require(bytes || tiles.dtype == DType::f32 || tiles.dtype == a.dtype, "patch_embed: tiles is ", tiles,
            "; allowed: uint8, float32, or the weight's dtype ", name_of(a.dtype));
    const int channel = bytes ? 3 : 1, row = bytes ? 1 : 2, column = bytes ? 2 : 3;
    const int64_t height = tiles.shape[row], width = tiles.shape[column];
    require(tiles.shape[channel] == 3, "patch_embed: tiles is ", tiles,
            "; allowed: uint8 [T, H, W, 3] or float [T, 3, H, W]");
    require(height >= patch && width >= patch && height % patch == 0 && width % patch == 0, "patch_embed: tiles of ",
            height, " x ", width, " pixels; allowed: positive multiples of the patch size ", patch);
    require(bytes ? tiles.stride[3] == 1 && tiles.stride[2] == 3 : width == 1 || tiles.stride[3] == 1,
            "patch_embed: tiles is ", tiles, "; allowed: contiguous pixel rows");
    for (int c = 0; c < 3; ++c)
        require(!bytes || std[c] != 0.0f, "patch_embed: std[", c, "] is ", std[c], "; allowed: other than 0");
    const int64_t down = height / patch, across = width / patch;
    require(a.ndim == 2 && a.shape[0] == tiles.shape[0] * down * across && a.shape[1] == 3 * patch * patch &&
                a.contiguous() && !overlap(a, tiles),
            "patch_embed: patch matrix is ", a, "; allowed: contiguous [", tiles.shape[0] * down * across, ", ",
            3 * patch * patch, "], apart from tiles");

    const PatchifyParams params{
        tiles.data,        a.data, down, across,     patch, tiles.stride[0], tiles.stride[channel],
        tiles.stride[row], mean,   std,  tiles.dtype};
    const PatchEmbedTable& table = IVK_SELECT(patch_embed_table);
    const PatchifyBands run = a.dtype == DType::f32    ? table.patchify_f32
                              : a.dtype == DType::bf16 ? table.patchify_bf16
                                                       : table.patchify_f16;
    parallel_for(tiles.shape[0] * down, 1 + (1 << 15) / (width * patch * 3), threads,
                 [&](int64_t begin, int64_t end) { run(params, begin, end); });
}

void add_positions(const TensorView& product, const TensorView& cls, const TensorView& pos, const TensorView& y,
                   int threads) {
    require(product.ndim == 2 && product.shape[1] >= 1 && product.contiguous() && is_float(product.dtype),
            "patch_embed: product is ", product, "; allowed: contiguous [N, D] of float32, bfloat16 or float16");
    const int64_t rows = 1 + product.shape[0], width = product.shape[1];
    require(cls.ndim == 1 && cls.shape[0] == width && cls.dtype == product.dtype && cls.contiguous(),
            "patch_embed: cls is ", cls, "; allowed: a contiguous vector of ", width, " ", name_of(product.dtype),
            " values");
    for (const TensorView* v : {&pos, &y})
        require(
            v->ndim == 2 && v->shape[0] == rows && v->shape[1] == width && v->dtype == product.dtype && v->contiguous(),
            "patch_embed: ", v == &pos ? "pos" : "result", " is ", *v, "; allowed: contiguous ", name_of(product.dtype),
            " [", rows, ", ", width, "], CLS and this grid's patches");
    require(!overlap(y, product) && !overlap(y, cls) && !overlap(y, pos), "patch_embed: the result overlaps an input");

    const PositionParams params{product.data, cls.data, pos.data, y.data, width};
    const PatchEmbedTable& table = IVK_SELECT(patch_embed_table);
    const PositionRows run = y.dtype == DType::f32    ? table.positions_f32
                             : y.dtype == DType::bf16 ? table.positions_bf16
                                                      : table.positions_f16;
    parallel_for(rows, 1 + (1 << 14) / width, threads, [&](int64_t begin, int64_t end) { run(params, begin, end); });
}

}  // namespace ivk
