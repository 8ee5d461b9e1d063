// What a kernel is given: plain sizes and pointers, the same for every instruction set.
//
// All arrays are C-contiguous and stay the caller's; nothing is kept after a call. T steps, B sequences,
// D features, H hidden units, G gates (RNN 1, GRU 3, LSTM 4, LSTM without forget gate 3), gate order as in
// torch.nn. N rows: one for each step of each sequence; row r of step t is rows.first(t) + r.
#pragma once

#include <cstdint>

#include "index.h"

namespace momentumrnn {

enum class Cell : int { rnn_tanh, rnn_relu, rnn_modrelu, gru, lstm, lstm_without_forget_gate };

// How the work of a recurrence is shared out: by rows of the batch, each thread alone through all steps;
// or by hidden units, with a meeting of all threads at every step.
enum class Split : int { rows, units };

// Where the rows of each step lie. Dense: B a step. Packed: the sequences that still run, longest first.
struct Rows {
    Index steps, batch;
    const int64_t* sizes = nullptr;    // (T) of a packed batch, decreasing; null for a dense one
    const Index* offsets = nullptr;    // (T + 1), the sums of the sizes before; null for a dense one

    Index first(Index t) const { return offsets ? offsets[t] : t * batch; }
    Index running(Index t) const { return t >= steps ? 0 : sizes ? sizes[t] : batch; }
    Index total() const { return first(steps); }
};

template <class T> struct Recurrence {
    Cell cell;
    Split split;
    int threads;        // at most this many; the last bits of the result depend on how many there are
    Rows rows;
    Index features, hidden;
    // What enters the gates: features with weights, multiplied here …
    const T* x;         // (N, D), or null
    const T* weight_ih; // (G·H, D)
    const T* bias_ih;   // (G·H) or null
    // … or ready, but for bias_ih. May be the same memory as `gates` (LSTM) or `output` (RNN): each element is read before
    // anything is written to its place.
    const T* ready;     // (N, G·H), or null
    const T* weight_hh; // (G·H, H)
    const T* bias_hh;   // (G·H) or null
    const T* modrelu_bias;  // (H) for rnn_modrelu
    const T* h_0;       // (B, H)
    const T* c_0;       // (B, H), LSTM
    // Written by the forward pass, read by the backward pass.
    T* output;          // (N, H)
    T* gates;           // (N, S, P): LSTM the G gates; GRU r, z, n and U_n h + bias_hh_n; null for an RNN,
                        // and in inference
    Index gates_pitch;  // P, H or more: what lies behind H is written with the rest and means nothing
    T* cells;           // (N, H), c of an LSTM; null in inference
};

template <class T> struct Forward : Recurrence<T> {
    T* h_n;             // (B, H)
    T* c_n;             // (B, H), LSTM
};

template <class T> struct Backward : Recurrence<T> {
    const T* grad_output;   // (N, H)
    const T* grad_h_n;      // (B, H) or null
    const T* grad_c_n;      // (B, H) or null
    // Results; null where not wanted, but for the last two.
    T* grad_x;          // (N, D)
    T* grad_ready;      // (N, G·H)
    T* grad_weight_ih;  // (G·H, D)
    T* grad_bias_ih;    // (G·H)
    T* grad_weight_hh;  // (G·H, H)
    T* grad_bias_hh;    // (G·H)
    T* grad_modrelu_bias;   // (H)
    T* grad_h_0;        // (B, H)
    T* grad_c_0;        // (B, H), LSTM
};

// The rules that run on the drive, channel by channel, (C) of each coefficient:
//   adam            v = μ v + s a, m = β m + (1 - β) a², d = v / √(m + ε²), (15); RMSProp is μ = 0. Its coefficients: μ, s, β
//                   and 1 - β, the last given for itself because float32 would round it away
//   real_filter     u = μ u + a, d = c u + e a: μ, c, e
//   complex_filter  the same with complex μ, c and u, d = Re(c u) + e a: Re μ, Im μ, Re c, Im c, e
enum class Rule : int { adam, real_filter, complex_filter };

// The states are v and m of adam; u of the real filter, its second null; Re u and Im u of the complex one.
template <class T> struct ChannelRule {
    Rule rule;
    int threads;
    Rows rows;
    Index channels;     // C
    double eps;         // of adam
    const T* coefficients;  // (K, C)
    // a = x Wᵀ + b. The product is ready …
    const T* product;   // (N, C), or null
    // … or made of few features where it is used.
    const T* x;         // (N, D), or null
    Index features;
    const T* weight;    // (C, D)
    const T* bias;      // (C) or null
    const T* initial[2];    // (B, C) or null for zero
    // The states before every `interval`-th step, from which backward starts again: step t's, t a multiple of
    // the interval, begin at row (t / interval) · B. (states, ceil(T / interval) · B, C); null in inference.
    T* saved;
    Index interval;
};

template <class T> struct RuleForward : ChannelRule<T> {
    T* output;          // d, (N, C); may be the product itself
    T* last[2];         // (B, C): after each sequence's own last step
};

template <class T> struct RuleBackward : ChannelRule<T> {
    const T* grad_output;   // (N, C)
    const T* grad_last[2];  // (B, C) or null
    // (N, C); may be grad_output itself or the product itself. Null unless somebody asks for it.
    T* grad_drive;
    T* grad_weight;     // (C, D), with features, or null
    T* grad_bias;       // (C) or null
    T* grad_initial[2]; // (B, C) or null
    T* grad_coefficients;   // (K, C), null where none is learned
};

// A linear rule over the features: p_t = μ_t p_{t-1} + s [x_t, 1] from p = 0, kept in float64 between steps.
template <class T> struct Linear {
    int threads;
    Rows rows;
    Index features;     // D, of x
    Index ones;         // 1 if a constant feature stands behind x's, else 0; P = D + ones
    double gain;        // s
    const double* decay;    // μ of step t and sequence r at t · decay_step + r · decay_sequence
    Index decay_step, decay_sequence;
};

template <class T> struct LinearForward : Linear<T> {
    const T* x;         // (N, D)
    T* output;          // p, (N, P)
    T* last;            // (B, P): p after each sequence's own last step, or null
};

template <class T> struct LinearBackward : Linear<T> {
    const T* grad_output;   // (N, P)
    const T* grad_last;     // (B, P) or null
    T* grad_x;          // (N, D)
};

// One instruction set's kernels.
struct Kernels {
    const char* name;
    void (*forward_f32)(const Forward<float>&);
    void (*forward_f64)(const Forward<double>&);
    void (*backward_f32)(const Backward<float>&);
    void (*backward_f64)(const Backward<double>&);
    void (*rule_forward_f32)(const RuleForward<float>&);
    void (*rule_forward_f64)(const RuleForward<double>&);
    void (*rule_backward_f32)(const RuleBackward<float>&);
    void (*rule_backward_f64)(const RuleBackward<double>&);
    void (*linear_forward_f32)(const LinearForward<float>&);
    void (*linear_forward_f64)(const LinearForward<double>&);
    void (*linear_backward_f32)(const LinearBackward<float>&);
    void (*linear_backward_f64)(const LinearBackward<double>&);
};

}  // namespace momentumrnn
