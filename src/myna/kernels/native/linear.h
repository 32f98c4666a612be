// Rows of numbers quantized in groups of 32, weights packed in units of 32 rows, and their product.
//
// A quantized row of K columns is ceil(K / 32) records, one of each group. It stands for q * scale; q is zero beyond K, and a
// group with a number that is not finite has scale NaN. The sums are there so that a product reads them as they are.
//
// A packed weight is a sequence of units of 32 rows, a unit a sequence of spans of so many groups of 32 columns (the last
// may have fewer), a span the scales of its groups and a record for each:
//   Q8   half scale[32];                record: u8 q[8][2][16][4]                             W = scale * (q - 128)
//   Q4S  half scale[32];                record: u8 q[4][2][16][4]                             W = scale * (q - 8)
//   Q4A  half scale[32], half base[32]; record: u8 q[4][2][16][4]                             W = scale * q + base
//   Q4K  half d[32], half m[32];        record: u8 scale[32], u8 base[32], u8 q[4][2][16][4]  W = d * scale * q - m * base
//   Q6K  half d[32];                    record: u8 scale[2][32], u8 q[4][2][16][4], u8 high[2][2][16][4]
//                                                                            W = d * (scale - 128) * (q + 16 high - 32)
// Q8 has spans of one group, Q4S and Q4A of 1, 2 or 4, Q4K and Q6K of 8. In Q6K each 16 columns have a scale.
// q is ordered [4 columns][half of the unit][row][column]; in 4 bits the low half of byte block i holds columns 8 i to
// 8 i + 3, the high half the next four. Bits 2 i of `high` belong to columns 4 i to 4 i + 3 of 16. One stream a unit, read from front to back once for a few rows of input.
#pragma once
#include "pool.h"
#include "simd.h"

