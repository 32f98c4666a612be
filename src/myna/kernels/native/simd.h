// Sixteen numbers at a time, at four levels: AVX-512 with VNNI (and BF16 where it is), AVX2 with FMA and F16C, NEON with
// its dot product (neon.h), portable C++. Everything above this file is written once, in these words. Loads and stores may be unaligned.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(MYNA_PORTABLE)
#define MYNA_LEVEL "portable"
#elif defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define MYNA_LEVEL "avx512"
#define MYNA_AVX512 1
#include <immintrin.h>
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define MYNA_LEVEL "avx2"
#define MYNA_AVX2 1
#include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__ARM_FEATURE_DOTPROD)
#define MYNA_LEVEL "neon"
#define MYNA_NEON 1
#include "neon.h"
#else
#define MYNA_LEVEL "portable"
#endif

namespace myna {

inline float half_to_float(uint16_t h) {
    uint32_t exponent = (h >> 10) & 31, fraction = h & 1023, bits;
    float value;
    if (exponent == 0) {
        value = fraction * 0x1p-24f;
        return h & 0x8000 ? -value : value;
    }
    bits = (exponent == 31 ? 255u << 23 : (exponent + 112) << 23) | fraction << 13 | uint32_t(h & 0x8000) << 16;
    std::memcpy(&value, &bits, 4);
    return value;
}

inline uint32_t float_bits(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}

// Round to nearest, ties to even; a NaN stays one.
inline uint16_t to_bf16(float x) {
    uint32_t bits = float_bits(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return uint16_t(bits >> 16 | 64);
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#if MYNA_AVX512

using f32x16 = __m512;
using i32x16 = __m512i;
using bytes = __m512i;
// The zero point that dot_q8 leaves in its sum, times the sum of a.
constexpr int Q8_ZERO = 128;

inline f32x16 set1(float x) { return _mm512_set1_ps(x); }
inline i32x16 set1i(int32_t x) { return _mm512_set1_epi32(x); }
inline f32x16 load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, f32x16 x) { _mm512_storeu_ps(p, x); }
inline f32x16 load_some(const float* p, int n) { return _mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p); }
inline void store_some(float* p, f32x16 x, int n) { _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), x); }
inline i32x16 loadi(const void* p) { return _mm512_loadu_si512(p); }
inline void storei(void* p, i32x16 x) { _mm512_storeu_si512(p, x); }
inline f32x16 add(f32x16 a, f32x16 b) { return _mm512_add_ps(a, b); }
inline f32x16 sub(f32x16 a, f32x16 b) { return _mm512_sub_ps(a, b); }
inline f32x16 mul(f32x16 a, f32x16 b) { return _mm512_mul_ps(a, b); }
inline f32x16 div(f32x16 a, f32x16 b) { return _mm512_div_ps(a, b); }
inline f32x16 fma(f32x16 a, f32x16 b, f32x16 c) { return _mm512_fmadd_ps(a, b, c); }
inline f32x16 max(f32x16 a, f32x16 b) { return _mm512_max_ps(a, b); }
inline f32x16 min(f32x16 a, f32x16 b) { return _mm512_min_ps(a, b); }
inline f32x16 if_greater(f32x16 a, f32x16 b, f32x16 x, f32x16 y) {  // x where a > b, else y; where either is NaN, y
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), y, x);
}
inline float sum(f32x16 x) { return _mm512_reduce_add_ps(x); }
inline float largest(f32x16 x) { return _mm512_reduce_max_ps(x); }
inline f32x16 to_float(i32x16 x) { return _mm512_cvtepi32_ps(x); }
inline i32x16 to_int(f32x16 x) { return _mm512_cvtps_epi32(x); }  // nearest, ties to even
inline i32x16 addi(i32x16 a, i32x16 b) { return _mm512_add_epi32(a, b); }
inline int32_t sumi(i32x16 x) { return _mm512_reduce_add_epi32(x); }
inline f32x16 power_of_two(i32x16 n) { return _mm512_castsi512_ps(_mm512_slli_epi32(addi(n, set1i(127)), 23)); }
inline void store_int8(int8_t* p, i32x16 x) { _mm_storeu_si128((__m128i*)p, _mm512_cvtsepi32_epi8(x)); }
inline f32x16 load_half(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
inline f32x16 load_bytes_as_float(const uint8_t* p) { return to_float(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p))); }
inline f32x16 load_bf16(const uint16_t* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}
inline bytes load_bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }
inline bytes low_nibbles(bytes x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
inline bytes high_nibbles(bytes x) { return low_nibbles(_mm512_srli_epi16(x, 4)); }
// Nibbles, and above them bits 2 I and 2 I + 1 of `high`.
template <int I> bytes six_bits(bytes nibbles, bytes high) {
    bytes there = I < 2 ? _mm512_slli_epi16(high, 4 - 2 * I) : _mm512_srli_epi16(high, 2 * I - 4);
    return _mm512_ternarylogic_epi32(nibbles, there, _mm512_set1_epi8(0x30), 0xf8);  // a | b & c
}
inline i32x16 dot_u8(i32x16 sum, bytes w, i32x16 a) { return _mm512_dpbusd_epi32(sum, w, a); }
inline i32x16 dot_q8(i32x16 sum, bytes w, i32x16 a) { return _mm512_dpbusd_epi32(sum, w, a); }
inline f32x16 high_halves(i32x16 x) { return _mm512_castsi512_ps(_mm512_and_si512(x, set1i(int32_t(0xffff0000)))); }
inline f32x16 low_halves(i32x16 x) { return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)); }

