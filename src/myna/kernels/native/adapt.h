// What adapters (LoRA, Hu et al. 2021) add to the rows of a product: B t, where t = scale * A x. Each row has its own adapter
// or none, and nothing of it is computed from another row.
//
// A is [rank][columns, filled up to groups of 32 with zeros], all parts of a weight one below the other. B is tiles of 16
// outputs, [tile][rank][16], an even number of them, filled up with zeros. Both in float32 or bfloat16.
#pragma once
#include <vector>

#include "strips.h"

namespace myna {

// What one part adds: outputs `start` to start + rows, of the `rank` numbers of t from `first`.
struct Piece {
    int32_t start, rows, first, rank;
    const void* b;
};

// One adapter's share of one weight; count 0: it has none.
struct LowRank {
    const void* a;
    const float* scales;  // of each row of A
    const Piece* pieces;
    int32_t rank, count, narrow, reserved;  // narrow: bfloat16
};

// The adapters of one weight, by number, and t of every row.
struct Adapters {
    const LowRank* table;
    const int32_t* const* numbers;  // leads to the adapter of each row; below 0: none
    float* shrunk;
    int64_t ld;

    const LowRank* of(int64_t row) const {
        int32_t number = (*numbers)[row];
        return number < 0 || !table[number].count ? nullptr : table + number;
    }
};

inline f32x16 wide(const float* p) { return load(p); }
inline f32x16 wide(const uint16_t* p) { return load_bf16(p); }

constexpr int RANKS = 16;  // rows of A that are one claim
#if MYNA_AVX512
constexpr int AT_ONCE = 8;  // sums that go on while one of them waits
#else
constexpr int AT_ONCE = 4;
#endif

// t of ranks begin to end of one row. Each sum goes through the columns in the same order, however many go on at once.
template <class W>
void shrink_as(const LowRank& l, const float* x, int64_t columns, int64_t begin, int64_t end, float* t) {
    const W* a = static_cast<const W*>(l.a);
    by_some<AT_ONCE>(end - begin, [&](auto many, int64_t from) {
        constexpr int N = decltype(many)::value;
        const W* at = a + (begin + from) * columns;
        f32x16 sums[N];
        times<N>([&](int i) { sums[i] = set1(0); });
        for (int64_t k = 0; k < columns; k += 16) {
            f32x16 v = load(x + k);
            times<N>([&](int i) { sums[i] = fma(wide(at + i * columns + k), v, sums[i]); });
        }
        times<N>([&](int i) { t[begin + from + i] = sum(sums[i]) * l.scales[begin + from + i]; });
    });
}

inline void shrink_row(const Adapters& adapters, const Group* x, int64_t groups, int64_t row, int64_t part) {
    const LowRank* l = adapters.of(row);
    int64_t begin = part * RANKS;
    if (!l || begin >= l->rank) return;
    static thread_local std::vector<float> numbers;
    if (int64_t(numbers.size()) < groups * GROUP) numbers.resize(groups * GROUP);
    for (int64_t g = 0; g < groups; g++)
        for (int i = 0; i < GROUP; i++) numbers[g * GROUP + i] = float(x[g].q[i]) * x[g].scale;
    int64_t end = begin + RANKS < l->rank ? begin + RANKS : l->rank;
    float* t = adapters.shrunk + row * adapters.ld;
    if (l->narrow) shrink_as<uint16_t>(*l, numbers.data(), groups * GROUP, begin, end, t);
    else shrink_as<float>(*l, numbers.data(), groups * GROUP, begin, end, t);
}

// t of every row that has an adapter; x are m quantized rows of k columns.
inline void shrink(const Adapters& adapters, void* x, int64_t k, int64_t m) {
    int64_t groups = groups_of(k), parts = (adapters.ld + RANKS - 1) / RANKS;
    parallel(m * parts, 32768 / (RANKS * k) + 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) shrink_row(adapters, row_at(x, i / parts, groups), groups, i / parts, i % parts);
    });
}

// y += B t, of N tiles of a piece.
template <int N, class W> void expand_as(const Piece& p, int64_t tile, const float* t, f32x16* y) {
    const W* b = static_cast<const W*>(p.b) + tile * p.rank * 16;
    f32x16 sums[N];
    times<N>([&](int i) { sums[i] = y[i]; });
    for (int64_t j = 0; j < p.rank; j++) {
        f32x16 v = set1(t[p.first + j]);
        times<N>([&](int i) { sums[i] = fma(wide(b + (i * p.rank + j) * 16), v, sums[i]); });
    }
    times<N>([&](int i) { y[i] = sums[i]; });
}

template <int N> void expand(const LowRank& l, const Piece& p, int64_t tile, const float* t, f32x16* y) {
    if (l.narrow) expand_as<N, uint16_t>(p, tile, t, y);
    else expand_as<N, float>(p, tile, t, y);
}

// out += B t, of share `part` of `parts` of every piece of one row.
inline void expand_row(const Adapters& adapters, int64_t row, int64_t part, int64_t parts, float* out) {
    const LowRank* l = adapters.of(row);
    for (int c = 0; l && c < l->count; c++) {
        const Piece& p = l->pieces[c];
        int64_t tiles = (p.rows + 15) / 16, begin = tiles * part / parts, end = tiles * (part + 1) / parts;
        by_some<4>(end - begin, [&](auto many, int64_t from) {
            constexpr int N = decltype(many)::value;
            f32x16 y[N];
            auto each = [&](auto f) {
                times<N>([&](int i) {
                    int64_t at = (begin + from + i) * 16, left = p.rows - at;
                    f(i, out + p.start + at, left < 16 ? int(left) : 16);
                });
            };
            each([&](int i, float* at, int n) { y[i] = load_some(at, n); });
            expand<N>(*l, p, begin + from, adapters.shrunk + row * adapters.ld, y);
            each([&](int i, float* at, int n) { store_some(at, y[i], n); });
        });
    }
}

// out [m][ld], of n columns: every row gets what its adapter adds.
inline void expand(const Adapters& adapters, float* out, int64_t n, int64_t ld, int64_t m) {
    int64_t parts = n / 512 + 1;
    parallel(m * parts, 4, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) expand_row(adapters, i / parts, i % parts, parts, out + i / parts * ld);
    });
}

// The same of one unit of a weight, whose 32 numbers of a row are y: `start` is that of its half of the outputs, which no
// piece crosses.
inline void expand_unit(const Adapters& adapters, int64_t row, int64_t start, int64_t unit, f32x16 (&y)[2]) {
    const LowRank* l = adapters.of(row);
    for (int c = 0; l && c < l->count; c++)
        if (l->pieces[c].start == start) expand<2>(*l, l->pieces[c], 2 * unit, adapters.shrunk + row * adapters.ld, y);
}

}  // namespace myna
