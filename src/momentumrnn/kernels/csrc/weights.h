// Weights packed into panels, block of hidden units by block.
#pragma once

#include <algorithm>
#include <memory>

#include "gemm.h"
#include "pool.h"
#include "problem.h"
#include "transpose.h"

namespace momentumrnn::MOMENTUMRNN_ISA {

// A row of n columns is cut into blocks of two vectors; the last may be one vector wide.
template <class T> struct ColumnBlocks {
    static constexpr Index lanes = Simd<T>::lanes;
    static constexpr Index width = 2 * lanes;
    Index columns;

    Index count() const { return (columns + width - 1) / width; }
    // Whole vectors only.
    Index padded() const { return (columns + lanes - 1) / lanes * lanes; }
    int vectors(Index block) const { return columns - block * width > lanes ? 2 : 1; }
    Index columns_in(Index block) const { return std::min(width, columns - block * width); }
};

// The distance between rows of a scratch matrix. A power of two would put a tile's rows into the same few
// places of the cache.
template <class T> INLINE Index row_stride(Index padded_columns) { return padded_columns + Simd<T>::lanes; }

// U and W for the forward pass: for each block of hidden units and each slot of the cell a panel with the
// rows of U that the slot wants, then those of W, and a bias.
template <class T, class Cell> class ForwardWeights {
public:
    explicit ForwardWeights(const Recurrence<T>& p)
        : p_(p), blocks_{p.hidden}, features_(p.ready ? 0 : p.features), depth_(0),
          panels_(static_cast<size_t>(blocks_.padded() * total_depth())),
          biases_(static_cast<size_t>(blocks_.padded() * Cell::slots)) {
        for (int s = 0; s < Cell::slots; s++) {
            before_[s] = depth_;
            depth_ += depth(s);
        }
    }

    Index hidden_depth(int slot) const { return Cell::weight_hh_gate[slot] < 0 ? 0 : p_.hidden; }
    Index feature_depth(int slot) const { return Cell::weight_ih_gate[slot] < 0 ? 0 : features_; }
    const T* panel(Index block, int slot) const {
        return panels_ + block * ColumnBlocks<T>::width * depth_ + before_[slot] * blocks_.vectors(block) * ColumnBlocks<T>::lanes;
    }
    const T* bias(Index block, int slot) const {
        return biases_ + block * ColumnBlocks<T>::width * Cell::slots + slot * blocks_.vectors(block) * ColumnBlocks<T>::lanes;
    }
    size_t bytes() const { return static_cast<size_t>(blocks_.padded() * depth_) * sizeof(T); }

    // The panel and the bias of one slot in one block: pieces small enough for threads to share them out evenly.
    void pack(Index block, int slot) {
        const Index unit = block * ColumnBlocks<T>::width, columns = blocks_.columns_in(block);
        const Index width = blocks_.vectors(block) * ColumnBlocks<T>::lanes;
        T* to = const_cast<T*>(panel(block, slot));
        T* bias_to = const_cast<T*>(bias(block, slot));
        std::fill(bias_to, bias_to + width, T(0));
        if (const int gate = Cell::weight_hh_gate[slot]; gate >= 0) {
            const Index row = gate * p_.hidden + unit;
            transpose_into(p_.weight_hh + row * p_.hidden, p_.hidden, columns, p_.hidden, to, width);
            add_bias(p_.bias_hh, row, columns, bias_to);
        }
        if (const int gate = Cell::weight_ih_gate[slot]; gate >= 0) {
            const Index row = gate * p_.hidden + unit;
            transpose_into(p_.weight_ih + row * features_, features_, columns, features_,
                           to + hidden_depth(slot) * width, width);
            add_bias(p_.bias_ih, row, columns, bias_to);
        }
    }

private:
    Index depth(int slot) const { return hidden_depth(slot) + feature_depth(slot); }
    Index total_depth() const {
        Index sum = 0;
        for (int s = 0; s < Cell::slots; s++) sum += depth(s);
        return sum;
    }
    static void add_bias(const T* bias, Index row, Index count, T* to) {
        if (bias)
            for (Index u = 0; u < count; u++) to[u] += bias[row + u];
    }

    const Recurrence<T>& p_;
    ColumnBlocks<T> blocks_;
    Index features_, depth_, before_[Cell::slots];
    Buffer<T> panels_, biases_;
};

// The same matrices for the backward pass: dL/d(slots) times U gives dL/dh, times W dL/dx. Their panels run
// over the columns of U or W, k over the gates' units in the order of the slots, padded to whole vectors.
template <class T, class Cell> class BackwardWeights {
public:
    BackwardWeights(const T* matrix, const int* gate_of, Index hidden, Index columns)
        : matrix_(matrix), gate_of_(gate_of), hidden_(hidden), padded_(ColumnBlocks<T>{hidden}.padded()), blocks_{columns},
          depth_(0) {
        for (int s = 0; s < Cell::slots; s++)
            if (gate_of[s] >= 0) depth_ += padded_;
        panels_ = std::make_unique<Buffer<T>>(matrix ? static_cast<size_t>(blocks_.padded() * depth_) : 0);
    }

    const ColumnBlocks<T>& blocks() const { return blocks_; }
    const T* panel(Index block) const { return *panels_ + block * ColumnBlocks<T>::width * depth_; }

    void pack(Index block) {
        const Index width = blocks_.vectors(block) * ColumnBlocks<T>::lanes, columns = blocks_.columns_in(block);
        T* to = const_cast<T*>(panel(block));
        for (int s = 0; s < Cell::slots; s++) {
            if (gate_of_[s] < 0) continue;
            for (Index u = 0; u < padded_; u++, to += width) {
                std::fill(to, to + width, T(0));
                if (u >= hidden_) continue;
                const T* from = matrix_ + (gate_of_[s] * hidden_ + u) * blocks_.columns + block * ColumnBlocks<T>::width;
                std::copy(from, from + columns, to);
            }
        }
    }

private:
    const T* matrix_;
    const int* gate_of_;
    Index hidden_, padded_;
    ColumnBlocks<T> blocks_;
    Index depth_;
    std::unique_ptr<Buffer<T>> panels_;
};

}  // namespace momentumrnn::MOMENTUMRNN_ISA
