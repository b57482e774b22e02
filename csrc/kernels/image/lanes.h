// Sixteen running dot products of uint8 values with fixed-point weights, exact modulo 2^32. Include only from
// image_cpu.cpp. With AVX2 and AVX-512 both halves of the weights go through the 16-bit multiply-add; elsewhere whole
// weights through 32-bit multiplies in vector types. The sums are the same integers.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/image/image.h"

#if defined(__AVX2__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 warns about its own intrinsics' undefined lanes
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

namespace ivk {
namespace IVK_ISA {

constexpr int32_t kHalf = 1 << (kWeightBits - 1);

#if defined(__AVX512BW__)

struct Weights {
    __m512i high, low;
    explicit Weights(const WeightPair& w) : high(_mm512_set1_epi32(w.high)), low(_mm512_set1_epi32(w.low)) {}
};

struct Dot {
    __m512i high = _mm512_setzero_si512(), low = _mm512_set1_epi32(kHalf);

    void add(__m512i pairs, const Weights& w) {
        high = _mm512_add_epi32(high, _mm512_madd_epi16(pairs, w.high));
        low = _mm512_add_epi32(low, _mm512_madd_epi16(pairs, w.low));
    }
    // pairs: 16 lanes of two bytes, the values that the two weights multiply.
    void add(const uint8_t* pairs, const Weights& w) {
        add(_mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(pairs))), w);
    }
    // The same with the first and the second values apart, 16 bytes each.
    void add(const uint8_t* first, const uint8_t* second, const Weights& w) {
        const __m512i a = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(first)));
        const __m512i b = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(second)));
        add(_mm512_or_si512(a, _mm512_slli_epi32(b, 16)), w);
    }
    void store(uint8_t* out) const {  // rounded and clipped, 16 bytes
        const __m512i sum = _mm512_srai_epi32(_mm512_add_epi32(_mm512_slli_epi32(high, kLowBits), low), kWeightBits);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                         _mm512_cvtusepi32_epi8(_mm512_max_epi32(sum, _mm512_setzero_si512())));
    }
};

#elif defined(__AVX2__)

struct Weights {
    __m256i high, low;
    explicit Weights(const WeightPair& w) : high(_mm256_set1_epi32(w.high)), low(_mm256_set1_epi32(w.low)) {}
};

struct Dot {
    __m256i high[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    __m256i low[2] = {_mm256_set1_epi32(kHalf), _mm256_set1_epi32(kHalf)};

    void add(int h, __m256i pairs, const Weights& w) {
        high[h] = _mm256_add_epi32(high[h], _mm256_madd_epi16(pairs, w.high));
        low[h] = _mm256_add_epi32(low[h], _mm256_madd_epi16(pairs, w.low));
    }
    void add(const uint8_t* pairs, const Weights& w) {
        for (int h = 0; h < 2; ++h)
            add(h, _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(pairs) + h)), w);
    }
    void add(const uint8_t* first, const uint8_t* second, const Weights& w) {
        for (int h = 0; h < 2; ++h) {
            const __m256i a = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(first + 8 * h)));
            const __m256i b = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(second + 8 * h)));
            add(h, _mm256_or_si256(a, _mm256_slli_epi32(b, 16)), w);
        }
    }
    void store(uint8_t* out) const {
        __m256i sum[2];
        for (int h = 0; h < 2; ++h)
            sum[h] = _mm256_srai_epi32(_mm256_add_epi32(_mm256_slli_epi32(high[h], kLowBits), low[h]), kWeightBits);
        const __m256i words = _mm256_packs_epi32(sum[0], sum[1]);  // lanes 0-3 8-11 | 4-7 12-15
        const __m256i bytes = _mm256_packus_epi16(words, words);
        const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                         _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(bytes, order)));
    }
};

#else

typedef int32_t i32x4 __attribute__((vector_size(16)));
typedef uint32_t u32x4 __attribute__((vector_size(16)));
typedef uint16_t u16x4 __attribute__((vector_size(8)));
typedef uint8_t u8x4 __attribute__((vector_size(4)));

template <typename V>
u32x4 load_wide(const uint8_t* from) {
    V v;
    std::memcpy(&v, from, sizeof v);
    return __builtin_convertvector(v, u32x4);
}

struct Weights {
    uint32_t first, second;
    explicit Weights(const WeightPair& w)
        : first((static_cast<uint32_t>(static_cast<int16_t>(w.high)) << kLowBits) + (w.low & 0xffff)),
          second((static_cast<uint32_t>(w.high >> 16) << kLowBits) + (static_cast<uint32_t>(w.low) >> 16)) {}
};

struct Dot {
    u32x4 sum[4] = {u32x4{} + kHalf, u32x4{} + kHalf, u32x4{} + kHalf, u32x4{} + kHalf};

    void add(const uint8_t* pairs, const Weights& w) {
        for (int q = 0; q < 4; ++q) {
            const u32x4 p = load_wide<u16x4>(pairs + 8 * q);
            sum[q] += (p & 0xffu) * w.first + (p >> 8) * w.second;
        }
    }
    void add(const uint8_t* first, const uint8_t* second, const Weights& w) {
        for (int q = 0; q < 4; ++q)
            sum[q] += load_wide<u8x4>(first + 4 * q) * w.first + load_wide<u8x4>(second + 4 * q) * w.second;
    }
    void store(uint8_t* out) const {
        for (int q = 0; q < 4; ++q) {
            i32x4 v;
            std::memcpy(&v, &sum[q], sizeof v);
            v >>= kWeightBits;
            v = v < 0 ? i32x4{} : v;
            v = v > 255 ? i32x4{} + 255 : v;
            const u8x4 bytes = __builtin_convertvector(v, u8x4);
            std::memcpy(out + 4 * q, &bytes, sizeof bytes);
        }
    }
};

#endif

#if defined(__AVX2__)

// In each 128-bit half, eight vectors of eight 16-bit units become eight of the units' columns.
inline void transpose8(__m256i v[8]) {
    __m256i a[8], b[8];
    for (int i = 0; i < 4; ++i) {
        a[2 * i] = _mm256_unpacklo_epi16(v[2 * i], v[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_epi16(v[2 * i], v[2 * i + 1]);
    }
    for (int i = 0; i < 2; ++i) {
        b[4 * i] = _mm256_unpacklo_epi32(a[4 * i], a[4 * i + 2]);
        b[4 * i + 1] = _mm256_unpackhi_epi32(a[4 * i], a[4 * i + 2]);
        b[4 * i + 2] = _mm256_unpacklo_epi32(a[4 * i + 1], a[4 * i + 3]);
        b[4 * i + 3] = _mm256_unpackhi_epi32(a[4 * i + 1], a[4 * i + 3]);
    }
    for (int i = 0; i < 4; ++i) {
        v[2 * i] = _mm256_unpacklo_epi64(b[i], b[i + 4]);
        v[2 * i + 1] = _mm256_unpackhi_epi64(b[i], b[i + 4]);
    }
}

inline __m256i load_halves(const uint8_t* first, const uint8_t* second) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(first))),
                                   _mm_loadu_si128(reinterpret_cast<const __m128i*>(second)), 1);
}

#endif

}  // namespace IVK_ISA
}  // namespace ivk