#elif MYNA_AVX2

struct f32x16 { __m256 a, b; };
struct i32x16 { __m256i a, b; };
using bytes = i32x16;
constexpr int Q8_ZERO = 0;

inline __m256i mask8(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline f32x16 set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline i32x16 set1i(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline f32x16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, f32x16 x) { _mm256_storeu_ps(p, x.a), _mm256_storeu_ps(p + 8, x.b); }
inline f32x16 load_some(const float* p, int n) {
    return {_mm256_maskload_ps(p, mask8(n)), n > 8 ? _mm256_maskload_ps(p + 8, mask8(n - 8)) : _mm256_setzero_ps()};
}
inline void store_some(float* p, f32x16 x, int n) {
    _mm256_maskstore_ps(p, mask8(n), x.a);
    if (n > 8) _mm256_maskstore_ps(p + 8, mask8(n - 8), x.b);
}
inline i32x16 loadi(const void* p) { return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)p + 1)}; }
inline void storei(void* p, i32x16 x) { _mm256_storeu_si256((__m256i*)p, x.a), _mm256_storeu_si256((__m256i*)p + 1, x.b); }
inline f32x16 add(f32x16 x, f32x16 y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline f32x16 sub(f32x16 x, f32x16 y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline f32x16 mul(f32x16 x, f32x16 y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline f32x16 div(f32x16 x, f32x16 y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline f32x16 fma(f32x16 x, f32x16 y, f32x16 z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
inline f32x16 max(f32x16 x, f32x16 y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline f32x16 min(f32x16 x, f32x16 y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline f32x16 if_greater(f32x16 a, f32x16 b, f32x16 x, f32x16 y) {
    return {_mm256_blendv_ps(y.a, x.a, _mm256_cmp_ps(a.a, b.a, _CMP_GT_OQ)), _mm256_blendv_ps(y.b, x.b, _mm256_cmp_ps(a.b, b.b, _CMP_GT_OQ))};
}
inline float sum(f32x16 x) {
    __m256 s = _mm256_add_ps(x.a, x.b);
    __m128 t = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    t = _mm_add_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_add_ss(t, _mm_shuffle_ps(t, t, 1)));
}
inline float largest(f32x16 x) {
    __m256 s = _mm256_max_ps(x.a, x.b);
    __m128 t = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    t = _mm_max_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_max_ss(t, _mm_shuffle_ps(t, t, 1)));
}
inline f32x16 to_float(i32x16 x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
inline i32x16 to_int(f32x16 x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
inline i32x16 addi(i32x16 x, i32x16 y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
inline int32_t sumi(i32x16 x) {
    __m256i s = _mm256_add_epi32(x.a, x.b);
    __m128i t = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(t, _mm_shuffle_epi32(t, 0xb1)));
}
inline f32x16 power_of_two(i32x16 n) {
    n = addi(n, set1i(127));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(n.a, 23)), _mm256_castsi256_ps(_mm256_slli_epi32(n.b, 23))};
}
inline uint32_t largest_bits(f32x16 x) {
    __m256i clear = _mm256_set1_epi32(0x7fffffff);
    __m256i s = _mm256_max_epu32(_mm256_and_si256(_mm256_castps_si256(x.a), clear), _mm256_and_si256(_mm256_castps_si256(x.b), clear));
    __m128i t = _mm_max_epu32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    t = _mm_max_epu32(t, _mm_shuffle_epi32(t, 0x4e));
    return uint32_t(_mm_cvtsi128_si32(_mm_max_epu32(t, _mm_shuffle_epi32(t, 0xb1))));
}
inline void store_int8(int8_t* p, i32x16 x) {
    __m256i s = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xd8);
    _mm_storeu_si128((__m128i*)p, _mm_packs_epi16(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1)));
}
inline f32x16 load_half(const uint16_t* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p + 1))};
}
inline f32x16 load_bytes_as_float(const uint8_t* p) {
    return to_float({_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p)), _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(p + 8)))});
}
inline __m256 widen(const uint16_t* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16));
}
inline f32x16 load_bf16(const uint16_t* p) { return {widen(p), widen(p + 8)}; }
inline bytes load_bytes(const uint8_t* p) { return loadi(p); }
inline bytes low_nibbles(bytes x) { return {_mm256_and_si256(x.a, _mm256_set1_epi8(15)), _mm256_and_si256(x.b, _mm256_set1_epi8(15))}; }
inline bytes high_nibbles(bytes x) { return low_nibbles({_mm256_srli_epi16(x.a, 4), _mm256_srli_epi16(x.b, 4)}); }
inline __m256i widening_sum(__m256i pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }
template <int I> __m256i six_bits(__m256i nibbles, __m256i high) {
    __m256i there = I < 2 ? _mm256_slli_epi16(high, 4 - 2 * I) : _mm256_srli_epi16(high, 2 * I - 4);
    return _mm256_or_si256(nibbles, _mm256_and_si256(there, _mm256_set1_epi8(0x30)));
}
template <int I> bytes six_bits(bytes nibbles, bytes high) { return {six_bits<I>(nibbles.a, high.a), six_bits<I>(nibbles.b, high.b)}; }
// w up to 63 here: two products stay far below 2^15.
inline i32x16 dot_u8(i32x16 s, bytes w, i32x16 a) {
    return addi(s, {widening_sum(_mm256_maddubs_epi16(w.a, a.a)), widening_sum(_mm256_maddubs_epi16(w.b, a.b))});
}
// |w| * sign(a, w): two products of at most 128 * 127 fit 16 bits, which 255 * 127 would not.
inline __m256i signed_dot(__m256i w, __m256i a) {
    w = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
    return widening_sum(_mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w)));
}
inline i32x16 dot_q8(i32x16 s, bytes w, i32x16 a) { return addi(s, {signed_dot(w.a, a.a), signed_dot(w.b, a.b)}); }
inline __m256 high_half(__m256i x) { return _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(int32_t(0xffff0000)))); }
inline f32x16 high_halves(i32x16 x) { return {high_half(x.a), high_half(x.b)}; }
inline f32x16 low_halves(i32x16 x) { return {_mm256_castsi256_ps(_mm256_slli_epi32(x.a, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(x.b, 16))}; }

#elif !MYNA_NEON

struct f32x16 { float v[16]; };
struct i32x16 { int32_t v[16]; };
using bytes = i32x16;
constexpr int Q8_ZERO = 0;

template <class Out, class F> inline Out each(F f) {
    Out out;
    for (int i = 0; i < 16; i++) out.v[i] = f(i);
    return out;
}
inline f32x16 set1(float x) { return each<f32x16>([=](int) { return x; }); }
inline i32x16 set1i(int32_t x) { return each<i32x16>([=](int) { return x; }); }
inline f32x16 load_some(const float* p, int n) { return each<f32x16>([=](int i) { return i < n ? p[i] : 0.0f; }); }
inline f32x16 load(const float* p) { return each<f32x16>([=](int i) { return p[i]; }); }
inline void store_some(float* p, f32x16 x, int n) { for (int i = 0; i < n; i++) p[i] = x.v[i]; }
inline void store(float* p, f32x16 x) { store_some(p, x, 16); }
inline i32x16 loadi(const void* p) { i32x16 x; std::memcpy(&x, p, 64); return x; }
inline void storei(void* p, i32x16 x) { std::memcpy(p, &x, 64); }
inline f32x16 add(f32x16 a, f32x16 b) { return each<f32x16>([&](int i) { return a.v[i] + b.v[i]; }); }
inline f32x16 sub(f32x16 a, f32x16 b) { return each<f32x16>([&](int i) { return a.v[i] - b.v[i]; }); }
inline f32x16 mul(f32x16 a, f32x16 b) { return each<f32x16>([&](int i) { return a.v[i] * b.v[i]; }); }
inline f32x16 div(f32x16 a, f32x16 b) { return each<f32x16>([&](int i) { return a.v[i] / b.v[i]; }); }
// Rounded once where the processor can, which makes it NEON bit for bit on ARM; elsewhere that costs a call.
inline f32x16 fma(f32x16 a, f32x16 b, f32x16 c) {
#ifdef __FP_FAST_FMAF
    return each<f32x16>([&](int i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
#else
    return each<f32x16>([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
#endif
}
// As the x86 instructions: where either is NaN, the second.
inline f32x16 max(f32x16 a, f32x16 b) { return each<f32x16>([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; }); }
inline f32x16 min(f32x16 a, f32x16 b) { return each<f32x16>([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; }); }
inline f32x16 if_greater(f32x16 a, f32x16 b, f32x16 x, f32x16 y) {
    return each<f32x16>([&](int i) { return a.v[i] > b.v[i] ? x.v[i] : y.v[i]; });
}
inline float sum(f32x16 x) {
    for (int half = 8; half; half /= 2) for (int i = 0; i < half; i++) x.v[i] += x.v[i + half];
    return x.v[0];
}
inline float largest(f32x16 x) {
    for (int i = 1; i < 16; i++) if (x.v[i] > x.v[0]) x.v[0] = x.v[i];
    return x.v[0];
}
inline f32x16 to_float(i32x16 x) { return each<f32x16>([&](int i) { return float(x.v[i]); }); }
inline i32x16 to_int(f32x16 x) { return each<i32x16>([&](int i) { return int32_t(std::nearbyintf(x.v[i])); }); }
inline i32x16 addi(i32x16 a, i32x16 b) { return each<i32x16>([&](int i) { return a.v[i] + b.v[i]; }); }
inline int32_t sumi(i32x16 x) {
    int32_t total = 0;
    for (int i = 0; i < 16; i++) total += x.v[i];
    return total;
}
inline f32x16 from_bits(i32x16 x) { f32x16 y; std::memcpy(&y, &x, 64); return y; }
inline f32x16 power_of_two(i32x16 n) { return from_bits(each<i32x16>([&](int i) { return (n.v[i] + 127) << 23; })); }
inline uint32_t largest_bits(f32x16 x) {
    uint32_t most = 0;
    for (int i = 0; i < 16; i++) {
        uint32_t bits = float_bits(x.v[i]) & 0x7fffffff;
        if (bits > most) most = bits;
    }
    return most;
}
inline void store_int8(int8_t* p, i32x16 x) {
    for (int i = 0; i < 16; i++) p[i] = int8_t(x.v[i] < -128 ? -128 : x.v[i] > 127 ? 127 : x.v[i]);
}
inline f32x16 load_half(const uint16_t* p) {
    uint16_t h[16];
    std::memcpy(h, p, 32);
    return each<f32x16>([&](int i) { return half_to_float(h[i]); });
}
inline f32x16 load_bytes_as_float(const uint8_t* p) { return each<f32x16>([=](int i) { return float(p[i]); }); }
inline f32x16 load_bf16(const uint16_t* p) {
    return from_bits(each<i32x16>([=](int i) { return int32_t(uint32_t(p[i]) << 16); }));
}
inline bytes load_bytes(const uint8_t* p) { return loadi(p); }
inline bytes low_nibbles(bytes x) { return each<bytes>([&](int i) { return x.v[i] & 0x0f0f0f0f; }); }
inline bytes high_nibbles(bytes x) { return each<bytes>([&](int i) { return int32_t(uint32_t(x.v[i]) >> 4) & 0x0f0f0f0f; }); }
template <int I> bytes six_bits(bytes nibbles, bytes high) {
    return each<bytes>([&](int i) { return nibbles.v[i] | int32_t(uint32_t(high.v[i]) >> 2 * I & 0x03030303) << 4; });
}
inline i32x16 dot_less(i32x16 s, bytes w, i32x16 a, int zero) {
    uint8_t x[64];
    int8_t y[64];
    std::memcpy(x, &w, 64), std::memcpy(y, &a, 64);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 4; j++) s.v[i] += (x[4 * i + j] - zero) * y[4 * i + j];
    return s;
}
inline i32x16 dot_u8(i32x16 s, bytes w, i32x16 a) { return dot_less(s, w, a, 0); }
inline i32x16 dot_q8(i32x16 s, bytes w, i32x16 a) { return dot_less(s, w, a, 128); }
inline f32x16 high_halves(i32x16 x) { return from_bits(each<i32x16>([&](int i) { return int32_t(uint32_t(x.v[i]) & 0xffff0000); })); }
inline f32x16 low_halves(i32x16 x) { return from_bits(each<i32x16>([&](int i) { return int32_t(uint32_t(x.v[i]) << 16); })); }

#endif

// sum + pairs of bfloat16: low * low + high * high of each 32 bits.
inline f32x16 dot_bf16(f32x16 sum, i32x16 a, i32x16 b) {
#if MYNA_AVX512 && defined(__AVX512BF16__)
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
#else
    return fma(high_halves(a), high_halves(b), fma(low_halves(a), low_halves(b), sum));
#endif
}

// The largest of 32 numbers by size, as its bits.
inline uint32_t largest_bits(f32x16 x, f32x16 y) {
#if MYNA_AVX512
    i32x16 a = _mm512_and_si512(_mm512_castps_si512(x), set1i(0x7fffffff)), b = _mm512_and_si512(_mm512_castps_si512(y), set1i(0x7fffffff));
    return _mm512_reduce_max_epu32(_mm512_max_epu32(a, b));
#else
    uint32_t a = largest_bits(x), b = largest_bits(y);
    return a > b ? a : b;
#endif
}

// `x` where lo <= lane < hi, elsewhere `other`.
inline f32x16 keep(f32x16 x, int lo, int hi, float other) {
#if MYNA_AVX512
    uint32_t below = hi >= 16 ? 0xffff : hi <= 0 ? 0 : (1u << hi) - 1, under = lo <= 0 ? 0 : lo >= 16 ? 0xffff : (1u << lo) - 1;
    return _mm512_mask_blend_ps(__mmask16(below & ~under), set1(other), x);
#else
    float v[16];
    store(v, x);
    for (int i = 0; i < 16; i++) if (i < lo || i >= hi) v[i] = other;
    return load(v);
#endif
}

// Keeps a vector that is used several times in a register, where the compiler would load it again each time.
inline i32x16 held(i32x16 x) {
#if MYNA_AVX512
    asm("" : "+v"(x));
#endif
    return x;
}

// sum + pairs of int16: low * low + high * high of each 32 bits.
inline i32x16 dot_int16(i32x16 sum, i32x16 a, i32x16 b) {
#if MYNA_AVX512
    return _mm512_dpwssd_epi32(sum, a, b);
#elif MYNA_AVX2
    return addi(sum, {_mm256_madd_epi16(a.a, b.a), _mm256_madd_epi16(a.b, b.b)});
#else
    int16_t x[32], y[32];
    int32_t z[16];
    storei(x, a), storei(y, b), storei(z, sum);
    for (int i = 0; i < 16; i++) z[i] += x[2 * i] * y[2 * i] + x[2 * i + 1] * y[2 * i + 1];
    return loadi(z);
#endif
}

// 32 int8 as int16.
inline i32x16 widen(const uint8_t* p) {
#if MYNA_AVX512
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)p));
#elif MYNA_AVX2
    return {_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)p)), _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)p + 1))};
