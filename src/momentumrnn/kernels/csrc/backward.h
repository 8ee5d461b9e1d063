// The backward pass of a recurrence.
//
// Time runs backwards in chunks. A chunk's dL/d(slots), and the h and x beside them, stay in scratch memory
// that fits the cache; at its end they are multiplied into the gradients of U and W.
#pragma once

#include "gradients.h"

namespace momentumrnn::MOMENTUMRNN_ISA {

template <class T, class Cell> class BackwardRun {
public:
    explicit BackwardRun(const Backward<T>& p)
        : p_(p), blocks_{p.hidden}, to_hidden_(p.weight_hh, Cell::weight_hh_gate, p.hidden, p.hidden),
          to_features_(p.grad_x ? p.weight_ih : nullptr, Cell::weight_ih_gate, p.hidden, p.grad_x ? p.features : 0),
          stride_(row_stride<T>(blocks_.padded())), grad_h_(static_cast<size_t>(p.rows.batch * stride_)),
          grad_c_(Cell::has_c ? static_cast<size_t>(p.rows.batch * stride_) : 0),
          streams_ready_(beyond_cache(static_cast<size_t>(p.rows.total() * p.hidden * Cell::gates) * sizeof(T))) {
        if (p.split == Split::rows) shares_ = share_rows(p.rows, p.threads, blocks_.count());
        else shares_ = {share_blocks(p.rows, 0, 1, blocks_.count())};
        for (const Share& share : shares_)
            scratch_.push_back(std::make_unique<Gradients<T, Cell>>(p, share, shares_.size() == 1));
    }

    void run() {
        parallel(p_.threads, [&](int part) {
            for (Index b = part; b < blocks_.count(); b += p_.threads) to_hidden_.pack(b);
            for (Index b = part; b < to_features_.blocks().count(); b += p_.threads) to_features_.pack(b);
        });
        if (p_.split == Split::rows) {
            parallel(p_.threads, [&](int part) {
                Barrier unused;
                steps(shares_[part], {0, 1, &unused}, *scratch_[part]);
            });
        } else {
            team(p_.threads, [&](const Member& me) {
                steps(share_blocks(p_.rows, me.id, me.members, blocks_.count()), me, *scratch_[0]);
            });
        }
        parallel(p_.threads, [&](int part) {
            const Share share = share_blocks(p_.rows, part, p_.threads, blocks_.count());
            collect<T, Cell>(scratch_, p_, share.block, share.block_end);
        });
        for (Index r = 0; r < p_.rows.batch; r++) {
            std::copy(grad_h_ + r * stride_, grad_h_ + r * stride_ + p_.hidden, p_.grad_h_0 + r * p_.hidden);
            if constexpr (Cell::has_c)
                std::copy(grad_c_ + r * stride_, grad_c_ + r * stride_ + p_.hidden, p_.grad_c_0 + r * p_.hidden);
        }
    }

private:
    using V = Vector<T>;
    static constexpr Index L = Simd<T>::lanes;
    static constexpr Index width = ColumnBlocks<T>::width;

    void steps(const Share& share, const Member& me, Gradients<T, Cell>& scratch) {
        const FlushDenormals guard;
        scratch.clear(share);
        for (Index end = p_.rows.steps; end > 0;) {
            const Index begin = scratch.chunk_begin(end);
            // Nobody may write over a chunk that another still multiplies.
            me.wait();
            Index k = 0;
            for (Index t = end - 1; t >= begin; t--) {
                const Index running = share.running(p_.rows, t);
                cells(t, share, running, k, scratch);
                scratch.keep_features(t, share, me, running, k);
                me.wait();
                multiply(t, share, me, running, k, scratch);
                k += running;
            }
            scratch.accumulate(share, k);
            end = begin;
        }
        end_streaming();
        me.wait();
    }

    // dL/d(slots) of step t's rows, into the chunk's rows k and on.
    void cells(Index t, const Share& share, Index running, Index k, Gradients<T, Cell>& scratch) {
        const Index H = p_.hidden, P = p_.gates_pitch, first = p_.rows.first(t), next = p_.rows.running(t + 1);
        const Index vectors = std::min(blocks_.padded() / L, share.block_end * 2);
        for (Index i = 0; i < running; i++) {
            const Index r = share.row + i, row = first + r;
            const Index before = t ? p_.rows.first(t - 1) + r : 0;
            const T* h_before = t ? p_.output + before * H : p_.h_0 + r * H;
            const T* c_before = !Cell::has_c ? nullptr : t ? p_.cells + before * H : p_.c_0 + r * H;
            T* grad_h_at = grad_h_ + r * stride_;
            T* grad_c_at = Cell::has_c ? grad_c_ + r * stride_ : nullptr;
            for (Index v = share.block * 2; v < vectors; v++) {
                const Index unit = v * L, left = H - unit;
                V grad_h, grad_c = V{};
                if (r < next) {
                    grad_h = load<T>(grad_h_at + unit);
                    if constexpr (Cell::has_c) grad_c = load<T>(grad_c_at + unit);
                } else {
                    // The sequence's last step: here its gradient comes in.
                    grad_h = load<T>(p_.grad_output + row * H + unit, left);
                    if (p_.grad_h_n) grad_h += load<T>(p_.grad_h_n + r * H + unit, left);
                    if (Cell::has_c && p_.grad_c_n) grad_c = load<T>(p_.grad_c_n + r * H + unit, left);
                }
                V saved[Cell::saved + 1], grad[Cell::slots], carry = V{};
                const T* gates = Cell::saved ? p_.gates + row * Cell::saved * P + unit : nullptr;
                for (int s = 0; s < Cell::saved; s++) saved[s] = load<T>(gates + s * P, left);
                Past<T> past{saved, V{}, load<T>(h_before + unit, left), V{}, V{}};
                if constexpr (Cell::has_c) past.c_before = load<T>(c_before + unit, left);
                if constexpr (!Cell::saved) past.h = load<T>(p_.output + row * H + unit, left);
                Cell::backward(past, grad_h, grad_c, grad, carry);
                scratch.keep(k + i, unit, grad, past.h_before);
                if constexpr (Cell::has_modrelu_bias) scratch.keep_modrelu(unit, Cell::bias_gradient(past.h, grad_h));
                if constexpr (Cell::has_c) store<T>(grad_c_at + unit, grad_c);
                if (t) {
                    const T* grad_before = p_.grad_output + before * H + unit;
                    store<T>(grad_h_at + unit, load<T>(grad_before, left) + carry);
                    for (int s = 0; s < Cell::saved; s++)
                        prefetch_later(p_.gates + (before * Cell::saved + s) * P + unit);
                    if (t > 1) {
                        const Index earlier = p_.rows.first(t - 2) + r;
                        prefetch_later(p_.grad_output + earlier * H + unit);
                        prefetch_later(p_.output + earlier * H + unit);
                        if constexpr (Cell::has_c) prefetch_later(p_.cells + earlier * H + unit);
                    }
                } else {
                    store<T>(grad_h_at + unit, carry);
                }
            }
            if (p_.grad_ready) hand_out(row, scratch.slots(k + i), share);
        }
    }

    // dL/d(gate inputs) of a row of the share's units, which the chunk holds by now.
    void hand_out(Index row, const T* slots, const Share& share) const {
        const Index unit = share.block * width, units = std::min(share.block_end * width, p_.hidden) - unit;
        for (int s = 0; s < Cell::slots; s++) {
            const int gate = Cell::weight_ih_gate[s];
            if (gate < 0 || units <= 0) continue;
            const T* const from = slots + s * blocks_.padded() + unit;
            T* const to = p_.grad_ready + (row * Cell::gates + gate) * p_.hidden + unit;
            streams_ready_ ? stream_all(from, units, to) : void(std::copy(from, from + units, to));
        }
    }

    // dL/dh before the step, and dL/dx.
    void multiply(Index t, const Share& share, const Member& me, Index running, Index k, const Gradients<T, Cell>& scratch) {
        if (!running) return;
        Tile<T> q{};
        q.a = q.a2 = scratch.slots(k);
        q.lda = q.lda2 = scratch.slots_stride();
        const auto slots = [&](const int* gate_of) {
            // The slots that a matrix takes part in are the first ones, and the last where one between is left out.
            int leading = 0;
            while (leading < Cell::slots && gate_of[leading] >= 0) leading++;
            q.k = leading * blocks_.padded();
            const bool behind = leading + 1 < Cell::slots && gate_of[Cell::slots - 1] >= 0;
            q.k2 = behind ? blocks_.padded() : 0;
            q.a2 = q.a + (Cell::slots - 1) * blocks_.padded();
        };
        slots(Cell::weight_hh_gate);
        for (Index i = share.block; i < share.block_end; i++) {
            const Index block = t & 1 ? share.block + share.block_end - 1 - i : i;
            q.panel = to_hidden_.panel(block);
            q.start = q.c = grad_h_ + share.row * stride_ + block * width;
            q.start_ld = q.ldc = stride_;
            q.columns = blocks_.vectors(block) * L;
            product<T>(running, blocks_.vectors(block), q);
        }
        if (!p_.grad_x) return;
        slots(Cell::weight_ih_gate);
        const ColumnBlocks<T>& features = to_features_.blocks();
        for (Index block = me.id; block < features.count(); block += me.members) {
            q.panel = to_features_.panel(block);
            q.start = nullptr;
            q.c = p_.grad_x + (p_.rows.first(t) + share.row) * p_.features + block * width;
            q.ldc = p_.features;
            q.columns = features.columns_in(block);
            product<T>(running, features.vectors(block), q);
        }
    }

    const Backward<T>& p_;
    ColumnBlocks<T> blocks_;
    BackwardWeights<T, Cell> to_hidden_, to_features_;
    Index stride_;
    Buffer<T> grad_h_, grad_c_;
    bool streams_ready_;
    std::vector<Share> shares_;
    std::vector<std::unique_ptr<Gradients<T, Cell>>> scratch_;
};

}  // namespace momentumrnn::MOMENTUMRNN_ISA
