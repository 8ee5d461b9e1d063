// Adam and RMSProp along time, (15).
#pragma once

#include "adaptive_drive.h"

namespace momentumrnn::MOMENTUMRNN_ISA {

template <class T, bool output, class Drive>
NOINLINE void forward_step(const Coefficients<T>& given, const Drive& drive, const Place<T> out, Index count,
                           const State<T> from, const State<T> to, T floor) {
    const Coefficients<T> k = given;
    const Drive source = drive;
    for (Index i = 0; i < count; i += Simd<T>::lanes) {
        const Vector<T> a = load_drive(source, i);
        const Vector<T> v = load<T>(k.momentum + i) * load<T>(from.v + i) + load<T>(k.step_size + i) * a;
        const Vector<T> m = load<T>(k.beta + i) * load<T>(from.m + i) + load<T>(k.rest + i) * (a * a);
        store<T>(to.v + i, v);
        store<T>(to.m + i, m);
        if constexpr (output) put(out, i, v * reciprocal_root<T>(m + floor), count - i);
    }
}

// Steps whose drive is made at once: as many as the first cache holds.
constexpr Index steps_together = 8;

template <class T, class Drives>
void forward_block(const AdaptiveForward<T>& q, Block<T>& block, Drives drives) {
    const T floor = static_cast<T>(q.eps * q.eps);
    const bool streamed = streams(q, q.output);
    const Coefficients<T> k(block);
    const State<T> state{block.take(), block.take()};
    copy_or_clear(q.v_0, block.first, block.length, state.v);
    copy_or_clear(q.m_0, block.first, block.length, state.m);
    for (Index t = 0, before = block.length; before > 0; t++) {
        const Index count = block.running(t);
        copy(state.v + count, before - count, q.v_n + block.first + count);
        copy(state.m + count, before - count, q.m_n + block.first + count);
        before = count;
        if (count == 0) break;
        if (q.v_saved && t % q.interval == 0) {
            const Index saved = t / q.interval * q.rows.batch * q.channels + block.first;
            copy(state.v, count, q.v_saved + saved);
            copy(state.m, count, q.m_saved + saved);
        }
        if (t % steps_together == 0) drives.make(t, block.steps(t, steps_together));
        const Index at = block.place(t);
        const Index ahead = block.running(t + 1) > 0 ? block.place(t + 1) - at : 0;
        forward_step<T, true>(k, drives.at(t, ahead), {q.output + at, ahead, streamed}, count, state, state, floor);
    }
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
