// The gradients of U, W and the biases: sums over all rows, taken a chunk of steps at a time.
#pragma once

#include "cells.h"
#include "threads.h"
#include "weights.h"
#include "work.h"

namespace momentumrnn::MOMENTUMRNN_ISA {

// What one share of the rows adds up. With rows shared out each thread has one of these; with units shared
// out all threads write into the same one, each at its own units.
template <class T, class Cell> class Gradients {
public:
    // `alone`: there are no other shares whose sums would have to be added to these.
    Gradients(const Backward<T>& p, const Share& rows, bool alone)
        : p_(p), rows_(rows), in_place_(alone && p.grad_weight_hh && is_large(p.hidden)),
          padded_(ColumnBlocks<T>{p.hidden}.padded()), features_(p.grad_weight_ih ? p.features : 0),
          hidden_stride_(row_stride<T>(padded_)), features_stride_(row_stride<T>(features_ + 1)),
          slots_stride_(row_stride<T>(Cell::slots * padded_)), slots_(buffer(slots_stride_)),
          hidden_(buffer(hidden_stride_)), kept_features_(buffer(features_stride_)),
          sums_stride_(in_place_ ? p.hidden : hidden_stride_),
          own_sums_(in_place_ || !p.grad_weight_hh ? 0 : static_cast<size_t>(Cell::gates * p.hidden * sums_stride_)),
          hidden_sums_(in_place_ ? p.grad_weight_hh : own_sums_),
          feature_sums_(static_cast<size_t>((features_ + 1) * slots_stride_)),
          modrelu_(static_cast<size_t>(Cell::has_modrelu_bias ? 2 * padded_ : 0)) {
        for (Index k = 0; k < buffer_rows(); k++) kept_features_[k * features_stride_ + features_] = T(1);
    }

    const T* slots(Index k) const { return slots_ + k * slots_stride_; }
    Index slots_stride() const { return slots_stride_; }

    void clear(const Share& share) {
        const Index unit = share.block * width, units = std::min(share.block_end * width, padded_) - unit;
        if (units <= 0) return;
        for (int gate = 0; hidden_sums_ && gate < Cell::gates; gate++)
            fill(hidden_row(gate, unit), (std::min(unit + units, p_.hidden) - unit) * sums_stride_);
        for (int s = 0; s < Cell::slots; s++)
            for (Index m = 0; m <= features_; m++) fill(feature_sums_ + m * slots_stride_ + s * padded_ + unit, units);
        for (int s = 0; Cell::has_modrelu_bias && s < 2; s++) fill(modrelu_ + s * padded_ + unit, units);
    }

    // The first step of the chunk that ends before step `end`: as many steps as have enough rows.
    Index chunk_begin(Index end) const {
        Index rows = 0, t = end;
        while (t > 0 && (rows == 0 || rows < chunk_rows())) rows += rows_.running(p_.rows, --t);
        return t;
    }

    void keep(Index k, Index unit, const Vector<T>* grad, Vector<T> h_before) const {
        T* to = slots_ + k * slots_stride_ + unit;
        for (int s = 0; s < Cell::slots; s++) store<T>(to + s * padded_, grad[s]);
        store<T>(hidden_ + k * hidden_stride_ + unit, h_before);
    }

    void keep_modrelu(Index unit, Vector<T> grad) const {
        store<T>(modrelu_ + unit, load<T>(modrelu_ + unit) + grad);
    }

    void keep_features(Index t, const Share& share, const Member& me, Index running, Index k) const {
        if (!features_) return;
        for (Index i = running * me.id / me.members; i < running * (me.id + 1) / me.members; i++) {
            const T* x = p_.x + (p_.rows.first(t) + share.row + i) * features_;
            std::copy(x, x + features_, kept_features_ + (k + i) * features_stride_);
        }
    }

    // Multiplies a chunk of `count` rows into the sums of the share's units.
    void accumulate(const Share& share, Index count) {
        const Index panels = std::max<Index>(1, count / chunk_rows());
        for (Index i = 0; i < panels; i++) {
            const Index k = count * i / panels, rows = count * (i + 1) / panels - k;
            if (p_.grad_weight_hh) add_hidden(share, k, rows);
            add_features(share, k, rows);
        }
        if constexpr (!Cell::has_modrelu_bias) return;
        // Sums of chunks, not of all rows one by one, for the sake of float32.
        const Index unit = share.block * width, end = std::min(share.block_end * width, padded_);
        for (Index u = unit; u < end; u += L) {
            T *chunk = modrelu_ + u, *all = chunk + padded_;
            store<T>(all, load<T>(all) + load<T>(chunk));
            store<T>(chunk, Vector<T>{});
        }
    }

    // Whether dL/dU is where it belongs already.
    bool in_place() const { return in_place_; }
    T* hidden_row(int gate, Index unit) const { return hidden_sums_ + (gate * p_.hidden + unit) * sums_stride_; }
    const T* feature_row(Index m, int slot) const { return feature_sums_ + m * slots_stride_ + slot * padded_; }
    const T* bias_row(int slot) const { return feature_row(features_, slot); }
    const T* modrelu_row() const { return modrelu_ + padded_; }

private:
    static constexpr Index L = Simd<T>::lanes;
    static constexpr Index width = ColumnBlocks<T>::width;
    // The columns of dL/d(slots) that the second cache holds for a chunk of rows while those of h pass by.
    static constexpr Index columns_held = 12 * 24;

    // About as many as let the first cache hold a panel of them, and the second cache all of them beside U and what the
    // next step reads. The sums of many units, which no cache holds, are gone through seldom instead.
    Index chunk_rows() const { return p_.split == Split::units && p_.hidden > 512 ? 512 : 128; }
    Index buffer_rows() const { return std::min(chunk_rows(), p_.rows.total()) + rows_.row_end - rows_.row; }
    size_t buffer(Index stride) const { return static_cast<size_t>(buffer_rows() * stride); }
    // Whether dL/dU is worth adding up where it belongs, which spares its memory a second time. Rows of whole or half
    // pages would lie in the same few places of the cache.
    static bool is_large(Index hidden) {
        const size_t row = static_cast<size_t>(hidden) * sizeof(T);
        return row * static_cast<size_t>(Cell::gates * hidden) >= size_t(4) << 20 && row % 2048 != 0;
    }
    static void fill(T* to, Index count) { std::fill(to, to + count, T(0)); }

    // dL/dU as it lies in the result: a row for each unit of each gate.
    void add_hidden(const Share& share, Index k, Index rows) const {
        const ColumnBlocks<T> blocks{p_.hidden};
        const Index first = share.block * width, end = std::min(share.block_end * width, p_.hidden);
        for (int s = 0; s < Cell::slots; s++) {
            const int gate = Cell::weight_hh_gate[s];
            if (gate < 0) continue;
            for (Index unit = first; unit < end; unit += columns_held) {
                const T* a = slots(k) + s * padded_ + unit;
                T* sums = hidden_row(gate, unit);
                for (Index block = 0; block < blocks.count(); block++)
                    outer_product<T>(std::min(columns_held, end - unit), blocks.vectors(block), a, slots_stride_,
                                     hidden_ + k * hidden_stride_ + block * width, hidden_stride_, rows,
                                     sums + block * width, sums_stride_, blocks.columns_in(block));
            }
        }
    }

    // dL/dW the other way round, a row for each feature: a few features would not fill a vector. The gradient of the
    // bias is that of one more feature, which is always 1.
    void add_features(const Share& share, Index k, Index rows) const {
        const ColumnBlocks<T> blocks{p_.hidden};
        for (int s = 0; s < Cell::slots; s++) {
            const Index first = Cell::weight_ih_gate[s] < 0 ? features_ : 0;
            for (Index block = share.block; block < share.block_end; block++) {
                const Index at = s * padded_ + block * width;
                outer_product<T>(features_ + 1 - first, blocks.vectors(block), kept_features_ + k * features_stride_ + first,
                                 features_stride_, slots(k) + at, slots_stride_, rows,
                                 feature_sums_ + first * slots_stride_ + at, slots_stride_, width);
            }
        }
    }

    const Backward<T>& p_;
    Share rows_;
    bool in_place_;
    Index padded_, features_, hidden_stride_, features_stride_, slots_stride_;
    Buffer<T> slots_, hidden_, kept_features_;
    Index sums_stride_;
    Buffer<T> own_sums_;
    T* hidden_sums_;
    Buffer<T> feature_sums_, modrelu_;
};

// The shares' sums, added in their order, as the gradients of the blocks [block, block_end) of units.
template <class T, class Cell, class All>
void collect(const All& shares, const Backward<T>& p, Index block, Index block_end) {
    const Index unit = block * ColumnBlocks<T>::width, end = std::min(block_end * ColumnBlocks<T>::width, p.hidden);
    const auto hidden = [&](int gate) {
        for (Index u = unit; u < end; u++) {
            T* to = p.grad_weight_hh + (gate * p.hidden + u) * p.hidden;
            for (Index m = 0; m < p.hidden; m += Simd<T>::lanes) {
                Vector<T> sum{};
                for (const auto& share : shares) sum += load<T>(share->hidden_row(gate, u) + m);
                store<T>(to + m, sum, p.hidden - m);
            }
        }
    };
    const auto features = [&](int slot, int gate) {
        constexpr Index L = Simd<T>::lanes;
        for (Index m0 = 0; m0 < p.features; m0 += L)
            for (Index u0 = unit; u0 < end; u0 += L) {
                Vector<T> square[L] = {};
                for (Index m = 0; m < std::min(L, p.features - m0); m++)
                    for (const auto& share : shares) square[m] += load<T>(share->feature_row(m0 + m, slot) + u0);
                transpose<T>(square);
                for (Index u = 0; u < std::min(L, end - u0); u++)
                    store<T>(p.grad_weight_ih + (gate * p.hidden + u0 + u) * p.features + m0, square[u], p.features - m0);
            }
    };
    const auto add_up = [&](T* to, const auto& row) {
        for (Index u = unit; u < end; u++) {
            T sum = T(0);
            for (const auto& share : shares) sum += row(*share)[u];
            to[u] = sum;
        }
    };
    const auto biases = [&](T* to, int slot, int gate) {
        add_up(to + gate * p.hidden, [&](const auto& share) { return share.bias_row(slot); });
    };
    for (int s = 0; s < Cell::slots; s++) {
        if (const int gate = Cell::weight_hh_gate[s]; gate >= 0) {
            if (p.grad_weight_hh && !shares[0]->in_place()) hidden(gate);
            if (p.grad_bias_hh) biases(p.grad_bias_hh, s, gate);
        }
        if (const int gate = Cell::weight_ih_gate[s]; gate >= 0) {
            if (p.grad_weight_ih) features(s, gate);
            if (p.grad_bias_ih) biases(p.grad_bias_ih, s, gate);
        }
    }
    if (p.grad_modrelu_bias) add_up(p.grad_modrelu_bias, [](const auto& share) { return share.modrelu_row(); });
}

}  // namespace momentumrnn::MOMENTUMRNN_ISA
