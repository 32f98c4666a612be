// A strip of 64 keys and values, and a few queries against it: scores, weights, weighted sum.
//
// The strips of a sequence begin at multiples of STRIP. What one query gets of a strip depends on the query and the keys it
// sees and on nothing else: not on how many queries are done at once, and not on the keys that are hidden from it.
#pragma once
#include "pages.h"

namespace myna {

constexpr int STRIP = 64, BLOCKS = STRIP / BLOCK;
#if MYNA_AVX512
constexpr int SOME = 6;  // queries at once: 24 sums, 4 keys and a query fill the registers
#else
constexpr int SOME = 2;
#endif

// work(how many, from which) over n of something, N at a time and then the rest; how many is a constant to the compiler.
template <int N, class F> void by_some(int64_t n, F work, int64_t from = 0) {
    for (; n - from >= N; from += N) work(std::integral_constant<int, N>(), from);
    if constexpr (N > 1) by_some<N - 1>(n, work, from);
}

struct Seen {
    int lo, hi;  // the keys lo <= key < hi of a strip
    bool none() const { return lo >= hi; }
    bool all() const { return lo <= 0 && hi >= STRIP; }
};

struct Strip {
    const uint8_t *keys[BLOCKS], *values[BLOCKS];
    int pairs;          // of positions whose values are there
    const Strip* next;  // to be fetched meanwhile, or null
};

// What multiplies the weights of a query before they become 16-bit numbers, and what undoes it: the scales of the values it
// sees as shares of the largest. INT8 only; rows of a strip that see all of it have the same.
struct Shares {
    Seen of = {0, 0};
    float* share;  // [groups][STRIP]
    float* step;   // [groups]
};

struct Rule {
    float scale, softcap;  // softcap 0: none
};

constexpr float LOG2E = 1.44269504088896341f;

// f(0) to f(N - 1), without a loop: what they index stays in registers.
template <int N, class F> __attribute__((always_inline)) inline void times(F f) {
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) f(i);
}

// Not plain __builtin_prefetch: GCC takes a lambda that does nothing else for one without effect, and drops it.
inline void fetch(const uint8_t* p) {
#if defined(__x86_64__)
    asm volatile("prefetcht0 %0" : : "m"(*p));
#else
    __builtin_prefetch(p);
#endif
}

// s[N][STRIP] of queries [N][wide / 2] pairs of bfloat16. A line of the next strip is fetched for each that is used: one
// after the other they come from memory at twice the speed (docs/log.md).
template <int N> void scores_bf16(const Strip& strip, const uint32_t* queries, int64_t pairs, float (*s)[STRIP]) {
    f32x16 sums[N][BLOCKS];
    times<N>([&](int n) { times<BLOCKS>([&](int j) { sums[n][j] = set1(0); }); });
    for (int64_t d = 0; d < pairs; d++) {
        i32x16 k[BLOCKS];
        times<BLOCKS>([&](int j) { k[j] = held(loadi(strip.keys[j] + d * 64)); });
        if (strip.next) times<BLOCKS>([&](int j) { fetch(strip.next->keys[j] + d * 64); });
        times<N>([&](int n) {
            i32x16 q = set1i(int32_t(queries[n * pairs + d]));
            times<BLOCKS>([&](int j) { sums[n][j] = dot_bf16(sums[n][j], k[j], q); });
        });
    }
    times<N>([&](int n) { times<BLOCKS>([&](int j) { store(s[n] + 16 * j, sums[n][j]); }); });
}

