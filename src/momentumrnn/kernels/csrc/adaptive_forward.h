// Adam and RMSProp along time, (15).
#pragma once

#include "adaptive_drive.h"

namespace momentumrnn::MOMENTUMRNN_ISA {

// v and m, one vector of them, at steps that follow one another.
template <class T> struct Step {
    const Vector<T> momentum, step_size, beta, rest;

    Step(const Coefficients<T>& k, Index i)
        : momentum(load<T>(k.momentum + i)), step_size(load<T>(k.step_size + i)), beta(load<T>(k.beta + i)),
          rest(load<T>(k.rest + i)) {}

    Vector<T> v(Vector<T> before, Vector<T> a) const { return momentum * before + step_size * a; }
    Vector<T> m(Vector<T> before, Vector<T> a) const { return beta * before + rest * (a * a); }
};

template <class T, bool output, bool whole, class Drives>
INLINE void forward_column(const Coefficients<T>& given, const Drives& drives, const State<T>& from, const State<T>& to,
                           const Run<T>& out, Index steps, Index i, Index left, T floor) {
    const Step<T> step(given, i);
    const auto drive = drives.template column<whole>(i, left);
    Vector<T> v = load<T>(from.v + i), m = load<T>(from.m + i);
    for (Index k = 0; k < steps; k++) {
        const Vector<T> a = drive(k);
        v = step.v(v, a);
        m = step.m(m, a);
        if constexpr (output) put<T, whole>(out, k, i, v * reciprocal_root<T>(m + floor), left);
    }
    store<T>(to.v + i, v);
    store<T>(to.m + i, m);
}

// The steps that `drives` has entered.
template <class T, bool output, class Drives>
NOINLINE void forward_run(const Coefficients<T>& k, const Drives& drives, const State<T>& from, const State<T>& to,
                          const Run<T>& out, Index steps, Index length, T floor) {
    Index i = 0;
    for (; i + Simd<T>::lanes <= length; i += Simd<T>::lanes)
        forward_column<T, output, true>(k, drives, from, to, out, steps, i, length - i, floor);
    if (i < length) forward_column<T, output, false>(k, drives, from, to, out, steps, i, length - i, floor);
}

template <class T, class Drives>
void forward_block(const AdaptiveForward<T>& q, Block<T>& block, Drives drives) {
    const T floor = static_cast<T>(q.eps * q.eps);
    const bool streamed = streams(q, q.output);
    const Coefficients<T> k(block);
    const State<T> state{block.take(), block.take()};
    copy_or_clear(q.v_0, block.first, block.length, state.v);
    copy_or_clear(q.m_0, block.first, block.length, state.m);
    const Index all = block.steps();
    for (Index t = 0, next; t < all; t = next) {
        if (q.v_saved && t % q.interval == 0) {
            const Index saved = t / q.interval * q.rows.batch * q.channels + block.first;
            copy(state.v, block.length, q.v_saved + saved);
            copy(state.m, block.length, q.m_saved + saved);
        }
        next = std::min(t + steps_together, all);
        // Not beyond the next state that is saved.
        if (q.v_saved) next = std::min(next, (t / q.interval + 1) * q.interval);
        drives.make(t, next - t);
        drives.enter(t, next - t);
        Run<T> out = block.run(q.output, t, next - t);
        out.streamed = streamed;
        forward_run<T, true>(k, drives, state, state, out, next - t, block.length, floor);
    }
    copy(state.v, block.length, q.v_n + block.first);
    copy(state.m, block.length, q.m_n + block.first);
    end_streaming();
}

template <class T> void adaptive_forward(const AdaptiveForward<T>& q) {
    constexpr Index arrays = Coefficients<T>::count + 2;
    if (!q.x) {
        for_blocks(q, arrays + ReadyDrives<T>::arrays, 0,
                   [&](Block<T> block) { forward_block(q, block, ReadyDrives<T>(block)); });
    } else if (q.features == 1) {
        for_blocks(q, arrays + SingleDrives<T>::arrays, 0,
                   [&](Block<T> block) { forward_block(q, block, SingleDrives<T>(block)); });
    } else {
        const DrivePanels<T> panels(q);
        for_blocks(q, arrays + steps_together, MadeDrives<T>::words(panels.depth, steps_together),
                   [&](Block<T> block) { forward_block(q, block, MadeDrives<T>(block, panels, steps_together)); });
    }
}

}  // namespace momentumrnn::MOMENTUMRNN_ISA
