// Sixteen bytes of a row: what one thread moves at once, packed as in memory and opened to floats for arithmetic.
#pragma once

#include <cstdint>
#include <type_traits>

#include "device/ptx.cuh"

namespace ivk::device {

struct bf16 {
    uint16_t bits;
};
struct f16 {
    uint16_t bits;
};

template <typename T>
constexpr int kLanes = 16 / static_cast<int>(sizeof(T));  // elements of one vector

struct alignas(16) Vector {
    uint32_t word[4];
};

// `n` elements from `from`; the rest is zero. kAligned: `from` is 16-byte aligned and n is a whole vector.
template <typename T, bool kAligned>
__device__ inline Vector load_vector(const T* from, int n) {
    if constexpr (kAligned) return *reinterpret_cast<const Vector*>(from);
    Vector v{};
#pragma unroll
    for (int i = 0; i < kLanes<T>; ++i) {
        if (i >= n) continue;
        if constexpr (sizeof(T) == 4)
            v.word[i] = reinterpret_cast<const uint32_t*>(from)[i];
        else
            v.word[i / 2] |= uint32_t{reinterpret_cast<const uint16_t*>(from)[i]} << (16 * (i % 2));
    }
    return v;
}

template <typename T, bool kAligned>
__device__ inline void store_vector(T* to, const Vector& v, int n) {
    if constexpr (kAligned) {
        *reinterpret_cast<Vector*>(to) = v;
    } else {
#pragma unroll
        for (int i = 0; i < kLanes<T>; ++i) {
            if (i >= n) continue;
            if constexpr (sizeof(T) == 4)
                reinterpret_cast<uint32_t*>(to)[i] = v.word[i];
            else
                reinterpret_cast<uint16_t*>(to)[i] = static_cast<uint16_t>(v.word[i / 2] >> (16 * (i % 2)));
        }
    }
}

// Element i as a float; exact.
template <typename T>
__device__ inline float open(const Vector& v, int i) {
    if constexpr (std::is_same_v<T, bf16>)
        return __uint_as_float(i % 2 ? v.word[i / 2] & 0xFFFF0000u : v.word[i / 2] << 16);
    else if constexpr (std::is_same_v<T, f16>)
        return cvt_f32_f16(static_cast<uint16_t>(v.word[i / 2] >> (16 * (i % 2))));
    else
        return __uint_as_float(v.word[i]);
}

// One rounding, to nearest even.
template <typename T>
__device__ inline Vector close(const float (&value)[kLanes<T>]) {
    Vector v;
#pragma unroll
    for (int w = 0; w < 4; ++w) {
        if constexpr (std::is_same_v<T, bf16>)
            v.word[w] = cvt_bf16x2(value[2 * w], value[2 * w + 1]);
        else if constexpr (std::is_same_v<T, f16>)
            v.word[w] = cvt_f16x2(value[2 * w], value[2 * w + 1]);
        else
            v.word[w] = __float_as_uint(value[w]);
    }
    return v;
}

// f(float of element i, i) for every element, closed again.
template <typename T, typename F>
__device__ inline Vector map(const Vector& v, F&& f) {
    float value[kLanes<T>];
#pragma unroll
    for (int i = 0; i < kLanes<T>; ++i) value[i] = f(open<T>(v, i), i);
    return close<T>(value);
}

}  // namespace ivk::device
