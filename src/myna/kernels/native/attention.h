// Grouped-query attention of a step's rows over pages of keys and values, by the online softmax of Milakov and Gimelshein
// 2018, in parts as in flash decoding (Dao et al. 2023).
//
// The arithmetic of a row is fixed by its position alone: strips of 64 keys, begun at multiples of 64, are gathered into
// parts of 256, begun at multiples of 256, and the parts are merged in order. Which rows share a strip, which thread has
// which part, and whether the parts of a row are computed together changes nothing, bit for bit. What a row does not see
// adds nothing: its weight is 0, and if a hidden value is not finite, the rows beside it are done again without it.
#pragma once
#include <vector>

#include "strips.h"

namespace myna {

constexpr int32_t PART = 256;
constexpr int32_t TILE_QUERIES = 96;  // queries that share a strip while it is in the first-level cache

struct Sequence {
    int32_t row, count, start, table;  // first row, rows, position of the first, where its blocks begin in the table
};

struct Step {
    int32_t rows, samples, sequences, reserved;
    const int32_t *ids, *positions, *slots, *sampled;
    const Sequence* list;
    const int32_t* table;
    const int32_t* adapters;  // of each row, see adapt.h; read where some row has one
};

struct Attention {
    Pages pages;
    int64_t ld, heads, window;  // window 0: none
    Rule rule;
    const float* q;  // [row][ld]
    float* out;      // [row][heads * dim]
    const Step* step;

    int64_t group() const { return heads / pages.heads; }
};

// Rows of one sequence and one key head over the positions begin <= p < end.
struct Item {
    const Sequence* sequence;
    int32_t head, row, count, begin, end;
};

// What the queries of an item have gathered of a part: the largest score (base 2), the sum of the weights in 16 lanes, the
// weighted sum of values.
struct Sums {
    std::vector<float> most, total, out;  // [n], [n][16], [n][wide]

