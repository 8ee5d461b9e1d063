// The kernels as Python functions.
//
// A problem is a dictionary from the names of problem.h to sizes and addresses; an array that it leaves out is
// null. No tensor is known here and no size is checked: momentumrnn.kernels is the only caller.
// Every function that computes gives up the interpreter lock.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "isa.h"
#include "pool.h"
#include "threads.h"

namespace nb = nanobind;
using namespace momentumrnn;

namespace {

class Reader {
public:
    explicit Reader(const nb::dict& problem) : problem_(problem) {}

    template <class T> void read(const char* name, T*& to) {
        if (PyObject* value = find(name)) to = static_cast<T*>(PyLong_AsVoidPtr(value));
    }
    template <class T> void read(const char* name, T& to) {
        if (PyObject* value = find(name)) to = static_cast<T>(PyLong_AsLongLong(value));
    }
    void read(const char* name, double& to) {
        if (PyObject* value = find(name)) to = PyFloat_AsDouble(value);
    }
    // A misspelt name would be a null pointer in a kernel.
    void finish() const {
        if (PyErr_Occurred()) throw nb::python_error();
        if (found_ != nb::len(problem_)) throw std::invalid_argument("a problem with names that its kernel does not know");
    }

private:
    PyObject* find(const char* name) {
        PyObject* value = PyDict_GetItemString(problem_.ptr(), name);
        if (value) found_++;
        return value == Py_None ? nullptr : value;
    }

    const nb::dict& problem_;
    size_t found_ = 0;
};

// Where the rows of a packed batch begin, for as long as a call lasts.
struct Offsets {
    std::vector<Index> before;

    void of(Rows& rows) {
        if (!rows.sizes) return;
        before.assign(1, 0);
        for (Index t = 0; t < rows.steps; t++) before.push_back(before.back() + rows.sizes[t]);
        rows.offsets = before.data();
    }
};

// Reads into p, field by field, what bears the field's name.
#define READ(field) from.read(#field, p.field)

void read(Reader& from, Rows& p) {
    READ(steps), READ(batch), READ(sizes);
}

template <class T> void read_recurrence(Reader& from, Recurrence<T>& p) {
    read(from, p.rows);
    READ(cell), READ(split), READ(threads), READ(features), READ(hidden);
    READ(x), READ(weight_ih), READ(bias_ih), READ(ready), READ(weight_hh), READ(bias_hh), READ(modrelu_bias);
    READ(h_0), READ(c_0), READ(output), READ(gates), READ(gates_pitch), READ(cells);
}

template <class T> void read(Reader& from, Forward<T>& p) {
    read_recurrence(from, p);
    READ(h_n), READ(c_n);
}

template <class T> void read(Reader& from, Backward<T>& p) {
    read_recurrence(from, p);
    READ(grad_output), READ(grad_h_n), READ(grad_c_n), READ(grad_x), READ(grad_ready);
    READ(grad_weight_ih), READ(grad_bias_ih), READ(grad_weight_hh), READ(grad_bias_hh), READ(grad_modrelu_bias);
    READ(grad_h_0), READ(grad_c_0);
}

template <class T> void read_rule(Reader& from, ChannelRule<T>& p) {
    read(from, p.rows);
    READ(rule), READ(threads), READ(channels), READ(interval), READ(eps), READ(coefficients);
    READ(product), READ(x), READ(features), READ(weight), READ(bias), READ(saved);
    from.read("v_0", p.initial[0]), from.read("m_0", p.initial[1]);
}

template <class T> void read(Reader& from, RuleForward<T>& p) {
    read_rule(from, p);
    READ(output);
    from.read("v_n", p.last[0]), from.read("m_n", p.last[1]);
}

template <class T> void read(Reader& from, RuleBackward<T>& p) {
    read_rule(from, p);
    READ(grad_output), READ(grad_drive), READ(grad_weight), READ(grad_bias), READ(grad_coefficients);
    from.read("grad_v_n", p.grad_last[0]), from.read("grad_m_n", p.grad_last[1]);
    from.read("grad_v_0", p.grad_initial[0]), from.read("grad_m_0", p.grad_initial[1]);
}

template <class T> void read_linear(Reader& from, Linear<T>& p) {
    read(from, p.rows);
    READ(threads), READ(features), READ(ones), READ(gain), READ(decay), READ(decay_step), READ(decay_sequence);
}

template <class T> void read(Reader& from, LinearForward<T>& p) {
    read_linear(from, p);
    READ(x), READ(output), READ(last);
}

template <class T> void read(Reader& from, LinearBackward<T>& p) {
    read_linear(from, p);
    READ(grad_output), READ(grad_last), READ(grad_x);
}

#undef READ

template <class Problem> void run(const nb::dict& given, void (*Kernels::*kernel)(const Problem&)) {
    Problem p{};
    Reader from(given);
    read(from, p);
    from.finish();
    Offsets offsets;
    offsets.of(p.rows);
    const nb::gil_scoped_release others_may_run;
    (kernels().*kernel)(p);
}

// A function of Python's for a kernel in both precisions.
template <template <class> class Problem>
void define(nb::module_& m, const char* name, void (*Kernels::*narrow)(const Problem<float>&),
            void (*Kernels::*wide)(const Problem<double>&)) {
    m.def(name, [=](const nb::dict& problem, bool float64) {
        float64 ? run<Problem<double>>(problem, wide) : run<Problem<float>>(problem, narrow);
    }, nb::arg("problem"), nb::arg("float64"));
}

// A tensor on the pool's memory, which goes back to the pool with the tensor's last view.
template <class T> nb::object tensor(const std::vector<size_t>& shape) {
    size_t count = 1;
    for (const size_t n : shape) count *= n;
    void* memory = acquire(count * sizeof(T));
    const nb::capsule owner(memory, [](void* data) noexcept { release(data); });
    return nb::cast(nb::ndarray<nb::pytorch, T>(memory, shape.size(), shape.data(), owner));
}

}  // namespace

