// What crosses the binding: a pointer, a dtype, shape and strides (in elements). Owns nothing.
#pragma once

#include <cstdint>
#include <ostream>
#include <string>

#include "core/check.h"

namespace ivk {

enum class DType : int8_t { f32, bf16, f16, f64, u8, i32, i64, boolean };

constexpr const char* name_of(DType dtype) {
    switch (dtype) {
        case DType::f32:
            return "float32";
        case DType::bf16:
            return "bfloat16";
        case DType::f16:
            return "float16";
        case DType::f64:
            return "float64";
        case DType::u8:
            return "uint8";
        case DType::i32:
            return "int32";
        case DType::i64:
            return "int64";
        case DType::boolean:
            return "bool";
    }
    return "?";
}

constexpr int64_t size_of(DType dtype) {
    switch (dtype) {
        case DType::f64:
        case DType::i64:
            return 8;
        case DType::f32:
        case DType::i32:
            return 4;
        case DType::bf16:
        case DType::f16:
            return 2;
        default:
            return 1;
    }
}

constexpr int kMaxDims = 6;

struct TensorView {
    void* data = nullptr;
    DType dtype = DType::f32;
    int ndim = 0;
    int64_t shape[kMaxDims] = {};
    int64_t stride[kMaxDims] = {};

    bool defined() const { return ndim > 0 || data != nullptr; }
    int64_t numel() const {
        int64_t n = 1;
        for (int d = 0; d < ndim; ++d) n *= shape[d];
        return n;
    }
    // True when dimensions first..last are laid out as one dense block.
    bool contiguous(int first = 0) const {
        int64_t expected = 1;
        for (int d = ndim - 1; d >= first; --d) {
            if (shape[d] != 1 && stride[d] != expected) return numel() == 0;
            expected *= shape[d];
        }
        return true;
    }
    std::string describe() const {
        std::string text = std::string(name_of(dtype)) + "[";
        for (int d = 0; d < ndim; ++d) text += (d ? ", " : "") + std::to_string(shape[d]);
        text += "] strides (";
        for (int d = 0; d < ndim; ++d) text += (d ? ", " : "") + std::to_string(stride[d]);
        return text + ")";
    }
    template <typename T>
    T* as() const {
        return static_cast<T*>(data);
    }
};

// So that require() describes a view only when it refuses.
inline std::ostream& operator<<(std::ostream& out, const TensorView& v) { return out << v.describe(); }

// Exactly the same elements in the same order.
inline bool same_place(const TensorView& a, const TensorView& b) {
    if (a.data != b.data || a.ndim != b.ndim || a.dtype != b.dtype) return false;
    for (int d = 0; d < a.ndim; ++d)
        if (a.shape[d] != b.shape[d] || (a.shape[d] > 1 && a.stride[d] != b.stride[d])) return false;
    return true;
}

// Whether two matrices (or vectors) with a contiguous last dimension share an element. Column blocks of one buffer
// (equal row strides) are told apart; for other strides the address ranges decide, which may refuse interleaved views.
inline bool overlap(const TensorView& a, const TensorView& b) {
    if (!a.defined() || !b.defined() || a.numel() == 0 || b.numel() == 0) return false;
    const auto extent = [](const TensorView& v) {
        int64_t last = 0;
        for (int d = 0; d < v.ndim; ++d) last += (v.shape[d] - 1) * v.stride[d];
        return (last + 1) * size_of(v.dtype);
    };
    const auto begin_a = reinterpret_cast<intptr_t>(a.data), begin_b = reinterpret_cast<intptr_t>(b.data);
    if (begin_a + extent(a) <= begin_b || begin_b + extent(b) <= begin_a) return false;
    if (a.ndim != 2 || b.ndim != 2 || a.stride[0] != b.stride[0] || a.dtype != b.dtype) return true;
    if (a.shape[0] == 1 || b.shape[0] == 1 || a.stride[0] <= 0) return true;
    const int64_t pitch = a.stride[0] * size_of(a.dtype);
    const int64_t offset = ((begin_b - begin_a) % pitch + pitch) % pitch;
    return offset < a.shape[1] * size_of(a.dtype) || offset + b.shape[1] * size_of(b.dtype) > pitch;
}

}  // namespace ivk
