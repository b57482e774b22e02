#include <sstream>

#include "core/check.h"
#include "kernels/norm/norm.h"

namespace ivk {
namespace {

void check_matrix(const char* name, const TensorView& v, const TensorView& x) {
    require(v.ndim == 2 && v.shape[0] == x.shape[0] && v.shape[1] == x.shape[1] && v.dtype == x.dtype, "norm: ", name,
            " is ", v, "; allowed: shape and dtype of x, ", x);
    require(v.shape[1] <= 1 || v.stride[1] == 1, "norm: ", name, " is ", v, "; allowed: a contiguous last dimension");
    require(v.shape[0] <= 1 || v.stride[0] >= v.shape[1], "norm: ", name, " is ", v,
            "; allowed: rows that do not overlap");
}

void check_vector(const char* name, const TensorView& v, const TensorView& x) {
    if (!v.defined()) return;
    require(v.ndim == 1 && v.shape[0] == x.shape[1] && v.dtype == x.dtype && v.contiguous(), "norm: ", name, " is ", v,
            "; allowed: a contiguous vector of x's columns and dtype, x is ", x);
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
    check_matrix("x", x, x);
    if (y.defined()) check_matrix("y", y, x);
    if (branch.defined()) {
        check_matrix("branch", branch, x);
        check_matrix("h", h, x);
        require(!overlap(h, y), "norm: h and y share memory; allowed: y apart from h");
    }
    for (const TensorView* out : {&h, &y})
        for (const TensorView* in : {&x, &branch})
            require(same_place(*out, *in) || !overlap(*out, *in), "norm: an output ", *out,
                    " partly overlaps an input ", *in, "; allowed: the same memory, or apart");
    check_vector("scale", scale, x);
    check_vector("weight", weight, x);
    check_vector("bias", bias, x);

    return NormParams{x.data,     branch.data, scale.data,       weight.data, bias.data,   h.data, y.data,  x.shape[0],
                      x.shape[1], x.stride[0], branch.stride[0], h.stride[0], y.stride[0], eps,    x.dtype, kind};
}

std::string describe(const NormParams& p) {
    std::ostringstream text;
    text << (p.kind == NormKind::rms ? "RMSNorm" : "LayerNorm") << " of " << name_of(p.dtype) << "[" << p.rows << ", "
         << p.cols << "] row stride " << p.stride_x;
    if (p.branch != nullptr)
        text << ", after a branch of row stride " << p.stride_branch << (p.scale ? " times scale" : "")
             << ", sum of row stride " << p.stride_h;
    if (p.weight != nullptr)
        text << ", weight" << (p.bias ? " and bias" : "") << ", result of row stride " << p.stride_y;
    text << ", eps " << p.eps << ", addresses x " << p.x << " branch " << p.branch << " scale " << p.scale << " weight "
         << p.weight << " bias " << p.bias << " h " << p.h << " y " << p.y;
    return text.str();
}

}  // namespace ivk
