// How the work of a rule is cut.
//
// No element of the drive meets another, so the B · C elements of a step are one long row, cut into blocks:
// memory is read in long runs, and what a block carries from step to step stays in cache. A block goes through a
// few steps at once, vector by vector: what it carries is then in registers, and leaves them once for all of these
// steps. Where the drive is made of features, a block keeps to one sequence, whose few numbers then serve all
// of its channels; so it does in a packed batch, where all elements of a block thus end together. How the row is cut
// depends on the sizes alone, so that every result has the same bits whoever computes it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>

#include "pool.h"
#include "problem.h"
#include "simd.h"
#include "threads.h"

namespace momentumrnn::MOMENTUMRNN_ISA {

template <class T> constexpr Index line = 64 / sizeof(T);
template <class T> INLINE Index whole_lines(Index count) { return (count + line<T> - 1) / line<T> * line<T>; }

// Not the standard library's: a template that two instruction sets share is compiled for one of them.
template <class T> INLINE void copy(const T* from, Index count, T* to) {
    if (count > 0) std::memcpy(to, from, static_cast<size_t>(count) * sizeof(T));
}

template <class T> INLINE void clear(T* to, Index count) {
    if (count > 0) std::memset(to, 0, static_cast<size_t>(count) * sizeof(T));
}

template <class T> INLINE void copy_or_clear(const T* from, Index first, Index count, T* to) {
    from ? copy(from + first, count, to) : clear(to, count);
}

// So many steps are gone through at once.
constexpr Index steps_together = 8;
INLINE Index runs(Index steps) { return (steps + steps_together - 1) / steps_together; }

// The same elements at consecutive steps in memory.
template <class T> struct Run {
    T* at[steps_together] = {};
    bool streamed = false;
};

template <class T, bool whole> INLINE void put(const Run<T>& to, Index k, Index i, Vector<T> v, Index left) {
    whole && to.streamed ? stream<T>(to.at[k] + i, v) : write<T, whole>(to.at[k] + i, v, left);
}

// The length of a row that is cut into blocks.
template <class T> INLINE Index span(const ChannelRule<T>& q) {
    return q.x || q.rows.sizes ? q.channels : q.rows.batch * q.channels;
}

// Whether an array of all elements of all steps is to be streamed: all blocks have to begin with a whole vector.
template <class T> INLINE bool streams(const ChannelRule<T>& q, const T* array) {
    return beyond_cache(static_cast<size_t>(q.rows.total() * q.channels) * sizeof(T)) && in_vectors(array, span(q));
}

// Elements first … first + length of the row, with scratch memory for whoever works on them.
template <class T> struct Block {
    const ChannelRule<T>& q;
    Index first, length;
    T* scratch;

    // One cache line more than is needed: arrays at equal distances of a power of two would throw each
    // other out of the cache.
    static Index pitch(Index length) { return whole_lines<T>(length) + line<T>; }

    T* take(Index arrays = 1) {
        T* const taken = scratch;
        scratch += arrays * pitch(length);
        clear(taken, arrays * pitch(length));
        return taken;
    }

    // What each channel has, or zero, for the elements one after the other.
    const T* spread(const T* from) {
        T* const to = take();
        for (Index i = 0, run; from && i < length; i += run) {
            const Index channel = (first + i) % q.channels;
            run = std::min(length - i, q.channels - channel);
            copy(from + channel, run, to + i);
        }
        return to;
    }

    // How many steps it has. In a packed batch, whose sizes decrease, those with its sequence still running.
    Index steps() const {
        if (!q.rows.sizes) return q.rows.steps;
        Index from = 0, to = q.rows.steps;
        while (from < to) {
            const Index middle = (from + to) / 2;
            q.rows.sizes[middle] > first / q.channels ? from = middle + 1 : to = middle;
        }
        return from;
    }
    Index place(Index t) const { return q.rows.first(t) * q.channels + first; }

    // Its elements of an array of all steps', at `steps` steps from t on.
    template <class P> Run<P> run(P* array, Index t, Index steps) const {
        Run<P> run;
        for (Index k = 0; k < steps; k++) run.at[k] = array + place(t + k);
        return run;
    }
};

// As many threads as are worth waking: one costs as much as this many elements.
template <class T> INLINE int sharers(const ChannelRule<T>& q, Index work, Index most) {
    constexpr Index worthwhile = 16384;
    return static_cast<int>(std::min<Index>(q.threads, std::min(most, 1 + work / worthwhile)));
}

// Runs body on every block. A block wants `arrays` arrays of its length and `words` more of scratch memory.
template <class T, class Body> void for_blocks(const ChannelRule<T>& q, Index arrays, Index words, const Body& body) {
    // A short row is cut too, for the sake of the other threads.
    constexpr Index shortest = 256, longest = 8192 / sizeof(T);
    // A panel of two vectors, of whatever width, lies within one block.
    constexpr Index unit = 2 * line<T>;
    const Index elements = q.rows.batch * q.channels, row = span(q);
    const Index most = std::min(longest, std::max(shortest, elements / 16));
    const Index pieces = (row + most - 1) / most;
    const Index size = ((row + pieces - 1) / pieces + unit - 1) / unit * unit;
    const Index cuts = (row + size - 1) / size, blocks = elements / row * cuts;
    const int parts = sharers(q, q.rows.total() * q.channels, blocks);
    const Index each = arrays * Block<T>::pitch(size) + words;
    const Buffer<T> scratch(static_cast<size_t>(parts * each));
    // In a packed batch the first blocks run longest; whoever is free takes the next.
    std::atomic<Index> next{0};
    parallel(parts, [&](int part) {
        const FlushDenormals flush;
        for (Index i; (i = next.fetch_add(1, std::memory_order_relaxed)) < blocks;) {
            const Index at = i % cuts * size;
            body(Block<T>{q, i / cuts * row + at, std::min(size, row - at), scratch + part * each});
        }
    });
}

}  // namespace momentumrnn::MOMENTUMRNN_ISA
