// The rules along time.
#pragma once

#include "rule_drive.h"
#include "rule_steps.h"

namespace momentumrnn::MOMENTUMRNN_ISA {

// A block's states, or their carries: arrays of its elements.
template <class T, class Step> struct State {
    T* parts[Step::states];

    void load_into(Vector<T> (&s)[Step::states], Index i) const {
        for (int j = 0; j < Step::states; j++) s[j] = load<T>(parts[j] + i);
    }
    void store_from(const Vector<T> (&s)[Step::states], Index i) const {
        for (int j = 0; j < Step::states; j++) store<T>(parts[j] + i, s[j]);
    }
};

template <class T, class Step> State<T, Step> take_state(Block<T>& block) {
    State<T, Step> state;
    for (T*& part : state.parts) part = block.take();
    return state;
}

template <class T, class Step> Spread<T, Step::coefficients> take_coefficients(Block<T>& block) {
    Spread<T, Step::coefficients> k;
    for (Index j = 0; j < Step::coefficients; j++) k.rows[j] = block.spread(block.q.coefficients + j * block.q.channels);
    return k;
}

// The kept states before step t.
template <class T, class Step> State<T, Step> saved_state(const Block<T>& block, Index t) {
    const ChannelRule<T>& q = block.q;
    const Index row = q.rows.batch * q.channels, each = (q.rows.steps + q.interval - 1) / q.interval * row;
    State<T, Step> state;
    for (Index j = 0; j < Step::states; j++) state.parts[j] = q.saved + j * each + t / q.interval * row + block.first;
    return state;
}

template <class T, class Step> void copy(const State<T, Step>& from, Index count, const State<T, Step>& to) {
    for (int j = 0; j < Step::states; j++) copy<T>(from.parts[j], count, to.parts[j]);
}

template <class T, class Step, bool output, bool whole, class Drives>
INLINE void forward_column(const Spread<T, Step::coefficients>& given, double eps, const Drives& drives,
                           const State<T, Step>& from, const State<T, Step>& to, const Run<T>& out, Index steps, Index i,
                           Index left) {
    const Step step(given, i, eps);
    const auto drive = drives.template column<whole>(i, left);
    Vector<T> s[Step::states];
    from.load_into(s, i);
    for (Index k = 0; k < steps; k++) {
        const Vector<T> a = drive(k);
        step.advance(s, a, s);
        if constexpr (output) put<T, whole>(out, k, i, step.output(s, a), left);
    }
    to.store_from(s, i);
}

// The steps that `drives` has entered.
template <class T, class Step, bool output, class Drives>
NOINLINE void forward_run(const Spread<T, Step::coefficients>& k, double eps, const Drives& drives,
                          const State<T, Step>& from, const State<T, Step>& to, const Run<T>& out, Index steps,
                          Index length) {
    Index i = 0;
    for (; i + Simd<T>::lanes <= length; i += Simd<T>::lanes)
        forward_column<T, Step, output, true>(k, eps, drives, from, to, out, steps, i, length - i);
    if (i < length) forward_column<T, Step, output, false>(k, eps, drives, from, to, out, steps, i, length - i);
}

template <class T, class Step, class Drives>
void forward_block(const RuleForward<T>& q, Block<T>& block, Drives drives) {
    const bool streamed = streams(q, q.output);
    const auto k = take_coefficients<T, Step>(block);
    const auto state = take_state<T, Step>(block);
    for (int j = 0; j < Step::states; j++) copy_or_clear(q.initial[j], block.first, block.length, state.parts[j]);
    const Index all = block.steps();
    for (Index t = 0, next; t < all; t = next) {
        if (q.saved && t % q.interval == 0) copy(state, block.length, saved_state<T, Step>(block, t));
        next = std::min(t + steps_together, all);
        // Not beyond the next state that is saved.
        if (q.saved) next = std::min(next, (t / q.interval + 1) * q.interval);
        drives.make(t, next - t);
        drives.enter(t, next - t);
        Run<T> out = block.run(q.output, t, next - t);
        out.streamed = streamed;
        forward_run<T, Step, true>(k, q.eps, drives, state, state, out, next - t, block.length);
    }
    for (int j = 0; j < Step::states; j++) copy(state.parts[j], block.length, q.last[j] + block.first);
    end_streaming();
}

template <class T, class Step> void forward_of(const RuleForward<T>& q) {
    constexpr Index arrays = Step::coefficients + Step::states;
    if (!q.x) {
        for_blocks(q, arrays + ReadyDrives<T>::arrays, 0,
                   [&](Block<T> block) { forward_block<T, Step>(q, block, ReadyDrives<T>(block)); });
    } else if (q.features == 1) {
        for_blocks(q, arrays + SingleDrives<T>::arrays, 0,
                   [&](Block<T> block) { forward_block<T, Step>(q, block, SingleDrives<T>(block)); });
    } else {
        const DrivePanels<T> panels(q);
        for_blocks(q, arrays + steps_together, MadeDrives<T>::words(panels.depth, steps_together),
                   [&](Block<T> block) { forward_block<T, Step>(q, block, MadeDrives<T>(block, panels, steps_together)); });
    }
}

template <class T> void rule_forward(const RuleForward<T>& q) {
    switch (q.rule) {
    case Rule::adam: return forward_of<T, AdamStep<T>>(q);
    case Rule::real_filter: return forward_of<T, RealFilterStep<T>>(q);
    case Rule::complex_filter: return forward_of<T, ComplexFilterStep<T>>(q);
    }
}

}  // namespace momentumrnn::MOMENTUMRNN_ISA
