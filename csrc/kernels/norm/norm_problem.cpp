#include <sstream>

#include "core/check.h"
#include "kernels/norm/norm.h"

namespace ivk {
namespace {

void check_matrix(const char* name, const TensorView& v, const TensorView& x, DType dtype) {
    require(v.ndim == 2 && v.shape[0] == x.shape[0] && v.shape[1] == x.shape[1] && v.dtype == dtype, "norm: ", name,
            " is ", v, "; allowed: ", name_of(dtype), " in the shape of x, ", x);
    require(v.shape[1] <= 1 || v.stride[1] == 1, "norm: ", name, " is ", v, "; allowed: a contiguous last dimension");
    require(v.shape[0] <= 1 || v.stride[0] >= v.shape[1], "norm: ", name, " is ", v,
            "; allowed: rows that do not overlap");
}

void check_vector(const char* name, const TensorView& v, const TensorView& x, DType dtype) {
    if (!v.defined()) return;
    require(v.ndim == 1 && v.shape[0] == x.shape[1] && v.dtype == dtype && v.contiguous(), "norm: ", name, " is ", v,
            "; allowed: a contiguous vector of ", x.shape[1], " ", name_of(dtype), ", x is ", x);
}

}  // namespace

NormParams norm_problem(const TensorView& x, const TensorView& branch, const TensorView& scale,
                        const TensorView& weight, const TensorView& bias, const TensorView& h, const TensorView& y,
                        float eps, NormKind kind) {
    require(x.ndim == 2 && x.shape[1] >= 1, "norm: x is ", x, "; allowed: [rows, cols] with cols >= 1");
    require(x.dtype == DType::f32 || x.dtype == DType::bf16 || x.dtype == DType::f16, "norm: x is ", x,
            "; allowed dtypes: float32, bfloat16, float16");
    require(eps > 0.0f, "norm: eps is ", eps, "; allowed: greater than 0");
    require(weight.defined() == y.defined() && (weight.defined() || branch.defined()),
            "norm: weight and y come together; without them only x + scale * branch is left, which needs branch");
    require(kind == NormKind::layer || !bias.defined(), "norm: RMSNorm takes no bias");
    const bool narrower = weight.dtype == DType::bf16 || weight.dtype == DType::f16;
    const DType out = weight.defined() && x.dtype == DType::f32 && narrower ? weight.dtype : x.dtype;
    check_matrix("x", x, x, x.dtype);
    if (y.defined()) check_matrix("y", y, x, out);
    if (branch.defined()) {
        check_matrix("branch", branch, x, x.dtype);
        check_matrix("h", h, x, x.dtype);
        require(!overlap(h, y), "norm: h and y share memory; allowed: y apart from h");
    }
    for (const TensorView* to : {&h, &y})
        for (const TensorView* in : {&x, &branch})
            require((same_place(*to, *in) && to->dtype == in->dtype) || !overlap(*to, *in), "norm: an output ", *to,
                    " partly overlaps an input ", *in, "; allowed: the same memory, or apart");
    for (const TensorView* to : {&h, &y})
        for (const TensorView* in : {&scale, &weight, &bias})
            require(!overlap(*to, *in), "norm: an output ", *to, " overlaps a vector ", *in, "; allowed: apart");
    check_vector("scale", scale, x, x.dtype);
    check_vector("weight", weight, x, out);
    check_vector("bias", bias, x, out);

    return NormParams{x.data,     branch.data, scale.data,  weight.data,      bias.data,   h.data,      y.data,
                      x.shape[0], x.shape[1],  x.stride[0], branch.stride[0], h.stride[0], y.stride[0], eps,
                      x.dtype,    out,         kind};
}

NormParams norm_pair_problem(const TensorView& x, const TensorView& first_weight, const TensorView& second_weight,
                             const TensorView& y, float eps, NormKind kind) {
    require(x.ndim == 2 && x.shape[1] % 2 == 0 && y.ndim == 2 && y.shape[1] == x.shape[1], "norm: x is ", x, ", y ", y,
            "; allowed: [rows, 2 cols] both");
    const auto half = [](TensorView v) {
        v.shape[1] /= 2;
        return v;
    };
    NormParams p = norm_problem(half(x), {}, {}, first_weight, {}, {}, half(y), eps, kind);
    check_vector("second weight", second_weight, half(x), p.out);
    require(second_weight.defined(), "norm: a pair has two weights");
    require(!overlap(y, first_weight) && !overlap(y, second_weight), "norm: y ", y,
            " overlaps a weight; allowed: apart");
    p.second_weight = second_weight.data;
    p.apart = p.cols;
    p.rows *= 2;
    return p;
}

std::string describe(const NormParams& p) {
    std::ostringstream text;
    text << (p.kind == NormKind::layer ? "LayerNorm" : "RMSNorm") << " of " << name_of(p.dtype) << "[" << p.rows << ", "
         << p.cols << "] row stride " << p.stride_x;
    if (p.branch != nullptr)
        text << ", after a branch of row stride " << p.stride_branch << (p.scale ? " times scale" : "")
             << ", sum of row stride " << p.stride_h;
    if (p.weight != nullptr)
        text << ", weight" << (p.bias ? " and bias" : "") << ", result " << name_of(p.out) << " of row stride "
             << p.stride_y;
    text << ", eps " << p.eps << ", addresses x " << p.x << " branch " << p.branch << " scale " << p.scale << " weight "
         << p.weight << " bias " << p.bias << " h " << p.h << " y " << p.y;
    return text.str();
}

}  // namespace ivk
