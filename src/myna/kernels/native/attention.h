// Grouped-query attention of a step's rows over pages of keys and values, by the online softmax of Milakov and Gimelshein
// 2018. Work is cut by sequence, key head, and rows (a prefill) or stretches of PART positions (a decode, as in flash
// decoding, Dao et al. 2023); how it is cut depends on the sequence alone, never on its batch mates or the threads.
#pragma once
#include <vector>

#include "linear.h"

namespace myna {

constexpr int STRIP = 64, PART = 256;

struct Sequence {
    int32_t row, count, start, table;  // first row, rows, position of the first, where its blocks begin in the table
};

struct Step {
    int32_t rows, samples, sequences, reserved;
    const int32_t *ids, *positions, *slots, *sampled;
    const Sequence* list;
    const int32_t* table;
};

struct Attention {
    int64_t ld, heads, keys, dim, window;  // window 0: none
    float scale, softcap;                  // softcap 0: none
    const float* q;                        // [row][ld]
    const uint16_t *key_pages, *value_pages;  // bfloat16 [block][keys][BLOCK][dim]
    float* out;       // [row][heads * dim]
    float* partials;  // [item][group][dim + 2]
    const Step* step;
};

struct Item {
    int32_t sequence, head, row, count, begin, end, partial;
};

inline std::vector<Item> cut(const Attention& a) {
    std::vector<Item> items;
    // Rows of a prefill that share a strip of keys: with the heads of a group a multiple of 8 queries, 32 or more.
    int32_t partial = 0, tile = a.heads / a.keys < 4 ? int32_t(32 / (a.heads / a.keys) / 8 * 8) : 8;
    for (int32_t s = 0; s < a.step->sequences; s++) {
        const Sequence& q = a.step->list[s];
        for (int32_t row = 0; row < q.count; row += tile) {
            int32_t count = q.count - row < tile ? q.count - row : tile, end = q.start + row + count;
            int64_t first = a.window ? q.start + row - a.window + 1 : 0;
            int32_t begin = first > 0 ? int32_t(first) / BLOCK * BLOCK : 0;
            bool parts = q.count == 1 && end - begin > PART;
            for (int32_t head = 0; head < a.keys; head++) {
                if (!parts) items.push_back({s, head, q.row + row, count, begin, end, -1});
                for (int32_t at = begin / PART * PART; parts && at < end; at += PART)
                    items.push_back({s, head, q.row, 1, at > begin ? at : begin, at + PART < end ? at + PART : end, partial++});
            }
        }
    }
    return items;
}

struct Scratch {
    std::vector<uint32_t> keys, queries;
    std::vector<float> p, out, most, total;
    std::vector<const uint16_t*> values;
};

// work(how many, from which) over n of something, N at a time and then the rest; how many is a constant to the compiler.
template <int N, class F> void by_some(int64_t n, F work, int64_t from = 0) {
    for (; n - from >= N; from += N) work(std::integral_constant<int, N>(), from);
    if constexpr (N > 1) by_some<N == 4 ? 3 : N / 2>(n, work, from);
}

// scores[N][STRIP] of N queries; keys [dim / 2][STRIP] pairs, queries [dim / 2] pairs each.
template <int N> void scores_of(const uint32_t* keys, const uint32_t* queries, int64_t pairs, float* p) {
    f32x16 s[N][4];
    for (int n = 0; n < N; n++)
        for (int j = 0; j < 4; j++) s[n][j] = set1(0);
    for (int64_t d = 0; d < pairs; d++) {
        i32x16 k[4];
        for (int j = 0; j < 4; j++) k[j] = loadi(keys + d * STRIP + 16 * j);
        for (int n = 0; n < N; n++) {
            i32x16 q = set1i(int32_t(queries[n * pairs + d]));
            for (int j = 0; j < 4; j++) s[n][j] = dot_bf16(s[n][j], k[j], q);
        }
    }
    for (int n = 0; n < N; n++)
        for (int j = 0; j < 4; j++) store(p + n * STRIP + 16 * j, s[n][j]);
}

// out[N][dim] += p[N][count] times the values.
template <int N> void weigh(const float* p, const uint16_t* const* values, int count, int64_t dim, float* out) {
    for (int64_t at = 0; at < dim; at += 32) {
        int wide = dim - at >= 32 ? 2 : 1;
        f32x16 o[N][2];
        for (int n = 0; n < N; n++)
            for (int j = 0; j < wide; j++) o[n][j] = load(out + n * dim + at + 16 * j);
        for (int key = 0; key < count; key++) {
            f32x16 v[2] = {load_bf16(values[key] + at), wide == 2 ? load_bf16(values[key] + at + 16) : set1(0)};
            for (int n = 0; n < N; n++) {
                f32x16 weight = set1(p[n * STRIP + key]);
                o[n][0] = fma(v[0], weight, o[n][0]);
                o[n][1] = fma(v[1], weight, o[n][1]);
            }
        }
        for (int n = 0; n < N; n++)
            for (int j = 0; j < wide; j++) store(out + n * dim + at + 16 * j, o[n][j]);
    }
}

// Scores -> weights exp(s - most) of the keys lo <= key < hi; what was summed before is rescaled.
inline void soften(const Attention& a, float* p, int lo, int hi, float& most, float& total, float* out) {
    if (lo >= hi) {
        std::memset(p, 0, STRIP * sizeof(float));
        return;
    }
    bool whole = lo <= 0 && hi >= STRIP;
    f32x16 s[4], top = set1(-INFINITY), sums = set1(0);
    for (int j = 0; j < 4; j++) {
        s[j] = mul(load(p + 16 * j), set1(a.scale));
        if (a.softcap) {  // c tanh(s / c), and tanh(y) = 2 sigmoid(2 y) - 1
            f32x16 e = exp(mul(s[j], set1(-2 / a.softcap)));
            s[j] = mul(set1(a.softcap), sub(div(set1(2), add(set1(1), e)), set1(1)));
        }
        if (!whole) s[j] = keep(s[j], lo - 16 * j, hi - 16 * j, -INFINITY);
        top = max(top, s[j]);
    }
    float now = largest(top), before = most;
    if (!(now < before)) most = now;
    for (int j = 0; j < 4; j++) {
        s[j] = exp(sub(s[j], set1(most)));
        if (!whole) s[j] = keep(s[j], lo - 16 * j, hi - 16 * j, 0);
        sums = add(sums, s[j]);
        store(p + 16 * j, s[j]);
    }
    float shrink = before == most ? 1 : before == -INFINITY ? 0 : std::exp(before - most);
    total = total * shrink + sum(sums);
    if (shrink != 1)
        for (int64_t d = 0; d < a.dim; d += 16) store(out + d, mul(load(out + d), set1(shrink)));
}

inline void load_strip(const Attention& a, const Item& item, int32_t at, int count, Scratch& x) {
    const int32_t* blocks = a.step->table + a.step->list[item.sequence].table;
    for (int b = 0; b < (count + BLOCK - 1) / BLOCK; b++) {
        int64_t first = (int64_t(blocks[at / BLOCK + b]) * a.keys + item.head) * BLOCK * a.dim;
        const uint16_t* keys = a.key_pages + first;
        for (int64_t d = 0; d < a.dim / 2; d += 16) {
            // dim is a multiple of 16, so the last eight pairs may stand alone: turn the eight before them once more.
            int64_t from = d + 16 <= a.dim / 2 ? d : a.dim / 2 - 16;
            if (from < 0) {
                for (int row = 0; row < BLOCK; row++)
                    for (int64_t c = 0; c < a.dim / 2; c++)
                        std::memcpy(&x.keys[c * STRIP + b * BLOCK + row], keys + row * a.dim + 2 * c, 4);
                break;
            }
            transpose(reinterpret_cast<const uint8_t*>(keys + 2 * from), a.dim * 2, &x.keys[from * STRIP + b * BLOCK], STRIP);
        }
        for (int row = 0; row < BLOCK; row++) x.values[b * BLOCK + row] = a.value_pages + first + row * a.dim;
    }
}

inline void load_queries(const Attention& a, const Item& item, int64_t group, Scratch& x) {
    int64_t count = item.count * group;
    x.keys.resize(a.dim / 2 * STRIP), x.queries.resize(count * a.dim / 2), x.values.resize(STRIP);
    x.p.resize(count * STRIP), x.out.assign(count * a.dim, 0), x.most.assign(count, -INFINITY), x.total.assign(count, 0);
    for (int64_t n = 0; n < count; n++) {
        const float* q = a.q + (item.row + n / group) * a.ld + (item.head * group + n % group) * a.dim;
        for (int64_t d = 0; d < a.dim; d += 16)
            store_bf16(reinterpret_cast<uint16_t*>(&x.queries[n * a.dim / 2]) + d, load(q + d));
    }
}

inline void attend_strip(const Attention& a, const Item& item, int64_t group, int32_t at, Scratch& x) {
    int64_t total = item.count * group, pairs = a.dim / 2;
    int count = item.end - at < STRIP ? item.end - at : STRIP;
    load_strip(a, item, at, count, x);
    by_some<4>(total, [&](auto some, int64_t n) {
        scores_of<some()>(x.keys.data(), &x.queries[n * pairs], pairs, &x.p[n * STRIP]);
    });
    int until = 0;
    for (int64_t n = 0; n < total; n++) {
        int32_t position = a.step->positions[item.row + n / group];
        int64_t lo = a.window ? position - a.window + 1 - at : 0;
        int hi = position + 1 - at < count ? position + 1 - at : count;
        soften(a, &x.p[n * STRIP], lo > 0 ? int(lo < STRIP ? lo : STRIP) : 0, hi, x.most[n], x.total[n], &x.out[n * a.dim]);
        if (hi > until) until = hi;
    }
    by_some<8>(total, [&](auto some, int64_t n) {
        weigh<some()>(&x.p[n * STRIP], x.values.data(), until, a.dim, &x.out[n * a.dim]);
    });
}

inline void attend_item(const Attention& a, const Item& item) {
    static thread_local Scratch x;
    int64_t group = a.heads / a.keys;
    load_queries(a, item, group, x);
    for (int32_t at = item.begin; at < item.end; at += STRIP) attend_strip(a, item, group, at, x);
    for (int64_t n = 0; n < item.count * group; n++) {
        bool whole = item.partial < 0;
        float* out = whole ? a.out + ((item.row + n / group) * a.heads + item.head * group + n % group) * a.dim
                           : a.partials + (item.partial * group + n) * (a.dim + 2) + 2;
        f32x16 factor = set1(whole ? 1 / x.total[n] : 1);
        for (int64_t d = 0; d < a.dim; d += 16) store(out + d, mul(load(&x.out[n * a.dim + d]), factor));
        if (!whole) out[-2] = x.most[n], out[-1] = x.total[n];
    }
}

// The parts of one head of a long decode, summed in order of position.
inline void merge(const Attention& a, const Item* parts, int count) {
    int64_t group = a.heads / a.keys, size = a.dim + 2;
    for (int64_t n = 0; n < group; n++) {
        float* out = a.out + (int64_t(parts->row) * a.heads + parts->head * group + n) * a.dim;
        const float* first = a.partials + (parts->partial * group + n) * size;
        float most = -INFINITY, total = 0;
        for (int i = 0; i < count; i++) most = first[i * group * size] < most ? most : first[i * group * size];
        for (int64_t d = 0; d < a.dim; d++) out[d] = 0;
        for (int i = 0; i < count; i++) {
            const float* part = first + i * group * size;
            float weight = std::exp(part[0] - most);
            total += weight * part[1];
            for (int64_t d = 0; d < a.dim; d++) out[d] += weight * part[2 + d];
        }
        for (int64_t d = 0; d < a.dim; d++) out[d] /= total;
    }
}

inline void attend(const Attention& a) {
    std::vector<Item> items = cut(a);
    parallel(int64_t(items.size()), 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) attend_item(a, items[i]);
    });
    for (size_t i = 0; i < items.size(); i++) {
        if (items[i].partial < 0) continue;
        size_t end = i + 1;
        while (end < items.size() && items[end].sequence == items[i].sequence && items[end].head == items[i].head) end++;
        merge(a, &items[i], int(end - i));
        i = end - 1;
    }
}

}  // namespace myna