namespace myna {

enum Format { Q8 = 0, Q4S = 1, Q4A = 2, Q4K = 3, Q6K = 4 };
constexpr int GROUP = 32, UNIT = 32;
constexpr int BLOCK = 16;  // positions in a block of pages; as in engine/blocks.py

// Of a format: bytes of a span's scales, of a record's own scales, and of its numbers; the number that stands for 0.
constexpr int outer_bytes(int format) { return format == Q4A || format == Q4K ? 128 : 64; }
constexpr int inner_bytes(int format) { return format == Q4K || format == Q6K ? 64 : 0; }
constexpr int number_bytes(int format) { return format == Q8 ? 1024 : format == Q6K ? 768 : 512; }
constexpr int zero_of(int format) { return format == Q8 ? 128 : format == Q4S ? 8 : format == Q6K ? 32 : 0; }

constexpr int parts_of(int format) { return format == Q6K ? 2 : 1; }  // of a group, that have a scale each

inline int64_t groups_of(int64_t k) { return (k + GROUP - 1) / GROUP; }
inline int64_t unit_bytes(int format, int64_t span, int64_t groups) {
    return groups * (inner_bytes(format) + number_bytes(format)) + (groups + span - 1) / span * outer_bytes(format);
}
struct Group {
    int8_t q[GROUP];
    float scale, sum;     // of q * scale
    int32_t minus;        // the sum of -128 q
    int16_t half_sum[2];  // of q
};

using Row = Group*;
inline int64_t row_bytes(int64_t k) { return groups_of(k) * int64_t(sizeof(Group)); }
inline Row row_at(void* rows, int64_t index, int64_t groups) { return static_cast<Group*>(rows) + index * groups; }

// Quantize 32 numbers. The largest is found by its bits, in which infinity and NaN are largest of all.
inline void quantize_group(f32x16 x, f32x16 y, Group& to) {
    uint32_t bits = largest_bits(x, y);
    float most;
    std::memcpy(&most, &bits, 4);
    if (bits >= 0x7f800000 || most < 1e-30f) {
        to = {};
        to.scale = to.sum = bits >= 0x7f800000 ? NAN : 0.0f;
        return;
    }
    f32x16 inverse = set1(127.0f / most);
    i32x16 p = to_int(mul(x, inverse)), q = to_int(mul(y, inverse));
    int32_t a = sumi(p), b = sumi(q);
    store_int8(to.q, p), store_int8(to.q + 16, q);
    to.scale = most / 127.0f, to.sum = float(a + b) * to.scale;
    to.minus = -128 * (a + b), to.half_sum[0] = int16_t(a), to.half_sum[1] = int16_t(b);
}

// value(k, n): 16 numbers from column k, of which n are there.
template <class F> void quantize_row(int64_t k, Row row, F value) {
    for (int64_t g = 0; g < groups_of(k); g++) {
        int64_t at = g * GROUP, left = k - at;
        f32x16 x = value(at, left < 16 ? int(left) : 16);
        f32x16 y = left <= 16 ? set1(0) : value(at + 16, left < 32 ? int(left - 16) : 16);
        quantize_group(x, y, row[g]);
    }
}

struct Scales {
    f32x16 scale, base;
};

// Of half a unit and, in Q6K, of half a group.
template <int F> Scales scales_of(const uint8_t* outer, const uint8_t* record, int half, int part) {
    const uint16_t* h = reinterpret_cast<const uint16_t*>(outer) + 16 * half;
    if constexpr (F == Q4A) return {load_half(h), load_half(h + 32)};
    if constexpr (F == Q4K)
        return {mul(load_half(h), load_bytes_as_float(record + 16 * half)),
                sub(set1(0), mul(load_half(h + 32), load_bytes_as_float(record + 32 + 16 * half)))};
    if constexpr (F == Q6K)
        return {mul(load_half(h), sub(load_bytes_as_float(record + 32 * part + 16 * half), set1(128))), set1(0)};
    return {load_half(h), set1(0)};
}

// What a sum of products starts from: the share of the number that stands for 0, taken away.
template <int F> i32x16 zeros(const Group& x, int part) {
    if (F == Q8) return set1i(Q8_ZERO ? x.minus : 0);
    if (F == Q4S) return set1i(x.minus / (128 / zero_of(Q4S)));
    if (F == Q6K) return set1i(-zero_of(Q6K) * x.half_sum[part]);
    return set1i(0);
}

// The products of R rows with what of a group shares a scale: all of it, or in Q6K half.
template <int F, int R>
inline __attribute__((always_inline)) void group_part(const uint8_t* q, const Row* rows, int64_t g, int part, i32x16 (&dot)[R][2]) {
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) dot[r][0] = dot[r][1] = zeros<F>(rows[r][g], part);
    auto step = [&](int column, bytes w0, bytes w1) __attribute__((always_inline)) {
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            int32_t four;
            std::memcpy(&four, rows[r][g].q + column, 4);
            i32x16 a = set1i(four);
            dot[r][0] = F == Q8 ? dot_q8(dot[r][0], w0, a) : dot_u8(dot[r][0], w0, a);
            dot[r][1] = F == Q8 ? dot_q8(dot[r][1], w1, a) : dot_u8(dot[r][1], w1, a);
        }
    };
    if constexpr (F == Q8) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) step(4 * i, load_bytes(q + 128 * i), load_bytes(q + 128 * i + 64));
    } else if constexpr (F == Q6K) {
        const uint8_t *low = q + 256 * part, *high = q + 512 + 128 * part;
        bytes u0 = load_bytes(low), u1 = load_bytes(low + 64), v0 = load_bytes(low + 128), v1 = load_bytes(low + 192);
        bytes h0 = load_bytes(high), h1 = load_bytes(high + 64);
        step(16 * part, six_bits<0>(low_nibbles(u0), h0), six_bits<0>(low_nibbles(u1), h1));
        step(16 * part + 4, six_bits<1>(high_nibbles(u0), h0), six_bits<1>(high_nibbles(u1), h1));
        step(16 * part + 8, six_bits<2>(low_nibbles(v0), h0), six_bits<2>(low_nibbles(v1), h1));
        step(16 * part + 12, six_bits<3>(high_nibbles(v0), h0), six_bits<3>(high_nibbles(v1), h1));
    } else {
#pragma GCC unroll 8
        for (int i = 0; i < 4; i++) {
            bytes w0 = load_bytes(q + 128 * i), w1 = load_bytes(q + 128 * i + 64);
            step(8 * i, low_nibbles(w0), low_nibbles(w1));
            step(8 * i + 4, high_nibbles(w0), high_nibbles(w1));
        }
    }
}

// What a tile asks the memory for while it computes: `lines` of 64 bytes a group, from `at` on. Without it a unit that
// several tiles use would be waited for, used, and only then the next one asked for: 8 rows took 2.9 ms, not 1.7.
struct Ahead {
    const uint8_t* at;
    int lines;
};