// The same of quantized rows.
template <int N> void scores_int8(const Strip& strip, const Row* queries, int64_t wide, float (*s)[STRIP]) {
    for (int64_t g = 0; g < groups_of(wide); g++) {
        i32x16 sums[N][BLOCKS];
        int64_t quads = wide - g * GROUP < GROUP ? 4 : 8, scales = BLOCK * (wide + 2 * g);
        times<N>([&](int n) { times<BLOCKS>([&](int j) { sums[n][j] = set1i(Q8_ZERO ? queries[n][g].minus : 0); }); });
        for (int64_t d = 8 * g; d < 8 * g + quads; d++) {
            bytes k[BLOCKS];
            times<BLOCKS>([&](int j) { k[j] = held(load_bytes(strip.keys[j] + d * 64)); });
            if (strip.next) times<BLOCKS>([&](int j) { fetch(strip.next->keys[j] + d * 64); });
            times<N>([&](int n) {
                int32_t four;
                std::memcpy(&four, queries[n][g].q + 4 * (d - 8 * g), 4);
                times<BLOCKS>([&](int j) { sums[n][j] = dot_q8(sums[n][j], k[j], set1i(four)); });
            });
        }
        if (strip.next) times<BLOCKS>([&](int j) { fetch(strip.next->keys[j] + scales), fetch(strip.next->values[j] + scales); });
        times<BLOCKS>([&](int j) {
            f32x16 scale = load_bf16(reinterpret_cast<const uint16_t*>(strip.keys[j] + scales));
            times<N>([&](int n) {
                f32x16 y = mul(mul(to_float(sums[n][j]), scale), set1(queries[n][g].scale));
                store(s[n] + 16 * j, g ? add(y, load(s[n] + 16 * j)) : y);
            });
        });
    }
}

inline void share(const Strip& strip, int64_t wide, Seen seen, Shares& x) {
    if (seen.lo == x.of.lo && seen.hi == x.of.hi) return;
    x.of = seen;
    for (int64_t g = 0; g < groups_of(wide); g++) {
        f32x16 scales[BLOCKS];
        for (int j = 0; j < BLOCKS; j++) {
            f32x16 s = load_bf16(reinterpret_cast<const uint16_t*>(strip.values[j] + BLOCK * wide) + g * BLOCK);
            scales[j] = keep(s, seen.lo - 16 * j, seen.hi - 16 * j, 0);
        }
        uint32_t a = largest_bits(scales[0], scales[1]), b = largest_bits(scales[2], scales[3]), bits = a > b ? a : b;
        float most;
        std::memcpy(&most, &bits, 4);
        f32x16 inverse = set1(bits == 0 || bits >= 0x7f800000 ? 0 : 32767 / most);
        for (int j = 0; j < BLOCKS; j++) store(x.share + g * STRIP + 16 * j, mul(scales[j], inverse));
        x.step[g] = bits >= 0x7f800000 ? NAN : most / 32767;
    }
}

// Of N queries: what multiplies that which was gathered before, and that which a strip gives.
template <int N> struct Factors {
    float before[N], now[N];
};

// Caps and masks the scores of a query, and finds the largest.
inline float largest_seen(const Rule& rule, Seen seen, float* p) {
    f32x16 top = set1(-INFINITY);
    times<BLOCKS>([&](int j) {
        f32x16 s = load(p + 16 * j);
        if (rule.softcap) {  // tanh(s / c), and tanh(y) = 2 sigmoid(2 y) - 1
            f32x16 e = exp(mul(s, set1(-2 * rule.scale / rule.softcap)));
            s = sub(div(set1(2), add(set1(1), e)), set1(1));
        }
        if (!seen.all()) s = keep(s, seen.lo - 16 * j, seen.hi - 16 * j, -INFINITY);
        if (rule.softcap || !seen.all()) store(p + 16 * j, s);
        top = max(top, s);
    });
    return largest(top);
}

// Scores of N queries -> weights 2^(s - the largest), in place; `most` and `totals` have had both. Step by step for all of
// them, as each step waits for the one before it.
template <int N> Factors<N> soften(const Rule& rule, float (*p)[STRIP], const Seen* seen, float* most, float* totals) {
    float tops[16] = {}, before[16], now[16], factor = (rule.softcap ? rule.softcap : rule.scale) * LOG2E;
    times<N>([&](int i) { tops[i] = largest_seen(rule, seen[i], p[i]) * factor; });
    f32x16 here = load(tops), there = load_some(most, N);  // NaN counts as higher
    f32x16 less = exp2(sub(if_greater(there, here, here, there), if_greater(there, here, there, here)));
    store(before, if_greater(there, here, set1(1), less)), store(now, if_greater(there, here, less, set1(1)));
    Factors<N> f;
    times<N>([&](int i) {
        if (seen[i].none()) {
            std::memset(p[i], 0, STRIP * sizeof(float));
            f.before[i] = 1, f.now[i] = 0;
            return;
        }
        f32x16 sums = set1(0);
        times<BLOCKS>([&](int j) {
            f32x16 s = exp2(fma(load(p[i] + 16 * j), set1(factor), set1(-tops[i])));
            if (!seen[i].all()) s = keep(s, seen[i].lo - 16 * j, seen[i].hi - 16 * j, 0);
            sums = add(sums, s);
            store(p[i] + 16 * j, s);
        });
        f.before[i] = before[i], f.now[i] = now[i];
        if (!(tops[i] < most[i])) most[i] = tops[i];
        store(totals + 16 * i, fma(sums, set1(now[i]), mul(load(totals + 16 * i), set1(before[i]))));
    });
    return f;
}

