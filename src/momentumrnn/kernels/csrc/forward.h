// The forward pass of a recurrence.
#pragma once

#include "cells.h"
#include "threads.h"
#include "weights.h"
#include "work.h"

namespace momentumrnn::MOMENTUMRNN_ISA {

template <class T, class Cell> class ForwardRun {
public:
    explicit ForwardRun(const Forward<T>& p)
        : p_(p), blocks_{p.hidden}, weights_(p), stride_(row_stride<T>(blocks_.padded())),
          state_(static_cast<size_t>(2 * p.rows.batch * stride_)), sums_(static_cast<size_t>(p.threads) * sums_size),
          streams_gates_(can_stream(p.gates, p.gates_pitch)), streams_cells_(can_stream(p.cells, p.hidden)) {}

    void run() {
        parallel(p_.threads, [&](int part) {
            for (Index i = part; i < blocks_.count() * Cell::slots; i += p_.threads)
                weights_.pack(i / Cell::slots, static_cast<int>(i % Cell::slots));
            for (Index r = part; r < p_.rows.batch; r += p_.threads) start(r);
        });
        if (p_.split == Split::rows) {
            const std::vector<Share> shares = share_rows(p_.rows, p_.threads, blocks_.count());
            parallel(p_.threads, [&](int part) {
                const FlushDenormals guard;
                for (Index t = 0; t < p_.rows.steps; t++) step(t, shares[part], sums_ + part * sums_size);
                end_streaming();
            });
        } else {
            team(p_.threads, [&](const Member& me) {
                const FlushDenormals guard;
                const Share share = share_blocks(p_.rows, me.id, me.members, blocks_.count());
                for (Index t = 0; t < p_.rows.steps; t++) {
                    step(t, share, sums_ + me.id * sums_size);
                    me.wait();
                }
                end_streaming();
            });
        }
        finish();
    }

private:
    using V = Vector<T>;
    static constexpr Index L = Simd<T>::lanes;
    static constexpr Index width = ColumnBlocks<T>::width;
    // Rows whose h and sums stay in the first cache while the panels pass by.
    static constexpr Index group = 24;
    static constexpr Index sums_size = group * Cell::slots * width;
    // Panels that the second cache holds are read again for each group of rows; larger ones once a step.
    static constexpr size_t held_in_cache = size_t(3) << 18;

    bool can_stream(const T* array, Index pitch) const {
        const size_t elements = static_cast<size_t>(p_.rows.total() * p_.hidden * (Cell::saved + 1));
        return beyond_cache(elements * sizeof(T)) && in_vectors(array, pitch);
    }

    T* state(Index t) const { return state_ + (t & 1) * p_.rows.batch * stride_; }

    void start(Index r) {
        T* h = state(0) + r * stride_;
        std::copy(p_.h_0 + r * p_.hidden, p_.h_0 + (r + 1) * p_.hidden, h);
        if constexpr (Cell::has_c) std::copy(p_.c_0 + r * p_.hidden, p_.c_0 + (r + 1) * p_.hidden, p_.c_n + r * p_.hidden);
    }

    void step(Index t, const Share& share, T* sums) {
        const Index running = share.running(p_.rows, t);
        const Index groups = (running + group - 1) / group;
        // To and fro, so that a step begins with the panels that the last one left in the cache.
        const auto block_at = [&](Index i) { return t & 1 ? share.block_end - 1 - i : share.block + i; };
        const Index blocks = share.block_end - share.block;
        const auto run = [&](Index g, Index i) {
            const Index r0 = share.row + running * g / groups, r1 = share.row + running * (g + 1) / groups;
            multiply_block(t, r0, r1 - r0, block_at(i), sums);
            activate<0>(r1 - r0, sums);
            cell_block(t, r0, r1 - r0, block_at(i), sums);
        };
        if (weights_.bytes() <= held_in_cache) {
            for (Index g = 0; g < groups; g++)
                for (Index i = 0; i < blocks; i++) run(g, i);
        } else {
            for (Index i = 0; i < blocks; i++)
                for (Index g = 0; g < groups; g++) run(g, i);
        }
    }

    // A single row, of a cell whose slots are its gates: all of them in one pass, so that there are enough sums to
    // keep the arithmetic busy.
    NOINLINE_MEMBER void multiply_row(Index t, Index r, Index block, T* sums) {
        constexpr int S = Cell::slots;
        const Index row = p_.rows.first(t) + r;
        const T* panel[S];
        V sum[S][2];
        for (int s = 0; s < S; s++) {
            panel[s] = weights_.panel(block, s);
            const T* bias = weights_.bias(block, s);
            const T* ready = p_.ready ? p_.ready + row * S * p_.hidden + s * p_.hidden + block * width : nullptr;
            for (int v = 0; v < 2; v++) {
                sum[s][v] = load<T>(bias + v * L);
                if (ready) sum[s][v] += load<T>(ready + v * L, blocks_.columns_in(block) - v * L);
            }
        }
        const auto add = [&](const T* a, Index k) {
            for (Index i = 0; i < k; i++) {
                const V x = splat(a[i]);
                UNROLL
                for (int s = 0; s < S; s++)
                    UNROLL
                    for (int v = 0; v < 2; v++) sum[s][v] += x * load<T>(panel[s] + v * L);
                UNROLL
                for (int s = 0; s < S; s++) panel[s] += width;
            }
        };
        add(state(t) + r * stride_, p_.hidden);
        if (!p_.ready) add(p_.x + row * p_.features, p_.features);
        for (int s = 0; s < S; s++)
            for (int v = 0; v < 2; v++) store<T>(sums + s * group * width + v * L, sum[s][v]);
    }

    void multiply_block(Index t, Index r0, Index rows, Index block, T* sums) {
        if constexpr (Cell::gates == Cell::slots && Cell::slots > 1)
            if (rows == 1 && blocks_.vectors(block) == 2) return multiply_row(t, r0, block, sums);
        const Index row = p_.rows.first(t) + r0, columns = Cell::gates * p_.hidden;
        for (int s = 0; s < Cell::slots; s++) {
            const T* h = state(t) + r0 * stride_;
            Tile<T> q{};
            q.a = h;
            q.lda = stride_;
            q.k = weights_.hidden_depth(s);
            q.panel = weights_.panel(block, s);
            q.k2 = weights_.feature_depth(s);
            if (q.k2) {
                q.a2 = p_.x + row * p_.features;
                q.lda2 = p_.features;
            }
            if (p_.ready && Cell::weight_ih_gate[s] >= 0) {
                q.start = p_.ready + row * columns + Cell::weight_ih_gate[s] * p_.hidden + block * width;
                q.start_ld = columns;
            }
            q.bias = weights_.bias(block, s);
            if (q.start && t + 1 < p_.rows.steps)
                for (Index r = 0; r < rows; r++)
                    for (int v = 0; v < 2; v++) prefetch_later(q.start + (p_.rows.running(t) + r) * columns + v * L);
            q.c = sums + s * group * width;
            q.ldc = width;
            q.columns = blocks_.columns_in(block);
            product<T>(rows, blocks_.vectors(block), q);
        }
    }

    // Slot by slot, so that long chains of dependent instructions run beside each other.
    template <int slot> static void activate(Index rows, T* sums) {
        if constexpr (slot < Cell::slots) {
            if constexpr (Cell::activates[slot])
                for (T* at = sums + slot * group * width; at < sums + (slot * group + rows) * width; at += L)
                    store<T>(at, Cell::template activate<slot>(load<T>(at)));
            activate<slot + 1>(rows, sums);
        }
    }

    void cell_block(Index t, Index r0, Index rows, Index block, const T* sums) {
        if (blocks_.columns_in(block) == width) cell_rows<true>(t, r0, rows, block, sums);
        else cell_rows<false>(t, r0, rows, block, sums);
    }

    template <bool whole> NOINLINE_MEMBER void cell_rows(Index t, Index r0, Index rows, Index block, const T* sums) {
        const Index H = p_.hidden, P = p_.gates_pitch, unit = block * width, columns = blocks_.columns_in(block);
        const int vectors = whole ? 2 : blocks_.vectors(block);
        const Index row = p_.rows.first(t) + r0;
        const bool keeps = p_.gates || p_.cells;
        const T* h_before = state(t) + r0 * stride_ + unit;
        T* h_after = state(t + 1) + r0 * stride_ + unit;
        T* output = p_.output + row * H + unit;
        T* c_at = Cell::has_c ? p_.c_n + r0 * H + unit : nullptr;
        T* gates = Cell::saved && keeps ? p_.gates + row * Cell::saved * P + unit : nullptr;
        T* cells = Cell::has_c && keeps ? p_.cells + row * H + unit : nullptr;
        for (Index r = 0; r < rows; r++) {
            UNROLL
            for (int v = 0; v < vectors; v++) {
                const Index at = v * L, left = columns - at;
                V sum[Cell::slots], keep[Cell::saved + 1], h, c = V{}, before = V{}, modrelu_bias = V{};
                UNROLL
                for (int s = 0; s < Cell::slots; s++) sum[s] = load<T>(sums + (s * group + r) * width + at);
                if constexpr (Cell::has_c) c = read<T, whole>(c_at + at, left);
                if constexpr (Cell::reads_h) before = load<T>(h_before + at);
                if constexpr (Cell::has_modrelu_bias) modrelu_bias = read<T, whole>(p_.modrelu_bias + unit + at, left);
                Cell::forward(sum, before, modrelu_bias, h, c, keep);
                store<T>(h_after + at, h);
                write<T, whole>(output + at, h, left);
                if constexpr (Cell::has_c) write<T, whole>(c_at + at, c, left);
                if (!keeps) continue;
                // A pitch of whole vectors has room for the last one.
                if (streams_gates_) {
                    UNROLL
                    for (int s = 0; s < Cell::saved; s++) stream<T>(gates + s * P + at, keep[s]);
                } else {
                    UNROLL
                    for (int s = 0; s < Cell::saved; s++) write<T, whole>(gates + s * P + at, keep[s], left);
                }
                if constexpr (!Cell::has_c) continue;
                if (whole && streams_cells_) stream<T>(cells + at, c);
                else write<T, whole>(cells + at, c, left);
            }
            h_before += stride_;
            h_after += stride_;
            output += H;
            if constexpr (Cell::has_c) c_at += H;
            if constexpr (Cell::saved > 0) gates += keeps ? Cell::saved * P : 0;
            if constexpr (Cell::has_c) cells += keeps ? H : 0;
        }
    }

    void finish() {
        const Index H = p_.hidden;
        for (Index r = 0, t = p_.rows.steps - 1; r < p_.rows.batch; r++) {
            while (p_.rows.running(t) <= r) t--;
            const T* last = p_.output + (p_.rows.first(t) + r) * H;
            std::copy(last, last + H, p_.h_n + r * H);
        }
    }

    const Forward<T>& p_;
    ColumnBlocks<T> blocks_;
    ForwardWeights<T, Cell> weights_;
    Index stride_;
    Buffer<T> state_, sums_;
    bool streams_gates_, streams_cells_;
};

}  // namespace momentumrnn::MOMENTUMRNN_ISA