#else
    int16_t x[32];
    for (int i = 0; i < 32; i++) x[i] = int8_t(p[i]);
    return loadi(x);
#endif
}

// To int16, saturated.
inline void store_int16(void* p, i32x16 x) {
#if MYNA_AVX512
    _mm256_storeu_si256((__m256i*)p, _mm512_cvtsepi32_epi16(x));
#elif MYNA_AVX2
    _mm256_storeu_si256((__m256i*)p, _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xd8));
#else
    int32_t v[16];
    int16_t y[16];
    storei(v, x);
    for (int i = 0; i < 16; i++) y[i] = int16_t(v[i] < -32768 ? -32768 : v[i] > 32767 ? 32767 : v[i]);
    std::memcpy(p, y, 32);
#endif
}

// Sixteen rows of sixteen 32-bit numbers, `stride` bytes apart, turned: out[column * ld + row].
inline void transpose(const uint8_t* rows, int64_t stride, uint32_t* out, int64_t ld) {
#if MYNA_AVX512
    __m512i a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(rows + i * stride);
    for (int i = 0; i < 16; i += 2) b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]), b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++)
            a[i + 2 * j] = _mm512_unpacklo_epi64(b[i + j], b[i + j + 2]), a[i + 2 * j + 1] = _mm512_unpackhi_epi64(b[i + j], b[i + j + 2]);
    for (int i = 0; i < 4; i++) {
        __m512i low = _mm512_shuffle_i32x4(a[i], a[i + 4], 0x88), high = _mm512_shuffle_i32x4(a[i], a[i + 4], 0xdd);
        __m512i low2 = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0x88), high2 = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0xdd);
        _mm512_storeu_si512(out + i * ld, _mm512_shuffle_i32x4(low, low2, 0x88));
        _mm512_storeu_si512(out + (i + 8) * ld, _mm512_shuffle_i32x4(low, low2, 0xdd));
        _mm512_storeu_si512(out + (i + 4) * ld, _mm512_shuffle_i32x4(high, high2, 0x88));
        _mm512_storeu_si512(out + (i + 12) * ld, _mm512_shuffle_i32x4(high, high2, 0xdd));
    }
