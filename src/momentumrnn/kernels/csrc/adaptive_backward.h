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

// One step's share of ∂L/∂b, and of one feature's ∂L/∂W; what was made for several steps is added up later.
template <class T> INLINE void add_to_weight(const StoredDrive<T>&, const Sums<T>&, Index, Vector<T>) {}
template <class T> INLINE void add_to_weight(const ReadyDrive<T>&, const Sums<T>& sums, Index i, Vector<T> grad) {
    if (sums.weight) add_to<T>(sums.weight + i, grad);
}
template <class T> INLINE void add_to_weight(const SingleDrive<T>& a, const Sums<T>& sums, Index i, Vector<T> grad) {
    if (!sums.weight) return;
    add_to<T>(sums.weight + i, splat<T>(a.x) * grad);
    add_to<T>(sums.weight + sums.pitch + i, grad);
}

template <class T, bool learned, class Drive>
NOINLINE void backward_step(const Coefficients<T>& given, const Drive& drive, const State<T> before,
                            const State<T> after, const Place<const T> in, const Place<T> out, Index count,
                            const State<T> grad, const Sums<T>& all, T floor) {
    const Coefficients<T> k = given;
    const Drive source = drive;
    const Sums<T> sums = all;
    T *const momentum = sums.coefficients, *const step_size = momentum + sums.pitch;
    T *const beta = step_size + sums.pitch, *const rest = beta + sums.pitch;
    for (Index i = 0; i < count; i += Simd<T>::lanes) {
        prefetch(in.at + in.ahead + i);
        const Vector<T> a = load_drive(source, i);
        const Vector<T> root = reciprocal_root<T>(load<T>(after.m + i) + floor);
        const Vector<T> scaled = load<T>(in.at + i, count - i) * root;
        const Vector<T> grad_v = load<T>(grad.v + i) + scaled;
        // In this order no product leaves float32's range: at m = 0 the root is 1 / ε.
        const Vector<T> grad_m = load<T>(grad.m + i) - T(0.5) * scaled * (load<T>(after.v + i) * root * root);
        const Vector<T> through_m = (a + a) * load<T>(k.rest + i) * grad_m;
        const Vector<T> grad_a = load<T>(k.step_size + i) * grad_v + through_m;
        if (out.at) put(out, i, grad_a, count - i);
        add_to_weight(source, sums, i, grad_a);
        if constexpr (learned) {
            add_to<T>(momentum + i, grad_v * load<T>(before.v + i));
            add_to<T>(step_size + i, grad_v * a);
            add_to<T>(beta + i, grad_m * load<T>(before.m + i));
            add_to<T>(rest + i, grad_m * (a * a));
        }
        store<T>(grad.v + i, grad_v * load<T>(k.momentum + i));
        store<T>(grad.m + i, grad_m * load<T>(k.beta + i));
    }
}

// `totals`: a row of all elements for each of the sums.
template <class T, bool learned, class Drives>
void backward_block(const AdaptiveBackward<T>& q, Block<T>& block, Drives drives, Index weights, T* totals) {
    const T floor = static_cast<T>(q.eps * q.eps);
    const Index row = q.rows.batch * q.channels, first = block.first, interval = q.interval;
    // What was just read from the same place is in the cache.
    const bool streamed = q.grad_drive != q.product && streams(q, q.grad_drive);
    const Coefficients<T> k(block);
    const State<T> grad{block.take(), block.take()};
    const Sums<T> sums(block, learned, weights);
    // What held before each step of an interval, and after its last.
    const auto state = [&, pitch = sums.pitch](Index step) {
        return State<T>{block.scratch + 2 * step * pitch, block.scratch + (2 * step + 1) * pitch};
    };
    // The last vector reaches beyond the running sequences; nothing there may be a NaN.
    const auto close = [](const State<T>& s, Index count) {
        clear(s.v + count, whole_lines<T>(count) - count);
        clear(s.m + count, whole_lines<T>(count) - count);
    };
    Index entered = 0;
    const auto enter = [&](Index count) {
        copy_or_clear(q.grad_v_n, first + entered, count - entered, grad.v + entered);
        copy_or_clear(q.grad_m_n, first + entered, count - entered, grad.m + entered);
        entered = count;
    };

    for (Index begin = (q.rows.steps - 1) / interval * interval; begin >= 0; begin -= interval) {
        const Index steps = block.steps(begin, interval);
        if (steps == 0) continue;
        copy(q.v_saved + begin / interval * row + first, block.running(begin), state(0).v);
        copy(q.m_saved + begin / interval * row + first, block.running(begin), state(0).m);
        close(state(0), block.running(begin));
        drives.make(begin, steps);
        for (Index step = 0; step < steps; step++) {
            const Index t = begin + step, count = block.running(t);
            const Index ahead = step + 1 < steps ? block.place(t + 1) - block.place(t) : 0;
            forward_step<T, false>(k, drives.at(t, ahead), {}, count, state(step), state(step + 1), floor);
            close(state(step + 1), count);
        }
        for (Index step = steps; step-- > 0;) {
            const Index t = begin + step, at = block.place(t), count = block.running(t);
            const Index ahead = t > 0 ? block.place(t - 1) - at : 0;
            if (count > entered) enter(count);
            const Place<T> out = drives.gradient(t, q.grad_drive ? Place<T>{q.grad_drive + at, ahead, streamed} : Place<T>{});
            backward_step<T, learned>(k, drives.at(t, 0), state(step), state(step + 1), {q.grad_output + at, ahead},
                                      out, count, grad, sums, floor);
        }
        drives.collect(begin, steps, sums.weight, q.grad_drive);
        settle(sums);
    }
    enter(block.length);
    if (q.grad_v_0) copy(grad.v, block.length, q.grad_v_0 + first);
    if (q.grad_m_0) copy(grad.m, block.length, q.grad_m_0 + first);
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
    const Index arrays = Coefficients<T>::count + 2 + 3 * (coefficients + weights) + 2 * (interval + 1);
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