NB_MODULE(_cpu, m) {
    m.def("isas", &instruction_sets, "The instruction sets that were built and that this processor has, best first.");
    m.def("isa", [] { return kernels().name; }, "The instruction set in use.");
    m.def("use_isa", &use_instruction_set, "Use another; ValueError if there is no such one.");
    m.def("threading", &threading, "What runs the threads.");
    m.def("run_alone", &run_alone, "One thread does all the work from now on.");

    m.def("empty", [](const std::vector<size_t>& shape, bool float64) {
        return float64 ? tensor<double>(shape) : tensor<float>(shape);
    }, "An uninitialised tensor on pooled memory.");
    m.def("pool", [] {
        const PoolState now = pool_state();
        return nb::make_tuple(now.in_use, now.idle, now.cap);
    }, "Bytes in use, bytes idle, and the most that may lie idle.");
    m.def("set_pool_cap", &set_pool_cap, "Keep at most this many idle bytes.");
    m.def("empty_pool", &empty_pool, "Give all idle bytes back to the system.");

    define<Forward>(m, "forward", &Kernels::forward_f32, &Kernels::forward_f64);
    define<Backward>(m, "backward", &Kernels::backward_f32, &Kernels::backward_f64);
    define<RuleForward>(m, "rule_forward", &Kernels::rule_forward_f32, &Kernels::rule_forward_f64);
    define<RuleBackward>(m, "rule_backward", &Kernels::rule_backward_f32, &Kernels::rule_backward_f64);
    define<LinearForward>(m, "linear_forward", &Kernels::linear_forward_f32, &Kernels::linear_forward_f64);
    define<LinearBackward>(m, "linear_backward", &Kernels::linear_backward_f32, &Kernels::linear_backward_f64);
}