// R rows times one unit: out[r][0..1] are 32 numbers of row r. Every row goes through the same operations in the same
// order whatever R is, so its result does not depend on its batch mates.
template <int F, int R>
inline void tile(const uint8_t* unit, int64_t span, const Row* rows, int64_t groups, Ahead ahead, f32x16 (&out)[R][2]) {
    const uint8_t *record = unit, *outer = unit;
    int64_t next = 0;
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) out[r][0] = out[r][1] = set1(0);
    for (int64_t g = 0; g < groups; g++, record += inner_bytes(F) + number_bytes(F)) {
        if (g == next) outer = record, record += outer_bytes(F), next += span;
        for (int i = 0; i < ahead.lines; i++, ahead.at += 64) __builtin_prefetch(ahead.at);
        for (int part = 0; part < parts_of(F); part++) {
            i32x16 dot[R][2];
            group_part<F, R>(record + inner_bytes(F), rows, g, part, dot);
#pragma GCC unroll 2
            for (int j = 0; j < 2; j++) {
                Scales s = scales_of<F>(outer, record, j, part);
#pragma GCC unroll 8
                for (int r = 0; r < R; r++) {
                    out[r][j] = fma(mul(to_float(dot[r][j]), s.scale), set1(rows[r][g].scale), out[r][j]);
                    if (F == Q4A || F == Q4K) out[r][j] = fma(s.base, set1(rows[r][g].sum), out[r][j]);
                }
            }
        }
    }
}

struct Packed {
    int format;
    int64_t span;  // groups that share outer scales
    const uint8_t* units;
};

struct Linear {
    Packed weight;
    int64_t n, k, ld;  // ld: numbers between rows of `out`
    const float* bias;  // or null
    float* out;
    bool adds;  // out += product, rather than out = product
};

#if MYNA_AVX512
constexpr int TILE = 6;
#else
constexpr int TILE = 2;
#endif

// A stretch of rows that the units of a weight stream past, tile by tile.
struct Stretch {
    void* rows;
    int64_t first, last, groups;
    int64_t tiles() const { return (last - first + TILE - 1) / TILE; }
};

// Rows of K columns that stay in the second-level cache together.
inline int64_t stretch_rows(int64_t groups) {
    int64_t rows = (384 << 10) / (groups * int64_t(sizeof(Group))) / TILE * TILE;
    return rows < 4 * TILE ? 4 * TILE : rows;
}

// Where one tile is all there is, 4 KiB ahead; else the tile's share of the next unit, which lies behind this one.
inline Ahead ahead_of(const uint8_t* unit, int64_t bytes, int64_t groups, int64_t number, int64_t tiles) {
    int64_t lines = bytes / (groups * tiles * 64) + 1, from = number * groups * lines * 64;
    if (tiles == 1) return {unit + 4096, int(lines)};
    return {unit + bytes + from, from < bytes ? int(lines) : 0};
}

template <int F, int R, class Store> void tile_rows(const uint8_t* unit, int64_t span, const Stretch& x, int64_t row, Store& store) {
    Row rows[R];
    for (int r = 0; r < R; r++) rows[r] = row_at(x.rows, row + r, x.groups);
    f32x16 sums[R][2];
    Ahead ahead = ahead_of(unit, unit_bytes(F, span, x.groups), x.groups, (row - x.first) / TILE, x.tiles());
    tile<F, R>(unit, span, rows, x.groups, ahead, sums);
    for (int r = 0; r < R; r++) store(row + r, sums[r]);
}

// store(row, the unit's 32 numbers of it), for every row of a stretch.
template <int F, class Store> void each_tile(const uint8_t* unit, int64_t span, const Stretch& x, Store store) {
    for (int64_t row = x.first; row < x.last; row += TILE) switch (x.last - row) {
            case 1: tile_rows<F, 1>(unit, span, x, row, store); break;
#if MYNA_AVX512
            case 2: tile_rows<F, 2>(unit, span, x, row, store); break;
            case 3: tile_rows<F, 3>(unit, span, x, row, store); break;
            case 4: tile_rows<F, 4>(unit, span, x, row, store); break;
            case 5: tile_rows<F, 5>(unit, span, x, row, store); break;
#endif
            default: tile_rows<F, TILE>(unit, span, x, row, store);
        }
}