#else
    for (int row = 0; row < 16; row++)
        for (int column = 0; column < 16; column++) std::memcpy(out + column * ld + row, rows + row * stride + 4 * column, 4);
#endif
}

inline void store_bf16(uint16_t* p, f32x16 x) {
#if MYNA_AVX512 && defined(__AVX512BF16__)
    __m256bh y = _mm512_cvtneps_pbh(x);
    std::memcpy(p, &y, 32);
    return;
#endif
    float v[16];
    store(v, x);
    for (int i = 0; i < 16; i++) p[i] = to_bf16(v[i]);
}

// e^x, within 2 units in the last place for -87 < x < 88; below it is 0 for all we use it for. Cephes' polynomial.
inline f32x16 exp(f32x16 x) {
    x = min(set1(88.0f), max(set1(-87.3f), x));  // in this order a NaN stays one
    i32x16 n = to_int(mul(x, set1(1.44269504088896341f)));
    f32x16 t = to_float(n), r = fma(t, set1(-0.693359375f), x);
    r = fma(t, set1(2.12194440e-4f), r);
    f32x16 y = set1(1.9875691500e-4f);
    y = fma(y, r, set1(1.3981999507e-3f));
    y = fma(y, r, set1(8.3334519073e-3f));
    y = fma(y, r, set1(4.1665795894e-2f));
    y = fma(y, r, set1(1.6666665459e-1f));
    y = fma(y, r, set1(5.0000001201e-1f));
    return mul(add(fma(y, mul(r, r), r), set1(1.0f)), power_of_two(n));
}

