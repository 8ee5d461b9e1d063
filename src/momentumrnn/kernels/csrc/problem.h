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

// The rules Adam and RMSProp (RMSProp is μ = 0), (15): v = μ v + s a, m = β m + (1 - β) a², d = v / √(m + ε²).
template <class T> struct Adaptive {
    int threads;
    Rows rows;
    Index channels;     // C
    double eps;
    // Each (C): μ, s, β and 1 - β, the last given for itself because float32 would round it away.
    const T *momentum, *step_size, *beta, *rest;
    // a = x Wᵀ + b. The product is ready …
    const T* product;   // (N, C), or null
    // … or made of few features where it is used.
    const T* x;         // (N, D), or null
    Index features;
    const T* weight;    // (C, D)
    const T* bias;      // (C) or null
    const T* v_0;       // (B, C) or null for zero
    const T* m_0;
    // v and m before every `interval`-th step, from which backward starts again: step t's, t a multiple of
    // the interval, begin at row (t / interval) · B. (ceil(T / interval) · B, C) each; null in inference.
    T *v_saved, *m_saved;
    Index interval;
};

template <class T> struct AdaptiveForward : Adaptive<T> {
    T* output;          // d, (N, C); may be the product itself
    T *v_n, *m_n;       // (B, C): after each sequence's own last step
};

template <class T> struct AdaptiveBackward : Adaptive<T> {
    const T* grad_output;   // (N, C)
    const T *grad_v_n, *grad_m_n;   // (B, C) or null
    // (N, C); may be grad_output itself or the product itself. With features null unless somebody asks for it.
    T* grad_drive;
    T* grad_weight;     // (C, D), with features, or null
    T* grad_bias;       // (C) or null
    T *grad_v_0, *grad_m_0;     // (B, C) or null
    // (C) each, or all four null where no coefficient is learned.
    T *grad_momentum, *grad_step_size, *grad_beta, *grad_rest;
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
    void (*adaptive_forward_f32)(const AdaptiveForward<float>&);
    void (*adaptive_forward_f64)(const AdaptiveForward<double>&);
    void (*adaptive_backward_f32)(const AdaptiveBackward<float>&);
    void (*adaptive_backward_f64)(const AdaptiveBackward<double>&);
    void (*linear_forward_f32)(const LinearForward<float>&);
    void (*linear_forward_f64)(const LinearForward<double>&);
    void (*linear_backward_f32)(const LinearBackward<float>&);
    void (*linear_backward_f64)(const LinearBackward<double>&);
};

}  // namespace momentumrnn
