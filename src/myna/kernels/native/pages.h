// Keys and values in pages, laid out so that sixteen positions or sixteen channels are one vector.
//
// What one head has in a block of BLOCK positions is one stretch of memory, its channels filled up to a multiple of 16 with
// zeros ("wide"; G = ceil(wide / 32) groups):
//   BFLOAT16  keys    bfloat16 [wide / 2][BLOCK][2]     pairs of channels
//             values  bfloat16 [BLOCK / 2][wide][2]     pairs of positions
//   INT8      keys    u8 [wide / 4][BLOCK][4], bfloat16 scale[G][BLOCK]      scale * (q - 128)
//             values  int8 [BLOCK / 2][wide][2], bfloat16 scale[G][BLOCK]    scale * q
// Keys in int8 are mixed first, group by group, by a Hadamard matrix: a channel that towers above the others would take
// the whole scale (QuaRot, Ashkboos et al. 2024). Queries are mixed alike, so their products stay the same.
// kernels/pages.py writes and reads the same in torch.
#pragma once
#include "linear.h"

namespace myna {

enum Kept { BFLOAT16 = 0, INT8 = 1 };

struct Pages {
    int64_t kept, heads, dim, between;  // bytes from one block to the next
    uint8_t *keys, *values;

    int64_t wide() const { return (dim + 15) / 16 * 16; }
    int64_t groups() const { return groups_of(wide()); }
    int64_t stretch() const { return BLOCK * (kept == INT8 ? wide() + 2 * groups() : 2 * wide()); }
    int64_t at(int64_t block, int64_t head) const { return block * between + head * stretch(); }
};

inline f32x16 channels(const float* x, int64_t from, int64_t dim) {
    return load_some(x + from, dim - from < 16 ? int(dim - from) : 16);
}

inline void place_bf16(const Pages& p, const float* k, const float* v, int place, uint8_t* keys, uint8_t* values) {
    int64_t wide = p.wide();
    uint16_t sixteen[16];
    for (int64_t i = 0; i < wide; i += 16) {
        store_bf16(sixteen, channels(k, i, p.dim));
        for (int j = 0; j < 8; j++) std::memcpy(keys + ((i / 2 + j) * BLOCK + place) * 4, sixteen + 2 * j, 4);
        store_bf16(sixteen, channels(v, i, p.dim));
        // Two bytes at a time: the other position of the pair may be written by another thread.
        for (int j = 0; j < 16; j++) std::memcpy(values + ((place / 2 * wide + i + j) * 2 + place % 2) * 2, sixteen + j, 2);
    }
}

struct Pair {
    f32x16 x, y;
};

// The channels of head x from `from`, a group of 16 or 32, mixed.
inline Pair mixed(const float* head, int64_t from, int64_t dim, bool half) {
    f32x16 x = hadamard(channels(head, from, dim));
    if (half) return {mul(x, set1(0.25f)), set1(0)};
    f32x16 y = hadamard(channels(head, from + 16, dim)), scale = set1(0.17677669529663687f);  // 1 / sqrt(32)
    return {mul(add(x, y), scale), mul(sub(x, y), scale)};
}

// 32 numbers -> int8, and the scale: the largest / 127, rounded up to bfloat16 so that nothing exceeds 127. NaN where a
// number is not finite.
inline uint16_t int8_group(Pair p, int8_t* q) {
    uint32_t bits = largest_bits(p.x, p.y);
    float most;
    std::memcpy(&most, &bits, 4);
    if (bits >= 0x7f800000 || most < 1e-30f) {
        std::memset(q, 0, GROUP);
        return bits >= 0x7f800000 ? 0x7fc0 : 0;
    }
    uint32_t up = (float_bits(most / 127.0f) + 0xffff) & 0xffff0000;
    float scale;
    std::memcpy(&scale, &up, 4);
    store_int8(q, to_int(div(p.x, set1(scale)))), store_int8(q + 16, to_int(div(p.y, set1(scale))));
    return uint16_t(up >> 16);
}

inline void place_int8(const Pages& p, const float* k, const float* v, int place, uint8_t* keys, uint8_t* values) {
    int64_t wide = p.wide();
    int8_t q[GROUP];
    for (int64_t i = 0; i < wide; i += GROUP) {
        bool half = wide - i < GROUP;
        int64_t scale_at = BLOCK * wide + (i / GROUP * BLOCK + place) * 2;
        uint16_t scale = int8_group(mixed(k, i, p.dim, half), q);
        std::memcpy(keys + scale_at, &scale, 2);
        for (int8_t& x : q) x = int8_t(uint8_t(x) ^ 0x80);
        for (int j = 0; j < (half ? 16 : 32); j += 4) std::memcpy(keys + ((i + j) / 4 * BLOCK + place) * 4, q + j, 4);
        scale = int8_group({channels(v, i, p.dim), half ? set1(0) : channels(v, i + 16, p.dim)}, q);
        std::memcpy(values + scale_at, &scale, 2);
        for (int j = 0; j < (half ? 16 : 32); j++) values[(place / 2 * wide + i + j) * 2 + place % 2] = uint8_t(q[j]);
    }
}

// Store the keys and values of a row, float32 [heads][dim] each, in a slot.
inline void place(const Pages& p, const float* k, const float* v, int64_t slot) {
    for (int64_t head = 0; head < p.heads; head++, k += p.dim, v += p.dim) {
        int64_t at = p.at(slot / BLOCK, head);
        int place = int(slot % BLOCK);
        if (p.kept == INT8)
            place_int8(p, k, v, place, p.keys + at, p.values + at);
        else
            place_bf16(p, k, v, place, p.keys + at, p.values + at);
    }
}

}  // namespace myna