    void clear(int64_t n, int64_t wide) {
        most.assign(n, -INFINITY), total.assign(n * 16, 0), out.assign(n * wide, 0);
    }
};

// A thread's own memory; it grows and stays.
struct Scratch {
    std::vector<uint32_t> queries, pairs;
    std::vector<Row> rows;
    std::vector<float> shares, now;
    std::vector<uint8_t> values;
    Sums part;
    std::vector<float> whole;  // [n][2 + wide]: most, total, out
    const Item* after;         // the item that this thread does next, or null
};

inline void load_queries(const Attention& a, const Item& item, Scratch& x) {
    int64_t group = a.group(), count = item.count * group, wide = a.pages.wide(), groups = a.pages.groups();
    bool whole = a.pages.kept == INT8;
    x.rows.resize(count), x.shares.resize(groups * (STRIP + 1)), x.values.resize(BLOCKS * a.pages.stretch());
    x.pairs.resize(groups * SOME * STRIP / 2), x.now.resize(groups * SOME);
    x.queries.resize(count * (whole ? groups * int64_t(sizeof(Group) / 4) : wide / 2));
    for (int64_t n = 0; n < count; n++) {
        const float* q = a.q + (item.row + n / group) * a.ld + (item.head * group + n % group) * a.pages.dim;
        if (whole) {
            x.rows[n] = row_at(x.queries.data(), n, groups);
            for (int64_t g = 0; g < groups; g++) {
                Pair p = mixed(q, g * GROUP, a.pages.dim, wide - g * GROUP < GROUP);
                quantize_group(p.x, p.y, x.rows[n][g]);
            }
        } else {
            for (int64_t d = 0; d < wide; d += 16)
                store_bf16(reinterpret_cast<uint16_t*>(x.queries.data()) + n * wide + d, channels(q, d, a.pages.dim));
        }
    }
}

// The keys of the strip at `at` that a query sees.
inline Seen seen_by(const Attention& a, const Item& item, int64_t query, int32_t at) {
    int32_t position = item.sequence->start + item.row - item.sequence->row + int32_t(query / a.group());
    int64_t lo = a.window ? position - a.window + 1 - at : 0, hi = position + 1 - at;
    return {int(lo < 0 ? 0 : lo > STRIP ? STRIP : lo), int(hi < 0 ? 0 : hi > STRIP ? STRIP : hi)};
}

inline Strip strip_at(const Attention& a, const Item& item, int32_t at, int hi, const Strip* next) {
    const int32_t* blocks = a.step->table + item.sequence->table + at / BLOCK;
    Strip strip;
    strip.pairs = (hi + 1) / 2, strip.next = next;
    for (int b = 0; b < BLOCKS; b++) {
        // Beyond the last that is seen nothing needs to be there: any block does.
        int64_t page = a.pages.at(blocks[b * BLOCK < hi ? b : 0], item.head);
        strip.keys[b] = a.pages.keys + page, strip.values[b] = a.pages.values + page;
    }
    return strip;
}

// Queries n to n + N against a strip.
template <int N>
void attend_bf16(const Attention& a, const Item& item, const Strip& strip, int32_t at, int64_t n, Scratch& x) {
    int64_t wide = a.pages.wide();
    float s[N][STRIP];
    Seen seen[N];
    Pairs p[N];
    scores_bf16<N>(strip, &x.queries[n * wide / 2], wide / 2, s);
    times<N>([&](int i) { seen[i] = seen_by(a, item, n + i, at); });
    Factors<N> f = soften<N>(a.rule, s, seen, &x.part.most[n], &x.part.total[n * 16]);
    times<N>([&](int i) { narrow_bf16(s[i], p[i]); });
    float* out = &x.part.out[n * wide];
    int64_t c = 0;
    for (; c + 64 <= wide; c += 64) weigh_bf16<N, 4>(strip, p, c, f.before, f.now, out, wide);
    for (; c < wide; c += 16) weigh_bf16<N, 1>(strip, p, c, f.before, f.now, out, wide);
}

template <int N>
void attend_int8(const Attention& a, const Item& item, const Strip& strip, int32_t at, int64_t n, Shares& shares, Scratch& x) {
    int64_t wide = a.pages.wide(), groups = a.pages.groups();
    float s[N][STRIP];
    Seen seen[N];
    Pairs* p = reinterpret_cast<Pairs*>(x.pairs.data());
    scores_int8<N>(strip, &x.rows[n], wide, s);
    times<N>([&](int i) { seen[i] = seen_by(a, item, n + i, at); });
    Factors<N> f = soften<N>(a.rule, s, seen, &x.part.most[n], &x.part.total[n * 16]);
    for (int i = 0; i < N; i++) {
        share(strip, wide, seen[i], shares);
        for (int64_t g = 0; g < groups; g++) {
            x.now[g * N + i] = f.now[i] * shares.step[g];
            narrow_int16(s[i], shares.share + g * STRIP, p[g * N + i]);
        }
    }
    float* out = &x.part.out[n * wide];
    for (int64_t g = 0; g < groups; g++) {
        int64_t c = g * GROUP;
        if (wide - c >= GROUP) weigh_int8<N, 2>(strip, p + g * N, c, f.before, &x.now[g * N], out, wide);
        else weigh_int8<N, 1>(strip, p + g * N, c, f.before, &x.now[g * N], out, wide);
    }
}

// Lets a strip read its values from a copy in which those that are not seen are zeros.
inline void hide(const Attention& a, Strip& strip, Seen seen, Scratch& x) {
    int64_t wide = a.pages.wide(), stretch = a.pages.stretch();
    for (int b = 0; b < BLOCKS; b++) {
        uint16_t* copy = reinterpret_cast<uint16_t*>(x.values.data() + b * stretch);
        std::memcpy(copy, strip.values[b], stretch);
        for (int place = 0; place < BLOCK; place++)
            if (b * BLOCK + place < seen.lo || b * BLOCK + place >= seen.hi)
                for (int64_t c = 0; c < wide; c++) copy[(place / 2 * wide + c) * 2 + place % 2] = 0;
        strip.values[b] = x.values.data() + b * stretch;
    }
}

// What is read after the strip at `at`: the item's next strip, or the first of the item that comes after it, if one does.
inline bool following(const Attention& a, const Item& item, int32_t at, const Item* after, Strip& next) {
    const Item* of = at + STRIP < item.end ? &item : after;
    if (!of) return false;
    int32_t from = of == &item ? at + STRIP : of->begin, left = of->end - from;
    next = strip_at(a, *of, from, left < STRIP ? left : STRIP, nullptr);
    return true;
}

// The queries from <= n < to of an item against the strip at `at`, as far as they see it.
inline void attend_strip(const Attention& a, const Item& item, int64_t from, int64_t to, int32_t at, bool careful, Scratch& x) {
    Shares shares{{0, 0}, x.shares.data(), x.shares.data() + a.pages.groups() * STRIP};
    by_some<SOME>(to, [&](auto count, int64_t n) {
        constexpr int N = count();
        Seen first = seen_by(a, item, n, at), last = seen_by(a, item, n + N - 1, at);
        if (last.hi <= 0 || first.lo >= STRIP) return;
        Strip next;
        bool fetches = n == from && following(a, item, at, x.after, next);
        Strip strip = strip_at(a, item, at, last.hi, fetches ? &next : nullptr);
        if (a.pages.kept == INT8) return attend_int8<N>(a, item, strip, at, n, shares, x);
        if (careful) hide(a, strip, first, x);
        attend_bf16<N>(a, item, strip, at, n, x);
    }, from);
}

inline bool finite(const float* x, int64_t n) {
    f32x16 zeros = set1(0);
    for (int64_t i = 0; i < n; i += 16) zeros = fma(load(x + i), set1(0), zeros);
    return sum(zeros) == 0;
}

// [begin, end) lies in one part. A hidden value that is not finite makes NaN of weight 0: then every row is done by itself,
// over a copy of the values in which what it does not see is zeros.
inline void attend_part(const Attention& a, const Item& item, int32_t begin, int32_t end, Scratch& x) {
    int64_t group = a.group(), count = item.count * group, wide = a.pages.wide();
    x.part.clear(count, wide);
    for (int32_t at = begin; at < end; at += STRIP) attend_strip(a, item, 0, count, at, false, x);
    if (a.pages.kept == INT8 || finite(x.part.out.data(), count * wide)) return;
    x.part.clear(count, wide);
    for (int64_t n = 0; n < count; n += group)
        for (int32_t at = begin; at < end; at += STRIP) attend_strip(a, item, n, n + group, at, true, x);
}

// Adds what one part gathered to what those before it did.
inline void merge(float most, float total, const float* out, float* whole, int64_t wide) {
    if (most == -INFINITY) return;  // nothing of it was seen
    if (whole[0] == -INFINITY) {
        whole[0] = most, whole[1] = total;
        std::memcpy(whole + 2, out, wide * sizeof(float));
        return;
    }
    bool higher = !(most < whole[0]);
    float less = exp2_of(higher ? whole[0] - most : most - whole[0]);
    float before = higher ? less : 1, now = higher ? 1 : less;
    if (higher) whole[0] = most;
    whole[1] = whole[1] * before + total * now;
    for (int64_t d = 0; d < wide; d += 16)
        store(whole + 2 + d, fma(load(out + d), set1(now), mul(load(whole + 2 + d), set1(before))));
}

// `count` queries that have gathered nothing yet.
inline float* start(Scratch& x, int64_t count, int64_t wide) {
    x.whole.assign(count * (2 + wide), 0);
    for (int64_t n = 0; n < count; n++) x.whole[n * (2 + wide)] = -INFINITY;
    return x.whole.data();
}

inline void finish(const Attention& a, const Item& item, const float* whole) {
    int64_t group = a.group(), dim = a.pages.dim, size = 2 + a.pages.wide();
    for (int64_t n = 0; n < item.count * group; n++, whole += size) {
        float* out = a.out + ((item.row + n / group) * a.heads + item.head * group + n % group) * dim;
        for (int64_t d = 0; d < dim; d += 16)
            store_some(out + d, mul(load(whole + 2 + d), set1(1 / whole[1])), dim - d < 16 ? int(dim - d) : 16);
    }
}

inline Scratch& scratch() {
    static thread_local Scratch x;
    return x;
}

// An item that is whole is finished; of another the parts go to its partials.
inline void attend_item(const Attention& a, const Item& item, bool is_whole, float* partials) {
    Scratch& x = scratch();
    int64_t count = item.count * a.group(), wide = a.pages.wide(), size = 2 + wide;
    load_queries(a, item, x);
    float* whole = start(x, count, wide);
    for (int32_t at = item.begin, next; at < item.end; at = next, partials += count * size) {
        next = (at / PART + 1) * PART;
        attend_part(a, item, at, next < item.end ? next : item.end, x);
        for (int64_t n = 0; n < count; n++) {
            float* into = (is_whole ? whole : partials) + n * size;
            if (!is_whole) into[0] = -INFINITY;  // into nothing, which is a copy
            merge(x.part.most[n], sum(load(&x.part.total[n * 16])), &x.part.out[n * wide], into, wide);
        }
    }
    if (is_whole) finish(a, item, whole);
}

// The parts of an item that was done in pieces, in order.
inline void merge_item(const Attention& a, const Item& item, const float* partials) {
    int64_t count = item.count * a.group(), wide = a.pages.wide(), size = 2 + wide;
    float* whole = start(scratch(), count, wide);
    for (int32_t at = item.begin / PART; at <= (item.end - 1) / PART; at++, partials += count * size)
        for (int64_t n = 0; n < count; n++) {
            const float* part = partials + n * size;
            merge(part[0], part[1], part + 2, whole + n * size, wide);
        }
    finish(a, item, whole);
}

// A step's work. The rows of a sequence are cut into tiles. A sequence of one tile (a decode, or drafts to verify) is also
// cut into stretches of parts if that is needed to give every thread something to do.
struct Work {
    struct Piece {
        Item item;
        bool whole;
        int64_t partials;
    };
    std::vector<Piece> pieces, cut;
    std::vector<float> partials;
    int64_t used;  // of partials
};

inline int32_t tile_rows(const Attention& a) {
    return a.group() < TILE_QUERIES ? int32_t(TILE_QUERIES / a.group()) : 1;
}

inline Item item_of(const Attention& a, const Sequence& s, int32_t head, int32_t from, int32_t count) {
    int64_t first = a.window ? s.start + from - a.window + 1 : 0;
    return {&s, head, s.row + from, count, first > 0 ? int32_t(first / STRIP * STRIP) : 0, s.start + from + count};
}

// Positions of a piece of a sequence of one tile: eight pieces a thread, or whole parts.
inline int64_t stretch_of(const Attention& a) {
    int64_t positions = 0, tile = tile_rows(a), threads = Pool::get().threads();
    if (threads == 1) return INT32_MAX;
    for (const Sequence* s = a.step->list; s < a.step->list + a.step->sequences; s++) {
        Item item = item_of(a, *s, 0, 0, s->count);
        positions += (item.end - item.begin) * ((s->count + tile - 1) / tile);
    }
    return (positions * a.pages.heads / (8 * threads) / PART + 1) * PART;
}

inline void cut_item(const Attention& a, const Item& item, int64_t stretch, Work& work) {
    if (item.end - item.begin <= stretch) return work.pieces.push_back({item, true, 0});
    int64_t size = item.count * a.group() * (2 + a.pages.wide()), at = work.used;
    work.cut.push_back({item, false, at});
    for (int64_t from = item.begin; from < item.end;) {
        int64_t to = (from / PART * PART) + stretch, parts = to / PART - from / PART;
        Item piece = item;
        piece.begin = int32_t(from), piece.end = int32_t(to < item.end ? to : item.end);
        work.pieces.push_back({piece, false, at});
        from = to, at += parts * size;
    }
    work.used = at;
}

// Long items first, so that no thread is left with one at the end.
inline void cut(const Attention& a, Work& work) {
    work.pieces.clear(), work.cut.clear(), work.used = 0;
    int32_t tile = tile_rows(a);
    int64_t stretch = stretch_of(a);
    for (const Sequence* s = a.step->list; s < a.step->list + a.step->sequences; s++)
        for (int32_t from = (s->count - 1) / tile * tile; from >= 0; from -= tile)
            for (int32_t head = 0; head < a.pages.heads; head++) {
                Item item = item_of(a, *s, head, from, s->count - from < tile ? s->count - from : tile);
                cut_item(a, item, s->count > tile ? INT32_MAX : stretch, work);
            }
}

inline void attend(const Attention& a) {
    static thread_local Work work;
    Work& w = work;  // this thread's, also for the helpers
    cut(a, w);
    if (int64_t(w.partials.size()) < w.used) w.partials.resize(w.used);
    parallel(int64_t(w.pieces.size()), 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) {
            scratch().after = i + 1 < end ? &w.pieces[i + 1].item : nullptr;
            attend_item(a, w.pieces[i].item, w.pieces[i].whole, w.partials.data() + w.pieces[i].partials);
        }
    });
    parallel(int64_t(w.cut.size()), 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) merge_item(a, w.cut[i].item, w.partials.data() + w.cut[i].partials);
    });
}

}  // namespace myna
