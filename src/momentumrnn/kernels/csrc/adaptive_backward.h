// Adam and RMSProp back along time.
#pragma once

#include "adaptive_forward.h"

namespace momentumrnn::MOMENTUMRNN_ISA {

// Gradients that all steps add to, element by element: of the steps of one interval, of all steps, and what
// rounding took from these.
template <class T> struct Sums {
    Index count, pitch;
    T *part, *total, *lost;
    // Of the parts, those of μ, s, β and 1 - β; and those of W, a row for each feature, and b, null where not
    // wanted.
    T *coefficients, *weight;

    Sums(Block<T>& block, bool learned, Index weights)
        : count((learned ? Coefficients<T>::count : 0) + weights), pitch(block.pitch(block.length)),
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

// With g = -2 ∂L/∂m, which `grad.m` holds, and ρ = 1 / √(m + ε²):
//
//     ∂L/∂v += ρ ∂L/∂d,    g += ρ ∂L/∂d · v ρ²,    ∂L/∂a = s ∂L/∂v - (1 - β) a g.
template <class T, bool learned, bool whole, class Drives>
INLINE void backward_column(const Coefficients<T>& given, const Drives& drives, const State<T>& from,
                            const Run<const T>& in, Index ahead, const Run<T>& out, Index steps, const State<T>& grad,
                            const Sums<T>& sums, Index i, Index left, T floor) {
    const Step<T> step(given, i);
    const auto drive = drives.template column<whole>(i, left);
    Vector<T> v[steps_together + 1], m[steps_together + 1];
    v[0] = load<T>(from.v + i);
    m[0] = load<T>(from.m + i);
    for (Index k = 0; k < steps; k++) {
        const Vector<T> a = drive(k);
        v[k + 1] = step.v(v[k], a);
        m[k + 1] = step.m(m[k], a);
    }
    Vector<T> grad_v = load<T>(grad.v + i), g = load<T>(grad.m + i);
    // What a run is given of the step behind it is multiplied already.
    Vector<T> momentum = splat<T>(T(1)), beta = momentum;
    // One more of the first, since an array has to have an element.
    Vector<T> weight[Drives::sums + 1] = {}, coefficients[Coefficients<T>::count] = {};
    for (Index k = steps; k-- > 0;) {
        const Vector<T> a = drive(k);
        const Vector<T> root = reciprocal_root<T>(m[k + 1] + floor);
        // Caches foresee a run of reads, but not the jump to the next run.
        prefetch_later(in.at[k] + ahead + i);
        const Vector<T> scaled = read<T, whole>(in.at[k] + i, left) * root;
        grad_v = momentum * grad_v + scaled;
        // In this order no product leaves float32's range: at m = 0 the root is 1 / ε.
        g = beta * g + scaled * (v[k + 1] * root * root);
        const Vector<T> grad_a = step.step_size * grad_v - a * (step.rest * g);
        if (out.at[0]) put<T, whole>(out, k, i, grad_a, left);
        drive.add_up(k, grad_a, weight);
        if constexpr (learned) {
            coefficients[0] += grad_v * v[k];
            coefficients[1] += grad_v * a;
            coefficients[2] -= T(0.5) * g * m[k];
            coefficients[3] -= T(0.5) * g * (a * a);
        }
        momentum = step.momentum;
        beta = step.beta;
    }
    store<T>(grad.v + i, momentum * grad_v);
    store<T>(grad.m + i, beta * g);
    for (int j = 0; sums.weight && j < Drives::sums; j++) add_to<T>(sums.weight + j * sums.pitch + i, weight[j]);
    for (int j = 0; learned && j < Coefficients<T>::count; j++)
        add_to<T>(sums.coefficients + j * sums.pitch + i, coefficients[j]);
}

// Back through the steps that `drives` has entered, `from` being what held before them; `in` will next be read about
// `ahead` elements away.
template <class T, bool learned, class Drives>
NOINLINE void backward_run(const Coefficients<T>& k, const Drives& drives, const State<T>& from, const Run<const T>& in,
                           Index ahead, const Run<T>& out, Index steps, const State<T>& grad, const Sums<T>& sums,
                           Index length, T floor) {
    Index i = 0;
    for (; i + Simd<T>::lanes <= length; i += Simd<T>::lanes)
        backward_column<T, learned, true>(k, drives, from, in, ahead, out, steps, grad, sums, i, length - i, floor);
    if (i < length)
        backward_column<T, learned, false>(k, drives, from, in, ahead, out, steps, grad, sums, i, length - i, floor);
}

// `totals`: a row of all elements for each of the sums.
template <class T, bool learned, class Drives>
void backward_block(const AdaptiveBackward<T>& q, Block<T>& block, Drives drives, Index weights, T* totals) {
    const T floor = static_cast<T>(q.eps * q.eps);
    const Index row = q.rows.batch * q.channels, first = block.first, all = block.steps(), interval = q.interval;
    // What was just read from the same place is in the cache.
    const bool streamed = q.grad_drive != q.product && streams(q, q.grad_drive);
    const Coefficients<T> k(block);
    const State<T> grad{block.take(), block.take()};
    const Sums<T> sums(block, learned, weights);
    // What held before each run of an interval.
    T* const states = block.take(2 * runs(std::min(interval, all)));
    const auto state = [&](Index run) {
        return State<T>{states + 2 * run * sums.pitch, states + (2 * run + 1) * sums.pitch};
    };
    copy_or_clear(q.grad_v_n, first, block.length, grad.v);
    for (Index i = 0; q.grad_m_n && i < block.length; i++) grad.m[i] = T(-2) * q.grad_m_n[first + i];
    for (Index begin = (all - 1) / interval * interval; begin >= 0; begin -= interval) {
        const Index end = std::min(begin + interval, all);
        copy(q.v_saved + begin / interval * row + first, block.length, state(0).v);
        copy(q.m_saved + begin / interval * row + first, block.length, state(0).m);
        drives.make(begin, end - begin);
        for (Index t = begin, run = 0; t + steps_together < end; t += steps_together, run++) {
            drives.enter(t, steps_together);
            forward_run<T, false>(k, drives, state(run), state(run + 1), {}, steps_together, block.length, floor);
        }
        for (Index run = runs(end - begin); run-- > 0;) {
            const Index t = begin + run * steps_together, steps = std::min(steps_together, end - t);
            const Index ahead = block.place(std::max<Index>(0, t - steps_together)) - block.place(t);
            drives.enter(t, steps);
            Run<T> out;
            if (q.grad_drive) out = block.run(q.grad_drive, t, steps);
            out.streamed = streamed;
            backward_run<T, learned>(k, drives, state(run), block.run(q.grad_output, t, steps), ahead,
                                     drives.gradient(out), steps, grad, sums, block.length, floor);
        }
        drives.collect(begin, end - begin, sums.weight, q.grad_drive);
        settle(sums);
    }
    if (q.grad_v_0) copy(grad.v, block.length, q.grad_v_0 + first);
    for (Index i = 0; q.grad_m_0 && i < block.length; i++) q.grad_m_0[first + i] = T(-0.5) * grad.m[i];
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
template <class T> Index weight_rows(const AdaptiveBackward<T>& q) { return q.x ? q.features + 1 : 1; }

// The sums of all blocks as the gradients of the coefficients where they are learned, of W and of b.
template <class T> void sum_batch(const AdaptiveBackward<T>& q, Index coefficients, Index weights, const T* totals) {
    const Index row = q.rows.batch * q.channels, D = weight_rows(q) - 1, C = q.channels;
    const Buffer<T> turned(static_cast<size_t>(q.grad_weight ? D * C : 0));
    T* const of_coefficients[] = {q.grad_momentum, q.grad_step_size, q.grad_beta, q.grad_rest};
    const auto result = [&](Index j) -> T* {
        if (j < coefficients) return of_coefficients[j];
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

template <class T> void adaptive_backward(const AdaptiveBackward<T>& q) {
    const bool learned = q.grad_momentum != nullptr;
    const Index coefficients = learned ? Coefficients<T>::count : 0;
    const Index weights = q.grad_weight || q.grad_bias ? weight_rows(q) : 0;
    const Index interval = std::min(q.interval, q.rows.steps);
    const Index arrays = Coefficients<T>::count + 2 + 3 * (coefficients + weights) + 2 * runs(interval);
    const Buffer<T> totals(static_cast<size_t>((coefficients + weights) * q.rows.batch * q.channels));
    const auto run = [&](Block<T>& block, auto drives) {
        learned ? backward_block<T, true>(q, block, drives, weights, totals)
                : backward_block<T, false>(q, block, drives, weights, totals);
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

}  // namespace momentumrnn::MOMENTUMRNN_ISA