// out = before * out + now * sums, of N queries and W vectors.
template <int N, int W>
void gather(const f32x16 (&sums)[N][W], const float* before, const float* now, float* out, int64_t wide) {
    times<N>([&](int n) {
        times<W>([&](int j) {
            float* o = out + n * wide + 16 * j;
            store(o, fma(sums[n][j], set1(now[n]), mul(load(o), set1(before[n]))));
        });
    });
}

using Pairs = uint32_t[STRIP / 2];  // the weights of one query, in 16 bits each

inline void narrow_bf16(const float* p, uint32_t* pairs) {
    for (int j = 0; j < BLOCKS; j++) store_bf16(reinterpret_cast<uint16_t*>(pairs) + 16 * j, load(p + 16 * j));
}

inline void narrow_int16(const float* p, const float* share, uint32_t* pairs) {
    for (int j = 0; j < BLOCKS; j++)
        store_int16(reinterpret_cast<uint16_t*>(pairs) + 16 * j, to_int(mul(load(p + 16 * j), load(share + 16 * j))));
}

// Gathers p [N] (bfloat16) times the channels of the values from `at`, 16 W of them.
template <int N, int W>
void weigh_bf16(const Strip& strip, const Pairs* p, int64_t at, const float* before, const float* now, float* out, int64_t wide) {
    f32x16 sums[N][W];
    times<N>([&](int n) { times<W>([&](int j) { sums[n][j] = set1(0); }); });
    for (int pair = 0; pair < strip.pairs; pair++) {
        int64_t from = (pair % 8 * wide + at) * 4;
        i32x16 v[W];
        times<W>([&](int j) { v[j] = held(loadi(strip.values[pair / 8] + from + 64 * j)); });
        if (strip.next) times<W>([&](int j) { fetch(strip.next->values[pair / 8] + from + 64 * j); });
        times<N>([&](int n) {
            i32x16 weight = set1i(int32_t(p[n][pair]));
            times<W>([&](int j) { sums[n][j] = dot_bf16(sums[n][j], v[j], weight); });
        });
    }
    gather<N, W>(sums, before, now, out + at, wide);
}

// The same of int8 values and whole p: exact up to the rounding of p.
template <int N, int W>
void weigh_int8(const Strip& strip, const Pairs* p, int64_t at, const float* before, const float* now, float* out, int64_t wide) {
    i32x16 sums[N][W];
    times<N>([&](int n) { times<W>([&](int j) { sums[n][j] = set1i(0); }); });
    for (int pair = 0; pair < strip.pairs; pair++) {
        int64_t from = (pair % 8 * wide + at) * 2;
        i32x16 v[W];
        times<W>([&](int j) { v[j] = held(widen(strip.values[pair / 8] + from + 32 * j)); });
        if (strip.next) fetch(strip.next->values[pair / 8] + from);
        times<N>([&](int n) {
            i32x16 weight = set1i(int32_t(p[n][pair]));
            times<W>([&](int j) { sums[n][j] = dot_int16(sums[n][j], v[j], weight); });
        });
    }
    f32x16 whole[N][W];
    times<N>([&](int n) { times<W>([&](int j) { whole[n][j] = to_float(sums[n][j]); }); });
    gather<N, W>(whole, before, now, out + at, wide);
}

}  // namespace myna
