// A linear rule along time, over the few features that a layer reads, and back.
#pragma once

#include <algorithm>

#include "pool.h"
#include "problem.h"
#include "simd.h"
#include "threads.h"

namespace momentumrnn::MOMENTUMRNN_ISA {

// Runs body(first, end) on ranges of sequences that together are the batch.
template <class T, class Body> void for_sequences(const Linear<T>& q, const Body& body) {
    // Fewer elements than this are done before another thread is awake.
    constexpr Index worthwhile = 1 << 15;
    const Index work = q.rows.total() * (q.features + q.ones);
    const int parts = static_cast<int>(std::min<Index>({q.threads, q.rows.batch, 1 + work / worthwhile}));
    parallel(parts, [&](int part) {
        const FlushDenormals flush;
        body(q.rows.batch * part / parts, q.rows.batch * (part + 1) / parts);
    });
}

template <class T> void linear_forward(const LinearForward<T>& q) {
    const Index D = q.features, P = D + q.ones;
    const Buffer<double> state(static_cast<size_t>(q.rows.batch * P));
    for_sequences(q, [&](Index first, Index end) {
        // Not read through q inside the loops: for all the compiler knows, a store could change it there.
        const double gain = q.gain;
        std::fill(state + first * P, state + end * P, 0.0);
        for (Index t = 0; t < q.rows.steps; t++) {
            const Index running = std::min(end, q.rows.running(t)), next = q.rows.running(t + 1);
            for (Index r = first; r < running; r++) {
                const double decay = q.decay[t * q.decay_step + r * q.decay_sequence];
                const Index row = q.rows.first(t) + r;
                const T* x = q.x + row * D;
                T* p = q.output + row * P;
                double* s = state + r * P;
                for (Index i = 0; i < D; i++) p[i] = static_cast<T>(s[i] = decay * s[i] + gain * static_cast<double>(x[i]));
                if (q.ones) p[D] = static_cast<T>(s[D] = decay * s[D] + gain);
                if (q.last && r >= next) std::copy(p, p + P, q.last + r * P);
            }
        }
    });
}

template <class T> void linear_backward(const LinearBackward<T>& q) {
    const Index D = q.features, P = D + q.ones;
    const Buffer<double> state(static_cast<size_t>(q.rows.batch * D));
    for_sequences(q, [&](Index first, Index end) {
        const double gain = q.gain;
        std::fill(state + first * D, state + end * D, 0.0);
        for (Index t = q.rows.steps - 1; t >= 0; t--) {
            const Index running = std::min(end, q.rows.running(t)), next = q.rows.running(t + 1);
            for (Index r = first; r < running; r++) {
                const bool last = r >= next;
                // What p_t gives on to p_{t+1}, where there is one.
                const double decay = last ? 0.0 : q.decay[(t + 1) * q.decay_step + r * q.decay_sequence];
                const Index row = q.rows.first(t) + r;
                const T* grad = q.grad_output + row * P;
                const T* grad_last = last && q.grad_last ? q.grad_last + r * P : nullptr;
                T* to = q.grad_x + row * D;
                double* s = state + r * D;
                for (Index i = 0; i < D; i++) s[i] = decay * s[i] + static_cast<double>(grad[i]);
                if (grad_last)
                    for (Index i = 0; i < D; i++) s[i] += static_cast<double>(grad_last[i]);
                for (Index i = 0; i < D; i++) to[i] = static_cast<T>(gain * s[i]);
            }
        }
    });
}

}  // namespace momentumrnn::MOMENTUMRNN_ISA
