// simd.h's words for ARM with the dot product instructions: four vectors of four stand for sixteen numbers.
#pragma once
#include <arm_neon.h>

#include <cstdint>
#include <cstring>

namespace myna {

struct f32x16 { float32x4_t v[4]; };
struct i32x16 { int32x4_t v[4]; };
using bytes = i32x16;
constexpr int Q8_ZERO = 0;

template <class Out, class F> inline Out quarters(F f) { return {{f(0), f(1), f(2), f(3)}}; }

inline f32x16 set1(float x) { return quarters<f32x16>([=](int) { return vdupq_n_f32(x); }); }
inline i32x16 set1i(int32_t x) { return quarters<i32x16>([=](int) { return vdupq_n_s32(x); }); }
inline f32x16 load(const float* p) { return quarters<f32x16>([=](int i) { return vld1q_f32(p + 4 * i); }); }
inline void store(float* p, f32x16 x) { for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, x.v[i]); }
inline f32x16 load_some(const float* p, int n) {
    if (n >= 16) return load(p);
    float some[16] = {};
    std::memcpy(some, p, n * sizeof(float));
    return load(some);
}
inline void store_some(float* p, f32x16 x, int n) {
    if (n >= 16) return store(p, x);
    float some[16];
    store(some, x);
    std::memcpy(p, some, n * sizeof(float));
}
inline i32x16 loadi(const void* p) { i32x16 x; std::memcpy(&x, p, 64); return x; }
inline void storei(void* p, i32x16 x) { std::memcpy(p, &x, 64); }
inline f32x16 add(f32x16 a, f32x16 b) { return quarters<f32x16>([&](int i) { return vaddq_f32(a.v[i], b.v[i]); }); }
inline f32x16 sub(f32x16 a, f32x16 b) { return quarters<f32x16>([&](int i) { return vsubq_f32(a.v[i], b.v[i]); }); }
inline f32x16 mul(f32x16 a, f32x16 b) { return quarters<f32x16>([&](int i) { return vmulq_f32(a.v[i], b.v[i]); }); }
inline f32x16 div(f32x16 a, f32x16 b) { return quarters<f32x16>([&](int i) { return vdivq_f32(a.v[i], b.v[i]); }); }
inline f32x16 fma(f32x16 a, f32x16 b, f32x16 c) { return quarters<f32x16>([&](int i) { return vfmaq_f32(c.v[i], a.v[i], b.v[i]); }); }
// As the x86 instructions: where either is NaN, the second.
inline float32x4_t larger(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
inline f32x16 max(f32x16 a, f32x16 b) { return quarters<f32x16>([&](int i) { return larger(a.v[i], b.v[i]); }); }
inline f32x16 min(f32x16 a, f32x16 b) {
    return quarters<f32x16>([&](int i) { return vbslq_f32(vcltq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]); });
}
inline f32x16 if_greater(f32x16 a, f32x16 b, f32x16 x, f32x16 y) {
    return quarters<f32x16>([&](int i) { return vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), x.v[i], y.v[i]); });
}
// Halves are added to halves, as at every level: the order of a sum decides its last bit.
inline float sum(f32x16 x) {
    float32x4_t four = vaddq_f32(vaddq_f32(x.v[0], x.v[2]), vaddq_f32(x.v[1], x.v[3]));
    float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
inline float largest(f32x16 x) {
    float four[4];
    vst1q_f32(four, larger(larger(x.v[0], x.v[1]), larger(x.v[2], x.v[3])));
    for (int i = 1; i < 4; i++) if (four[i] > four[0]) four[0] = four[i];
    return four[0];
}
inline f32x16 to_float(i32x16 x) { return quarters<f32x16>([&](int i) { return vcvtq_f32_s32(x.v[i]); }); }
inline i32x16 to_int(f32x16 x) { return quarters<i32x16>([&](int i) { return vcvtnq_s32_f32(x.v[i]); }); }
inline i32x16 addi(i32x16 a, i32x16 b) { return quarters<i32x16>([&](int i) { return vaddq_s32(a.v[i], b.v[i]); }); }
inline int32_t sumi(i32x16 x) { return vaddvq_s32(vaddq_s32(vaddq_s32(x.v[0], x.v[1]), vaddq_s32(x.v[2], x.v[3]))); }
inline f32x16 power_of_two(i32x16 n) {
    return quarters<f32x16>([&](int i) { return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n.v[i], vdupq_n_s32(127)), 23)); });
}
inline uint32_t largest_bits(f32x16 x) {
    auto size = [&](int i) { return vandq_u32(vreinterpretq_u32_f32(x.v[i]), vdupq_n_u32(0x7fffffff)); };
    return vmaxvq_u32(vmaxq_u32(vmaxq_u32(size(0), size(1)), vmaxq_u32(size(2), size(3))));
}
inline void store_int8(int8_t* p, i32x16 x) {
    int16x8_t low = vcombine_s16(vqmovn_s32(x.v[0]), vqmovn_s32(x.v[1])), high = vcombine_s16(vqmovn_s32(x.v[2]), vqmovn_s32(x.v[3]));
    vst1q_s8(p, vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
}
inline uint16x4_t four_halves(const void* p) { uint16x4_t x; std::memcpy(&x, p, 8); return x; }
inline f32x16 load_half(const uint16_t* p) {
    return quarters<f32x16>([=](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(four_halves(p + 4 * i))); });
}
inline f32x16 load_bytes_as_float(const uint8_t* p) {
    uint8x16_t x = vld1q_u8(p);
    uint16x8_t low = vmovl_u8(vget_low_u8(x)), high = vmovl_u8(vget_high_u8(x));
    return {{vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(low))),
             vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(high)))}};
}
inline f32x16 load_bf16(const uint16_t* p) {
    return quarters<f32x16>([=](int i) { return vreinterpretq_f32_u32(vshll_n_u16(four_halves(p + 4 * i), 16)); });
}
inline bytes load_bytes(const uint8_t* p) { return loadi(p); }
inline bytes low_nibbles(bytes x) { return quarters<bytes>([&](int i) { return vandq_s32(x.v[i], vdupq_n_s32(0x0f0f0f0f)); }); }
inline bytes high_nibbles(bytes x) {
    return quarters<bytes>([&](int i) { return vreinterpretq_s32_u8(vshrq_n_u8(vreinterpretq_u8_s32(x.v[i]), 4)); });
}
template <int I> bytes six_bits(bytes nibbles, bytes high) {
    return quarters<bytes>([&](int i) {
        uint32x4_t two = vandq_u32(vshlq_u32(vreinterpretq_u32_s32(high.v[i]), vdupq_n_s32(-2 * I)), vdupq_n_u32(0x03030303));
        return vorrq_s32(nibbles.v[i], vreinterpretq_s32_u32(vshlq_n_u32(two, 4)));
    });
}
inline int32x4_t dot(int32x4_t sum, int32x4_t a, int32x4_t b) { return vdotq_s32(sum, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b)); }
// w up to 63 here, so that it may be taken for signed.
inline i32x16 dot_u8(i32x16 sum, bytes w, i32x16 a) { return quarters<i32x16>([&](int i) { return dot(sum.v[i], w.v[i], a.v[i]); }); }
inline i32x16 dot_q8(i32x16 sum, bytes w, i32x16 a) {
    return quarters<i32x16>([&](int i) { return dot(sum.v[i], veorq_s32(w.v[i], vdupq_n_s32(int32_t(0x80808080))), a.v[i]); });
}
inline f32x16 high_halves(i32x16 x) {
    return quarters<f32x16>([&](int i) { return vreinterpretq_f32_s32(vandq_s32(x.v[i], vdupq_n_s32(int32_t(0xffff0000)))); });
}
inline f32x16 low_halves(i32x16 x) { return quarters<f32x16>([&](int i) { return vreinterpretq_f32_s32(vshlq_n_s32(x.v[i], 16)); }); }

}  // namespace myna
