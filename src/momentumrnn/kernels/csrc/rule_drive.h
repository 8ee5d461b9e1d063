// The drive of a block: read, but for its bias, or made of a few features where it is used, since it is as large as
// the result.
//
// One feature is multiplied inside the steps. More are multiplied for some steps at once into memory that a
// cache holds, in tiles which keep W in registers; the drive's gradient then takes its place, and is
// multiplied from there.
#pragma once

#include "rule_blocks.h"
#include "weights.h"

namespace momentumrnn::MOMENTUMRNN_ISA {

// A drive is entered for some steps at once, and read vector by vector of its elements, as a column of these steps.
// `sums` of its gradients are added up there: those of W and b, but for what is multiplied later.

// From the product of all steps …
template <class T> class ReadyDrives {
public:
    static constexpr Index arrays = 1;
    static constexpr int sums = 1;

    explicit ReadyDrives(Block<T>& block) : block_(block), bias_(block.spread(block.q.bias)) {}

    void make(Index, Index) const {}
    void enter(Index t, Index steps) { product_ = block_.run(block_.q.product, t, steps); }

    template <bool whole> struct Column {
        const Run<const T>& product;
        Index i, left;
        Vector<T> bias;

        Vector<T> operator()(Index k) const { return read<T, whole>(product.at[k] + i, left) + bias; }
        void add_up(Index, Vector<T> grad, Vector<T>* sum) const { sum[0] += grad; }
    };
    template <bool whole> Column<whole> column(Index i, Index left) const { return {product_, i, left, load<T>(bias_ + i)}; }

    Run<T> gradient(const Run<T>& wanted) const { return wanted; }
    void collect(Index, Index, T*, T*) const {}

private:
    const Block<T>& block_;
    const T* bias_;
    Run<const T> product_;
};

// … from one feature …
template <class T> class SingleDrives {
public:
    static constexpr Index arrays = 2;
    static constexpr int sums = 2;

    explicit SingleDrives(Block<T>& block)
        : block_(block), weight_(block.spread(block.q.weight)), bias_(block.spread(block.q.bias)) {}

    void make(Index, Index) const {}
    void enter(Index t, Index steps) {
        for (Index k = 0; k < steps; k++)
            x_[k] = block_.q.x[block_.q.rows.first(t + k) + block_.first / block_.q.channels];
    }

    template <bool> struct Column {
        const T* x;
        Vector<T> weight, bias;

        Vector<T> operator()(Index k) const { return splat<T>(x[k]) * weight + bias; }
        void add_up(Index k, Vector<T> grad, Vector<T>* sum) const {
            sum[0] += splat<T>(x[k]) * grad;
            sum[1] += grad;
        }
    };
    template <bool whole> Column<whole> column(Index i, Index) const {
        return {x_, load<T>(weight_ + i), load<T>(bias_ + i)};
    }

    Run<T> gradient(const Run<T>& wanted) const { return wanted; }
    void collect(Index, Index, T*, T*) const {}

private:
    const Block<T>& block_;
    const T *weight_, *bias_;
    T x_[steps_together] = {};
};

// W and b as panels, for all blocks; b is the column of W for a feature that is always 1.
template <class T> class DrivePanels {
public:
    explicit DrivePanels(const ChannelRule<T>& q)
        : depth(q.features + 1), data_(static_cast<size_t>((q.channels + width) * depth)) {
        const ColumnBlocks<T> blocks{q.channels};
        for (Index i = 0; i < blocks.count(); i++) {
            const Index channel = i * width, count = blocks.columns_in(i), columns = blocks.vectors(i) * blocks.lanes;
            T* const to = data_ + channel * depth;
            transpose_into(q.weight + channel * q.features, q.features, count, q.features, to, columns);
            clear(to + q.features * columns, columns);
            if (q.bias) copy(q.bias + channel, count, to + q.features * columns);
        }
    }

    const T* at(Index channel) const { return data_ + channel * depth; }

    const Index depth;

private:
    static constexpr Index width = ColumnBlocks<T>::width;
    Buffer<T> data_;
};

// … or from several.
template <class T> class MadeDrives {
public:
    static constexpr int sums = 0;

    // For `most` steps at once.
    MadeDrives(Block<T>& block, const DrivePanels<T>& panels, Index most)
        : block_(block), panels_(panels), pitch_(block.pitch(block.length)), drive_(block.take(most)),
          x_(block.scratch) {
        block.scratch += words(panels.depth, most);
    }

    static Index words(Index depth, Index most) { return whole_lines<T>(most * depth); }

    void make(Index t, Index steps) {
        const ChannelRule<T>& q = block_.q;
        const Index sequence = block_.first / q.channels, channel = block_.first % q.channels, depth = panels_.depth;
        first_ = t;
        for (Index k = 0; k < steps; k++) {
            const T* x = q.x + (q.rows.first(t + k) + sequence) * q.features;
            for (Index d = 0; d < q.features; d++) x_[k * depth + d] = x[d];
            x_[k * depth + q.features] = T(1);
        }
        const ColumnBlocks<T> blocks{block_.length};
        for (Index i = 0; i < blocks.count(); i++) {
            Tile<T> tile{};
            tile.a = x_;
            tile.lda = tile.k = depth;
            tile.panel = panels_.at(channel + i * blocks.width);
            tile.c = drive_ + i * blocks.width;
            tile.ldc = pitch_;
            // Zero behind the last channel.
            tile.columns = blocks.width;
            product<T>(steps, blocks.vectors(i), tile);
        }
    }

    void enter(Index t, Index steps) {
        for (Index k = 0; k < steps; k++) entered_.at[k] = drive_ + (t + k - first_) * pitch_;
    }

    template <bool> struct Column {
        const Run<T>& drive;
        Index i;

        Vector<T> operator()(Index k) const { return load<T>(drive.at[k] + i); }
        void add_up(Index, Vector<T>, Vector<T>*) const {}
    };
    template <bool whole> Column<whole> column(Index i, Index) const { return {entered_, i}; }

    Run<T> gradient(const Run<T>&) const { return entered_; }

    // Adds the gradients that stand in the drive's place to W's, turned round, and b's; and copies them.
    void collect(Index t, Index steps, T* sums, T* wanted) const {
        const ColumnBlocks<T> blocks{block_.length};
        for (Index i = 0; sums && i < blocks.count(); i++)
            outer_product<T>(panels_.depth, blocks.vectors(i), x_, panels_.depth, drive_ + i * blocks.width, pitch_,
                             steps, sums + i * blocks.width, pitch_, blocks.width);
        for (Index k = 0; wanted && k < steps; k++)
            copy(drive_ + k * pitch_, block_.length, wanted + block_.place(t + k));
    }

private:
    const Block<T>& block_;
    const DrivePanels<T>& panels_;
    const Index pitch_;
    T *drive_, *x_;
    Index first_ = 0;
    Run<T> entered_;
};

}  // namespace momentumrnn::MOMENTUMRNN_ISA