inline void store_sums(const Linear& l, int64_t unit, int64_t row, const f32x16 (&sums)[2]) {
    for (int j = 0; j < 2; j++) {
        int64_t column = unit * UNIT + 16 * j, left = l.n - column;
        if (left <= 0) return;
        int count = left < 16 ? int(left) : 16;
        float* out = l.out + row * l.ld + column;
        f32x16 y = sums[j];
        if (l.bias) y = add(y, load_some(l.bias + column, count));
        if (l.adds) y = add(y, load_some(out, count));
        store_some(out, y, count);
    }
}

// Units that are one claim of a thread: about 2 microseconds, the reading of 72 KiB or 16 rows of half of that.
inline int64_t few_units(int64_t bytes, int64_t rows) { return (72 << 10) * 16 / (bytes * (16 + rows)) + 1; }

// work(unit, stretch) for every unit of a weight of n rows and every stretch of m rows of input; `bytes` of a unit.
template <class F> void each_unit(int64_t n, int64_t k, int64_t bytes, void* in, int64_t m, F work) {
    int64_t groups = groups_of(k), rows = stretch_rows(groups);
    for (Stretch x{in, 0, 0, groups}; x.first < m; x.first = x.last) {
        x.last = x.first + rows < m ? x.first + rows : m;
        parallel((n + UNIT - 1) / UNIT, few_units(bytes, x.last - x.first), [&](int64_t begin, int64_t end) {
            for (int64_t unit = begin; unit < end; unit++) work(unit, x);
        });
    }
}

template <int F> void linear_as(const Linear& l, void* in, int64_t m) {
    int64_t bytes = unit_bytes(F, l.weight.span, groups_of(l.k));
    each_unit(l.n, l.k, bytes, in, m, [&](int64_t unit, const Stretch& x) {
        each_tile<F>(l.weight.units + unit * bytes, l.weight.span, x,
                     [&](int64_t row, const f32x16(&sums)[2]) { store_sums(l, unit, row, sums); });
    });
}

inline void linear(const Linear& l, void* in, int64_t m) {
    switch (l.weight.format) {
        case Q8: return linear_as<Q8>(l, in, m);
        case Q4S: return linear_as<Q4S>(l, in, m);
        case Q4A: return linear_as<Q4A>(l, in, m);
        case Q4K: return linear_as<Q4K>(l, in, m);
        case Q6K: return linear_as<Q6K>(l, in, m);
    }
}

// Number i of a row of a record, from where its bytes of columns 0 to 3 are.
template <int F> int number_at(const uint8_t* q, int i) {
    if (F == Q8) return q[i / 4 * 128 + i % 4];
    int low = q[i / 8 * 128 + i % 4] >> (i % 8 < 4 ? 0 : 4) & 15;
    return F == Q6K ? low | (q[512 + i / 16 * 128 + i % 4] >> (i / 4 % 4 * 2) & 3) << 4 : low;
}

// One row of a packed weight: out[k].
template <int F>
void unpack_row(const uint8_t* packed, int64_t span, int64_t row, int64_t k, float factor, float* out) {
    int64_t groups = groups_of(k), lane = row % 16, half = row % UNIT / 16;
    const uint8_t *record = packed + row / UNIT * unit_bytes(F, span, groups), *outer = record;
    for (int64_t g = 0; g < groups; g++, record += inner_bytes(F) + number_bytes(F)) {
        if (g % span == 0) outer = record, record += outer_bytes(F);
        float scales[2][16], bases[2][16];
        for (int part = 0; part < parts_of(F); part++) {
            Scales s = scales_of<F>(outer, record, int(half), part);
            store(scales[part], s.scale), store(bases[part], s.base);
        }
        const uint8_t* q = record + inner_bytes(F) + 64 * half + 4 * lane;
        for (int i = 0; i < GROUP && g * GROUP + i < k; i++) {
            int part = i * parts_of(F) / GROUP;
            out[g * GROUP + i] = (scales[part][lane] * float(number_at<F>(q, i) - zero_of(F)) + bases[part][lane]) * factor;
        }
    }
}

inline void unpack(int format, int64_t span, const uint8_t* packed, int64_t row, int64_t k, float factor, float* out) {
    switch (format) {
        case Q8: return unpack_row<Q8>(packed, span, row, k, factor, out);
        case Q4S: return unpack_row<Q4S>(packed, span, row, k, factor, out);
        case Q4A: return unpack_row<Q4A>(packed, span, row, k, factor, out);
        case Q4K: return unpack_row<Q4K>(packed, span, row, k, factor, out);
        case Q6K: return unpack_row<Q6K>(packed, span, row, k, factor, out);
    }
}

}  // namespace myna
