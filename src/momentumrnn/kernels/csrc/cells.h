// The cells, one vector of hidden units at a time: everything but the matrix products.
//
// A cell computes in "slots", the sums that its gates are made of. Mostly slot and gate are the same; the
// GRU needs U_n h and W_n x apart and so has four slots for three gates.
//
//   activate: a slot's sum -> what the gate does to it, where that depends on nothing else
//   forward:  the slots, activated, h and c before the step -> h and c after it, and what backward needs
//   backward: dL/dh and dL/dc after the step -> dL/d(slots), dL/dc before it, and the part of dL/dh before
//             it that does not pass through U ("carry")
#pragma once

#include "maths.h"
#include "problem.h"

namespace momentumrnn::MOMENTUMRNN_ISA {

// What of a step is at hand in backward. `h` is the output.
template <class T> struct Past {
    const Vector<T>* saved;
    Vector<T> h, h_before, c_before, modrelu_bias;
};

template <class T, bool forget> struct Lstm {
    using V = Vector<T>;
    static constexpr int slots = forget ? 4 : 3;
    static constexpr int gates = slots, saved = slots;
    static constexpr int weight_ih_gate[4] = {0, 1, 2, 3};
    static constexpr int weight_hh_gate[4] = {0, 1, 2, 3};
    static constexpr bool activates[4] = {true, true, true, true};
    static constexpr bool has_c = true, has_carry = false, reads_h = false, has_modrelu_bias = false;
    static constexpr int i = 0, f = 1, g = slots - 2, o = slots - 1;

    template <int slot> INLINE V activate(V sum) {
        if constexpr (slot == g) return momentumrnn::MOMENTUMRNN_ISA::tanh<T>(sum);
        else return sigmoid<T>(sum);
    }

    INLINE void forward(const V* s, V, V, V& h, V& c, V* keep) {
        for (int k = 0; k < slots; k++) keep[k] = s[k];
        if constexpr (forget) c = s[f] * c;
        c = c + s[i] * s[g];
        h = s[o] * momentumrnn::MOMENTUMRNN_ISA::tanh<T>(c);
    }

    INLINE void backward(const Past<T>& past, V grad_h, V& grad_c, V* grad, V&) {
        const V* s = past.saved;
        // c again from its parts: cheaper than another array read from memory.
        V kept = past.c_before;
        if constexpr (forget) kept = s[f] * past.c_before;
        const V squashed = momentumrnn::MOMENTUMRNN_ISA::tanh<T>(kept + s[i] * s[g]);
        const V dc = grad_c + grad_h * s[o] * (T(1) - squashed * squashed);
        grad[i] = dc * s[g] * s[i] * (T(1) - s[i]);
        grad[g] = dc * s[i] * (T(1) - s[g] * s[g]);
        grad[o] = grad_h * squashed * s[o] * (T(1) - s[o]);
        grad_c = dc;
        if constexpr (forget) {
            grad_c = dc * s[f];
            grad[f] = grad_c * past.c_before * (T(1) - s[f]);
        }
    }
};

template <class T> struct Gru {
    using V = Vector<T>;
    // r, z, U_n h + bias_hh_n, and what enters n beside it.
    static constexpr int slots = 4, gates = 3, saved = 4;
    static constexpr int weight_ih_gate[4] = {0, 1, -1, 2};
    static constexpr int weight_hh_gate[4] = {0, 1, 2, -1};
    static constexpr bool activates[4] = {true, true, false, false};
    static constexpr bool has_c = false, has_carry = true, reads_h = true, has_modrelu_bias = false;

    template <int slot> INLINE V activate(V sum) {
        if constexpr (slot < 2) return sigmoid<T>(sum);
        else return sum;
    }

    INLINE void forward(const V* s, V h_before, V, V& h, V&, V* keep) {
        keep[0] = s[0];
        keep[1] = s[1];
        keep[2] = momentumrnn::MOMENTUMRNN_ISA::tanh<T>(s[3] + s[0] * s[2]);
        keep[3] = s[2];
        h = keep[2] + keep[1] * (h_before - keep[2]);
    }

    INLINE void backward(const Past<T>& past, V grad_h, V&, V* grad, V& carry) {
        const V r = past.saved[0], z = past.saved[1], n = past.saved[2], product = past.saved[3];
        const V dn = grad_h * (T(1) - z) * (T(1) - n * n);
        grad[0] = dn * product * r * (T(1) - r);
        grad[1] = grad_h * (past.h_before - n) * z * (T(1) - z);
        grad[2] = dn * r;
        grad[3] = dn;
        carry = grad_h * z;
    }
};

// The plain recurrences know their derivative from the output alone.
template <class T, Cell nonlinearity> struct Rnn {
    using V = Vector<T>;
    static constexpr int slots = 1, gates = 1, saved = 0;
    static constexpr int weight_ih_gate[1] = {0};
    static constexpr int weight_hh_gate[1] = {0};
    static constexpr bool activates[1] = {false};
    static constexpr bool has_c = false, has_carry = false, reads_h = false;
    static constexpr bool has_modrelu_bias = nonlinearity == Cell::rnn_modrelu;

    template <int slot> INLINE V activate(V sum) { return sum; }

    INLINE void forward(const V* s, V, V modrelu_bias, V& h, V&, V*) {
        const V x = s[0];
        const V zero = V{};
        if constexpr (nonlinearity == Cell::rnn_tanh) {
            h = momentumrnn::MOMENTUMRNN_ISA::tanh<T>(x);
        } else if constexpr (nonlinearity == Cell::rnn_relu) {
            h = x < zero ? zero : x;
        } else {
            const V size = x < zero ? -x : x;
            const V shifted = size + modrelu_bias;
            const V cut = shifted < zero ? zero : shifted;
            h = x < zero ? -cut : x > zero ? cut : x * cut;
        }
    }

    INLINE void backward(const Past<T>& past, V grad_h, V&, V* grad, V&) {
        if constexpr (nonlinearity == Cell::rnn_tanh) grad[0] = grad_h * (T(1) - past.h * past.h);
        else grad[0] = past.h != V{} ? grad_h : V{};
    }

    // dL/d(modrelu's bias): where a unit is open, its bias moves the output away from zero.
    INLINE V bias_gradient(V h, V grad_h) {
        const V zero = V{};
        return h > zero ? grad_h : h < zero ? -grad_h : zero;
    }
};

}  // namespace momentumrnn::MOMENTUMRNN_ISA
