// Adam and RMSProp along time, (15), and back.
//
// No element of the drive meets another, so the B · C elements of a step are one long row, cut into blocks:
// memory is read in long runs, and what a block carries from step to step stays in cache. How the row is cut
// depends on its length alone, so that every result has the same bits whoever computes it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>

#include "pool.h"
#include "problem.h"
#include "simd.h"
#include "threads.h"

namespace momentumrnn::MOMENTUMRNN_ISA {

template <class T> constexpr long line = 64 / sizeof(T);
template <class T> INLINE long whole_lines(long count) { return (count + line<T> - 1) / line<T> * line<T>; }

// Not the standard library's: a template that two instruction sets share is compiled for one of them.
template <class T> INLINE void copy(const T* from, long count, T* to) {
    if (count > 0) std::memcpy(to, from, static_cast<size_t>(count) * sizeof(T));
}

template <class T> INLINE void clear(T* to, long count) {
    if (count > 0) std::memset(to, 0, static_cast<size_t>(count) * sizeof(T));
}

template <class T> INLINE void copy_or_clear(const T* from, long first, long count, T* to) {
    from ? copy(from + first, count, to) : clear(to, count);
}

// Elements first … first + length of the row, with scratch memory for whoever works on them.
template <class T> struct Block {
    const Adaptive<T>& q;
    long first, length;
    T* scratch;

    // One cache line more than is needed: arrays at equal distances of a power of two would throw each
    // other out of the cache.
    static long pitch(long length) { return whole_lines<T>(length) + line<T>; }

    T* take() {
        T* const taken = scratch;
        scratch += pitch(length);
        clear(taken, pitch(length));
        return taken;
    }

    // The coefficients of the elements, one after the other.
    const T* spread(const T* from) {
        T* const to = take();
        for (long i = 0, run; i < length; i += run) {
            const long channel = (first + i) % q.channels;
            run = std::min(length - i, q.channels - channel);
            copy(from + channel, run, to + i);
        }
        return to;
    }

    // How many of the elements belong to sequences that run at step t: always the first ones.
    long running(long t) const {
        return std::min(length, std::max(0L, q.rows.running(t) * q.channels - first));
    }
    long place(long t) const { return q.rows.first(t) * q.channels + first; }
};

// As many threads as are worth waking: one costs as much as this many elements.
template <class T> INLINE int sharers(const Adaptive<T>& q, long work, long most) {
    constexpr long worthwhile = 16384;
    return static_cast<int>(std::min<long>(q.threads, std::min(most, 1 + work / worthwhile)));
}

// Runs body on every block, with `arrays` arrays of scratch memory.
template <class T, class Body> void for_blocks(const Adaptive<T>& q, long arrays, const Body& body) {
    // A short row is cut too, for the sake of the other threads.
    constexpr long shortest = 256, longest = 4096 / sizeof(T);
    const long elements = q.rows.batch * q.channels;
    const long size = std::min(longest, std::max(shortest, whole_lines<T>(elements / 16)));
    const long blocks = (elements + size - 1) / size;
    const int parts = sharers(q, q.rows.total() * q.channels, blocks);
    const long words = arrays * Block<T>::pitch(size);
    const Buffer<T> scratch(static_cast<size_t>(parts * words));
    // In a packed batch the first blocks run longest; whoever is free takes the next.
    std::atomic<long> next{0};
    parallel(parts, [&](int part) {
        const FlushDenormals flush;
        for (long i; (i = next.fetch_add(1, std::memory_order_relaxed)) < blocks;)
            body(Block<T>{q, i * size, std::min(size, elements - i * size), scratch + part * words});
    });
}

template <class T> struct Coefficients {
    static constexpr int count = 4;
    const T *momentum, *step_size, *beta, *rest;

    explicit Coefficients(Block<T>& block)
        : momentum(block.spread(block.q.momentum)), step_size(block.spread(block.q.step_size)),
          beta(block.spread(block.q.beta)), rest(block.spread(block.q.rest)) {}
};

// v and m of a block, or their gradients.
template <class T> struct State {
    T *v, *m;
};

// A block's elements at one step. The next step to be visited is `ahead` elements away; caches foresee a
// run of reads or writes, but not the jump to the next run.
template <class T> struct Run {
    const T* in;
    T* out;
    long ahead, count;
};

template <class T, bool output>
NOINLINE void forward_step(const Coefficients<T>& given, const Run<T> run, const State<T> from,
                           const State<T> to, T floor) {
    const Coefficients<T> k = given;
    for (long i = 0; i < run.count; i += Simd<T>::lanes) {
        prefetch(run.in + run.ahead + i);
        const Vector<T> a = load<T>(run.in + i, run.count - i);
        const Vector<T> v = load<T>(k.momentum + i) * load<T>(from.v + i) + load<T>(k.step_size + i) * a;
        const Vector<T> m = load<T>(k.beta + i) * load<T>(from.m + i) + load<T>(k.rest + i) * (a * a);
        store<T>(to.v + i, v);
        store<T>(to.m + i, m);
        if constexpr (output) {
            prefetch(run.out + run.ahead + i);
            store<T>(run.out + i, v * reciprocal_root<T>(m + floor), run.count - i);
        }
    }
}

template <class T> void forward_block(const AdaptiveForward<T>& q, Block<T> block) {
    const T floor = static_cast<T>(q.eps * q.eps);
    const Coefficients<T> k(block);
    const State<T> state{block.take(), block.take()};
    copy_or_clear(q.v_0, block.first, block.length, state.v);
    copy_or_clear(q.m_0, block.first, block.length, state.m);
    for (long t = 0, before = block.length; before > 0; t++) {
        const long count = block.running(t);
        copy(state.v + count, before - count, q.v_n + block.first + count);
        copy(state.m + count, before - count, q.m_n + block.first + count);
        before = count;
        if (count == 0) break;
        if (q.v_saved && t % q.interval == 0) {
            const long saved = t / q.interval * q.rows.batch * q.channels + block.first;
            copy(state.v, count, q.v_saved + saved);
            copy(state.m, count, q.m_saved + saved);
        }
        const long at = block.place(t);
        const long ahead = block.running(t + 1) > 0 ? block.place(t + 1) - at : 0;
        forward_step<T, true>(k, {q.drive + at, q.output + at, ahead, count}, state, state, floor);
    }
}

template <class T> void adaptive_forward(const AdaptiveForward<T>& q) {
    for_blocks(q, Coefficients<T>::count + 2, [&](const Block<T>& block) { forward_block(q, block); });
}

// The gradients of μ, s, β and 1 - β, element by element: of the steps of one interval, of all steps, and
// what rounding took from these.
template <class T> struct Sums {
    static constexpr int count = Coefficients<T>::count;
    T *part[count], *total[count], *lost[count];
};

// Kahan's addition to the total: tens of thousands of steps in float32 keep their digits.
template <class T> NOINLINE void settle(T* part, T* total, T* lost, long count) {
    for (long i = 0; i < count; i += Simd<T>::lanes) {
        const Vector<T> before = load<T>(total + i);
        const Vector<T> term = load<T>(part + i) - load<T>(lost + i);
        const Vector<T> after = before + term;
        store<T>(total + i, after);
        store<T>(lost + i, (after - before) - term);
        store<T>(part + i, Vector<T>{});
    }
}

template <class T, bool learned>
NOINLINE void backward_step(const Coefficients<T>& given, const T* drive, const State<T> before,
                            const State<T> after, const Run<T> run, const State<T> grad, const Sums<T>& sums,
                            T floor) {
    const Coefficients<T> k = given;
    T *momentum = sums.part[0], *step_size = sums.part[1], *beta = sums.part[2], *rest = sums.part[3];
    for (long i = 0; i < run.count; i += Simd<T>::lanes) {
        prefetch(run.in + run.ahead + i);
        prefetch(run.out + run.ahead + i);
        const Vector<T> a = load<T>(drive + i, run.count - i);
        const Vector<T> root = reciprocal_root<T>(load<T>(after.m + i) + floor);
        const Vector<T> scaled = load<T>(run.in + i, run.count - i) * root;
        const Vector<T> grad_v = load<T>(grad.v + i) + scaled;
        // In this order no product leaves float32's range: at m = 0 the root is 1 / ε.
        const Vector<T> grad_m = load<T>(grad.m + i) - T(0.5) * scaled * (load<T>(after.v + i) * root * root);
        const Vector<T> through_m = (a + a) * load<T>(k.rest + i) * grad_m;
        store<T>(run.out + i, load<T>(k.step_size + i) * grad_v + through_m, run.count - i);
        if constexpr (learned) {
            store<T>(momentum + i, load<T>(momentum + i) + grad_v * load<T>(before.v + i));
            store<T>(step_size + i, load<T>(step_size + i) + grad_v * a);
            store<T>(beta + i, load<T>(beta + i) + grad_m * load<T>(before.m + i));
            store<T>(rest + i, load<T>(rest + i) + grad_m * (a * a));
        }
        store<T>(grad.v + i, grad_v * load<T>(k.momentum + i));
        store<T>(grad.m + i, grad_m * load<T>(k.beta + i));
    }
}

// `totals`: a row of all elements for each coefficient.
template <class T, bool learned>
void backward_block(const AdaptiveBackward<T>& q, Block<T> block, T* totals) {
    const T floor = static_cast<T>(q.eps * q.eps);
    const long row = q.rows.batch * q.channels, first = block.first, interval = q.interval;
    const Coefficients<T> k(block);
    const State<T> grad{block.take(), block.take()};
    Sums<T> sums{};
    for (int j = 0; learned && j < Sums<T>::count; j++)
        for (T** array : {&sums.part[j], &sums.total[j], &sums.lost[j]}) *array = block.take();
    // What held before each step of an interval, and after its last.
    const long pitch = block.pitch(block.length);
    const auto state = [&](long step) {
        return State<T>{block.scratch + 2 * step * pitch, block.scratch + (2 * step + 1) * pitch};
    };
    // The last vector reaches beyond the running sequences; nothing there may be a NaN.
    const auto close = [](const State<T>& s, long count) {
        clear(s.v + count, whole_lines<T>(count) - count);
        clear(s.m + count, whole_lines<T>(count) - count);
    };
    long entered = 0;
    const auto enter = [&](long count) {
        copy_or_clear(q.grad_v_n, first + entered, count - entered, grad.v + entered);
        copy_or_clear(q.grad_m_n, first + entered, count - entered, grad.m + entered);
        entered = count;
    };

    for (long begin = (q.rows.steps - 1) / interval * interval; begin >= 0; begin -= interval) {
        long count = block.running(begin);
        if (count == 0) continue;
        copy(q.v_saved + begin / interval * row + first, count, state(0).v);
        copy(q.m_saved + begin / interval * row + first, count, state(0).m);
        close(state(0), count);
        long steps = 0;
        for (long next; count > 0; count = next) {
            const State<T> before = state(steps), after = state(steps + 1);
            const long at = block.place(begin + steps++);
            next = steps < interval ? block.running(begin + steps) : 0;
            const long ahead = next > 0 ? block.place(begin + steps) - at : 0;
            forward_step<T, false>(k, {q.drive + at, nullptr, ahead, count}, before, after, floor);
            close(after, count);
        }
        while (steps-- > 0) {
            const long t = begin + steps, at = block.place(t);
            const long ahead = t > 0 ? block.place(t - 1) - at : 0;
            count = block.running(t);
            if (count > entered) enter(count);
            const Run<T> run{q.grad_output + at, q.grad_drive + at, ahead, count};
            const State<T> before = state(steps), after = state(steps + 1);
            backward_step<T, learned>(k, q.drive + at, before, after, run, grad, sums, floor);
        }
        for (int j = 0; learned && j < Sums<T>::count; j++)
            settle(sums.part[j], sums.total[j], sums.lost[j], entered);
    }
    enter(block.length);
    if (q.grad_v_0) copy(grad.v, block.length, q.grad_v_0 + first);
    if (q.grad_m_0) copy(grad.m, block.length, q.grad_m_0 + first);
    for (int j = 0; learned && j < Sums<T>::count; j++)
        copy(sums.total[j], block.length, totals + j * row + first);
}

// The sum over the batch, in two levels for float32's sake.
template <class T> void sum_rows(const T* rows, long batch, long channels, T* sum) {
    constexpr long together = 32;
    for (long c = 0; c < channels; c += Simd<T>::lanes) {
        Vector<T> total{};
        for (long b = 0; b < batch; b += together) {
            Vector<T> part{};
            for (long i = b; i < std::min(b + together, batch); i++)
                part += load<T>(rows + i * channels + c, channels - c);
            total += part;
        }
        store<T>(sum + c, total, channels - c);
    }
}

template <class T> void adaptive_backward(const AdaptiveBackward<T>& q) {
    const bool learned = q.grad_momentum != nullptr;
    const long row = q.rows.batch * q.channels, states = 2 * (std::min(q.interval, q.rows.steps) + 1);
    const Buffer<T> totals(static_cast<size_t>(learned ? Sums<T>::count * row : 0));
    const long arrays = Coefficients<T>::count + 2 + (learned ? 3 * Sums<T>::count : 0) + states;
    for_blocks(q, arrays, [&](const Block<T>& block) {
        learned ? backward_block<T, true>(q, block, totals) : backward_block<T, false>(q, block, totals);
    });
    if (!learned) return;
    T* const grads[] = {q.grad_momentum, q.grad_step_size, q.grad_beta, q.grad_rest};
    for (int j = 0; j < Sums<T>::count; j++)
        sum_rows<T>(totals + j * row, q.rows.batch, q.channels, grads[j]);
}

}  // namespace momentumrnn::MOMENTUMRNN_ISA
