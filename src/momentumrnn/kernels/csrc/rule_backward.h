// The rules back along time.
#pragma once

#include "rule_forward.h"

namespace momentumrnn::MOMENTUMRNN_ISA {

// Gradients that all steps add to, element by element: of the steps of one interval, of all steps, and what
// rounding took from these.
template <class T> struct Sums {
    Index count, pitch;
    T *part, *total, *lost;
    // Of the parts, those of the rule's; and those of W, a row for each feature, and b, null where not
    // wanted.
    T *coefficients, *weight;

    Sums(Block<T>& block, Index own, Index weights)
        : count(own + weights), pitch(block.pitch(block.length)),
          part(block.take(count)), total(block.take(count)), lost(block.take(count)),
          coefficients(part), weight(weights ? part + (count - weights) * pitch : nullptr) {}
};

// Kahan's addition to the total: tens of thousands of steps in float32 keep their digits.
template <class T> NOINLINE void settle(const Sums<T>& sums) {
    const Index count = sums.count * sums.pitch;
    T *const part = sums.part, *const total = sums.total, *const lost = sums.lost;
    for (Index i = 0; i < count; i += Simd<T>::lanes) {
        const Vector<T> before = load<T>(total + i);
        const Vector<T> term = load<T>(part + i) - load<T>(lost + i);
        const Vector<T> after = before + term;
        store<T>(total + i, after);
        store<T>(lost + i, (after - before) - term);
        store<T>(part + i, Vector<T>{});
    }
}

template <class T> INLINE void add_to(T* at, Vector<T> term) { store<T>(at, load<T>(at) + term); }

// The gradients of a linear rule's drive and weights depend on no state, those of its coefficients do.
template <class Step, bool learned> constexpr bool needs_states = learned || !Step::linear;

template <class T, class Step, bool learned, bool whole, class Drives>
INLINE void backward_column(const Spread<T, Step::coefficients>& given, double eps, const Drives& drives,
                            const State<T, Step>& from, const Run<const T>& in, Index ahead, const Run<T>& out, Index steps,
                            const State<T, Step>& grad, const Sums<T>& sums, Index i, Index left) {
    const Step step(given, i, eps);
    const auto drive = drives.template column<whole>(i, left);
    Vector<T> s[steps_together + 1][Step::states];
    if constexpr (needs_states<Step, learned>) {
        from.load_into(s[0], i);
        for (Index k = 0; k < steps; k++) step.advance(s[k], drive(k), s[k + 1]);
    }
    Vector<T> carry[Step::states], coefficients[Step::coefficients] = {};
    grad.load_into(carry, i);
    // One more of the first, since an array has to have an element.
    Vector<T> weight[Drives::sums + 1] = {};
    for (Index k = steps; k-- > 0;) {
        // Caches foresee a run of reads, but not the jump to the next run.
        prefetch_later(in.at[k] + ahead + i);
        const Vector<T> a = needs_states<Step, learned> ? drive(k) : Vector<T>{};
        const Vector<T> grad_a =
            step.template back<learned>(read<T, whole>(in.at[k] + i, left), a, s[k], s[k + 1], carry, coefficients);
        if (out.at[0]) put<T, whole>(out, k, i, grad_a, left);
        drive.add_up(k, grad_a, weight);
    }
    grad.store_from(carry, i);
    for (int j = 0; sums.weight && j < Drives::sums; j++) add_to<T>(sums.weight + j * sums.pitch + i, weight[j]);
    for (int j = 0; learned && j < Step::coefficients; j++)
        add_to<T>(sums.coefficients + j * sums.pitch + i, coefficients[j]);
}

// Back through the steps that `drives` has entered, `from` being what held before them; `in` will next be read about
// `ahead` elements away.
template <class T, class Step, bool learned, class Drives>
NOINLINE void backward_run(const Spread<T, Step::coefficients>& k, double eps, const Drives& drives,
                           const State<T, Step>& from, const Run<const T>& in, Index ahead, const Run<T>& out, Index steps,
                           const State<T, Step>& grad, const Sums<T>& sums, Index length) {
    Index i = 0;
    for (; i + Simd<T>::lanes <= length; i += Simd<T>::lanes)
        backward_column<T, Step, learned, true>(k, eps, drives, from, in, ahead, out, steps, grad, sums, i, length - i);
    if (i < length)
        backward_column<T, Step, learned, false>(k, eps, drives, from, in, ahead, out, steps, grad, sums, i, length - i);
}

// `totals`: a row of all elements for each of the sums.
template <class T, class Step, bool learned, class Drives>
void backward_block(const RuleBackward<T>& q, Block<T>& block, Drives drives, Index weights, T* totals) {
    const Index row = q.rows.batch * q.channels, first = block.first, all = block.steps(), interval = q.interval;
    // What was just read from the same place is in the cache.
    const bool streamed = q.grad_drive != q.product && streams(q, q.grad_drive);
    const auto k = take_coefficients<T, Step>(block);
    const auto grad = take_state<T, Step>(block);
    const Sums<T> sums(block, learned ? Step::coefficients : 0, weights);
    // What held before each run of an interval.
    T* const states = block.take(Step::states * runs(std::min(interval, all)));
    const auto state = [&](Index run) {
        State<T, Step> at;
        for (int j = 0; j < Step::states; j++) at.parts[j] = states + (Step::states * run + j) * sums.pitch;
        return at;
    };
    for (int j = 0; j < Step::states; j++)
        for (Index i = 0; q.grad_last[j] && i < block.length; i++)
            grad.parts[j][i] = Step::scale[j] * q.grad_last[j][first + i];
    for (Index begin = (all - 1) / interval * interval; begin >= 0; begin -= interval) {
        const Index end = std::min(begin + interval, all);
        drives.make(begin, end - begin);
        if constexpr (needs_states<Step, learned>) {
            copy(saved_state<T, Step>(block, begin), block.length, state(0));
            for (Index t = begin, run = 0; t + steps_together < end; t += steps_together, run++) {
                drives.enter(t, steps_together);
                forward_run<T, Step, false>(k, q.eps, drives, state(run), state(run + 1), {}, steps_together, block.length);
            }
        }
        for (Index run = runs(end - begin); run-- > 0;) {
            const Index t = begin + run * steps_together, steps = std::min(steps_together, end - t);
            const Index ahead = block.place(std::max<Index>(0, t - steps_together)) - block.place(t);
            drives.enter(t, steps);
            Run<T> out;
            if (q.grad_drive) out = block.run(q.grad_drive, t, steps);
            out.streamed = streamed;
            backward_run<T, Step, learned>(k, q.eps, drives, state(run), block.run(q.grad_output, t, steps), ahead,
                                           drives.gradient(out), steps, grad, sums, block.length);
        }
        drives.collect(begin, end - begin, sums.weight, q.grad_drive);
        settle(sums);
    }
    for (int j = 0; j < Step::states; j++)
        for (Index i = 0; q.grad_initial[j] && i < block.length; i++)
            q.grad_initial[j][first + i] = grad.parts[j][i] / Step::scale[j];
    for (Index j = 0; j < sums.count; j++) copy(sums.total + j * sums.pitch, block.length, totals + j * row + first);
    end_streaming();
}

// The sum over the batch, in two levels for float32's sake.
template <class T> void sum_rows(const T* rows, Index batch, Index channels, T* sum) {
    constexpr Index together = 32;
    for (Index c = 0; c < channels; c += Simd<T>::lanes) {
        Vector<T> total{};
        for (Index b = 0; b < batch; b += together) {
            Vector<T> part{};
            for (Index i = b; i < std::min(b + together, batch); i++)
                part += load<T>(rows + i * channels + c, channels - c);
            total += part;
        }
        store<T>(sum + c, total, channels - c);
    }
}

// The rows of sums for ∂L/∂W, where it is added up here, and ∂L/∂b.
template <class T> Index weight_rows(const RuleBackward<T>& q) { return q.x ? q.features + 1 : 1; }

// The sums of all blocks as the gradients of the coefficients where they are learned, of W and of b.
template <class T> void sum_batch(const RuleBackward<T>& q, Index coefficients, Index weights, const T* totals) {
    const Index row = q.rows.batch * q.channels, D = weight_rows(q) - 1, C = q.channels;
    const Buffer<T> turned(static_cast<size_t>(q.grad_weight ? D * C : 0));
    const auto result = [&](Index j) -> T* {
        if (j < coefficients) return q.grad_coefficients + j * C;
        const Index d = j - coefficients;
        return d == D ? q.grad_bias : q.grad_weight ? turned + d * C : nullptr;
    };
    const Index sums = coefficients + weights;
    const int parts = sharers(q, sums * row, sums);
    parallel(parts, [&](int part) {
        const FlushDenormals flush;
        for (Index j = part; j < sums; j += parts)
            if (T* const to = result(j)) sum_rows<T>(totals + j * row, q.rows.batch, C, to);
    });
    for (Index c = 0; q.grad_weight && c < C; c++)
        for (Index d = 0; d < D; d++) q.grad_weight[c * D + d] = turned[d * C + c];
}

template <class T, class Step> void backward_of(const RuleBackward<T>& q) {
    const bool learned = q.grad_coefficients != nullptr;
    const Index coefficients = learned ? Step::coefficients : 0;
    const Index weights = q.grad_weight || q.grad_bias ? weight_rows(q) : 0;
    const Index interval = std::min(q.interval, q.rows.steps);
    const Index arrays = Step::coefficients + Step::states + 3 * (coefficients + weights) + Step::states * runs(interval);
    const Buffer<T> totals(static_cast<size_t>((coefficients + weights) * q.rows.batch * q.channels));
    const auto run = [&](Block<T>& block, auto drives) {
        learned ? backward_block<T, Step, true>(q, block, drives, weights, totals)
                : backward_block<T, Step, false>(q, block, drives, weights, totals);
    };
    if (!q.x) {
        for_blocks(q, arrays + ReadyDrives<T>::arrays, 0, [&](Block<T> block) { run(block, ReadyDrives<T>(block)); });
    } else if (q.features == 1) {
        for_blocks(q, arrays + SingleDrives<T>::arrays, 0,
                   [&](Block<T> block) { run(block, SingleDrives<T>(block)); });
    } else {
        const DrivePanels<T> panels(q);
        for_blocks(q, arrays + interval, MadeDrives<T>::words(panels.depth, interval),
                   [&](Block<T> block) { run(block, MadeDrives<T>(block, panels, interval)); });
    }
    sum_batch<T>(q, coefficients, weights, totals);
}

template <class T> void rule_backward(const RuleBackward<T>& q) {
    switch (q.rule) {
    case Rule::adam: return backward_of<T, AdamStep<T>>(q);
    case Rule::real_filter: return backward_of<T, RealFilterStep<T>>(q);
    case Rule::complex_filter: return backward_of<T, ComplexFilterStep<T>>(q);
    }
}

}  // namespace momentumrnn::MOMENTUMRNN_ISA
