// e^x - 1, and from it the two squashing functions of recurrent networks.
#pragma once

#include "simd.h"

namespace momentumrnn::MOMENTUMRNN_ISA {

template <class T> INLINE Vector<T> clamp(Vector<T> x, T low, T high) {
    // In this order of operands a NaN comes out as a NaN.
    return minimum<T>(splat<T>(high), maximum<T>(splat<T>(low), x));
}

// An exponential in two parts, e^x = scale * (1 + rest), with |rest| < 0.42, so that e^x - 1 loses
// nothing near zero.
template <class T> struct Exponential {
    Vector<T> scale, rest;
};

// Both for |x| up to 86 in float32, 700 in float64.
INLINE Exponential<float> exponential_f32(Vector<float> x) {
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
    const Vector<float> t = x * 1.44269504f;
    const Vector<float> shifted = t + 12582912.0f;
    const Vector<float> r = t - (shifted - 12582912.0f);
    // (2^r - 1) / r on |r| <= 1/2, interpolated in Chebyshev's points; relative error 1.2e-8.
    Vector<float> p = splat(1.54531629451e-4f);
    p = p * r + 1.33908633647e-3f;
    p = p * r + 9.61808255728e-3f;
    p = p * r + 5.55035711422e-2f;
    p = p * r + 2.40226507606e-1f;
    p = p * r + 6.93147188026e-1f;
    return {from_bits<float>(bits<float>(splat(1.0f)) + (bits<float>(shifted) << 23)), p * r};
}

INLINE Exponential<double> exponential_f64(Vector<double> x) {
    const Vector<double> shifted = x * 1.4426950408889634 + 6755399441055744.0;
    const Vector<double> n = shifted - 6755399441055744.0;
    // ln 2 in two parts, the first with zeros behind so that its product with n is exact.
    const Vector<double> r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
    // (e^r - 1) / r on |r| <= ln 2 / 2, likewise; relative error 3e-19.
    Vector<double> p = splat(2.0918129454967065736e-9);
    p = p * r + 2.5110037605963777712e-8;
    p = p * r + 2.7557263301474754518e-7;
    p = p * r + 2.7557240918578969823e-6;
    p = p * r + 2.4801587336421322573e-5;
    p = p * r + 1.9841269890047113707e-4;
    p = p * r + 1.3888888888879081845e-3;
    p = p * r + 8.3333333333196006109e-3;
    p = p * r + 4.1666666666666676764e-2;
    p = p * r + 1.6666666666666680806e-1;
    p = p * r + 0.5;
    p = p * r + 1.0;
    return {from_bits<double>(bits<double>(splat(1.0)) + (bits<double>(shifted) << 52)), p * r};
}

template <class T> INLINE Exponential<T> exponential(Vector<T> x) {
    if constexpr (sizeof(T) == 4) return exponential_f32(x);
    else return exponential_f64(x);
}

template <class T> INLINE Vector<T> sigmoid(Vector<T> x) {
    constexpr T limit = sizeof(T) == 4 ? T(86) : T(700);
    const Exponential<T> e = exponential<T>(clamp<T>(-x, -limit, limit));
    return reciprocal<T>(e.scale * e.rest + e.scale + T(1));
}

template <class T> INLINE Vector<T> tanh(Vector<T> x) {
    // Beyond these the result is ±1 to the last bit.
    constexpr T limit = sizeof(T) == 4 ? T(20) : T(44);
    const Exponential<T> e = exponential<T>(clamp<T>(x + x, -limit, limit));
    const Vector<T> minus_one = e.scale * e.rest + (e.scale - T(1));
    return minus_one * reciprocal<T>(minus_one + T(2));
}

}  // namespace momentumrnn::MOMENTUMRNN_ISA
