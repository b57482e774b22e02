#include <sstream>

#include "core/check.h"
#include "kernels/pixel_shuffle/pixel_shuffle.h"

namespace ivk {

PixelShuffleParams pixel_shuffle_problem(const TensorView& x, const TensorView& weight, const TensorView& bias,
                                         const TensorView& y, int64_t rows, int64_t cols, int64_t factor,
                                         bool column_major, bool drop_cls, float eps) {
    require(x.ndim == 3 && x.shape[2] >= 1, "pixel_shuffle: x is ", x, "; allowed: [tiles, tokens, channels]");
    require(x.dtype == DType::f32 || x.dtype == DType::bf16 || x.dtype == DType::f16, "pixel_shuffle: x is ", x,
            "; allowed dtypes: float32, bfloat16, float16");
    require(x.shape[2] == 1 || x.stride[2] == 1, "pixel_shuffle: x is ", x, "; allowed: a contiguous last dimension");
    require(factor >= 1 && rows >= 1 && cols >= 1 && rows % factor == 0 && cols % factor == 0 &&
                rows * cols + drop_cls == x.shape[1],
            "pixel_shuffle: a grid of ", rows, " x ", cols, " with factor ", factor, " and x ", x,
            "; allowed: rows and columns that are multiples of the factor and make up x's patches");
    require(eps > 0.0f, "pixel_shuffle: eps is ", eps, "; allowed: greater than 0");
    require(weight.defined() || !bias.defined(), "pixel_shuffle: bias without weight");
    const int64_t tokens = rows * cols / (factor * factor), size = factor * factor * x.shape[2];
    const bool narrower = weight.dtype == DType::bf16 || weight.dtype == DType::f16;
    const DType out = weight.defined() && x.dtype == DType::f32 && narrower ? weight.dtype : x.dtype;
    for (const TensorView* v : {&weight, &bias})
        require(!v->defined() || (v->ndim == 1 && v->shape[0] == size && v->dtype == out && v->contiguous()),
                "pixel_shuffle: ", v == &weight ? "weight" : "bias", " is ", *v, "; allowed: a contiguous vector of ",
                size, " ", name_of(out));
    require(y.ndim == 3 && y.shape[0] == x.shape[0] && y.shape[1] == tokens && y.shape[2] == size && y.dtype == out &&
                y.contiguous() && !overlap(x, y) && !overlap(y, weight) && !overlap(y, bias),
            "pixel_shuffle: result is ", y, "; allowed: contiguous [", x.shape[0], ", ", tokens, ", ", size, "] of ",
            name_of(out), ", apart from the inputs");

    PixelShuffleParams params{};
    params.x = x.as<const char>() + (drop_cls ? x.stride[1] * size_of(x.dtype) : 0);
    params.weight = weight.data;
    params.bias = bias.data;
    params.y = y.data;
    params.rows = rows;
    params.cols = cols;
    params.width = x.shape[2];
    params.factor = factor;
    params.stride_tile = x.stride[0];
    params.stride_patch = x.stride[1];
    params.column_major = column_major;
    params.eps = eps;
    params.tiles = x.shape[0];
    params.dtype = x.dtype;
    params.out = out;
    return params;
}

std::string describe(const PixelShuffleParams& p) {
    std::ostringstream text;
    text << "pixel shuffle of " << p.tiles << " tiles of " << p.rows << " x " << p.cols << " patches of "
         << name_of(p.dtype) << "[" << p.width << "], factor " << p.factor << ", order "
         << (p.column_major ? "v1" : "v2") << ", strides " << p.stride_tile << " (tile) and " << p.stride_patch
         << " (patch)";
    if (p.weight != nullptr)
        text << ", with LayerNorm to " << name_of(p.out) << (p.bias ? " and bias" : "") << ", eps " << p.eps;
    text << ", addresses x " << p.x << " weight " << p.weight << " bias " << p.bias << " y " << p.y;
    return text.str();
}

}  // namespace ivk
