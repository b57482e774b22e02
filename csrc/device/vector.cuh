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

// To global memory. An assignment would do, but the compiler may take it apart into words.
template <typename T, bool kAligned>
__device__ inline void store_vector(T* to, const Vector& v, int n) {
    if constexpr (kAligned) {
        __stwb(reinterpret_cast<uint4*>(to), make_uint4(v.word[0], v.word[1], v.word[2], v.word[3]));
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

// Two floats as one word of two 16-bit elements.
template <typename T>
__device__ inline uint32_t close2(float low, float high) {
    return std::is_same_v<T, bf16> ? cvt_bf16x2(low, high) : cvt_f16x2(low, high);
}

// One rounding, to nearest even.
template <typename T>
__device__ inline Vector close(const float (&value)[kLanes<T>]) {
    Vector v;
#pragma unroll
    for (int w = 0; w < 4; ++w) {
        if constexpr (sizeof(T) == 2)
            v.word[w] = close2<T>(value[2 * w], value[2 * w + 1]);
        else
            v.word[w] = __float_as_uint(value[w]);
    }
    return v;
}

// kCount elements (16 or 8 bytes) as floats, `n` of them from `from` and the rest zero; and back, with one rounding.
template <typename T, int kCount, bool kAligned>
__device__ inline void load_floats(const T* from, int n, float (&to)[kCount]) {
    static_assert(kCount == kLanes<T> || 2 * kCount == kLanes<T>);
    Vector v{};
    if constexpr (kCount == kLanes<T> || !kAligned)
        v = load_vector<T, kAligned>(from, n);
    else
        *reinterpret_cast<uint2*>(v.word) = *reinterpret_cast<const uint2*>(from);
#pragma unroll
    for (int i = 0; i < kCount; ++i) to[i] = open<T>(v, i);
}
template <typename T, int kCount, bool kAligned>
__device__ inline void store_floats(T* to, const float (&from)[kCount], int n) {
    static_assert(kCount == kLanes<T> || 2 * kCount == kLanes<T>);
    float value[kLanes<T>] = {};
#pragma unroll
    for (int i = 0; i < kCount; ++i) value[i] = from[i];
    const Vector v = close<T>(value);
    if constexpr (kCount == kLanes<T> || !kAligned)
        store_vector<T, kAligned>(to, v, n);
    else
        __stwb(reinterpret_cast<uint2*>(to), make_uint2(v.word[0], v.word[1]));
}

// The value after a store and a load of T.
template <typename T>
__device__ inline float rounded_to(float value) {
    if constexpr (sizeof(T) == 4) return value;
    const Vector v{{close2<T>(value, 0.0f)}};
    return open<T>(v, 0);
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
