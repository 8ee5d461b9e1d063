// One step of each rule, for one vector of channels: forward, and back.
//
// A rule has `states` numbers and `coefficients` for each channel. Back, `carry` is what the steps behind give on to
// the states after this step; it leaves as what this step gives on to the states before it. The states' own gradients are
// `carry` over `scale`.
#pragma once

#include "problem.h"
#include "simd.h"

namespace momentumrnn::MOMENTUMRNN_ISA {

// The rows of coefficients, spread over the elements of a block.
template <class T, int count> struct Spread {
    const T* rows[count];

    Vector<T> at(int row, Index i) const { return load<T>(rows[row] + i); }
};

// Adam and RMSProp, (15): v = μ v + s a, m = β m + (1 - β) a², d = v / √(m + ε²).
template <class T> struct AdamStep {
    using V = Vector<T>;
    static constexpr int coefficients = 4, states = 2;
    static constexpr bool linear = false;
    // m's carry is g = -2 ∂L/∂m.
    static constexpr T scale[states] = {1, -2};

    const V momentum, step_size, beta, rest;
    const T floor;

    AdamStep(const Spread<T, coefficients>& k, Index i, double eps)
        : momentum(k.at(0, i)), step_size(k.at(1, i)), beta(k.at(2, i)), rest(k.at(3, i)),
          floor(static_cast<T>(eps * eps)) {}

    void advance(const V (&s)[states], V a, V (&to)[states]) const {
        to[0] = momentum * s[0] + step_size * a;
        to[1] = beta * s[1] + rest * (a * a);
    }

    V output(const V (&s)[states], V) const { return s[0] * reciprocal_root<T>(s[1] + floor); }

    // With ρ = 1 / √(m + ε²):  ∂L/∂v += ρ ∂L/∂d,    g += ρ ∂L/∂d · v ρ²,    ∂L/∂a = s ∂L/∂v - (1 - β) a g.
    template <bool learned>
    V back(V grad, V a, const V (&before)[states], const V (&after)[states], V (&carry)[states],
           V (&sums)[coefficients]) const {
        const V root = reciprocal_root<T>(after[1] + floor), scaled = grad * root;
        const V v = carry[0] + scaled;
        // In this order no product leaves float32's range: at m = 0 the root is 1 / ε.
        const V g = carry[1] + scaled * (after[0] * root * root);
        if constexpr (learned) {
            sums[0] += v * before[0];
            sums[1] += v * a;
            sums[2] -= T(0.5) * g * before[1];
            sums[3] -= T(0.5) * g * (a * a);
        }
        carry[0] = momentum * v;
        carry[1] = beta * g;
        return step_size * v - a * (rest * g);
    }
};

// A filter: u = μ u + a, d = c u + e a.
template <class T> struct RealFilterStep {
    using V = Vector<T>;
    static constexpr int coefficients = 3, states = 1;
    static constexpr bool linear = true;
    static constexpr T scale[states] = {1};

    const V momentum, gain, direct;

    RealFilterStep(const Spread<T, coefficients>& k, Index i, double)
        : momentum(k.at(0, i)), gain(k.at(1, i)), direct(k.at(2, i)) {}

    void advance(const V (&s)[states], V a, V (&to)[states]) const { to[0] = momentum * s[0] + a; }

    V output(const V (&s)[states], V a) const { return gain * s[0] + direct * a; }

    template <bool learned>
    V back(V grad, V a, const V (&before)[states], const V (&after)[states], V (&carry)[states],
           V (&sums)[coefficients]) const {
        const V u = carry[0] + gain * grad;
        if constexpr (learned) {
            sums[0] += u * before[0];
            sums[1] += grad * after[0];
            sums[2] += grad * a;
        }
        carry[0] = momentum * u;
        return direct * grad + u;
    }
};

// The same with μ, c and u complex, real and imaginary parts apart: d = Re(c u) + e a.
template <class T> struct ComplexFilterStep {
    using V = Vector<T>;
    static constexpr int coefficients = 5, states = 2;
    static constexpr bool linear = true;
    static constexpr T scale[states] = {1, 1};

    const V momentum_re, momentum_im, gain_re, gain_im, direct;

    ComplexFilterStep(const Spread<T, coefficients>& k, Index i, double)
        : momentum_re(k.at(0, i)), momentum_im(k.at(1, i)), gain_re(k.at(2, i)), gain_im(k.at(3, i)),
          direct(k.at(4, i)) {}

    void advance(const V (&s)[states], V a, V (&to)[states]) const {
        const V re = momentum_re * s[0] - momentum_im * s[1] + a, im = momentum_re * s[1] + momentum_im * s[0];
        to[0] = re;
        to[1] = im;
    }

    V output(const V (&s)[states], V a) const { return gain_re * s[0] - gain_im * s[1] + direct * a; }

    template <bool learned>
    V back(V grad, V a, const V (&before)[states], const V (&after)[states], V (&carry)[states],
           V (&sums)[coefficients]) const {
        const V re = carry[0] + gain_re * grad, im = carry[1] - gain_im * grad;
        if constexpr (learned) {
            sums[0] += re * before[0] + im * before[1];
            sums[1] += im * before[0] - re * before[1];
            sums[2] += grad * after[0];
            sums[3] -= grad * after[1];
            sums[4] += grad * a;
        }
        carry[0] = momentum_re * re + momentum_im * im;
        carry[1] = momentum_re * im - momentum_im * re;
        return direct * grad + re;
    }
};

}  // namespace momentumrnn::MOMENTUMRNN_ISA