// Sums and differences of all pairs of lanes, four times over: the product with the 16 x 16 matrix of Hadamard.
inline f32x16 hadamard(f32x16 x) {
#if MYNA_AVX512
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int step = 1; step < 16; step *= 2) {
        __mmask16 second = _mm512_test_epi32_mask(lane, set1i(step));
        f32x16 other = _mm512_permutexvar_ps(_mm512_xor_si512(lane, set1i(step)), x);
        x = add(_mm512_mask_sub_ps(x, second, set1(0), x), other);
    }
    return x;
#else
    float v[16];
    store(v, x);
    for (int step = 1; step < 16; step *= 2)
        for (int i = 0; i < 16; i++)
            if (!(i & step)) {
                float a = v[i], b = v[i + step];
                v[i] = a + b, v[i + step] = a - b;
            }
    return load(v);
#endif
}

// 2^x for x of at most 0, within 1 unit in the last place; far below -126 it is 0 or as good as that. 2^0 is 1 exactly.
// Cephes' polynomial.
inline f32x16 exp2(f32x16 x) {
#if MYNA_AVX512
    x = max(set1(-200.0f), x);  // in this order a NaN stays one
    f32x16 n = _mm512_roundscale_ps(x, 8);
#else
    x = min(set1(1.0f), max(set1(-126.0f), x));
    i32x16 whole = to_int(x);
    f32x16 n = to_float(whole);
#endif
    f32x16 r = sub(x, n), y = set1(1.535336188319500e-4f);
    y = fma(y, r, set1(1.339887440266574e-3f));
    y = fma(y, r, set1(9.618437357674640e-3f));
    y = fma(y, r, set1(5.550332471162809e-2f));
    y = fma(y, r, set1(2.402264791363012e-1f));
    y = fma(y, r, set1(6.931472028550421e-1f));
    y = fma(y, r, set1(1.0f));
#if MYNA_AVX512
    return _mm512_scalef_ps(y, n);
#else
    return mul(y, power_of_two(whole));
#endif
}

inline float exp2_of(float x) {
    float y[16];
    store(y, exp2(set1(x)));
    return y[0];
}

}  // namespace myna
