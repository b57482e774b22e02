#include "kernels/patch_embed/patch_embed.h"

#include "core/check.h"
#include "core/parallel.h"

namespace ivk {
namespace {

bool is_float(DType dtype) { return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16; }

}  // namespace

void patchify(const TensorView& tiles, const TensorView& a, std::array<float, 3> mean, std::array<float, 3> std,
              int64_t patch, int threads) {
    PatchifyParams params = tiles_problem(tiles, a.dtype, mean, std, patch);
    const int64_t down = params.grid_rows, across = params.grid_cols, width = across * patch;
    params.a = a.data;
    require(a.ndim == 2 && a.shape[0] == tiles.shape[0] * down * across && a.shape[1] == 3 * patch * patch &&
                a.contiguous() && !overlap(a, tiles),
            "patch_embed: patch matrix is ", a, "; allowed: contiguous [", tiles.shape[0] * down * across, ", ",
            3 * patch * patch, "], apart from tiles");
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
