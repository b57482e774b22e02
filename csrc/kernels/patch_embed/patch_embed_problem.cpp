#include <sstream>

#include "core/check.h"
#include "kernels/patch_embed/patch_embed.h"

namespace ivk {
namespace {

bool is_float(DType dtype) { return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16; }

void check_vector(const char* name, const TensorView& v, const TensorView& weight) {
    require(v.ndim == 1 && v.shape[0] == weight.shape[0] && v.dtype == weight.dtype && v.contiguous(),
            "patch_embed: ", name, " is ", v, "; allowed: a contiguous vector of ", weight.shape[0], " ",
            name_of(weight.dtype));
}

}  // namespace

PatchifyParams tiles_problem(const TensorView& tiles, DType dtype, std::array<float, 3> mean, std::array<float, 3> std,
                             int64_t patch) {
    require(tiles.ndim == 4 && patch >= 1, "patch_embed: tiles is ", tiles, " with patch_size ", patch,
            "; allowed: four dimensions, patches of at least 1 pixel");
    require(is_float(dtype), "patch_embed: weight is ", name_of(dtype), "; allowed: float32, bfloat16, float16");
    const bool bytes = tiles.dtype == DType::u8;
    require(bytes || tiles.dtype == DType::f32 || tiles.dtype == dtype, "patch_embed: tiles is ", tiles,
            "; allowed: uint8, float32, or the weight's dtype ", name_of(dtype));
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
    return {tiles.data,
            nullptr,
            height / patch,
            width / patch,
            patch,
            tiles.stride[0],
            tiles.stride[channel],
            tiles.stride[row],
            mean,
            std,
            tiles.dtype};
}

PatchEmbedParams patch_embed_problem(const TensorView& tiles, const TensorView& weight, const TensorView& bias,
                                     const TensorView& cls, const TensorView& pos, const TensorView& y,
                                     std::array<float, 3> mean, std::array<float, 3> std, int64_t patch) {
    const PatchifyParams t = tiles_problem(tiles, weight.dtype, mean, std, patch);
    const int64_t width = weight.shape[0], count = tiles.shape[0], rows = 1 + t.grid_rows * t.grid_cols;
    require(weight.ndim == 2 && weight.shape[1] / patch / patch == 3 && weight.shape[1] % (patch * patch) == 0 &&
                weight.stride[1] == 1 && (width <= 1 || weight.stride[0] >= weight.shape[1]),
            "patch_embed: weight is ", weight, "; allowed: [D, 3 * ", patch, " * ", patch,
            "], rows with a contiguous last dimension that do not overlap");
    check_vector("bias", bias, weight);
    check_vector("cls", cls, weight);
    require(
        pos.ndim == 2 && pos.shape[0] == rows && pos.shape[1] == width && pos.dtype == weight.dtype && pos.contiguous(),
        "patch_embed: pos is ", pos, "; allowed: contiguous ", name_of(weight.dtype), " [", rows, ", ", width,
        "], CLS and this grid's patches");
    require(y.ndim == 3 && y.shape[0] == count && y.shape[1] == rows && y.shape[2] == width &&
                (y.dtype == weight.dtype || y.dtype == DType::f32) && y.contiguous(),
            "patch_embed: result is ", y, "; allowed: contiguous ", name_of(weight.dtype), " or float32 [", count, ", ",
            rows, ", ", width, "]");
    for (const TensorView* v : {&tiles, &weight, &bias, &cls, &pos})
        require(!overlap(y, *v), "patch_embed: the result overlaps an input, ", *v);
    return {tiles.data,
            weight.data,
            bias.data,
            cls.data,
            pos.data,
            y.data,
            count,
            t.grid_rows,
            t.grid_cols,
            patch,
            t.stride_tile,
            t.stride_channel,
            t.stride_row,
            tiles.dtype == DType::u8 ? 3 : 1,
            weight.stride[0],
            width,
            {mean[0], mean[1], mean[2]},
            {std[0], std[1], std[2]},
            tiles.dtype,
            weight.dtype,
            y.dtype};
}

std::string describe(const PatchEmbedParams& p) {
    std::ostringstream text;
    text << "patch embedding of " << p.count << " tiles of " << name_of(p.tile_dtype) << ", " << p.grid_rows << " x "
         << p.grid_cols << " patches of " << p.patch << " pixels, strides " << p.stride_tile << " (tile), "
         << p.stride_channel << " (channel), " << p.stride_row << " (row), weight " << name_of(p.dtype) << "["
         << p.width << ", " << 3 * p.patch * p.patch << "] row stride " << p.stride_weight << ", result "
         << name_of(p.out) << ", addresses tiles " << p.tiles << " weight " << p.weight << " bias " << p.bias << " cls "
         << p.cls << " pos " << p.pos << " y " << p.y;
    return text.str();
}

}  // namespace ivk
